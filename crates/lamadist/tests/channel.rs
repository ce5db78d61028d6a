// SPDX-License-Identifier: Apache-2.0
//! `lamadist channel` publishes what a node believes, and never goes back. The builds are made up of a
//! few bytes; bundles, delta bundles and signatures are real.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::lamadist;
use lama_image::index::Index;
use lama_image::verity;
use lama_node::update::channel::{self, Channel};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Keys, builds, and a folder that is served.
struct Desk {
    dir: tempfile::TempDir,
}

/// Bytes that don't compress and don't repeat.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed;
    let mut next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

impl Desk {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn try_(&self, args: &[&str]) -> Output {
        let mut c = lamadist(&["--quiet", "--json"]);
        c.args(args)
            .env("LAMADIST_KEYS", self.path("keys"))
            .env("LAMADIST_DEPLOY", self.path("deploy"))
            .env("LAMADIST_SITE", self.path("site"));
        c.output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> Value {
        let out = self.try_(args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?}: {said}");
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Fails, leaves the channel file as it is, and says all of this.
    fn refused(&self, args: &[&str], words: &[&str]) {
        let before = std::fs::read(self.file()).ok();
        let out = self.try_(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{args:?}: {said}");
        let said: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        let text = said.to_string();
        assert!(said["hint"].is_string(), "{text}");
        for w in words {
            assert!(text.contains(w), "no `{w}`: {text}");
        }
        assert!(std::fs::read(self.file()).ok() == before, "{args:?}");
    }

    fn channel(&self, more: &[&str]) -> Value {
        self.ok(&[&["channel", "--track", "stable"], more].concat())
    }

    fn no_channel(&self, more: &[&str], words: &[&str]) {
        self.refused(&[&["channel", "--track", "stable"], more].concat(), words);
    }

    /// A build of this version, whose bundle is made by `lamadist bundle`; the earlier one goes to a
    /// folder with its version for a name.
    fn build(&self, version: &str, seed: u8) {
        let deploy = self.path("deploy/x86_64/base");
        if let Ok(old) = Index::read(&deploy) {
            std::fs::rename(&deploy, self.path(&old.version)).unwrap();
        }
        std::fs::create_dir_all(&deploy).unwrap();
        let mut root = noise(1, 1 << 19);
        root[100_000..101_000].fill(seed);
        let file = |name: &str| deploy.join(name);
        std::fs::write(file("root.erofs"), root).unwrap();
        let options = verity::Options {
            uuid: uuid::Uuid::nil(),
            salt: [seed; 32],
        };
        verity::format(&file("root.erofs"), &file("root.verity"), &options).unwrap();
        let uki = [noise(7, 100_001), version.into()].concat();
        std::fs::write(file("lamadist.efi"), uki).unwrap();
        for slot in ["a", "b"] {
            std::fs::write(file(&format!("slot-{slot}.addon.efi")), slot).unwrap();
        }
        let mut index = Index {
            version: version.into(),
            bsp: "x86_64".into(),
            image: "base".into(),
            engine: "debian".into(),
            root_hash: "00".into(),
            artifacts: Vec::new(),
        };
        let kinds = [
            ("root.erofs", lama_image::index::Kind::Root),
            ("lamadist.efi", lama_image::index::Kind::Uki),
        ];
        for (name, kind) in kinds {
            let found = lama_image::hash_file(&file(name)).unwrap();
            index.add(kind, &found, &deploy).unwrap();
        }
        index.write(&deploy).unwrap();
        self.ok(&["bundle"]);
    }

    fn folder(&self) -> PathBuf {
        self.path("site/stable")
    }

    fn file(&self) -> PathBuf {
        self.folder().join("lamadist-x86_64-base.channel")
    }

    fn names(&self) -> Vec<String> {
        let all = std::fs::read_dir(self.folder()).unwrap();
        let mut all: Vec<_> = all
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    }

    /// What a node reads, by its own code, where there is an openssl for it to run.
    fn node_reads(&self) -> Option<Channel> {
        let keys = lama_keys::KeySet::open(self.path("keys/development")).unwrap();
        let ring = self.path("ring.pem");
        std::fs::write(&ring, keys.rauc_keyring_pem().unwrap()).unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|d| d.join("openssl").is_file()) {
            println!("SKIP: no openssl in PATH, which lama-node runs");
            return None;
        }
        Some(Channel::open(&self.file(), &ring).unwrap())
    }
}

fn flip(file: &Path) {
    let mut data = std::fs::read(file).unwrap();
    let middle = data.len() / 2;
    data[middle] ^= 1;
    std::fs::write(file, data).unwrap();
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap()
}

#[test]
fn a_build_is_published_and_only_goes_forward() {
    let d = Desk::new();
    d.no_channel(&[], &["no finished build", "--refresh"]);
    d.no_channel(&["--refresh"], &["nothing is published"]);
    assert!(!d.path("site").exists());
    d.build("1.0.0-dev", 1);
    d.build("1.1.0-dev", 2);
    let old = d.path("1.0.0-dev/lamadist.raucb").display().to_string();
    d.refused(
        &["channel", "--track", "stabel"],
        &["no track", "did you mean", "stable"],
    );
    d.no_channel(
        &["--release"],
        &["development build (1.1.0-dev)", "--release"],
    );
    d.no_channel(
        &["--minimum", "1.1.0"],
        &["no version before 1.1.0 may run"],
    );
    d.no_channel(&["--image", "dev"], &["no finished build"]);

    // Published, with a delta bundle.
    let first = d.channel(&["--delta-from", &old, "--minimum", "0.9.0"]);
    let c = &first["channel"];
    assert_eq!(c["version"], "1.1.0-dev");
    assert_eq!(c["compatible"], "lamadist-x86_64");
    assert_eq!(
        (&first["trusted"], &first["development"]),
        (&true.into(), &true.into())
    );
    let bundle = text(&c["bundle"]["url"]).to_owned();
    assert!(
        bundle.starts_with("lamadist-x86_64-base-1.1.0-dev-"),
        "{bundle}"
    );
    let delta = text(&c["deltas"][0]["url"]).to_owned();
    assert_eq!(c["deltas"][0]["from"], "1.0.0-dev");
    assert_eq!(
        d.names(),
        [
            delta.clone(),
            bundle.clone(),
            "lamadist-x86_64-base.channel".into()
        ]
    );
    let built = std::fs::read(d.path("deploy/x86_64/base/lamadist.raucb")).unwrap();
    assert!(std::fs::read(d.folder().join(&bundle)).unwrap() == built);
    if let Some(read) = d.node_reads() {
        assert_eq!(serde_json::to_value(&read).unwrap(), *c);
        let base = "https://h/stable/lamadist-x86_64-base.channel";
        let url = channel::resolve(base, &read.bundle.url);
        assert_eq!(url, format!("https://h/stable/{bundle}"));
        assert_eq!(read.delta("1.0.0-dev").unwrap().file.url, delta);
    }
    let file = d.file().display().to_string();
    let told = d.ok(&["inspect", &file]);
    assert_eq!((&told["channel"], &told["trusted"]), (c, &true.into()));
    assert!(text(&told["signers"][0]["subject"]).contains("NOT FOR RELEASE"));
    let told = d.ok(&["verify", &file]);
    assert_eq!(told["files"][1]["state"], "whole");
    d.refused(&["verify", "--from", &old, &file], &["no delta bundle"]);
    let made = d.folder().join(&delta).display().to_string();
    d.ok(&["verify", "--from", &old, &made]);

    // Once more: the same files, a higher number.
    let again = d.channel(&["--delta-from", &old]);
    assert!(again["channel"]["serial"].as_u64() > c["serial"].as_u64());
    for key in ["bundle", "deltas", "minimum"] {
        assert_eq!(again["channel"][key], c[key], "{key}");
    }
    assert_eq!(d.names().len(), 3);
    // Without a build at all.
    std::fs::rename(d.path("deploy"), d.path("away")).unwrap();
    let anew = d.channel(&["--refresh", "--valid", "8w"]);
    assert!(text(&anew["channel"]["expires"]) > text(&again["channel"]["expires"]));
    assert_eq!(anew["channel"]["deltas"], c["deltas"]);
    assert_eq!(d.names().len(), 3);
    std::fs::rename(d.path("away"), d.path("deploy")).unwrap();

    // Back only by force; revoked versions not even so.
    std::fs::create_dir_all(d.path("new/x86_64")).unwrap();
    std::fs::rename(d.path("deploy/x86_64/base"), d.path("new/x86_64/base")).unwrap();
    std::fs::rename(d.path("1.0.0-dev"), d.path("deploy/x86_64/base")).unwrap();
    d.no_channel(&[], &["is at 1.1.0-dev already", "--force"]);
    assert_eq!(d.names().len(), 3);
    d.no_channel(
        &["--refresh", "--minimum", "0.8.0"],
        &["older ones could again", "--force"],
    );
    d.no_channel(
        &["--force", "--minimum", "1.1.0-dev"],
        &["1.0.0-dev is to be issued", "before 1.1.0-dev may run"],
    );
    let forced = d.channel(&["--force", "--minimum", "0.8.0"]);
    assert_eq!(forced["channel"]["version"], "1.0.0-dev");
    assert_eq!(forced["channel"]["minimum"], "0.8.0");
    assert_eq!(forced["channel"]["deltas"], Value::Null);
    assert_eq!(d.names().len(), 4);

    // A bundle that was encrypted anew is another one, and the first one stays until it is pruned.
    let before = forced["channel"]["bundle"]["url"].clone();
    d.ok(&["bundle"]);
    d.no_channel(
        &["--delta", &made],
        &["leads to another bundle", "make the delta bundle again"],
    );
    let new = d.channel(&[]);
    assert_ne!(new["channel"]["bundle"]["url"], before);
    d.channel(&["--force", "--deploy", &d.path("new").display().to_string()]);
    let kept = d.channel(&["--refresh", "--keep", "1"]);
    assert_eq!(kept["removed"].as_array().unwrap().len(), 2, "{kept}");
    assert_eq!(
        d.names(),
        [delta, bundle, "lamadist-x86_64-base.channel".into()]
    );
}

#[test]
fn delta_bundles_come_from_what_is_published() {
    let d = Desk::new();
    for (n, version) in ["1.0.0-dev", "1.1.0-dev", "1.2.0-dev"].iter().enumerate() {
        d.build(version, 1 + u8::try_from(n).unwrap());
        d.channel(&[]);
    }
    let from = |c: &Value| {
        let all = c["channel"]["deltas"].as_array().cloned();
        let all = all.unwrap_or_default().into_iter();
        all.map(|d| text(&d["from"]).to_owned()).collect::<Vec<_>>()
    };
    d.build("1.3.0-dev", 4);
    assert_eq!(from(&d.channel(&["--deltas", "1"])), ["1.2.0-dev"]);
    // What is there stays; one that cannot be read is left out.
    let names = d.names();
    let oldest = names.iter().find(|n| n.contains("-1.0.0-dev-")).unwrap();
    std::fs::write(d.folder().join(oldest), "no bundle").unwrap();
    let c = d.channel(&["--deltas", "9"]);
    assert_eq!(from(&c), ["1.1.0-dev", "1.2.0-dev"]);
    let file = d.file().display().to_string();
    assert_eq!(
        d.ok(&["verify", &file])["files"].as_array().unwrap().len(),
        3
    );
}

#[test]
fn what_is_damaged_or_others_is_not_gone_on_from() {
    let d = Desk::new();
    d.build("1.0.0-dev", 1);
    let bundle = d.path("deploy/x86_64/base/lamadist.raucb");
    let whole = std::fs::read(&bundle).unwrap();
    flip(&bundle);
    d.no_channel(&[], &["is not what", "index.json"]);
    std::fs::write(&bundle, &whole).unwrap();

    let c = d.channel(&["--valid", "1h"]);
    let file = d.file().display().to_string();
    let published = d.folder().join(text(&c["channel"]["bundle"]["url"]));
    std::fs::write(&published, &whole[..whole.len() - 1]).unwrap();
    d.refused(&["verify", &file], &["bytes, not", "is refused"]);
    d.no_channel(
        &["--refresh"],
        &["not beside the channel file as it was published"],
    );
    d.no_channel(&[], &["is there with another content", "remove it"]);
    std::fs::remove_file(&published).unwrap();
    d.refused(&["verify", &file], &["is not beside it"]);
    d.channel(&[]);
    flip(&published);
    d.refused(&["verify", &file], &["another content"]);
    std::fs::write(&published, &whole).unwrap();
    d.ok(&["verify", &file]);

    // Cut off, and signed by others.
    let ours = std::fs::read(&file).unwrap();
    std::fs::write(&file, &ours[..ours.len() / 2]).unwrap();
    d.no_channel(
        &[],
        &["cannot be gone on from", "no signed message", "--minimum"],
    );
    d.refused(&["inspect", &file], &["no signed message"]);
    let other = Desk::new();
    other.build("1.0.0-dev", 1);
    other.channel(&[]);
    std::fs::copy(other.file(), &file).unwrap();
    d.no_channel(
        &[],
        &["cannot be gone on from", "not signed by anybody", "--keys"],
    );
    d.refused(&["verify", &file], &["not signed by anybody"]);
    let told = d.ok(&["inspect", &file]);
    assert_eq!(told["trusted"], false);
    assert!(
        text(&told["why"]).contains("not signed by anybody"),
        "{told}"
    );
    // One of ours under another's name.
    std::fs::write(&file, &ours).unwrap();
    let lts = d.path("site/lts/lamadist-x86_64-base.channel");
    std::fs::create_dir_all(lts.parent().unwrap()).unwrap();
    std::fs::copy(&file, &lts).unwrap();
    d.refused(&["channel", "--track", "lts"], &["track stable", "by hand"]);
    // A bundle of others, though the index knows it.
    let (deploy, theirs) = (d.path("deploy"), other.path("deploy"));
    std::fs::rename(&deploy, d.path("ours")).unwrap();
    std::fs::rename(&theirs, &deploy).unwrap();
    d.no_channel(&[], &["encrypted to others"]);
}

#[test]
fn a_release_is_signed_by_release_keys() {
    let d = Desk::new();
    d.ok(&["keys", "init", "--release", "--name", "test release"]);
    d.build("1.0.0-dev", 1);
    d.no_channel(
        &["--release"],
        &["development build (1.0.0-dev)", "--release"],
    );
    assert_eq!(d.channel(&[])["development"], true);
    std::fs::remove_file(d.file()).unwrap();
    d.build("1.0.0", 2);
    let c = d.channel(&["--release"]);
    assert_eq!(c["development"], false, "{c}");
    assert!(
        text(&c["signers"][0]["subject"]).starts_with("CN=test release"),
        "{c}"
    );
    let file = d.file().display().to_string();
    d.refused(&["verify", &file], &["not signed by anybody"]);
    d.ok(&["verify", "--release", &file]);
    // The version says which keys, as for bundles.
    assert_eq!(d.channel(&["--refresh"])["development"], false);
    d.refused(
        &[
            "verify",
            "--keyring",
            &d.path("keys/development/rauc-ca.crt").display().to_string(),
            &file,
        ],
        &["not signed by anybody"],
    );
}
