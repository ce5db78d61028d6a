// SPDX-License-Identifier: Apache-2.0
//! From the medium to an encrypted machine: installed as a user would, booted from its disk alone,
//! and refused what has no right to it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
mod common;
mod update;

use common::installed::{ask, healthy, hosts, install, node, reboot};
use common::{Bench, base, lamadist, turn};
use lama_image::index::Kind;
use lama_vm::{Bus, Disk, Stop};
use std::path::Path;
use std::time::Duration;

/// A host's addon, signed by other keys than the machine's.
fn foreign_addon(hosts: &Path) -> Vec<u8> {
    let out = hosts.join("foreign.efi");
    let keys = hosts.join("foreign-keys").display().to_string();
    let file = out.display().to_string();
    let mut c = lamadist(&[
        "--quiet", "--keys", &keys, "host", "addon", "evil", "--output",
    ]);
    std::fs::write(hosts.join("evil.toml"), "bsp = \"x86_64\"\n").unwrap();
    let run = c.arg(&file).env("LAMADIST_HOSTS", hosts).output().unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    std::fs::read(out).unwrap()
}

#[test]
fn an_installed_machine_is_encrypted_verified_and_itself() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    assert!(node.said.contains("LamaDist is installed on /dev/"));
    // The host's SSH key is who the recovery key is encrypted to.
    assert!(
        node.said.contains("on the medium, encrypted"),
        "{}",
        node.said
    );

    let bench = Bench::new(built);
    let mut vm = bench.clone_of(&node.dir, "installed").boot();
    healthy(&mut vm);

    let cmdline = ask(&vm, "cat /proc/cmdline");
    assert!(cmdline.contains("lamadist.slot=a rauc.slot=A"), "{cmdline}");
    assert_eq!(ask(&vm, "hostname"), "node1");
    // Verity on LUKS, /var on LUKS.
    let verity = ask(&vm, "dmsetup table root");
    assert!(verity.contains(&built.index.root_hash), "{verity}");
    let below = ask(
        &vm,
        "lsblk --inverse --noheadings --output NAME,TYPE /dev/mapper/root",
    );
    assert!(below.contains("rootfs_a"), "{below}");
    let var = ask(&vm, "findmnt -n -o SOURCE,FSTYPE /var");
    assert!(var.starts_with("/dev/mapper/data ext4"), "{var}");
    assert!(ask(&vm, "dmsetup table data").contains(" crypt "));
    let etc = ask(&vm, "findmnt -n -o FSTYPE,OPTIONS /etc");
    assert!(
        etc.starts_with("overlay") && etc.contains("lamadist/etc/upper"),
        "{etc}"
    );
    // The types of the Discoverable Partitions Specification, by name as systemd knows them.
    let types = ask(
        &vm,
        "lsblk --noheadings --output PARTLABEL,PARTTYPE /dev/vda",
    );
    for (label, kind) in [
        ("esp", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
        ("rootfs-b", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
        ("verity-a", "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"),
        ("data", "4d21b016-b534-45c2-a9fb-5c16e091fd2d"),
    ] {
        let line = types
            .lines()
            .find(|l| l.split_whitespace().next() == Some(label));
        assert!(line.is_some_and(|l| l.contains(kind)), "{label}: {types}");
    }
    for v in ["rootfs-a", "rootfs-b", "data"] {
        let dump = ask(&vm, &format!("cryptsetup luksDump /dev/lamadist/{v}"));
        for want in ["Version:       \t2", "systemd-tpm2", "systemd-recovery"] {
            assert!(dump.contains(want), "{v}, {want}: {dump}");
        }
    }
    let entries = ask(&vm, "efibootmgr");
    assert!(
        entries.contains("* A\t") && entries.contains("* B\t"),
        "{entries}"
    );

    // What this machine says of itself; the recovery key still opens it, another one does not.
    let check = |key: &str| {
        let command = "lama-node status --recovery-key";
        vm.ssh_within(command, key.as_bytes(), Duration::from_secs(60))
            .unwrap()
    };
    let status = check(&format!("{}\n", node.recovery));
    assert!(status.ok(), "{}", status.text());
    assert!(!status.text().contains("warning"), "{}", status.text());
    assert!(!check("cccccccc\n").ok());
    let etc = ask(&vm, "lama-node etc --json");
    assert!(etc.contains("ssh_host_ed25519_key"), "{etc}");
    assert!(ask(&vm, "systemctl show -P RuntimeWatchdogUSec").contains("30s"));

    // Another disk with the same names, and a host addon that others signed: neither counts.
    let labels = [
        "esp", "rootfs-a", "verity-a", "rootfs-b", "verity-b", "data",
    ];
    let table: String = labels.map(|l| format!("size=64MiB, name={l}\\n")).concat();
    ask(
        &vm,
        &format!(
            "printf 'label: gpt\n{table}' | sfdisk -q /dev/disk/by-id/virtio-other && \
             udevadm settle && mkfs.ext4 -q /dev/disk/by-id/virtio-other-part6"
        ),
    );
    let foreign = foreign_addon(&hosts());
    vm.put("/run/foreign.efi", &foreign).unwrap();
    ask(
        &vm,
        "mount /dev/lamadist/esp /mnt && cp /run/foreign.efi /mnt/loader/addons/other.addon.efi \
         && umount /mnt",
    );
    // What was changed outlives a reboot, and so does who it is.
    ask(
        &vm,
        "touch /var/lib/lamadist/mine; echo 1 > /etc/mine; sync",
    );
    let machine_id = ask(&vm, "cat /etc/machine-id");
    let host_key = ask(&vm, "cat /etc/ssh/ssh_host_ed25519_key.pub");
    reboot(&mut vm);
    assert_eq!(
        ask(&vm, "cat /etc/mine; ls /var/lib/lamadist/mine")
            .lines()
            .count(),
        2
    );
    assert_eq!(ask(&vm, "hostname"), "node1");
    let console = vm.console_text().unwrap();
    assert!(console.contains("ignoring: Access denied"), "{console}");
    let links = ask(&vm, "readlink -f /dev/lamadist/* | sort -u");
    assert_eq!(links.lines().count(), 6, "{links}");
    assert!(links.lines().all(|l| l.starts_with("/dev/vda")), "{links}");
    assert_eq!(ask(&vm, "cat /etc/machine-id"), machine_id);
    assert_eq!(ask(&vm, "cat /etc/ssh/ssh_host_ed25519_key.pub"), host_key);
    vm.stop(Stop::Now).unwrap();
}

#[test]
fn a_disk_in_another_machine_is_locked_until_its_recovery_key_comes() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let bench = Bench::new(built);
    let mut vm = bench.clone_of(&node.dir, "moved").new_tpm().boot();
    vm.wait_text("recovery key", Duration::from_secs(240))
        .unwrap();
    assert!(!vm.console_text().unwrap().contains("Switching root"));
    vm.stop(Stop::Now).unwrap();

    let opened = bench.clone_of(&node.dir, "opened").new_tpm();
    let mut vm = opened
        .credential("cryptsetup.passphrase", &node.recovery)
        .boot();
    vm.wait_ssh(Some(Duration::from_secs(300))).unwrap();
    let sealed = vm
        .ssh_within(
            "lama-node enroll --recovery-key",
            format!("{}\n", node.recovery).as_bytes(),
            Duration::from_secs(120),
        )
        .unwrap();
    assert!(
        sealed.ok(),
        "{}{}",
        sealed.text(),
        String::from_utf8_lossy(&sealed.stderr)
    );
    ask(&vm, "sync");
    vm.stop(Stop::Gracefully(Duration::from_secs(60))).unwrap();
    let mut vm = bench.clone_of(&node.dir, "opened").boot();
    vm.wait_ssh(Some(Duration::from_secs(300))).unwrap();
    assert_eq!(ask(&vm, "hostname"), "node1");
    vm.stop(Stop::Now).unwrap();
}

