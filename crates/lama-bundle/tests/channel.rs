// SPDX-License-Identifier: Apache-2.0
//! Channel files are issued and believed, or refused; OpenSSL is the judge, as on a node.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_bundle::channel::next::{Back, Wanted, next};
use lama_bundle::channel::site::{Site, State, Target, state};
use lama_bundle::channel::{self, Channel, File};
use lama_bundle::digest;
use lama_exec::{Quiet, Tools, fs};
use lama_keys::KeySet;
use lama_node::delta::{Header, hex};
use lama_node::update::channel::VERIFY;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Keys, and a folder that is served.
struct Bench {
    dir: tempfile::TempDir,
    tools: &'static Tools,
    keys: KeySet,
}

impl Bench {
    fn new() -> Option<Self> {
        let tools = lama_testkit::tools_with(&["openssl"])?;
        let dir = tempfile::tempdir().unwrap();
        let keys = KeySet::open_or_create_development(dir.path().join("keys"), &Quiet).unwrap();
        Some(Self { dir, tools, keys })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn site(&self) -> Site {
        let file = Site::place(&self.path("site"), "stable", "c", "base").unwrap();
        Site::open(&file).unwrap()
    }

    fn open(&self, file: &Path, keys: &KeySet) -> Result<Channel, String> {
        let ring = keys.rauc_keyring_pem().unwrap();
        let claim = channel::open(file, self.tools, &ring, self.dir.path());
        claim.map(|c| c.channel).map_err(|e| e.to_string())
    }

    fn issue(&self, site: &Site, version: &str, bundle: File, now: u64) -> Channel {
        let ring = self.keys.rauc_keyring_pem().unwrap();
        let last = site.last(self.tools, &ring, self.dir.path()).unwrap();
        let wanted = Wanted {
            track: "stable".into(),
            compatible: "c".into(),
            image: "base".into(),
            version: version.into(),
            bundle,
            deltas: Vec::new(),
            minimum: None,
            valid: 86400,
            back: Back::Refused,
        };
        let c = next(last.map(|l| l.channel).as_ref(), wanted, now).unwrap();
        let claim = site.issue(&c, &self.keys, self.tools, self.dir.path());
        let claim = claim.unwrap();
        assert!(claim.signers.len() == 1 && claim.signers[0].development);
        assert_eq!(claim.channel, c);
        c
    }

    /// A file that is published as a bundle of this version.
    fn bundle(&self, site: &Site, version: &str, len: usize) -> File {
        let from = self.path("bundle");
        fs::write(&from, vec![7; len]).unwrap();
        let what = digest(&from).unwrap();
        let name = site.bundle_name(version, &what.1);
        site.put(&from, name, what).unwrap()
    }
}

#[test]
fn a_channel_file_is_believed_whole_and_from_us_only() {
    let Some(b) = Bench::new() else { return };
    let site = b.site();
    let bundle = b.bundle(&site, "1.0.0", 100_000);
    let issued = b.issue(&site, "1.0.0", bundle, 1_900_000_000);
    let file = site.file();
    assert!(channel::is_one(&file).unwrap());
    assert!(!channel::is_one(&site.path(&issued.bundle.url)).unwrap());
    assert_eq!(b.open(&file, &b.keys).unwrap(), issued);
    // The node's own code, where there is an openssl for it to run.
    let ring = b.path("ring.pem");
    fs::write(&ring, b.keys.rauc_keyring_pem().unwrap()).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|d| d.join("openssl").is_file()) {
        assert_eq!(Channel::open(&file, &ring).unwrap(), issued);
    } else {
        println!("SKIP: no openssl in PATH, which lama-node runs");
    }

    // Damage anywhere, every length, and something else.
    let whole = fs::read(&file).unwrap();
    let damaged = b.path("damaged.channel");
    let mut cases: Vec<Vec<u8>> = (0..whole.len())
        .step_by(23)
        .map(|at| {
            let mut data = whole.clone();
            data[at] ^= 1;
            data
        })
        .collect();
    cases.extend([0, 1, 100, whole.len() / 2, whole.len() - 1].map(|n| whole[..n].to_vec()));
    cases.push(b"<html>not found</html>".to_vec());
    for data in cases {
        fs::write(&damaged, &data).unwrap();
        // Some of the certificate that comes along says nothing of who signed.
        if let Ok(c) = b.open(&damaged, &b.keys) {
            assert_eq!(c, issued);
        }
    }
    fs::write(&damaged, &whole[..whole.len() - 1]).unwrap();
    assert!(
        b.open(&damaged, &b.keys)
            .unwrap_err()
            .contains("no signed message")
    );
    let at = whole.windows(5).position(|w| w == b"1.0.0").unwrap();
    let mut other = whole.clone();
    other[at] = b'2';
    fs::write(&damaged, &other).unwrap();
    assert_eq!(channel::read(&damaged).unwrap().channel.version, "2.0.0");
    assert!(
        b.open(&damaged, &b.keys)
            .unwrap_err()
            .contains("not signed by")
    );

