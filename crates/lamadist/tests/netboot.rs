// SPDX-License-Identifier: Apache-2.0
//! A machine without any medium boots over the network under Secure Boot; a file that was changed
//! or signed by others is refused.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::serving::{MAC, Serving};
use common::{Bench, base, lamadist, turn, well};
use lama_image::index::Kind;
use lama_image::pe;
use lama_keys::{CertificateInfo, KeySet, Role};
use lama_netboot::{Files, Options, Server};
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn a_machine_without_a_medium_boots_over_http() {
    let _turn = turn();
    let built = base();
    // None that names a disk: there is none, and the installer would say so and fail.
    let answers = ["--answer", "wipe=no", "--answer", "finish=poweroff"];
    let mut serving = Serving::start(built, &answers);
    let start = Instant::now();
    let bench = Bench::starting_at(built, Some(serving.url("hosts/nas/installer.efi")));
    let mut vm = bench.network("netboot").boot();
    // Fetching, hashing and measuring 300 MB takes an emulated firmware minutes.
    let time = vm.accel().scale(Duration::from_secs(120));
    vm.wait_ssh(Some(time)).unwrap();
    println!("up after {:.0} s", start.elapsed().as_secs_f64());
    let ask = |command: &str| vm.ssh_ok(command).unwrap();
    well(&vm);
    assert_eq!(
        ask(
            "od -An -tu1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
        )
        .trim(),
        "1"
    );
    assert_eq!(ask("lsblk -dno TYPE | sort -u"), "loop");

    // The root that was in the file, verified.
    let mounts = ask("findmnt -n -o SOURCE,FSTYPE,OPTIONS /");
    assert!(mounts.starts_with("/dev/mapper/root erofs ro"), "{mounts}");
    let verity = ask("dmsetup table root");
    assert!(
        verity.contains(&built.index.root_hash) && verity.contains("panic_on_corruption"),
        "{verity}"
    );
    assert!(ask("dmsetup status root").ends_with(" V"));
    // What an installer finds: the root by the command line, the rest in /run.
    let cmdline = ask("cat /proc/cmdline");
    for word in [
        "lamadist.slot=live",
        "systemd.hostname=nas",
        "lamadist.install.wipe=no",
        "lamadist.install.finish=poweroff",
        // What the description answers, unless something else was said.
        "lamadist.install.secure-boot=required",
    ] {
        assert!(cmdline.split(' ').any(|w| w == word), "{word}: {cmdline}");
    }
    assert!(!cmdline.contains("wipe=yes"), "{cmdline}");
    for (parameter, file) in [("data", "root.erofs"), ("hash", "root.verity")] {
        let key = format!("systemd.verity_root_{parameter}=");
        let device = cmdline
            .split(' ')
            .find_map(|w| w.strip_prefix(&key))
            .unwrap();
        let entry = built
            .index
            .artifacts
            .iter()
            .find(|a| a.file == file)
            .unwrap();
        let sum = ask(&format!("sha256sum < {device}"));
        assert!(sum.starts_with(&entry.sha256), "{device}: {sum}");
        assert_eq!(ask(&format!("blockdev --getro {device}")), "1");
    }
    let source = "/run/lamadist/source";
    for file in ["lamadist.efi", "slot-a.addon.efi", "slot-b.addon.efi"] {
        let entry = built
            .index
            .artifacts
            .iter()
            .find(|a| a.file == file)
            .unwrap();
        let sum = ask(&format!("sha256sum {source}/{file}"));
        assert!(sum.starts_with(&entry.sha256), "{file}: {sum}");
    }
    assert_eq!(
        ask(&format!("stat -c %a:%U {source} {source}/*")).replace('\n', " "),
        "700:root 600:root 600:root 600:root 600:root"
    );
    assert!(ask(&format!("ls {source}")).contains("host.addon.efi"));
    let addon = ask(&format!(
        "strings {source}/host.addon.efi || cat {source}/host.addon.efi"
    ));
    assert!(addon.contains("systemd.hostname=nas"), "{addon}");
    // Nothing of it is in memory twice.
    assert_eq!(ask("ls -d /lamadist 2>/dev/null || true"), "");
    println!("{}", ask("free -m; losetup -l; systemd-analyze time"));

    // Who it is.
    assert_eq!(ask("hostname"), "nas");
    assert_eq!(
        ask("cat /etc/machine-id"),
        "0123456789abcdef0123456789abcdef"
    );

    let log = serving.log();
    assert!(log.contains("HTTP /hosts/nas/installer.efi: sent"), "{log}");
    assert_eq!(serving.interrupt(), Some(0), "{}", serving.log());
    assert!(serving.log().contains("stopped after"), "{}", serving.log());
}

