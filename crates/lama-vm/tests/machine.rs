// SPDX-License-Identifier: Apache-2.0
//! Machines that really run. Their programs come from the tools tree or from this machine; without
//! QEMU each test says so and is skipped.

#![allow(clippy::unwrap_used)] // helpers of tests, too

use lama_exec::{Tools, fs};
use lama_vm::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// The tools, unless one of `programs` is missing.
fn tools(programs: &[&str]) -> Option<Tools> {
    lama_testkit::tools_or_host(programs)
}

const QEMU: &[&str] = &["qemu-system-x86_64", "qemu-img", "ssh-keygen"];
const UEFI: &[&str] = &[
    "qemu-system-x86_64",
    "qemu-img",
    "ssh-keygen",
    "swtpm",
    "OVMF/OVMF_CODE_4M.secboot.fd",
];

/// A disk whose boot sector prints `text` on the first serial port and halts.
fn boot_sector(path: &Path, text: &str) {
    let mut code = vec![
        0x31, 0xc0, 0x8e, 0xd8, // xor ax,ax; mov ds,ax
        0xbe, 0x18, 0x7c, // mov si,0x7c18
        0xba, 0xf8, 0x03, // mov dx,0x3f8
        0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, // next: lodsb; test al,al; jz end; out dx,al
        0xeb, 0xf8, // jmp next
        0xf4, 0xeb, 0xfd, // end: hlt; jmp end
    ];
    code.resize(0x18, 0);
    code.extend_from_slice(text.as_bytes());
    code.resize(510, 0);
    code.extend_from_slice(&[0x55, 0xaa]);
    code.resize(1 << 20, 0);
    fs::write(path, code).unwrap();
}

fn bios(name: &str, disk: &Path) -> VmConfig {
    let mut c = VmConfig::new(name).disk(Disk::image(disk));
    c.firmware = Firmware::Bios;
    c.tpm = Tpm::None;
    c.memory_mib = 64;
    c.cpus = 1;
    c
}

#[test]
fn the_probe_answers_and_remembers() {
    let Some(tools) = tools(QEMU) else { return };
    let d = tempfile::tempdir().unwrap();
    let p = accel::probe(&tools, Arch::X86_64, Some(d.path())).unwrap();
    let start = Instant::now();
    assert_eq!(
        accel::probe(&tools, Arch::X86_64, Some(d.path())).unwrap(),
        p
    );
    assert!(start.elapsed() < Duration::from_millis(5));
    eprintln!("{}", p.reason);
}

#[test]
fn a_boot_sector_speaks_and_the_machine_can_be_found_and_stopped() {
    let Some(tools) = tools(QEMU) else { return };
    let d = tempfile::tempdir().unwrap();
    let image = d.path().join("disk.raw");
    boot_sector(&image, "here I am\r\n");
    let before = fs::read(&image).unwrap();
    // A directory whose sockets' names are longer than a socket address.
    let registry = Registry::new(d.path().join("v".repeat(90)), tools);
    let c = bios("first", &image);
    let mut vm = registry.boot(&c, Lifetime::Detached).unwrap();
    let line = vm.wait_text("here I am", Duration::from_secs(60)).unwrap();
    assert!(line.ends_with("here I am"), "{line}");

    let list = registry.list().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].state, State::Running);
    assert_eq!(list[0].image.as_deref(), Some(&*image));
    assert!(list[0].ssh_port.is_some_and(|p| p > 1023));
    assert!(matches!(
        registry.boot(&c, Lifetime::Vm),
        Err(Error::Running { .. })
    ));
    assert!(matches!(
        registry.remove("first"),
        Err(Error::Running { .. })
    ));

    // Another program finds it again.
    drop(vm);
    let mut vm = registry.open("first").unwrap();
    assert_eq!(vm.qmp().unwrap().status().unwrap(), "running");
    // The guest knows no power button.
    vm.stop(Stop::Gracefully(Duration::from_millis(300)))
        .unwrap();
    assert_eq!(
        registry.info("first").unwrap().unwrap().state,
        State::Stopped
    );
    assert!(matches!(
        registry.open("first"),
        Err(Error::NotRunning { .. })
    ));
    registry.remove("first").unwrap();
    assert!(matches!(registry.open("first"), Err(Error::Unknown { .. })));
    assert_eq!(fs::read(&image).unwrap(), before);
}

