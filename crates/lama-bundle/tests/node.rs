// SPDX-License-Identifier: Apache-2.0
//! A machine gets its bundle: out of a delta bundle, or in another way when that cannot be. Bundles
//! and keys are real, the server is one with faults, and openssl, zstd and curl are this machine's.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::Bench;
use lama_bundle::{Bundle, delta};
use lama_exec::{Quiet, fs};
use lama_node::delta::hex;
use lama_node::update::curl::Curl;
use lama_node::update::fetch::{Kind, Patience, Want};
use lama_node::update::node::Node;
use lama_node::update::obtain::{Got, How, Offer, RESERVE, With, from_file, obtain};
use lama_node::update::store::Store;
use lama_testkit::http::{Does, Server};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DELTA: &str = "from-1.0.0.delta";
const BUNDLE: &str = "lamadist-1.1.0.raucb";

/// A machine with the images of a version.
struct Machine {
    images: PathBuf,
    key: PathBuf,
    certificate: PathBuf,
    keyring: PathBuf,
    /// Bytes that are free on its /var.
    free: u64,
}

impl Node for Machine {
    fn compatible(&self) -> &'static str {
        "lamadist-test"
    }

    fn version(&self) -> &'static str {
        "1.0.0"
    }

    fn images(&self, classes: &[&str]) -> lama_node::Result<Vec<File>> {
        let name = |c: &str| if c == "rootfs" { "root" } else { "uki" };
        let open = |c: &&str| Ok(fs::open(self.images.join(name(c))).unwrap());
        classes.iter().map(open).collect()
    }

    fn key(&self) -> lama_node::Result<Vec<u8>> {
        Ok(fs::read(&self.key).unwrap())
    }

    fn certificate(&self) -> &Path {
        &self.certificate
    }

    fn keyring(&self) -> &Path {
        &self.keyring
    }
}

/// A machine, and a server with a bundle and a delta bundle to it.
struct Update {
    bench: Bench,
    machine: Machine,
    server: Server,
    bundle: Vec<u8>,
    delta: Vec<u8>,
}

impl Update {
    fn new() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        for p in ["curl", "openssl", "zstd"] {
            if !std::env::split_paths(&path).any(|d| d.join(p).is_file()) {
                eprintln!("SKIP: no {p} here");
                return None;
            }
        }
        let bench = Bench::new()?;
        let [key, certificate] = bench.node();
        let path = bench.bundle("1.1.0", std::slice::from_ref(&certificate));
        let opened = Bundle::open(&path, bench.with()).unwrap();
        let old = |image: &str| bench.path("1.0.0").join(image);
        let images = [("rootfs", old("root")), ("uki", old("uki"))];
        let file = bench.path("delta");
        delta::make(&opened, bench.with(), "1.0.0", &images, &file, &Quiet).unwrap();
        let (bundle, delta) = (fs::read(&path).unwrap(), fs::read(&file).unwrap());
        let server = Server::start().unwrap();
        server.put(DELTA, delta.clone());
        server.put(BUNDLE, bundle.clone());
        let machine = Machine {
            images: bench.path("1.0.0"),
            key,
            certificate,
            keyring: bench.keyring(),
            free: 1 << 40,
        };
        Some(Self {
            bench,
            machine,
            server,
            bundle,
            delta,
        })
    }

    fn store(&self) -> Store {
        Store::open(self.bench.dir.path()).unwrap()
    }

    /// What lies in the store, without its lock and note.
    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.bench.path("load")).unwrap();
        let mut names: Vec<_> = names
            .into_iter()
            .map(|e| e.file_name().into_string().unwrap())
            .filter(|n| n != "lock" && n != "note.json")
            .map(|n| n.split_once('.').unwrap().1.to_owned())
            .collect();
        names.sort();
        names
    }

    fn with<T>(&self, what: impl FnOnce(&With<'_>) -> T) -> T {
        what(&With {
            store: &self.store(),
            node: &self.machine,
            get: &Curl {
                stall: Duration::from_secs(1),
            },
            patience: Patience {
                tries: 3,
                pause: Duration::from_millis(1),
            },
            free: &|| Ok(self.machine.free),
        })
    }

    /// Gets it, with or without a delta bundle on offer.
    fn get(&self, how: How, with_delta: bool) -> Result<Got, String> {
        let (bundle, delta) = (self.server.url(BUNDLE), self.server.url(DELTA));
        let sha = |data: &[u8]| hex(&Sha256::digest(data));
        let (bundle_sha, delta_sha) = (sha(&self.bundle), sha(&self.delta));
        let offer = Offer {
            version: "1.1.0",
            bundle: Want {
                url: &bundle,
                size: self.bundle.len() as u64,
                sha256: &bundle_sha,
                kind: Kind::Bundle,
            },
            delta: with_delta.then_some(Want {
                url: &delta,
                size: self.delta.len() as u64,
                sha256: &delta_sha,
                kind: Kind::Delta,
            }),
        };
        let got = self.with(|w| obtain(w, &offer, how));
        got.map_err(|e| e.to_string())
    }

    fn asked(&self) -> Vec<String> {
        self.server.asked().into_iter().map(|a| a.0).collect()
    }

    /// That it is the bundle, bit for bit.
    fn is_it(&self, got: &Got) {
        assert!(fs::read(Path::new(&got.bundle)).unwrap() == self.bundle);
    }

    fn is_streamed(&self, got: &Got) {
        assert_eq!((got.loaded, got.made), (None, false));
        assert_eq!(got.bundle, self.server.url(BUNDLE));
    }
}

