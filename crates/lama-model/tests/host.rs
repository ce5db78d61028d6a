// SPDX-License-Identifier: Apache-2.0
//! What the workstation lets a host say is what the program on the node takes.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::panic)]

use base64::Engine as _;
use lama_model::host::install::{Answer, cmdline};
use lama_model::host::{Host, update};
use lama_node::install::answers::Answers;
use lama_node::kernel::Cmdline;
use proptest::prelude::*;

const SSH: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0kYq5X0sG0PjV5hYx0tN0Jm5d2qYp8yF0qJbq0r3mT admin";

/// As the node reads a line of a file.
fn node(line: &str) -> Option<Answers> {
    let mut a = Answers::default();
    a.read(line, "x").ok().map(|()| a)
}

/// As it reads the command line.
fn booted(answers: &[Answer]) -> Answers {
    let line = format!("quiet {} panic=10", cmdline(answers));
    let mut a = Answers::default();
    a.read_cmdline(&Cmdline::parse(&line)).unwrap();
    a
}

#[test]
fn the_node_takes_what_the_workstation_takes() {
    let age = format!("recovery-to=age1{}", "q".repeat(58));
    let ssh = format!("recovery-to={SSH}");
    for text in [
        "disk=any",
        "disk=serial:A B 1",
        "disk=model:Samsung SSD 980",
        "disk=path:/dev/disk/by-id/nvme-x",
        "disk=/dev/vda",
        "wipe=yes",
        "wipe=no",
        "reinstall=8EEE3D04-c850-8ed4-bd7d-6fc2cc0ee78f",
        "finish=reboot",
        "finish=poweroff",
        "finish=stay",
        "recovery-show=no",
        "secure-boot=off",
        "secure-boot=required",
        "without-tpm=passphrase",
        &age,
        &ssh,
    ] {
        let a = Answer::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert_eq!(booted(std::slice::from_ref(&a)), node(text).unwrap());
        assert_eq!(node(&a.to_string()), node(text));
    }
    for text in [
        "disk",
        "disk=",
        "disk=sda",
        "disk=serial:",
        "disk=path:sda",
        "wipe=maybe",
        "finish=halt",
        "recovery-to=root",
        "dsik=any",
        "=any",
        "without-tpm=yes",
        "secure-boot=on",
    ] {
        assert!(node(text).is_none(), "{text}");
        assert!(Answer::parse(text).is_err(), "{text}");
    }
    // Refused here already, where the node would find out later or never.
    for text in [
        "reinstall=1",
        "recovery-to=age1",
        "recovery-to=ssh-ed25519 AAAA me",
        "disk=serial:a\"b",
        "disk=serial:a\\b",
        "disk=serial:ü",
    ] {
        assert!(node(text).is_some(), "{text}");
        assert!(Answer::parse(text).is_err(), "{text}");
    }
}

/// The documentation, the workstation and the node know the same keys.
#[test]
fn the_keys_are_those_of_the_documentation() {
    let page = include_str!("../../../docs/INSTALL.md");
    let table = page.split("| Key | Value |").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|l| l.starts_with("| `"));
    let mut documented: Vec<&str> = rows.map(|l| l.split('`').nth(1).unwrap()).collect();
    documented.sort_unstable();
    let mut keys: Vec<&str> = Answer::keys().collect();
    keys.sort_unstable();
    assert_eq!(documented, keys);
    for key in keys {
        let e = Answers::default().read(&format!("{key}=\u{1}"), "x");
        let known = |e: lama_node::Error| !e.to_string().contains("there is no answer");
        assert!(e.err().is_none_or(known), "{key}");
    }
}

/// What tmpfiles.d(5) makes of the host's parameters: the content of `path`.
fn made(cmdline: &str, path: &str) -> String {
    let name = "systemd.set_credential_binary=tmpfiles.extra:";
    let value = cmdline.split(' ').find_map(|w| w.strip_prefix(name));
    let lines = base64::engine::general_purpose::STANDARD.decode(value.unwrap());
    let lines = String::from_utf8(lines.unwrap()).unwrap();
    let start = format!("f+ {path} 0644 root root - ");
    let argument = lines.lines().find_map(|l| l.strip_prefix(&start)).unwrap();
    argument.replace("\\n", "\n").replace("%%", "%")
}

#[test]
fn the_node_reads_where_updates_come_from() {
    assert_eq!(update::PATH, lama_node::update::PATH);
    for (text, url, track) in [
        (
            "url = \"https://a/%20\"\ntrack = \"lts\"",
            Some("https://a/%20"),
            Some("lts"),
        ),
        ("url = \"http://[::1]:80\"", Some("http://[::1]:80"), None),
        ("track = \"stable\"", None, Some("stable")),
    ] {
        let host = Host::parse("nas.toml".as_ref(), &format!("[update]\n{text}")).unwrap();
        let file = made(&host.cmdline, update::PATH);
        let read = lama_node::update::Source::parse(&file).unwrap();
        let read = (read.url.as_deref(), read.track.as_deref());
        assert_eq!(read, (url, track));
    }
    let host = Host::parse("nas.toml".as_ref(), "[update]").unwrap();
    assert_eq!(host.cmdline, "systemd.hostname=nas");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../distro");
    let distro = lama_model::Description::load(root).unwrap().distro;
    let track = |t: &str| {
        let text = format!("[update]\ntrack = \"{t}\"");
        let host = Host::parse("nas.toml".as_ref(), &text).unwrap();
        host.check_track(&distro)
    };
    track("lts").unwrap();
    let e = track("stabel").unwrap_err();
    let help = miette::Diagnostic::help(&e).unwrap().to_string();
    assert!(help.contains("did you mean \"stable\""), "{help}");
}

proptest! {
    #[test]
    fn both_decide_alike(
        key in "disk|wipe|finish|recovery-show|secure-boot|without-tpm|x",
        value in "(any|yes|no|off|stay|passphrase|(serial|model|path|x)?:?(/dev/)?[ -~]{0,9})",
    ) {
        let text = format!("{key}={value}");
        let carried = !value.contains(['"', '\'', '\\']);
        let here = Answer::parse(&text);
        prop_assert_eq!(here.is_ok(), carried && node(&text).is_some(), "{}", text);
        if let Ok(a) = here {
            prop_assert_eq!(Some(booted(&[a])), node(&text));
        }
    }

    #[test]
    fn nothing_gets_beside_an_answer(key in "[a-z-]{0,12}", value in "\\PC{0,40}") {
        if let Ok(a) = Answer::new(&key, &value) {
            let words = Cmdline::parse(&a.parameter());
            prop_assert_eq!(words.with_prefix("").count(), 1);
        }
    }
}
