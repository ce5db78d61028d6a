// SPDX-License-Identifier: Apache-2.0
//! A host's addon names the machine, its network and who may log in; one that others signed doesn't.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::{Bench, Built, base, lamadist, turn, well};
use lama_image::index::Kind;
use std::path::Path;
use std::process::Output;

fn host(hosts: &Path, args: &[&str]) -> Output {
    let mut c = lamadist(&["--quiet", "host"]);
    c.args(args).env("LAMADIST_HOSTS", hosts);
    c.env("LAMADIST_DEPLOY", hosts.join("deploy"));
    c.output().unwrap()
}

fn ok(out: Output) -> String {
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{err}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_host_is_described_once_and_mistakes_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path();
    let refused = |out: Output, words: &[&str]| {
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{text}");
        for w in words {
            assert!(text.contains(w), "no `{w}`: {text}");
        }
    };
    refused(
        host(hosts, &["add", "nas", "--time-zone", "Europe/Atlantis"]),
        &["nas.toml:", "time zone database", "hint:"],
    );
    refused(
        host(hosts, &["add", "nas", "--answer", "disk=sda"]),
        &["is no disk", "/dev/disk/by-id", "hint:"],
    );
    refused(
        host(hosts, &["add", "nas", "--track", "stabel"]),
        &["no track", "did you mean \"stable\""],
    );
    refused(host(hosts, &["add", "nas", "--bsp", "x86-64"]), &["x86_64"]);
    refused(host(hosts, &["show", "nas"]), &["host add nas"]);
    assert!(!hosts.join("nas.toml").exists() && !hosts.join("deploy").exists());

    let said = ok(host(hosts, &["add", "nas"]));
    assert!(said.contains("nas.addon.efi"), "{said}");
    let shown = ok(host(hosts, &["show", "nas"]));
    assert!(
        shown.starts_with("systemd.hostname=nas systemd.machine_id="),
        "{shown}"
    );
    refused(host(hosts, &["add", "nas"]), &["there already", "hint:"]);
    refused(host(hosts, &["show", "nsa"]), &["there are: nas"]);
    // The same description gives the same addon.
    let file = hosts.join("deploy/hosts/nas.addon.efi");
    let first = std::fs::read(&file).unwrap();
    ok(host(hosts, &["addon", "nas"]));
    assert!(std::fs::read(&file).unwrap() == first);
    assert!(ok(host(hosts, &["list"])).starts_with("nas "));
    std::fs::write(hosts.join("empty.raw"), vec![0; 1 << 20]).unwrap();
    let empty = hosts.join("empty.raw").display().to_string();
    refused(host(hosts, &["put", "nas", &empty]), &["is no medium"]);
    ok(host(hosts, &["rm", "nas"]));
    assert_eq!(ok(host(hosts, &["list"])), "");
}

/// The command line of an addon on a medium; none where it is not there.
fn addon_on(built: &Built, disk: &Path, path: &str) -> Option<String> {
    let table = built.tools.command("sfdisk").arg("--json").arg(disk);
    let table: serde_json::Value = table.bind_ro(disk).json().unwrap();
    let table = &table["partitiontable"];
    let esp = table["partitions"][0]["start"].as_u64().unwrap();
    let image = format!("{}@@{}", disk.display(), esp * 512);
    let cmd = built.tools.command("mtype").args(["-i", &image]);
    let cmd = cmd.bind_ro(disk).env("MTOOLS_SKIP_CHECK", "1");
    let (status, out) = cmd.arg(format!("::/{path}")).run_any().unwrap();
    let section = || lama_image::pe::section(&out.stdout, ".cmdline", path).unwrap();
    let text = |s: &[u8]| String::from_utf8_lossy(s).trim_end_matches('\0').to_owned();
    status.success().then(|| text(section().unwrap()))
}

#[test]
fn the_installers_answers_are_the_mediums_alone() {
    const BESIDE: &str = "EFI/BOOT/BOOTX64.EFI.extra.d/install.addon.efi";
    let built = base();
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path();
    let add = ["add", "nas", "--answer", "disk=model:A B"];
    ok(host(hosts, &[&add[..], &["--answer", "wipe=yes"]].concat()));
    let text = std::fs::read_to_string(hosts.join("nas.toml")).unwrap();
    assert!(text.contains("[install]\ndisk = \"model:A B\""), "{text}");
    let answers = "\"lamadist.install.disk=model:A B\" lamadist.install.wipe=yes";
    let shown = ok(host(hosts, &["show", "nas"]));
    assert_eq!(shown.lines().nth(1), Some(answers));

    let disk = hosts.join("nas.raw");
    std::fs::copy(built.file(Kind::Disk), &disk).unwrap();
    let medium = disk.display().to_string();
    ok(host(hosts, &["put", "nas", &medium]));
    assert_eq!(addon_on(built, &disk, BESIDE).as_deref(), Some(answers));
    let host_addon = addon_on(built, &disk, "loader/addons/host.addon.efi").unwrap();
    assert!(host_addon.contains("systemd.hostname=nas"), "{host_addon}");
    assert!(!host_addon.contains("install"), "{host_addon}");

    // Another one's medium has none of it any more.
    ok(host(hosts, &["add", "plain"]));
    ok(host(hosts, &["put", "plain", &medium]));
    assert_eq!(addon_on(built, &disk, BESIDE), None);

    // A disk that is no medium takes no answers, and is left as it is.
    let live = "EFI/BOOT/BOOTX64.EFI.extra.d/live.addon.efi";
    let image = format!("{medium}@@{}", 2048 * 512);
    let cmd = built.tools.command("mdel").args(["-i", &image]);
    let cmd = cmd.bind(&disk).env("MTOOLS_SKIP_CHECK", "1");
    cmd.arg(format!("::/{live}")).run().unwrap();
    let before = std::fs::read(&disk).unwrap();
    let out = host(hosts, &["put", "nas", &medium]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("no medium to install from"), "{said}");
    assert!(std::fs::read(&disk).unwrap() == before);
}

