// SPDX-License-Identifier: Apache-2.0
//! Restoring where it is hard: into a running system, through an overlay, onto a new machine.

use crate::files::*;
use crate::node::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Onto a machine that runs: beside the data, then in its place, with what is the machine's.
#[test]
fn a_running_system_is_restored_by_the_next_boot() {
    let Some(n) = Node::new() else { return };
    n.fill();
    n.ok(&["backup", "--init"]);
    let was = tree(&n.at("root/var"));

    let other = n.at("other");
    let root = other.display().to_string();
    let node = |args: &[&str]| {
        let all = [args, &["--root", &root]].concat();
        let out = n.command(&all).output().unwrap();
        assert!(out.status.success(), "{all:?}: {}", said(&out));
        out
    };
    n.write("other/var/lib/installed", "x");
    n.write("other/var/lib/systemd/random-seed", "seed");
    n.write(
        "other/var/lib/lamadist/etc/upper/ssh/ssh_host_ed25519_key",
        "another",
    );
    n.write("other/var/log/journal/x/system.journal", "log");
    n.write("other/var/lost+found/x", "x");
    n.write("other/etc/hostname", "fresh\n");

    // Only the identity first: the data stays.
    let repository = n.repository();
    let from = ["restore", "--repository", &repository];
    node(&[&from[..], &["--identity-only"]].concat());
    assert!(n.run(&["restore", "--clean"]).status.success());
    let key = "var/lib/lamadist/etc/upper/ssh/ssh_host_ed25519_key";
    assert_eq!(fs::read(other.join(key)).unwrap(), b"another");
    let again = n
        .command(&[&from[..], &["--root", &root]].concat())
        .output()
        .unwrap();
    assert!(
        said(&again).contains("waits for the next boot"),
        "{}",
        said(&again)
    );
    node(&["restore", "--finish"]);
    assert_eq!(fs::read(other.join(key)).unwrap(), b"key");
    assert!(other.join("var/lib/installed").exists() && !other.join("var/data").exists());
    for d in [
        "lib",
        "lib/lamadist",
        "lib/lamadist/etc",
        "lib/lamadist/etc/upper",
    ] {
        let mode = other.join("var").join(d).metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o755, "{d}");
    }
    node(&["restore", "--clean"]);

    node(&from);
    assert!(other.join("var/lib/installed").exists());
    node(&["restore", "--finish"]);
    node(&["restore", "--finish"]);
    let is = tree(&other.join("var"));
    for (name, there) in [
        ("lib/installed", false),
        (".lamadist-restore/old/lib/installed", true),
        ("lib/systemd/random-seed", true),
        ("log/journal/x/system.journal", true),
        ("lost+found/x", true),
        ("data/big", true),
    ] {
        assert_eq!(is.contains_key(name), there, "{name}");
    }
    node(&["restore", "--clean"]);
    let now: BTreeMap<_, _> = tree(&other.join("var"))
        .into_iter()
        .filter(|(k, _)| was.contains_key(k))
        .collect();
    let was: BTreeMap<_, _> = was
        .into_iter()
        .filter(|(k, _)| !k.starts_with("lib/lamadist/backup"))
        .collect();
    same(&was, &now);
}

/// A real overlay shows the same after its upper layer went through a backup.
#[test]
fn an_overlay_of_etc_survives() {
    let Some(n) = Node::new() else { return };
    if !is_root() {
        eprintln!("SKIP: mounting an overlay needs root");
        return;
    }
    for (path, text) in [
        ("a", "a"),
        ("gone", "x"),
        ("dir/old", "x"),
        ("dir2/keep", "x"),
    ] {
        n.write(&format!("root/etc/{path}"), text);
    }
    let overlay = |var: &Path, script: &str| {
        let (etc, l) = (n.at("merged"), var.join("lib/lamadist/etc"));
        for d in [&etc, &l.join("upper"), &l.join("work")] {
            fs::create_dir_all(d).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            n.at("root/etc").display(),
            l.join("upper").display(),
            l.join("work").display()
        );
        Command::new("unshare")
            .args(["-m", "sh", "-euc"])
            .arg(format!(
                "mount -t overlay -o \"$1\" overlay \"$2\"; cd \"$2\"; {script}"
            ))
            .args(["sh", &options])
            .arg(&etc)
            .output()
            .unwrap()
    };
    let change =
        "rm gone; rm -r dir; mkdir dir; echo new > dir/new; echo b > a; chown 7:8 a; rm dir2/keep";
    let out = overlay(&n.at("root/var"), change);
    if !out.status.success() {
        eprintln!("SKIP: no overlay can be mounted here: {}", said(&out));
        return;
    }
    let look = "find . -printf '%p %y %m %U:%G %s\\n' | sort; cat a dir/*";
    let was = overlay(&n.at("root/var"), look).stdout;
    let text = String::from_utf8_lossy(&was).into_owned();
    assert!(
        !text.contains("gone") && !text.contains("dir/old") && text.contains("7:8"),
        "{text}"
    );
    n.ok(&["backup", "--init"]);
    fs::create_dir(n.at("target")).unwrap();
    n.ok(&["restore", "--target", n.at("target").to_str().unwrap()]);
    // Name and machine ID were the lower layer's, and are the upper's now.
    let is = overlay(&n.at("target"), look).stdout;
    assert_eq!(text, String::from_utf8_lossy(&is));

    // Without the right to see them, the marks of the overlay would be lost: why the service keeps it.
    let upper = n.at("root/var/lib/lamadist/etc/upper/dir");
    assert!(xattrs(&upper).contains_key("trusted.overlay.opaque"));
}

