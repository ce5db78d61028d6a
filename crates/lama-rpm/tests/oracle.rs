// SPDX-License-Identifier: Apache-2.0
//! rpm and dnf of the tools tree accept what is signed here and refuse the rest, with the files that
//! the layer lays down on a node.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::*;
use lama_exec::{Cmd, Tools};
use lama_keys::KeySet;
use lama_rpm::{feed, verify};
use std::path::{Path, PathBuf};

/// A file of the layer.
fn layer(name: &str) -> PathBuf {
    let layer = concat!(env!("CARGO_MANIFEST_DIR"), "/../../meta-lamadist");
    Path::new(layer).canonicalize().unwrap().join(name)
}

const MACROS: &str = "recipes-core/lamadist-rpm/files/macros.lamadist";
const REPO: &str = "recipes-core/lamadist-rpm/files/lamadist.repo";
const DNF: &str = "recipes-devtools/dnf/files/dnf.conf";

fn run(cmd: Cmd) -> (bool, String) {
    let (status, out) = cmd.run_any().unwrap();
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    (status.success(), said)
}

/// rpm of a node that trusts the keys of a set.
struct Node<'a> {
    tools: &'a Tools,
    dir: PathBuf,
    database: PathBuf,
}

impl<'a> Node<'a> {
    fn new(tools: &'a Tools, dir: &Path, name: &str, set: &KeySet) -> Self {
        let node = Self {
            tools,
            dir: dir.to_owned(),
            database: dir.join(name),
        };
        let key = dir.join(format!("{name}.key"));
        std::fs::write(&key, set.openpgp_keyring().unwrap()).unwrap();
        let (ok, said) = run(node.rpm("rpmkeys").arg("--import").arg(&key));
        assert!(ok, "{said}");
        node
    }

    fn rpm(&self, program: &str) -> Cmd {
        let c = self
            .tools
            .command(program)
            .bind(&self.dir)
            .bind_ro(layer(MACROS));
        let load = format!("--load={}", layer(MACROS).display());
        c.arg(load).arg("--dbpath").arg(&self.database)
    }

    /// `rpm -K`, in words.
    fn checks(&self, package: &Path) -> (bool, String) {
        run(self.rpm("rpm").arg("-Kv").arg(package))
    }

    /// Whether rpm itself would install it, as far as its database goes.
    fn installs(&self, package: &Path) -> (bool, String) {
        let c = self.rpm("rpm").args(["-U", "--force", "--justdb"]);
        run(c.args(["--nodeps", "--ignoresize"]).arg(package))
    }
}

#[test]
fn rpm_agrees() {
    let Some(tools) = lama_testkit::tools_with(&["rpm", "rpmkeys"]) else {
        return;
    };
    let d = tempfile::tempdir().unwrap();
    let mut set = keys(&d.path().join("keys"));
    let other = keys(&d.path().join("others"));
    let node = Node::new(tools, d.path(), "first", &set);
    let agree = |node: &Node<'_>, set: &KeySet, path: &Path, good: bool| {
        let (ok, said) = node.checks(path);
        assert_eq!(ok, good, "{}: {said}", path.display());
        let (ok, said) = node.installs(path);
        assert_eq!(ok, good, "{}: {said}", path.display());
        let ours = verify(path, &set.openpgp_certificates().unwrap());
        assert_eq!(ours.is_ok(), good, "{ours:?}");
    };
    let four = package(d.path(), "four", v4());
    agree(&node, &set, &four, false);
    let mut all = vec![("four", v4()), ("bare", v4().reserved_space(None))];
    // What comes before rpm 6 does not know the signatures of format 6.
    let (_, version) = run(tools.command("rpm").arg("--version"));
    if version.starts_with("RPM version 4") {
        eprintln!("SKIP: format 6, by {}", version.trim());
    } else {
        all.push(("six", rpm::BuildConfig::v6()));
    }
    for (name, config) in all {
        let p = package(d.path(), name, config);
        signed(&set, &p);
        agree(&node, &set, &p, true);
        let (header, payload) = parts(&std::fs::read(&p).unwrap());
        for at in [header + 40, payload - 30, payload + 20] {
            agree(&node, &set, &turned(&p, at), false);
        }
    }
    let foreign = package(d.path(), "foreign", v4());
    signed(&other, &foreign);
    agree(&node, &set, &foreign, false);

    // While one key follows the other, both are good on a node that has been given both.
    let last = package(d.path(), "last", v4());
    rotate(&mut set);
    signed(&set, &last);
    agree(&node, &set, &four, true);
    let (ok, said) = node.checks(&last);
    assert!(!ok, "a node that does not know the new key: {said}");
    let between = Node::new(tools, d.path(), "between", &set);
    agree(&between, &set, &four, true);
    agree(&between, &set, &last, true);
    finish(&mut set);
    let after = Node::new(tools, d.path(), "after", &set);
    agree(&after, &set, &four, false);
    agree(&after, &set, &last, true);
    // A package that the old key signed comes along when it is signed anew.
    let (signer, certificates) = with(&set);
    lama_rpm::sign(&four, &signer, &certificates, lama_rpm::Others::Replace).unwrap();
    agree(&after, &set, &four, true);
}