    // Somebody else's, even where the system trusts them for the web.
    let others = KeySet::open_or_create_development(b.path("others"), &Quiet).unwrap();
    let e = b.open(&file, &others).unwrap_err();
    assert!(
        e.contains("not signed by anybody who is trusted here"),
        "{e}"
    );
    let theirs = channel::sign(&issued, &others, b.tools).unwrap();
    fs::write(&damaged, theirs).unwrap();
    let e = site.last(b.tools, &others.rauc_keyring_pem().unwrap(), b.dir.path());
    assert!(e.is_err());
    let ca = others.certificate_path(lama_keys::Role::RaucCa);
    let name = b
        .tools
        .command("openssl")
        .args(["x509", "-hash", "-noout", "-in"]);
    let name = name.arg(&ca).bind_ro(&ca).text().unwrap();
    fs::create_dir_all(b.path("web")).unwrap();
    fs::write(
        b.path("web").join(format!("{name}.0")),
        fs::read(&ca).unwrap(),
    )
    .unwrap();
    // A keyring with another name in it: of two of one name openssl asks only the first.
    let ring = b.keys.certificate_path(lama_keys::Role::Db);
    let verified = |options: &[&str]| {
        let cmd = b.tools.command("openssl").args(options).arg("-CAfile");
        let cmd = cmd.arg(&ring).arg("-in").arg(&damaged);
        let cmd = cmd.env("SSL_CERT_DIR", b.path("web")).bind_ro(b.dir.path());
        cmd.run_any().unwrap().0.success()
    };
    let careless: Vec<&str> = VERIFY
        .into_iter()
        .filter(|o| !o.starts_with("-no-CA"))
        .collect();
    assert!(verified(&careless), "this is no test");
    assert!(!verified(&VERIFY));
}

#[test]
fn what_a_channel_file_names_stays() {
    let Some(b) = Bench::new() else { return };
    let site = b.site();
    let versions = ["0.8.0", "0.9.0", "1.0.0-rc.1", "1.0.0"];
    let bundles = versions.map(|v| b.bundle(&site, v, v.len() * 100));
    b.issue(&site, "0.8.0", bundles[0].clone(), 1_900_000_000);
    // Another image of the same machine, whose name begins alike, and a stranger.
    let others = b.path("site/stable/c-base-dev-1.0.0-00000000.raucb");
    fs::write(&others, "").unwrap();
    let there = |n: usize| site.path(&bundles[n].url).exists();
    // The oldest one is named, and stays.
    let removed = site.prune(2).unwrap();
    assert_eq!(removed, [site.path(&bundles[1].url)]);
    assert!(there(0) && there(2) && there(3) && others.exists());
    b.issue(&site, "1.0.0", bundles[3].clone(), 1_900_000_000);
    assert_eq!(site.prune(1).unwrap().len(), 2);
    assert!(!there(0) && !there(2) && there(3) && others.exists());
    // What cannot be read may name anything.
    fs::write(b.path("site/stable/c-base-dev.channel"), "?").unwrap();
    b.bundle(&site, "0.7.0", 9);
    assert!(site.prune(1).is_err());
    assert_eq!(fs::read_dir(b.path("site/stable")).unwrap().len(), 5);
}

/// A delta bundle with this header, of which only the header and the chunks' digests are right.
fn delta(from: &str, bundle: &File, len: usize, change: impl Fn(&mut Header)) -> Vec<u8> {
    let stream = vec![3; len];
    let mut header = Header {
        compatible: "c".into(),
        from: from.into(),
        to: "1.0.0".into(),
        base: Vec::new(),
        bundle_size: bundle.size,
        bundle_sha256: bundle.sha256.clone(),
        cms: 4,
        nonce: "00".repeat(16),
        chunk: 4096,
        size: len as u64,
        chunks: stream
            .chunks(4096)
            .map(|c| hex(&Sha256::digest(c)))
            .collect(),
    };
    change(&mut header);
    [header.to_bytes().unwrap(), b"cms!".to_vec(), stream].concat()
}

#[test]
fn a_delta_bundle_leads_to_the_bundle_or_is_refused() {
    let Some(b) = Bench::new() else { return };
    let site = b.site();
    let bundle = b.bundle(&site, "1.0.0", 100_000);
    let target = Target {
        version: "1.0.0",
        bundle: &bundle,
    };
    let file = b.path("some.delta");
    let put = |data: &[u8]| {
        fs::write(&file, data).unwrap();
        let put = site.put_delta(&file, "c", &target);
        put.map_err(|e| format!("{e}; {}", miette::Diagnostic::help(&e).unwrap()))
    };
    let good = delta("0.9.0", &bundle, 8192, |_| {});
    let d = put(&good).unwrap().unwrap();
    assert_eq!(d.from, "0.9.0");
    assert_eq!(
        state(&b.path("site/stable"), &d.file).unwrap(),
        State::Whole
    );
    assert!(d.file.url.starts_with("c-base-0.9.0-to-1.0.0-"), "{d:?}");
    // As large as the bundle: left out.
    let large = delta("0.8.0", &bundle, 100 * 1024, |_| {});
    assert_eq!(put(&large).unwrap(), None);

    let other = File {
        sha256: "ab".repeat(32),
        ..bundle.clone()
    };
    let changed = |change: fn(&mut Header)| delta("0.9.0", &bundle, 8192, change);
    let more = [good.clone(), vec![0]].concat();
    for (data, says) in [
        (
            delta("0.9.0", &other, 8192, |_| {}),
            "leads to another bundle",
        ),
        (changed(|h| h.bundle_size += 1), "leads to another bundle"),
        (
            changed(|h| h.compatible = "d".into()),
            "leads to another bundle",
        ),
        (
            changed(|h| h.to = "1.0.1".into()),
            "leads to another bundle",
        ),
        (changed(|h| h.from = "1.0.0".into()), "from 1.0.0 to 1.0.0"),
        (changed(|h| h.from = "../x".into()), "is no version"),
        (changed(|h| h.chunks[1] = "00".repeat(32)), "damaged"),
        (good[..good.len() - 1].to_vec(), "not copied whole"),
        (good[..20].to_vec(), "cannot read"),
        (more, "not copied whole"),
        (b"<html>".to_vec(), "cannot read"),
    ] {
        let e = put(&data).unwrap_err();
        assert!(e.contains(says), "{says}: {e}");
    }
    let names = fs::read_dir(b.path("site/stable")).unwrap().len();
    assert_eq!(names, 2, "what is refused is not published");
}
