// SPDX-License-Identifier: Apache-2.0
//! A machine whose firmware's variables cannot be written at run time is updated by systemd-boot's
//! counting (docs/UPDATE.md).
//!
//! It is x86_64 with another description: systemd-boot starts it, and efivarfs is mounted read-only,
//! which is what Linux makes of U-Boot. Part of `mise run campaign`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::installed::{ask, healthy, reboot};
use common::{Bench, Built, lamadist, project, run, scratch, turn};
use lama_exec::Tools;
use lama_image::index::{Index, Kind};
use lama_keys::KeySet;
use lama_netboot::{Files, Options, Server};
use lama_vm::{Stop, Vm};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The version that the machine is updated to.
const VERSION: &str = "9.9.9";
/// Mounts it read-only as early as in the initrd's successor.
const UNIT: &str = "[Unit]\nDescription=Variables as with U-Boot\nDefaultDependencies=no\n\
    Before=sysinit.target lamadist-judge.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
    ExecStart=/usr/bin/mount -o remount,ro /sys/firmware/efi/efivars\n";

/// A copy of the description, changed by `change`, and a folder for what is built of it.
fn description(name: &str, version: Option<&str>) -> PathBuf {
    let work = scratch().join("bootcount").join(name);
    let distro = work.join("distro");
    let _ = std::fs::remove_dir_all(&distro);
    std::fs::create_dir_all(&work).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .args([project().join("distro"), distro.clone()])
        .status();
    assert!(copied.unwrap().success());
    let machine = distro.join("machines/x86_64.toml");
    let text = std::fs::read_to_string(&machine).unwrap();
    let text = format!("{text}\n[boot]\nloader = \"systemd-boot\"\n");
    std::fs::write(&machine, text).unwrap();
    let units = distro.join("files/core/usr/lib/systemd/system");
    std::fs::write(units.join("test-variables.service"), UNIT).unwrap();
    let wants = units.join("sysinit.target.wants");
    std::fs::create_dir_all(&wants).unwrap();
    let link = wants.join("test-variables.service");
    std::os::unix::fs::symlink("../test-variables.service", link).unwrap();
    if let Some(version) = version {
        let file = distro.join("lamadist.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().map(|l| match l.starts_with("version = ") {
            true => format!("version = {version:?}"),
            false => l.to_owned(),
        });
        std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    work
}

/// Runs the program on a description of ours.
fn ours(work: &Path, args: &[&str]) {
    let mut c = lamadist(args);
    c.env("LAMADIST_DISTRO", work.join("distro"))
        .env("LAMADIST_DEPLOY", work.join("deploy"))
        .env("XDG_STATE_HOME", work.join("state"));
    let out = c.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?}: {said}");
}

/// Runs something that may fail, and returns whether it did not and what it said.
fn tries(vm: &Vm, command: &str) -> (bool, String) {
    let c = format!("{command} 2>&1");
    let out = vm.ssh_within(&c, b"", Duration::from_secs(1800)).unwrap();
    (out.ok(), out.text())
}

fn slot(vm: &Vm) -> String {
    ask(vm, "grep -o 'lamadist.slot=.' /proc/cmdline")
}

/// The names of systemd-boot's entries.
fn entries(vm: &Vm) -> String {
    ask(
        vm,
        "mount -o ro /dev/lamadist/esp /mnt && ls /mnt/loader/entries; umount /mnt",
    )
}

/// Waits until what came of a trial is known.
fn judged(vm: &Vm) -> serde_json::Value {
    let end = Instant::now() + Duration::from_secs(400);
    loop {
        let status: serde_json::Value =
            serde_json::from_str(&ask(vm, "lama-node update --json")).unwrap();
        if status["trial"].is_null() {
            return status;
        }
        assert!(Instant::now() < end, "{status}");
        std::thread::sleep(Duration::from_secs(3));
    }
}

#[test]
#[ignore = "a campaign: half an hour (mise run campaign)"]
fn without_variables_systemd_boot_counts() {
    let _turn = turn();
    let work = description("first", None);
    ours(&work, &["--quiet", "build", "--locked"]);
    let deploy = work.join("deploy/x86_64/base");
    let tree = String::from_utf8(run(&["--quiet", "tools"]).stdout).unwrap();
    let built = Built {
        index: Index::read(&deploy).unwrap(),
        deploy,
        keys: KeySet::open(scratch().join("keys/development")).unwrap(),
        tools: Tools::tree(tree.trim()),
    };
    assert!(built.file(Kind::Loader).is_file());
    let _ = std::fs::remove_dir_all(work.join("state"));
    ours(&work, &["--quiet", "vm", "install", "--name", "counted"]);
    let installed = work.join("state/lamadist/vm/counted");

    let bench = Bench::new(&built);
    let machine = || bench.clone_of(&installed, "updated");
    let mut vm = machine().boot();
    healthy(&mut vm);
    assert_eq!(slot(&vm), "lamadist.slot=a");
    assert!(!tries(&vm, "touch /sys/firmware/efi/efivars/x").0);
    println!("{}", ask(&vm, "journalctl -b -u lamadist-repair -o cat"));
    // The first start was counted.
    assert_eq!(entries(&vm), "lamadist-a.conf");
    assert_eq!(ask(&vm, "lama-node repair"), "nothing to mend");

    let certificate = work.join("node.crt");
    std::fs::write(&certificate, ask(&vm, "lama-node key") + "\n").unwrap();
    let next = description("next", Some(VERSION));
    ours(&next, &["--quiet", "build", "--locked"]);
    let to = certificate.display().to_string();
    ours(&next, &["--quiet", "bundle", "--to", &to]);
    let server = Server::bind(&Options {
        listen: [127, 0, 0, 1].into(),
        http_port: 0,
        tftp_port: None,
        count: None,
    })
    .unwrap();
    let mut files = Files::new();
    let bundle = next.join("deploy/x86_64/base/lamadist.raucb");
    files.add_file("update.raucb", &bundle).unwrap();
    let url = format!("http://10.0.2.2:{}/update.raucb", server.http_port());
    let stopper = server.stopper();
    let serving = std::thread::spawn(move || server.run(files, |_| ()).unwrap());
    let install = |vm: &Vm| {
        let (ok, said) = tries(vm, &format!("lama-node update install {url}"));
        assert!(ok, "{said}");
        assert_eq!(entries(vm), "lamadist-a.conf\nlamadist-once-b+1.conf");
    };

    // The power fails while it is tried: once is all there is.
    install(&vm);
    reboot(&mut vm);
    assert_eq!(slot(&vm), "lamadist.slot=b");
    vm.stop(Stop::Now).unwrap();
    let mut vm = machine().boot();
    healthy(&mut vm);
    assert_eq!(slot(&vm), "lamadist.slot=a");
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], false, "{status}");

    // It is well, and kept.
    install(&vm);
    reboot(&mut vm);
    healthy(&mut vm);
    assert_eq!(slot(&vm), "lamadist.slot=b");
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], true, "{status}");
    assert_eq!(status["version"], VERSION, "{status}");
    assert_eq!(entries(&vm), "lamadist-a.conf\nlamadist-b.conf");
    reboot(&mut vm);
    healthy(&mut vm);
    assert_eq!(slot(&vm), "lamadist.slot=b");

    // Back by hand.
    ask(&vm, "lama-node rollback");
    reboot(&mut vm);
    healthy(&mut vm);
    assert_eq!(slot(&vm), "lamadist.slot=a");
    vm.stop(Stop::Now).unwrap();
    stopper.stop();
    serving.join().unwrap();
}
