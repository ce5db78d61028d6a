// SPDX-License-Identifier: Apache-2.0
//! The medium boots under Secure Boot with its root verified, and a single flipped byte keeps it
//! from doing so. Real artefacts, real firmware, real kernel.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::{Bench, base, turn, well};
use lama_image::index::Kind;
use std::time::Duration;

#[test]
fn the_medium_boots_verified_and_forgets() {
    let _turn = turn();
    let built = base();
    let bench = Bench::new(built);
    let mut vm = bench.boot("base", &built.file(Kind::Disk));
    vm.wait_ssh(None).unwrap();
    let ask = |vm: &lama_vm::Vm, command: &str| vm.ssh_ok(command).unwrap();

    well(&vm);

    let secure = ask(
        &vm,
        "od -An -tu1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
    );
    assert_eq!(secure.trim(), "1", "Secure Boot is off");
    let status = ask(
        &vm,
        "bootctl status 2>/dev/null | grep -i 'secure boot' || true",
    );
    assert!(status.is_empty() || status.contains("enabled"), "{status}");

    let mounts = ask(&vm, "findmnt -n -o SOURCE,FSTYPE,OPTIONS /");
    assert!(mounts.starts_with("/dev/mapper/root erofs ro"), "{mounts}");
    let verity = ask(&vm, "dmsetup table root");
    assert!(
        verity.contains(" verity ") && verity.contains(&built.index.root_hash),
        "{verity}"
    );
    assert!(verity.contains("panic_on_corruption"), "{verity}");
    let status = ask(&vm, "dmsetup status root");
    assert!(
        status.ends_with(" V"),
        "verity reports corruption: {status}"
    );
    assert!(ask(&vm, "touch /usr/x 2>&1 || true").contains("Read-only"));

    for unit in [
        "ssh",
        "systemd-networkd",
        "systemd-resolved",
        "systemd-timesyncd",
        "dbus",
        "nftables",
    ] {
        assert_eq!(
            ask(&vm, &format!("systemctl is-active {unit}")),
            "active",
            "{unit}"
        );
    }
    let etc = ask(&vm, "findmnt -n -o FSTYPE,OPTIONS /etc");
    assert!(
        etc.starts_with("overlay") && etc.contains("noexec"),
        "{etc}"
    );

    // What the TPM has measured is what the build predicted, and IMA has its policy.
    let baseline = std::fs::read(built.file(Kind::Baseline)).unwrap();
    let baseline: serde_json::Value = serde_json::from_slice(&baseline).unwrap();
    let pcr = ask(&vm, "cat /sys/class/tpm/tpm0/pcr-sha256/11").to_lowercase();
    let ready = &baseline["uki"]["pcr11"][3];
    assert_eq!(
        (&ready["phase"], &ready["sha256"]),
        (&"ready".into(), &pcr.into())
    );
    ask(
        &vm,
        "cp /usr/bin/true /var/tmp/measured && /var/tmp/measured && /usr/bin/id -u",
    );
    let ima = ask(
        &vm,
        "cat /sys/kernel/security/integrity/ima/ascii_runtime_measurements",
    );
    let measured = |path: &str| ima.lines().any(|l| l.ends_with(path));
    assert!(ima.contains(" ima-ng sha256:"), "{ima}");
    assert!(
        measured(" /var/tmp/measured") && !measured(" /usr/bin/id"),
        "{ima}"
    );
    ask(
        &vm,
        "echo kept > /etc/lamadist-test && echo kept > /var/lamadist-test",
    );

    // No way in without a key: passwords are locked, and nothing asks for one on a console.
    assert_eq!(
        ask(&vm, "awk -F: '$2 !~ /^[!*]/ {print $1}' /etc/shadow"),
        ""
    );
    assert_eq!(
        ask(&vm, "systemctl list-units --no-legend --plain '*getty@*'"),
        ""
    );
    let sshd = ask(&vm, "sshd -T");
    for line in [
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "permitrootlogin without-password",
    ] {
        assert!(sshd.contains(line), "sshd: no {line}");
    }
    let os = ask(&vm, "cat /etc/os-release");
    assert!(
        os.contains("ID=lamadist\n") && os.contains("IMAGE_VERSION="),
        "{os}"
    );
    assert_eq!(
        ask(
            &vm,
            "stat -c %a:%U:%G /usr/lib/dbus-1.0/dbus-daemon-launch-helper"
        ),
        "4754:root:messagebus"
    );

    vm.reset().unwrap();
    vm.wait_ssh(None).unwrap();
    assert_eq!(
        ask(
            &vm,
            "ls /etc/lamadist-test /var/lamadist-test 2>/dev/null || true"
        ),
        ""
    );
}