#[test]
fn an_addon_of_ours_names_the_machine_and_a_foreign_one_does_not() {
    let _turn = turn();
    let built = base();
    let bench = Bench::new(built);
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path();
    built
        .tools
        .command("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "admin", "-f", "key"])
        .bind(hosts)
        .cwd(hosts)
        .run()
        .unwrap();
    let key = hosts.join("key.pub").display().to_string();
    let mut add = vec![
        "add",
        "nas",
        "--ssh-key",
        &key,
        "--time-zone",
        "Europe/Berlin",
    ];
    add.extend(["--machine-id", "0123456789abcdef0123456789abcdef"]);
    // QEMU's own network, but told and not asked for.
    add.extend(["--interface", "en*", "--address", "10.0.2.15/24"]);
    add.extend(["--gateway", "10.0.2.2", "--dns", "10.0.2.3"]);
    add.extend(["--update-url", "https://updates.example/a%20b"]);
    add.extend(["--track", "stable"]);
    // None that names a disk: there is none.
    add.extend(["--answer", "recovery-show=no"]);
    ok(host(hosts, &add));
    let disk = hosts.join("nas.raw");
    std::fs::copy(built.file(Kind::Disk), &disk).unwrap();
    let medium = disk.display().to_string();
    ok(host(hosts, &["put", "nas", &medium]));

    let mut vm = bench.boot("host", &disk);
    vm.wait_ssh(None).unwrap();
    let ask = |vm: &lama_vm::Vm, command: &str| vm.ssh_ok(command).unwrap();
    well(&vm);
    assert_eq!(ask(&vm, "hostname"), "nas");
    let cmdline = ask(&vm, "cat /proc/cmdline");
    let answer = "lamadist.install.recovery-show=no";
    assert!(cmdline.contains(answer), "{cmdline}");
    assert_eq!(
        ask(&vm, "cat /etc/machine-id"),
        "0123456789abcdef0123456789abcdef"
    );
    assert_eq!(ask(&vm, "date +%Z -d 2026-01-01"), "CET");
    let address = ask(&vm, "ip -4 -o addr show scope global");
    assert!(
        address.contains("10.0.2.15/24") && !address.contains("dynamic"),
        "{address}"
    );
    let route = ask(&vm, "ip -4 route show default");
    assert!(
        route.contains("via 10.0.2.2") && route.contains("proto static"),
        "{route}"
    );
    assert!(ask(&vm, "resolvectl dns").contains("10.0.2.3"));
    assert_eq!(
        ask(&vm, "cat /run/lamadist/update.conf"),
        "url=https://updates.example/a%20b\ntrack=stable"
    );
    let status = ask(&vm, "lama-node status");
    let updates = "updates         stable, from https://updates.example/a%20b";
    assert!(status.contains(updates), "{status}");
    // The key of the host's configuration, not the machine's own.
    let port = vm.port(22).unwrap().to_string();
    let login = built
        .tools
        .command("ssh")
        .args(["-F", "none", "-i", "key", "-p", &port])
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args([
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "LogLevel=ERROR",
        ])
        .args(["root@127.0.0.1", "hostname"])
        .env("HOME", "/")
        .bind(hosts)
        .cwd(hosts)
        .text()
        .unwrap();
    assert_eq!(login.trim(), "nas");
    vm.stop(lama_vm::Stop::Now).unwrap();

    // The same, signed by somebody else: the stub passes it over and says so.
    let foreign = hosts.join("keys").display().to_string();
    ok(host(hosts, &["--keys", &foreign, "put", "nas", &medium]));
    let mut vm = bench.boot("foreign", &disk);
    vm.wait_ssh(None).unwrap();
    assert_eq!(ask(&vm, "hostname"), "lamadist");
    let cmdline = ask(&vm, "cat /proc/cmdline");
    for ours in ["systemd.hostname", "lamadist.install"] {
        assert!(!cmdline.contains(ours), "{cmdline}");
    }
    let console = vm.console_text().unwrap();
    assert!(console.contains("ignoring: Access denied"), "{console}");
}