/// Offers this file to a machine under Secure Boot, which has to refuse it.
fn refused(name: &str, file: &Path) {
    let built = base();
    let server = Server::bind(&Options {
        listen: [127, 0, 0, 1].into(),
        http_port: 0,
        tftp_port: None,
        count: None,
    })
    .unwrap();
    let mut files = Files::new();
    files.add_file("installer.efi", file).unwrap();
    let url = format!("http://10.0.2.2:{}/installer.efi", server.http_port());
    let stopper = server.stopper();
    let serving = std::thread::spawn(move || server.run(files, |e| println!("{e}")).unwrap());
    let bench = Bench::starting_at(built, Some(url));
    let mut vm = bench.network(name).boot();
    let time = vm.accel().scale(Duration::from_secs(120));
    let line = vm
        .wait_console("the reason of the refusal", time, |text: &str| {
            let reasons = ["Access Denied", "Security Violation"];
            text.lines()
                .find(|l| reasons.iter().any(|r| l.contains(r)))
                .map(str::to_owned)
        })
        .unwrap();
    println!("{name}: {line}");
    assert!(!vm.console_text().unwrap().contains("Linux version"));
    vm.stop(lama_vm::Stop::Now).unwrap();
    stopper.stop();
    assert!(serving.join().unwrap() >= 1, "it was not even fetched");
}

#[test]
fn a_flipped_byte_in_the_root_on_its_way_is_refused() {
    let _turn = turn();
    let built = base();
    let serving = Serving::start(built, &[]);
    drop(serving);
    let file = built.deploy.join("netboot/installer.efi");
    let mut data = std::fs::read(&file).unwrap();
    // The middle of the file is the middle of the root.
    let middle = data.len() / 2;
    let root = std::fs::read(built.file(Kind::Root)).unwrap();
    let around = &data[middle - 32..middle + 32];
    assert!(root.windows(64).any(|w| w == around));
    data[middle] ^= 0x40;
    let dir = tempfile::tempdir().unwrap();
    let flipped = dir.path().join("flipped.efi");
    std::fs::write(&flipped, data).unwrap();
    refused("flipped", &flipped);
}

#[test]
fn one_that_others_signed_is_refused() {
    let _turn = turn();
    let built = base();
    let dir = tempfile::tempdir().unwrap();
    let keys = KeySet::open_or_create_development(dir.path(), &lama_exec::Quiet).unwrap();
    let uki = std::fs::read(built.file(Kind::Uki)).unwrap();
    // Without our signature, and with theirs.
    let bare = pe::remove_sections(&uki, &[], "the UKI").unwrap();
    let certificate = CertificateInfo::read(&keys.db_cert_path()).unwrap();
    let signer = keys.signer(Role::Db, None).unwrap();
    let signed = pe::sign(bare, "the UKI", &certificate, signer.as_ref()).unwrap();
    let file = dir.path().join("foreign.efi");
    std::fs::write(&file, signed).unwrap();
    refused("foreign", &file);
}

/// iPXE, a client of both that others wrote: DHCP sends it to one of our servers, and it runs the
/// script that it gets there. (A firmware's own PXE client asks at port 69 of the address where
/// QEMU's network has a TFTP server of its own, so it cannot be sent to ours.) With a BIOS it fetches
/// the file but could not start it.
#[test]
fn ipxe_finds_the_installer_of_its_machine() {
    let _turn = turn();
    let built = base();
    let serving = Serving::start(built, &[]);
    let bench = Bench::new(built);
    let mac = MAC.replace(':', "-");
    for (scheme, protocol, slash) in [("tftp", "TFTP", ""), ("http", "HTTP", "/")] {
        let port = serving.port(&format!("{scheme}_port"));
        let url = format!("{scheme}://10.0.2.2:{port}/boot.ipxe");
        let mut vm = bench.boot_ipxe(scheme, &url);
        let end = Instant::now() + vm.accel().scale(Duration::from_secs(60));
        // Names in the script are relative, so this comes by the same protocol.
        let file = format!("{protocol} {slash}mac/{mac}/installer.efi: sending");
        while !serving.log().contains(&file) {
            assert!(Instant::now() < end, "{file}: {}", serving.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        let script = format!("{protocol} {slash}boot.ipxe: sent");
        assert!(serving.log().contains(&script), "{}", serving.log());
        vm.stop(lama_vm::Stop::Now).unwrap();
    }
    assert!(!serving.log().contains("not found"), "{}", serving.log());
}

#[test]
fn mistakes_are_told_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path();
    std::fs::write(hosts.join("arm.toml"), "bsp = \"qemu-arm64\"\n").unwrap();
    std::fs::write(hosts.join("nas.toml"), "bsp = \"x86_64\"\n").unwrap();
    for (args, words) in [
        (["--host", "nsa"], "there are: arm, nas"),
        (["--host", "arm"], "--bsp qemu-arm64"),
        (["--answer", "wipe"], "is no answer"),
        (["--answer", "disk=a b"], "is no disk"),
        (["--answer", "dsik=any"], "there is no answer"),
        (["--listen", "192.0.2.1"], "an address of this machine"),
        (["--bsp", "x86-64"], "x86_64"),
    ] {
        let mut c = lamadist(&["netboot", "--http-port", "0", "--no-tftp"]);
        c.args(args).env("LAMADIST_HOSTS", hosts);
        c.env("LAMADIST_DEPLOY", hosts.join("deploy"));
        let out = c.output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    assert!(!hosts.join("deploy").exists());
}