#[test]
fn the_bundle_is_made_out_of_a_delta_bundle() {
    let Some(u) = Update::new() else { return };
    let got = u.get(How::Best, true).unwrap();
    u.is_it(&got);
    u.bench.verify(Path::new(&got.bundle)).unwrap();
    assert_eq!((got.loaded, got.made), (Some(u.delta.len() as u64), true));
    assert!(u.delta.len() * 10 < u.bundle.len());
    // The delta bundle stays until it is installed: RAUC may fail, and another try needs no server.
    assert_eq!(u.left(), ["delta", "raucb"]);
    fs::remove_file(Path::new(&got.bundle)).unwrap();
    assert_eq!(u.asked(), [DELTA]);
    u.is_it(&u.get(How::Best, true).unwrap());
    assert_eq!(u.asked(), [""; 0]);
    u.store().clear().unwrap();
    assert_eq!(u.left(), [""; 0]);

    // Cut off, stalled and damaged on the way; what a power cut left.
    let half = u.delta.len() / 2;
    u.server
        .then(DELTA, &[Does::Cut(half), Does::Stall(0), Does::Cut(0)]);
    let got = u.get(How::Best, true).unwrap();
    u.is_streamed(&got);
    assert_eq!(u.left(), ["delta.part"]);
    let digest = hex(&Sha256::digest(&u.bundle));
    let new = u.bench.path("load").join(format!("{digest}.raucb.new"));
    fs::write(&new, "half").unwrap();
    u.server.then(DELTA, &[Does::Cut(9), Does::Spoilt(half)]);
    u.is_it(&u.get(How::Best, true).unwrap());
    assert_eq!(u.left(), ["delta", "raucb"]);
    u.store().clear().unwrap();

    // From a file.
    let (got, version) = u.with(|w| from_file(w, &u.bench.path("delta"))).unwrap();
    u.is_it(&got);
    assert_eq!((version.as_str(), got.made), ("1.1.0", true));
    fs::remove_file(Path::new(&got.bundle)).unwrap();
    let e = u.with(|w| from_file(w, &new)).unwrap_err();
    assert!(e.to_string().contains("cannot open"), "{e}");
}

#[test]
fn what_stands_in_the_way_of_a_delta_bundle_is_passed_by() {
    let Some(mut u) = Update::new() else { return };
    let streamed = |u: &Update, why: &str| {
        let got = u.get(How::Best, true).unwrap();
        u.is_streamed(&got);
        let no_delta = got.no_delta.unwrap();
        assert!(no_delta.contains(why), "{why}: {no_delta}");
        assert!(!no_delta.contains('\n'), "{no_delta}");
        let left = u.left();
        u.store().clear().unwrap();
        left
    };
    let nothing: [&str; 0] = [];
    // The server has not got it, sends something else, ends.
    for (does, why) in [
        (&[Does::Status(404)][..], "the server has not got it"),
        (
            &[Does::Spoilt(100)],
            "not the file that the channel speaks of",
        ),
        (&[Does::Longer(1)], "larger than the channel says"),
        (&[Does::Status(500); 3], "status 500"),
    ] {
        u.server.then(DELTA, does);
        assert_eq!(streamed(&u, why), nothing, "{does:?}");
    }
    // A delta bundle that is what the channel says, and leads elsewhere.
    let right = u.delta.clone();
    let text = String::from_utf8_lossy(&right).into_owned();
    assert!(text.contains("\"to\":\"1.1.0\""));
    for (from, to, why) in [
        (
            "\"to\":\"1.1.0\"",
            "\"to\":\"1.2.0\"",
            "another bundle (1.2.0)",
        ),
        ("lamadist-test", "lamadist-best", "is for lamadist-best"),
        (
            "\"from\":\"1.0.0\"",
            "\"from\":\"0.9.0\"",
            "begins with 0.9.0",
        ),
    ] {
        let at = right
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .unwrap();
        u.delta[at..at + to.len()].copy_from_slice(to.as_bytes());
        u.server.put(DELTA, u.delta.clone());
        assert_eq!(streamed(&u, why), ["delta"], "{to}");
        u.delta.clone_from(&right);
    }
    u.server.put(DELTA, right);
    // Another system runs here.
    let images = std::mem::replace(&mut u.machine.images, u.bench.path("1.1.0"));
    assert_eq!(streamed(&u, "is not that of 1.0.0"), ["delta"]);
    u.machine.images = images;
    // Others than this machine can read the bundle; others than whom it trusts signed it.
    let pair = [u.machine.key.clone(), u.machine.certificate.clone()];
    let saved = pair.clone().map(|p| fs::read(&p).unwrap());
    u.bench.node();
    assert_eq!(streamed(&u, "not encrypted to this machine"), ["delta"]);
    for (path, data) in pair.iter().zip(saved) {
        fs::write(path, data).unwrap();
    }
    let keyring = std::mem::replace(&mut u.machine.keyring, u.machine.certificate.clone());
    assert_eq!(streamed(&u, "signed by nobody whom"), ["delta"]);
    u.machine.keyring = keyring;
    // No room: not asked for at all.
    u.asked();
    u.machine.free = RESERVE + u.bundle.len() as u64 + u.delta.len() as u64 - 1;
    assert_eq!(streamed(&u, "/var has"), nothing);
    assert_eq!(u.asked(), nothing);
    u.machine.free += 1;
    u.is_it(&u.get(How::Best, true).unwrap());
}

