// SPDX-License-Identifier: Apache-2.0
//! The pure steps against the tools whose work they do: systemd-sysusers, `systemctl preset-all`,
//! pam-auth-update. They come from the tools tree.
#![allow(clippy::unwrap_used)]

use lama_compose::accounts::Accounts;
use lama_compose::{pam, presets};
use lama_exec::{Tools, fs};
use lama_model::ids::Ids;
use lama_tree::{Kind, Node, Tree, TreePath, read_dir, write_dir};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn tools(need: &[&str]) -> Option<(PathBuf, Tools)> {
    let t = lama_testkit::tools_with(need)?;
    Some((t.root()?.to_owned(), t.clone()))
}

/// A tree of some folders of the tools tree.
fn tree_of(root: &Path, dirs: &[&str]) -> Tree {
    let mut t = Tree::new();
    for d in dirs.iter().filter(|d| root.join(d).is_dir()) {
        for (p, n) in read_dir(&root.join(d)).unwrap().iter() {
            t.insert(
                &TreePath::new(d).unwrap().join(p.as_str()).unwrap(),
                n.clone(),
            )
            .unwrap();
        }
    }
    t
}

fn links(t: &Tree, dir: &str) -> BTreeMap<String, String> {
    t.under(&TreePath::new(dir).unwrap())
        .filter_map(|(p, n)| match &n.kind {
            Kind::Symlink(l) => Some((p.to_string(), l.clone())),
            _ => None,
        })
        .collect()
}

#[test]
fn presets_link_what_systemctl_links() {
    let Some((root, tools)) = tools(&["usr/bin/systemctl", "usr/lib/systemd/system"]) else {
        return;
    };
    let units = tree_of(&root, &["usr/lib/systemd/system"]);
    for preset in [
        // Several units claim ctrl-alt-del.target; which one gets it is chance in systemctl.
        "disable exit.target\ndisable halt.target\ndisable kexec.target\ndisable poweroff.target\ndisable soft-reboot.target\nenable *\n",
        "disable *\n",
        "enable systemd-networkd.service\nenable getty@.service\nenable *.timer\nenable ssh*\ndisable *\n",
        "disable *.socket\nenable serial-getty@.service ttyS0\nenable systemd-*\ndisable *\n",
    ] {
        let mut t = units.clone();
        t.add(
            "usr/lib/systemd/system-preset/00-x.preset",
            Node::file(preset, 0o644),
        )
        .unwrap();
        let d = tempfile::tempdir().unwrap();
        write_dir(&t, d.path()).unwrap();
        tools
            .command("systemctl")
            .arg("--root")
            .arg(d.path())
            .args(["preset-all", "--preset-mode=enable-only"])
            .bind(d.path())
            .run()
            .unwrap();
        let theirs = links(&read_dir(d.path()).unwrap(), "etc/systemd/system");
        presets::apply(&mut t, &[]).unwrap();
        assert_eq!(links(&t, "etc/systemd/system"), theirs, "{preset}");
    }
}

#[test]
fn accounts_are_those_of_sysusers() {
    let Some((root, tools)) = tools(&["usr/bin/systemd-sysusers", "usr/lib/sysusers.d"]) else {
        return;
    };
    let mut t = tree_of(&root, &["usr/lib/sysusers.d", "usr/share/base-passwd"]);
    t.add(
        "usr/lib/sysusers.d/zz-own.conf",
        Node::file("u tss - \"TPM software stack\" /var/lib/tpm\ng _ssh -\nu! statd -:nogroup - /var/lib/nfs\nm tss _ssh\n", 0o644),
    )
    .unwrap();
    let ids = Ids::load(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../distro/ids.toml"
    ))
    .unwrap();
    Accounts::collect(&mut t, &ids)
        .unwrap()
        .write(&mut t, 1_793_491_200)
        .unwrap();
    // Without our answer, but with the numbers that we filled in; on top of the masters, if any.
    let mut input = t.clone();
    for f in ["etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"] {
        input.remove(&TreePath::new(f).unwrap());
    }
    for (master, f) in [("passwd", "etc/passwd"), ("group", "etc/group")] {
        if let Ok(m) = t.read(&format!("usr/share/base-passwd/{master}.master")) {
            let text = String::from_utf8_lossy(m).replace(":*:", ":x:");
            input.add(f, Node::file(text, 0o644)).unwrap();
        }
    }
    let d = tempfile::tempdir().unwrap();
    write_dir(&input, d.path()).unwrap();
    let root_arg = format!("--root={}", d.path().display());
    tools
        .command("systemd-sysusers")
        .arg(root_arg)
        .bind(d.path())
        .run()
        .unwrap();
    for f in ["etc/passwd", "etc/group"] {
        let lines = |x: &[u8]| -> BTreeSet<String> {
            String::from_utf8_lossy(x)
                .lines()
                .map(str::to_owned)
                .collect()
        };
        let theirs = lines(&fs::read(d.path().join(f)).unwrap());
        assert_eq!(lines(t.read(f).unwrap()), theirs, "{f}");
    }
}

#[test]
fn pam_files_are_those_of_pam_auth_update() {
    let need = [
        "usr/sbin/pam-auth-update",
        "usr/share/pam-configs",
        "usr/bin/perl",
        "usr/share/debconf",
        "var/cache/debconf/templates.dat",
    ];
    let Some((root, tools)) = tools(&need) else {
        return;
    };
    let mut t = tree_of(&root, &["usr/share/pam", "usr/share/pam-configs"]);
    let d = tempfile::tempdir().unwrap();
    write_dir(&t, d.path()).unwrap();
    pam::write(&mut t).unwrap();
    let out = d.path().join("etc/pam.d");
    fs::create_dir_all(&out).unwrap();
    fs::create_dir_all(d.path().join("var/lib/pam")).unwrap();
    let debconf = d.path().join("debconf");
    fs::create_dir_all(&debconf).unwrap();
    // Which profiles are chosen is asked through debconf, whose templates it needs.
    for f in ["config.dat", "templates.dat"] {
        let data = fs::read(root.join("var/cache/debconf").join(f)).unwrap();
        fs::write(debconf.join(f), data).unwrap();
    }
    tools
        .command("pam-auth-update")
        .args(["--force", "--package", "--root"])
        .arg(d.path())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .bind_at(&debconf, "/var/cache/debconf")
        .bind(d.path())
        .run()
        .unwrap();
    for f in [
        "auth",
        "account",
        "password",
        "session",
        "session-noninteractive",
    ] {
        let theirs = fs::read_to_string(out.join(format!("common-{f}"))).unwrap();
        let ours =
            String::from_utf8_lossy(t.read(&format!("etc/pam.d/common-{f}")).unwrap()).into_owned();
        assert_eq!(ours, theirs, "{f}");
    }
}