/// What rpm itself has built and signed before.
#[test]
fn packages_of_rpmbuild() {
    let Some(tools) = lama_testkit::tools_with(&["rpmbuild", "rpm", "sh"]) else {
        return;
    };
    let d = tempfile::tempdir().unwrap();
    let set = keys(&d.path().join("keys"));
    let node = Node::new(tools, d.path(), "node", &set);
    let spec = d.path().join("t.spec");
    let text = "Name: built\nVersion: 1\nRelease: 1\nSummary: t\nLicense: MIT\nBuildArch: noarch\n\
        %description\nt\n%install\nmkdir -p %{buildroot}/usr/share/built\n\
        echo hello > %{buildroot}/usr/share/built/file\n%files\n/usr/share/built/file\n";
    std::fs::write(&spec, text).unwrap();
    let top = format!("_topdir {}", d.path().join("top").display());
    // Without the scripts that strip and compress what a real package has.
    let plain = "__os_install_post %{nil}";
    let build = node.tools.command("rpmbuild").bind(d.path());
    let (ok, said) = run(build
        .args(["-ba", "--define", &top, "--define", plain])
        .arg(&spec));
    assert!(ok, "{said}");
    let all = lama_rpm::packages(&d.path().join("top")).unwrap();
    assert_eq!(all.len(), 2, "{said}");
    for p in all {
        assert!(!node.checks(&p).0);
        signed(&set, &p);
        let (ok, said) = node.checks(&p);
        assert!(ok, "{said}");
        assert!(verify(&p, &set.openpgp_certificates().unwrap()).is_ok());
        // Nothing of it was lost.
        let (ok, said) = run(node.rpm("rpm").args(["-qip"]).arg(&p));
        assert!(ok && said.contains("built"), "{said}");
    }
}

/// A feed in a folder, and dnf of a node that knows it.
struct Feed<'a> {
    tools: &'a Tools,
    dir: PathBuf,
    at: PathBuf,
}

impl Feed<'_> {
    /// createrepo_c, and our signature where all packages bear one.
    fn index(&self, set: &KeySet) -> lama_rpm::Result<()> {
        let c = self.tools.command("createrepo_c").bind(&self.dir);
        let (ok, said) = run(c.arg("-q").arg(&self.at));
        assert!(ok, "{said}");
        let (signer, certificates) = with(set);
        feed::sign(&self.at, &signer, &certificates, &set.openpgp_keyring()?)?;
        Ok(())
    }

    /// `dnf install` on a new root that trusts `set`.
    fn install(&self, set: &KeySet, what: &str) -> (bool, String) {
        let node = tempfile::tempdir_in(&self.dir).unwrap();
        let node = node.path();
        let key = node.join("key");
        std::fs::write(&key, set.openpgp_keyring().unwrap()).unwrap();
        let repo = std::fs::read_to_string(layer(REPO)).unwrap();
        let key = format!("file://{}", key.display());
        let feed = format!("file://{}", self.at.display());
        let repo = repo
            .replace("@LAMA_FEED_URI@", &feed)
            .replace("file:///etc/pki/rpm-gpg/RPM-GPG-KEY-lamadist", &key);
        assert!(repo.contains(&key) && repo.contains(&feed), "{repo}");
        for dir in ["repos", "log"] {
            std::fs::create_dir(node.join(dir)).unwrap();
        }
        std::fs::write(node.join("repos/lamadist.repo"), repo).unwrap();
        let set_to = |k: &str, v: &str| format!("--setopt={k}={}", node.join(v).display());
        let c = self.tools.command("dnf").bind(&self.dir);
        let c = c.bind_ro_at(
            layer("recipes-core/lamadist-rpm/files"),
            "/usr/lib/rpm/macros.d",
        );
        let c = c.bind_ro(layer(DNF)).arg("-c").arg(layer(DNF));
        run(c
            .arg(format!("--installroot={}", node.join("root").display()))
            .args([
                set_to("reposdir", "repos"),
                set_to("cachedir", "cache"),
                set_to("persistdir", "state"),
                set_to("logdir", "log"),
            ])
            .args([
                "--releasever=1",
                "--enablerepo=lamadist",
                "-y",
                "install",
                what,
            ]))
    }
}