#[test]
fn what_must_not_be_overwritten_is_not() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let bench = Bench::new(built);
    // The medium, an installed disk, one with data, a small one, one whose installation was cut off.
    let mut vm = bench
        .machine("medium")
        .disk(Disk::image(built.file(Kind::Disk)).on(Bus::Usb))
        .disk(Disk::image(node.dir.join("disk-0.raw")))
        .disk(Disk::blank(16 << 30).serial("data"))
        .disk(Disk::blank(4 << 30).serial("small"))
        .disk(Disk::image(&node.cut).serial("cut"))
        .credential("lamadist.install", "disk=any\nwipe=yes\n")
        .boot();
    // By itself, at boot:
    vm.wait_text("is installed already", Duration::from_secs(300))
        .unwrap();
    vm.wait_ssh(None).unwrap();
    ask(
        &vm,
        "printf 'label: gpt\n,,,\n' | sfdisk -q /dev/disk/by-id/virtio-data && udevadm settle && mkfs.ext4 -q -L photos /dev/disk/by-id/virtio-data-part1 && udevadm settle",
    );
    let try_ = |answers: &str| {
        let (ok, said) = install(&vm, answers, "--plan");
        assert!(!ok, "{said}");
        said
    };
    let said = try_("disk=serial:data\\nwipe=yes");
    assert!(said.contains("installed already"), "{said}");
    assert!(said.contains("reinstall="), "{said}");
    let id = said
        .split("reinstall=")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    let said = try_(&format!("disk=serial:data\\nreinstall={id}"));
    assert!(
        said.contains("photos") && said.contains("wipe=yes"),
        "{said}"
    );
    let said = try_(&format!("disk=serial:small\\nreinstall={id}"));
    assert!(said.contains("LamaDist takes at least"), "{said}");
    let said = try_(&format!("disk=path:/dev/sda\\nwipe=yes\\nreinstall={id}"));
    assert!(said.contains("in use by the running system"), "{said}");
    let said = try_("disk=usb");
    assert!(said.contains("disk cannot be"), "{said}");
    // What was cut off may be done again, without being told that something is lost.
    let cut = format!("disk=serial:cut\\nreinstall={id}\\nfinish=stay");
    let (ok, said) = install(&vm, &cut, "");
    assert!(ok && said.contains("LamaDist is installed on"), "{said}");
    let (ok, said) = install(&vm, &cut, "--plan");
    assert!(
        !ok && said.contains("holds an installed LamaDist"),
        "{said}"
    );
    // None of the others was touched.
    assert!(ask(&vm, "lsblk -no LABEL /dev/disk/by-id/virtio-data-part1").contains("photos"));
    vm.stop(Stop::Now).unwrap();
}

#[test]
fn with_secure_boot_off_it_stays_locked() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let bench = Bench::insecure(built);
    // The same disk, the same TPM; the firmware has forgotten its entries and finds the disk by itself.
    let mut vm = bench
        .machine("insecure")
        .tpm_of(&node.dir)
        .disk(Disk::image(node.dir.join("disk-0.raw")))
        .boot();
    vm.wait_text("recovery key", Duration::from_secs(240))
        .unwrap();
    let console = vm.console_text().unwrap();
    assert!(!console.contains("Switching root"), "{console}");
    vm.stop(Stop::Now).unwrap();
}
