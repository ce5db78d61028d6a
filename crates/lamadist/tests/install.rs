// SPDX-License-Identifier: Apache-2.0
//! From the medium to an encrypted machine: installed as a user would, booted from its disk alone,
//! and refused what has no right to it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::{Bench, Built, base, lamadist, scratch, turn};
use lama_image::index::Kind;
use lama_vm::{Stop, Vm};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// A machine that was installed once in this test run; others start from its disk.
struct Node {
    /// Its folder: disk, firmware variables, TPM.
    dir: PathBuf,
    /// What the installer said at its end.
    said: String,
    /// Its recovery key.
    recovery: String,
}

fn node(built: &Built) -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| {
        let state = scratch().join("state");
        let _ = std::fs::remove_dir_all(&state);
        let hosts = scratch().join("hosts");
        let _ = std::fs::remove_dir_all(&hosts);
        std::fs::create_dir_all(&hosts).unwrap();
        ssh_key(built, &hosts);
        let ok = |args: &[&str]| {
            let mut c = lamadist(args);
            c.env("XDG_STATE_HOME", &state)
                .env("LAMADIST_HOSTS", &hosts);
            let out = c.output().unwrap();
            let err = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "{err}");
            String::from_utf8(out.stdout).unwrap()
        };
        let key = hosts.join("key.pub").display().to_string();
        ok(&["--quiet", "host", "add", "node1", "--ssh-key", &key]);
        let said = ok(&[
            "--quiet", "vm", "install", "--name", "node1", "--host", "node1",
        ]);
        let recovery = said
            .split_whitespace()
            .find(|w| w.len() == 71 && w.split('-').count() == 8)
            .unwrap_or_else(|| panic!("no recovery key: {said}"))
            .to_owned();
        Node {
            dir: state.join("lamadist/vm/node1"),
            said,
            recovery,
        }
    })
}

fn ssh_key(built: &Built, dir: &Path) {
    built
        .tools
        .command("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "admin", "-f", "key"])
        .bind(dir)
        .cwd(dir)
        .run()
        .unwrap();
}

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

fn ask(vm: &Vm, command: &str) -> String {
    vm.ssh_ok(command).unwrap()
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
    let mut vm = bench.clone_of(&node.dir, "installed", &[]);
    vm.wait_ssh(Some(Duration::from_secs(300))).unwrap();
    let state = vm.ssh("systemctl is-system-running --wait").unwrap().text();
    let failed = ask(&vm, "systemctl --failed --no-legend --plain");
    assert_eq!((state.as_str(), failed.as_str()), ("running", ""));

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
        &format!("printf 'label: gpt\n{table}' | sfdisk -q /dev/disk/by-id/virtio-other"),
    );
    ask(&vm, "mkfs.ext4 -q /dev/disk/by-id/virtio-other-part6");
    let foreign = foreign_addon(&scratch().join("hosts"));
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
    vm.mark().unwrap();
    // The connection goes away with the machine.
    let _ = vm.ssh("systemctl reboot");
    std::thread::sleep(Duration::from_secs(20));
    vm.wait_ssh(Some(Duration::from_secs(300))).unwrap();
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
    bench.forget_tpm(true);
    let mut vm = bench.clone_of(&node.dir, "moved", &[]);
    vm.wait_text("recovery key", Duration::from_secs(240))
        .unwrap();
    assert!(!vm.console_text().unwrap().contains("Switching root"));
    vm.stop(Stop::Now).unwrap();

    let key = [("cryptsetup.passphrase", node.recovery.as_str())];
    let mut vm = bench.clone_of(&node.dir, "opened", &key);
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
    let mut vm = bench.again(&node.dir, "opened");
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
    // The medium, an installed disk, one with data, a small one.
    let answers = [("lamadist.install", "disk=any\nwipe=yes\n")];
    let mut vm = bench.medium_with(&built.file(Kind::Disk), &node.dir, &answers);
    // By itself, at boot:
    vm.wait_text("is installed already", Duration::from_secs(300))
        .unwrap();
    vm.wait_ssh(None).unwrap();
    ask(
        &vm,
        "printf 'label: gpt\n,,,\n' | sfdisk -q /dev/disk/by-id/virtio-data && udevadm settle && mkfs.ext4 -q -L photos /dev/disk/by-id/virtio-data-part1 && udevadm settle",
    );
    let try_ = |answers: &str| {
        let c = format!(
            "mkdir -p /run/c && printf '{answers}' > /run/c/lamadist.install && \
             CREDENTIALS_DIRECTORY=/run/c lama-node install --plan 2>&1"
        );
        let out = vm.ssh(&c).unwrap();
        assert!(!out.ok(), "{}", out.text());
        out.text()
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
    // None of them was touched.
    assert!(ask(&vm, "lsblk -no LABEL /dev/disk/by-id/virtio-data-part1").contains("photos"));
    vm.stop(Stop::Now).unwrap();
}