#[test]
fn what_was_loaded_ahead_needs_no_server() {
    let Some(mut u) = Update::new() else { return };
    let whole = u.bundle.len() as u64;
    // Without a delta bundle on offer, and with one that is not there.
    u.server.then(BUNDLE, &[Does::Cut(500_000), Does::NoRanges]);
    let got = u.get(How::Ahead, false).unwrap();
    u.is_it(&got);
    assert_eq!((got.loaded, got.made), (Some(whole + 500_000), false));
    let ahead = Store::ahead(u.bench.dir.path()).unwrap().unwrap();
    assert!(ahead.ready && ahead.version == "1.1.0" && ahead.size == whole);
    u.asked();
    assert_eq!(u.get(How::Best, true).unwrap(), got);
    assert!(u.asked().is_empty());
    // It is loaded again when it is not what it was.
    let mut bad = u.bundle.clone();
    bad[700_000] ^= 1;
    fs::write(Path::new(&got.bundle), bad).unwrap();
    u.server.then(DELTA, &[Does::Status(404)]);
    u.is_it(&u.get(How::Ahead, true).unwrap());
    assert_eq!(u.asked(), [DELTA, BUNDLE]);
    u.store().clear().unwrap();
    // Out of a delta bundle, which goes then.
    let got = u.get(How::Ahead, true).unwrap();
    u.is_it(&got);
    assert_eq!(got.loaded, Some(u.delta.len() as u64));
    assert_eq!(u.left(), ["raucb"]);
    // By force.
    u.is_streamed(&u.get(How::Stream, true).unwrap());
    u.asked();
    u.store().clear().unwrap();
    let got = u.get(How::Download, true).unwrap();
    u.is_it(&got);
    assert_eq!(
        (got.loaded, u.asked()),
        (Some(whole), vec![BUNDLE.to_owned()])
    );
    u.store().clear().unwrap();

    // No room, nobody there.
    u.machine.free = RESERVE + whole - 1;
    let e = u.get(How::Download, false).unwrap_err();
    assert!(e.contains("/var has"), "{e}");
    u.machine.free += 1;
    u.server.then(BUNDLE, &[Does::Status(404)]);
    let e = u.get(How::Ahead, false).unwrap_err();
    assert!(e.contains("the server has not got it"), "{e}");
    assert_eq!(u.left(), [""; 0]);
}

#[test]
fn a_download_that_was_begun_goes_on() {
    let Some(u) = Update::new() else { return };
    let whole = u.bundle.len();
    let cut = [Does::Cut(whole / 2), Does::Cut(0), Does::Cut(0)];
    u.server.then(BUNDLE, &cut);
    u.get(How::Download, false).unwrap_err();
    assert_eq!(u.left(), ["raucb.part"]);
    u.asked();
    let got = u.get(How::Best, false).unwrap();
    u.is_it(&got);
    assert_eq!((got.streams(), u.asked()), (false, vec![BUNDLE.to_owned()]));
    u.store().clear().unwrap();
    // The server is still gone: RAUC may try.
    u.server.then(BUNDLE, &cut);
    u.get(How::Download, false).unwrap_err();
    u.server.then(BUNDLE, &[Does::Cut(0); 3]);
    let got = u.get(How::Best, false).unwrap();
    u.is_streamed(&got);
    assert!(got.streams() && got.no_delta.is_none());
    u.store().clear().unwrap();
    // A delta bundle comes first all the same.
    u.server.then(BUNDLE, &cut);
    u.get(How::Download, false).unwrap_err();
    u.asked();
    assert!(u.get(How::Best, true).unwrap().made);
    assert_eq!(u.asked(), [DELTA]);
}