/// Where a partition's content begins on the disk, in bytes, and its length.
fn partition(built: &common::Built, name: &str) -> (u64, u64) {
    let disk = built.file(Kind::Disk);
    let table: serde_json::Value = built
        .tools
        .command("sfdisk")
        .arg("--json")
        .arg(&disk)
        .bind_ro(&disk)
        .json()
        .unwrap();
    let all = table["partitiontable"]["partitions"].as_array().unwrap();
    let p = all.iter().find(|p| p["name"] == name).unwrap();
    (
        p["start"].as_u64().unwrap() * 512,
        p["size"].as_u64().unwrap() * 512,
    )
}

/// Where the bytes of `file` lie on the disk.
fn find(disk: &std::path::Path, file: &std::path::Path) -> u64 {
    let (disk, file) = (std::fs::read(disk).unwrap(), std::fs::read(file).unwrap());
    let head = &file[..4096.min(file.len())];
    let at = disk
        .chunks(512)
        .position(|c| head.starts_with(c) && c.len() == 512)
        .map(|s| s * 512);
    let at = at.filter(|a| disk[*a..].starts_with(head));
    at.unwrap_or_else(|| {
        (0..disk.len())
            .step_by(512)
            .find(|a| disk[*a..].starts_with(head))
            .expect("not on the disk")
    }) as u64
}

/// Boots a disk with one flipped byte, and waits for the reason on the console.
fn refused(name: &str, offset: u64, reasons: &[&str]) {
    let built = base();
    let bench = Bench::new(built);
    let disk = bench.flipped(&built.file(Kind::Disk), offset);
    let mut vm = bench.boot(name, &disk);
    let time = vm.accel().scale(Duration::from_secs(60));
    let line = vm
        .wait_console("the reason of the refusal", time, |text: &str| {
            text.lines()
                .find(|l| reasons.iter().any(|r| l.contains(r)))
                .map(str::to_owned)
        })
        .unwrap();
    println!("{name}: {line}");
    // And it stays refused: nothing of the system answers.
    let little = vm.accel().scale(Duration::from_secs(5));
    assert!(vm.wait_ssh(Some(little)).is_err(), "{name} went on: {line}");
}

#[test]
fn a_flipped_byte_in_the_root_is_a_panic() {
    let _turn = turn();
    let built = base();
    let (start, _) = partition(built, "lamadist-live");
    // The superblock of EROFS is 1024 bytes in: whatever is mounted reads it.
    refused(
        "root",
        start + 1024 + 40,
        &["Kernel panic - not syncing: dm-verity device corrupted"],
    );
}

#[test]
fn a_flipped_byte_in_the_uki_is_refused_by_the_firmware() {
    let _turn = turn();
    let built = base();
    let uki = built.file(Kind::Uki);
    let middle = std::fs::metadata(&uki).unwrap().len() / 2;
    let at = find(&built.file(Kind::Disk), &uki) + middle;
    refused("uki", at, &["Access Denied", "Security Violation"]);
}

#[test]
fn a_flipped_byte_in_the_addon_is_refused_by_the_stub() {
    let _turn = turn();
    let built = base();
    let addon = built.deploy.join("live.addon.efi");
    let data = std::fs::read(&addon).unwrap();
    let needle: Vec<u8> = b"lamadist.slot=live".to_vec();
    let wide: Vec<u8> = needle.iter().flat_map(|b| [*b, 0]).collect();
    let inside = data
        .windows(needle.len())
        .position(|w| w == needle)
        .or_else(|| data.windows(wide.len()).position(|w| w == wide))
        .unwrap() as u64;
    let at = find(&built.file(Kind::Disk), &addon) + inside;
    refused(
        "addon",
        at,
        &[
            "Security Violation",
            "Access Denied",
            "ignoring: Access denied",
        ],
    );
}