#[test]
fn a_dropped_machine_is_gone_and_a_changed_image_gets_a_new_overlay() {
    let Some(tools) = tools(QEMU) else { return };
    let d = tempfile::tempdir().unwrap();
    let image = d.path().join("disk.raw");
    boot_sector(&image, "one\r\n");
    let registry = Registry::new(d.path().join("vms"), tools);
    let c = bios("m", &image);
    let mut vm = registry.boot(&c, Lifetime::Vm).unwrap();
    vm.wait_text("one", Duration::from_secs(60)).unwrap();
    drop(vm);
    assert_eq!(registry.list().unwrap()[0].state, State::Stopped);
    boot_sector(&image, "two\r\n");
    let mut vm = registry.boot(&c, Lifetime::Vm).unwrap();
    vm.wait_text("two", Duration::from_secs(60)).unwrap();
    // A machine that dies is told from one that is slow.
    vm.qmp()
        .unwrap()
        .execute("quit", serde_json::json!({}))
        .unwrap();
    let e = vm.wait_text("three", Duration::from_secs(60)).unwrap_err();
    assert!(matches!(e, Error::Ended { .. }), "{e}");
}

#[test]
fn a_machine_started_by_a_thread_outlives_it() {
    let Some(tools) = tools(QEMU) else { return };
    let d = tempfile::tempdir().unwrap();
    let image = d.path().join("disk.raw");
    boot_sector(&image, "x\r\n");
    let registry = Registry::new(d.path().join("vms"), tools);
    let c = bios("m", &image);
    let mut vm = std::thread::spawn(move || registry.boot(&c, Lifetime::Vm).unwrap())
        .join()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(vm.is_running());
}

#[test]
fn a_wrong_option_shows_what_qemu_says() {
    let Some(tools) = tools(QEMU) else { return };
    let d = tempfile::tempdir().unwrap();
    let image = d.path().join("disk.raw");
    boot_sector(&image, "x");
    let mut c = bios("m", &image);
    c.extra_args = vec!["-device".into(), "no-such-device".into()];
    let e = Registry::new(d.path().join("vms"), tools)
        .boot(&c, Lifetime::Vm)
        .unwrap_err();
    assert!(e.to_string().contains("no-such-device"), "{e}");
}

#[test]
fn screens_have_an_address() {
    let Some(tools) = tools(QEMU) else { return };
    let d = tempfile::tempdir().unwrap();
    let image = d.path().join("disk.raw");
    boot_sector(&image, "x");
    let registry = Registry::new(d.path().join("vms"), tools);
    for (display, scheme) in [(Display::Vnc, "vnc"), (Display::Spice, "spice")] {
        let mut c = bios(scheme, &image);
        c.display = display;
        let vm = match registry.boot(&c, Lifetime::Vm) {
            Err(e) if e.to_string().contains("spice") && display == Display::Spice => {
                eprintln!("SKIP: QEMU has no SPICE (qemu-system-modules-spice)");
                continue;
            }
            r => r.unwrap(),
        };
        let address = vm.info().display.unwrap();
        let port = address
            .strip_prefix(&format!("{scheme}://127.0.0.1:"))
            .unwrap();
        assert!(
            std::net::TcpStream::connect(("127.0.0.1", port.parse().unwrap())).is_ok(),
            "{address}"
        );
        assert!(fs::metadata(vm.screenshot().unwrap()).unwrap().len() > 100);
    }
}