#[test]
fn dnf_installs_what_is_signed_alone() {
    let Some(tools) = lama_testkit::tools_with(&["dnf", "createrepo_c", "gpg"]) else {
        return;
    };
    let d = tempfile::tempdir().unwrap();
    let dir = d.path().canonicalize().unwrap();
    let mut set = keys(&dir.join("keys"));
    let other = keys(&dir.join("others"));
    let feed = Feed {
        tools,
        at: dir.join("feed"),
        dir,
    };
    std::fs::create_dir(&feed.at).unwrap();
    let p = package(&feed.at, "demo", v4());
    signed(&set, &p);
    feed.index(&set).unwrap();
    let (ok, said) = feed.install(&set, "demo");
    assert!(ok && said.contains("Complete!"), "{said}");

    let refuses = |set: &KeySet, what: &str, word: &str| {
        let (ok, said) = feed.install(set, what);
        assert!(!ok && said.contains(word), "{what}: no `{word}`: {said}");
    };

    // Somebody who has the disk of the feed, and keys of his own.
    let evil = package(&feed.at, "evil", v4());
    signed(&other, &evil);
    let e = feed.index(&set).unwrap_err().to_string();
    assert!(e.contains("evil-1.0-1.noarch.rpm"), "{e}");
    // The signature is that of the index before; without any, nothing.
    refuses(&set, "evil", "GPG signature verification error");
    std::fs::remove_file(feed.at.join("repodata/repomd.xml.asc")).unwrap();
    refuses(&set, "evil", "GPG signature is not available");
    // He signs the index: his key is not the node's.
    std::fs::remove_file(&p).unwrap();
    feed.index(&other).unwrap();
    refuses(&set, "evil", "GPG signature verification error");
    // Even in a feed whose index is good, each package is looked at; and packages from the disk.
    let index = std::fs::read(feed.at.join(feed::INDEX)).unwrap();
    let (signer, _) = with(&set);
    let signature = signer.sign_armored(&index).unwrap();
    std::fs::write(feed.at.join("repodata/repomd.xml.asc"), signature).unwrap();
    refuses(
        &set,
        "evil",
        "Public key for evil-1.0-1.noarch.rpm is not installed",
    );
    let local = evil.display().to_string();
    refuses(
        &set,
        &local,
        "Public key for evil-1.0-1.noarch.rpm is not installed",
    );
    let unsigned = package(&feed.at, "evil", v4());
    refuses(&set, &local, "Package evil-1.0-1.noarch.rpm is not signed");
    signed(&set, &unsigned);
    feed.index(&set).unwrap();
    assert!(feed.install(&set, "evil").0);

    // A key follows another: who trusts both takes what either signed.
    rotate(&mut set);
    let q = package(&feed.at, "demo", v4());
    signed(&set, &q);
    feed.index(&set).unwrap();
    assert!(feed.install(&set, "demo").0);
    let (ok, said) = feed.install(&set, "evil");
    assert!(ok, "signed by the previous key: {said}");
    finish(&mut set);
    assert!(feed.install(&set, "demo").0);
    refuses(
        &set,
        "evil",
        "Public key for evil-1.0-1.noarch.rpm is not installed",
    );
}