/// `setup` seals what opens the repository; a new machine is told what it cannot open.
#[test]
fn secrets_are_sealed_and_named() {
    let Some(n) = Node::new() else { return };
    n.fill();
    fs::remove_file(n.at("credentials/lamadist.backup.password")).unwrap();
    fs::remove_file(n.at("root/etc/lamadist/backup.conf")).unwrap();
    fs::create_dir_all(n.at("root/var/lib/lamadist/etc/upper")).unwrap();
    let e = n.fails(&["backup"]);
    assert!(
        e.contains("there is no") && e.contains("lama-node backup setup"),
        "{e}"
    );
    n.write("env", "# for a remote one\nAWS_ACCESS_KEY_ID=hush\n");
    let repository = n.repository();
    let env = n.at("env").display().to_string();
    let setup = ["backup", "setup", "--repository", &repository];
    let out = n.run(&[&setup[..], &["--env-file", &env, "--json"]].concat());
    if said(&out).contains("cannot seal") {
        eprintln!("SKIP: systemd-creds does not work here: {}", said(&out));
        return;
    }
    assert!(out.status.success(), "{}", said(&out));
    let done: Value = serde_json::from_slice(&out.stdout).unwrap();
    let password = done["password"].as_str().unwrap().to_owned();
    assert_eq!(done["made"], true);
    let store = n.at("root/etc/credstore.encrypted");
    for name in ["lamadist.backup.password", "lamadist.backup.env"] {
        let data = fs::read(store.join(name)).unwrap();
        let text = String::from_utf8_lossy(&data);
        assert!(
            !text.contains(&password) && !text.contains("hush"),
            "{text}"
        );
        assert_eq!(store.join(name).metadata().unwrap().mode() & 0o777, 0o600);
    }
    n.ok(&["backup"]);
    // Again: the sealed password opens what is there.
    let again = n.json(&setup);
    assert_eq!(
        (&again["made"], &again["password"]),
        (&false.into(), &Value::Null)
    );
    // A repository with another password is not taken over.
    let e = n.fails(&[&setup[..], &["--password-file", &env]].concat());
    assert!(e.contains("the password"), "{e}");

    // As on a machine: what is changed in /etc lies in the upper layer.
    let upper = "root/var/lib/lamadist/etc/upper";
    for f in [
        "lamadist/backup.conf",
        "credstore.encrypted/lamadist.backup.password",
    ] {
        n.write(
            &format!("{upper}/{f}"),
            fs::read(n.at("root/etc").join(f)).unwrap(),
        );
    }
    let foreign = n.at("foreign.secret");
    let sealed = Command::new("systemd-creds")
        .args(["encrypt", "--with-key=host", "--name=wireguard", "-"])
        .arg(n.at("sealed"))
        .env("SYSTEMD_CREDENTIAL_SECRET", &foreign)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(sealed.status.success(), "{}", said(&sealed));
    n.write(
        &format!("{upper}/credstore.encrypted/wireguard"),
        fs::read(n.at("sealed")).unwrap(),
    );
    n.ok(&["backup"]);

    if !is_root() {
        eprintln!("SKIP: the rest seals under another machine's ID, which needs root");
        return;
    }
    fs::create_dir(n.at("target")).unwrap();
    fs::write(n.at("password"), format!("{password}\n")).unwrap();
    let target = n.at("target").display().to_string();
    let new = n.at("new").display().to_string();
    fs::create_dir_all(n.at("new/var")).unwrap();
    let mut c = n.command(&[
        "restore",
        "--root",
        &new,
        "--repository",
        &repository,
        "--target",
        &target,
        "--json",
    ]);
    // The password by standard input, as an installer gives it.
    let out = c
        .stdin(fs::File::open(n.at("password")).unwrap())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", said(&out));
    let done: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(done["password-sealed"], true, "{done}");
    let opens = |name: &str| {
        let all = done["credentials"].as_array().unwrap();
        all.iter().find(|c| c["name"] == name).unwrap()["opens"].clone()
    };
    assert_eq!(opens("wireguard"), false);
    assert_eq!(opens("lamadist.backup.password"), true);
}