/// Starts an empty machine and waits until its firmware has nothing to start.
fn firmware_gives_up(tools: Tools, arch: Arch) {
    let d = tempfile::tempdir().unwrap();
    let image = d.path().join("disk.raw");
    fs::write(&image, vec![0; 1 << 20]).unwrap();
    let registry = Registry::new(d.path().join("vms"), tools);
    let mut c = VmConfig::new("m").disk(Disk::image(&image));
    c.arch = arch;
    c.memory_mib = 512;
    let mut vm = registry.boot(&c, Lifetime::Vm).unwrap();
    let time = vm.accel().boot_timeout();
    let start = Instant::now();
    let line = vm
        .wait_console("the firmware to give up", time, |t| {
            trouble(t).map(str::to_owned)
        })
        .unwrap();
    eprintln!(
        "{}: {:.1} s: {line}",
        arch.name(),
        start.elapsed().as_secs_f32()
    );
    // AAVMF knows only half of the switches and goes on to HTTP boot, which is told as trouble.
    if arch == Arch::X86_64 {
        assert!(
            !line.contains(">>Start"),
            "the network stack is off: {line}"
        );
    }
    // Waiting for SSH fails at once, with the reason.
    let start = Instant::now();
    assert!(matches!(vm.wait_ssh(None), Err(Error::GuestFailed { .. })));
    assert!(start.elapsed() < Duration::from_secs(5));
    let tpm = fs::read_dir(vm.dir().join("tpm")).unwrap();
    assert!(
        tpm.iter().any(|e| e.file_name() == "tpm2-00.permall"),
        "the TPM has kept its state"
    );
    vm.stop(Stop::Now).unwrap();
    assert_eq!(registry.info("m").unwrap().unwrap().state, State::Stopped);
    registry.remove("m").unwrap();
}

#[test]
fn uefi_with_a_tpm_finds_nothing_to_start() {
    let Some(tools) = tools(UEFI) else { return };
    firmware_gives_up(tools, Arch::X86_64);
}

#[test]
fn arm64_uefi_with_a_tpm_finds_nothing_to_start() {
    let Some(tools) = tools(&[
        "qemu-system-aarch64",
        "qemu-img",
        "ssh-keygen",
        "swtpm",
        "AAVMF/AAVMF_CODE.secboot.fd",
    ]) else {
        return;
    };
    firmware_gives_up(tools, Arch::Arm64);
}

#[test]
fn a_variable_store_is_made_once() {
    let Some(tools) = tools(&["virt-fw-vars", "OVMF/OVMF_VARS_4M.fd"]) else {
        return;
    };
    let d = tempfile::tempdir().unwrap();
    let cert = d.path().join("cert.pem");
    fs::write(&cert, CERT).unwrap();
    let mut store = VariableStore {
        arch: Arch::X86_64,
        owner: uuid::uuid!("11111111-2222-4333-8444-555555555555"),
        pk: cert.clone(),
        kek: vec![cert.clone()],
        db: vec![cert],
        secure_boot: SecureBoot::On,
        boot_uri: None,
    };
    let cache = d.path().join("cache");
    let one = store.make(&tools, &cache).unwrap();
    let data = fs::read(&one).unwrap();
    let holds = |name: &str| {
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        data.windows(wide.len()).any(|w| w == wide)
    };
    assert!(holds("PK") && holds("KEK") && holds("db") && holds("SecureBootEnable"));
    let start = Instant::now();
    assert_eq!(store.make(&tools, &cache).unwrap(), one);
    assert!(start.elapsed() < Duration::from_millis(200));
    store.secure_boot = SecureBoot::Off;
    assert_ne!(store.make(&tools, &cache).unwrap(), one);
    store.db.push(d.path().join("missing.pem"));
    assert!(store.make(&tools, &cache).is_err());
}

const CERT: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBdTCCARugAwIBAgIUY3g2cneJRJrGgTEB/ANNSUq29VgwCgYIKoZIzj0EAwIw\n\
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjQxMzUwNDhaGA8yMTI2MTAzMTEzNTA0\n\
OFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABKD+\n\
RcaWt6QQ/7SGgooigRhWKBxx6TIlQ849ORwQabTSNxqxEp82MTAAd0rEis9V9nKQ\n\
8TAdCfzVT8ZGGBSmYF6jUzBRMB0GA1UdDgQWBBQD0uoMuwBHK85Pon13R0R8FUgJ\n\
ETAfBgNVHSMEGDAWgBQD0uoMuwBHK85Pon13R0R8FUgJETAPBgNVHRMBAf8EBTAD\n\
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQDehZ0/YKiCnc0DrMihUD3HTIzmh0+J/+aS\n\
jDPNq4O3sAIgXdUH9NsC7CfCtTPZgZovL1Y/lGxJyjcH67IhiM+0WGU=\n\
-----END CERTIFICATE-----\n\
";
