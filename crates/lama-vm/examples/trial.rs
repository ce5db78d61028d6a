// SPDX-License-Identifier: Apache-2.0
//! Boots an image under Secure Boot and runs a command in it over SSH:
//! `trial TOOLS-TREE STATE-DIR IMAGE CERTIFICATE [EXTRA QEMU ARGUMENTS…]`

use lama_exec::Tools;
use lama_vm::*;
use std::time::Instant;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let [tools, state, image, cert, rest @ ..] = a.as_slice() else {
        return Err("usage: trial TOOLS-TREE STATE-DIR IMAGE CERTIFICATE [ARGS…]".into());
    };
    let tools = Tools::tree(tools);
    let start = Instant::now();
    let say = |what: &str| eprintln!("{:7.2} s  {what}", start.elapsed().as_secs_f32());
    let vars = VariableStore {
        arch: Arch::X86_64,
        owner: uuid::uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c"),
        pk: cert.into(),
        kek: vec![cert.into()],
        db: vec![cert.into()],
        secure_boot: SecureBoot::On,
        boot_uri: None,
    }
    .make(&tools, state.as_ref())?;
    say("variable store");
    let registry = Registry::new(state, tools);
    let mut c = VmConfig::new("trial").disk(Disk::image(image));
    c.firmware = Firmware::Uefi {
        variables: Variables::Copy(vars),
        smm: Smm::On,
    };
    c.extra_args = rest.to_vec();
    c = c.credential("lv.test", "hello");
    let mut vm = registry.boot(&c, Lifetime::Vm)?;
    say("QEMU runs");
    vm.wait_text("Linux version", vm.accel().boot_timeout())
        .map(|_| say("kernel"))
        .unwrap_or_else(|e| say(&e.to_string()));
    vm.wait_ssh(None)?;
    say("SSH");
    for cmd in [
        "systemctl is-system-running --wait; systemctl --failed --no-legend",
        "od -An -tu1 /sys/firmware/efi/efivars/SecureBoot-*; ls /dev/tpmrm0; cat /run/credentials/@system/lv.test",
        "systemd-analyze; systemd-analyze blame | head -12",
    ] {
        let o = vm.ssh(cmd)?;
        println!(
            "$ {cmd}\n{}{}",
            o.text(),
            String::from_utf8_lossy(&o.stderr)
        );
        say("command");
    }
    vm.put("/run/x", b"some text")?;
    println!("{}", vm.ssh_ok("cat /run/x")?);
    say("put and cat");
    vm.stop(Stop::Gracefully(vm.accel().boot_timeout()))?;
    say("stopped");
    Ok(())
}
