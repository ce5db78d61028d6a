// SPDX-License-Identifier: Apache-2.0
//! Downloads by curl, from servers that cut off, stall and lie. That a bundle comes of them is shown
//! in crates/lama-bundle/tests/node.rs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use lama_node::delta::hex;
use lama_node::update::curl::Curl;
use lama_node::update::fetch::{Kind, Patience, Want, fetch};
use lama_node::update::progress::Progress;
use lama_testkit::http::{Does, Server};
use sha2::{Digest, Sha256};
use std::process::Command;
use std::time::{Duration, Instant};

const NAME: &str = "1.1.0.raucb";
const LEN: usize = 700_000;

struct Bench {
    dir: tempfile::TempDir,
    server: Server,
    file: Vec<u8>,
    received: u64,
}

impl Bench {
    fn new() -> Option<Self> {
        if Command::new("curl").arg("--version").output().is_err() {
            eprintln!("SKIP: no curl here");
            return None;
        }
        let file: Vec<u8> = (0..LEN).map(|n| (n / 3) as u8).collect();
        let server = Server::start().unwrap();
        server.put(NAME, file.clone());
        Some(Self {
            dir: tempfile::tempdir().unwrap(),
            server,
            file,
            received: 0,
        })
    }

    /// Loads; returns the error, if there is one, and from where was asked.
    fn load_from(&mut self, url: &str, does: &[Does]) -> (Option<String>, Vec<u64>) {
        self.server.then(NAME, does);
        let want = Want {
            url,
            size: LEN as u64,
            sha256: &hex(&Sha256::digest(&self.file)),
            kind: Kind::Bundle,
        };
        let curl = Curl {
            stall: Duration::from_secs(1),
        };
        let patience = Patience {
            tries: 3,
            pause: Duration::from_millis(1),
        };
        let part = self.dir.path().join("part");
        let mut progress = Progress::new("test", want.size);
        let received = &mut self.received;
        let result = fetch(&want, &part, &curl, patience, &mut progress, received);
        if result.is_ok() {
            assert_eq!(std::fs::read(&part).unwrap(), self.file);
            std::fs::remove_file(part).unwrap();
        }
        let asked = self.server.asked().into_iter().map(|a| a.1).collect();
        (result.err().map(|e| e.to_string()), asked)
    }

    fn load(&mut self, does: &[Does]) -> (Option<String>, Vec<u64>) {
        let url = self.server.url(NAME);
        self.load_from(&url, does)
    }
}

#[test]
fn a_download_goes_on_whatever_the_server_does() {
    let Some(mut b) = Bench::new() else { return };
    for (does, asked) in [
        (&[Does::Well][..], &[0][..]),
        (
            &[Does::Cut(100_000), Does::Cut(100_000)],
            &[0, 100_000, 200_000],
        ),
        // Without a length, an end looks like the end.
        (&[Does::End(100_000)], &[0, 100_000]),
        (&[Does::Status(503), Does::Status(429)], &[0, 0, 0]),
        (&[Does::Cut(100_000), Does::NoRanges], &[0, 100_000, 0]),
        (&[Does::Cut(100_000), Does::WrongRange], &[0, 100_000, 0]),
        (
            &[Does::Cut(100_000), Does::Spoilt(200_000)],
            &[0, 100_000, 0],
        ),
    ] {
        assert_eq!(b.load(does), (None, asked.to_vec()), "{does:?}");
    }
    b.received = 0;
    b.load(&[Does::Cut(1)]);
    assert_eq!(b.received, LEN as u64);
    let start = Instant::now();
    assert_eq!(b.load(&[Does::Stall(100_000)]), (None, vec![0, 100_000]));
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let Some(mut b) = Bench::new() else { return };
    let part = b.dir.path().join("part");
    for (does, says) in [
        (&[Does::Status(404)][..], "the server has not got it"),
        (&[Does::Status(403)], "the server answers with status 403"),
        (
            &[Does::Status(500); 3],
            "the server answers with status 500",
        ),
        (
            &[Does::Spoilt(9)],
            "not the file that the channel speaks of",
        ),
        (&[Does::Longer(9)], "larger than the channel says"),
        (&[Does::Cut(0); 3], "transfer closed"),
    ] {
        let (e, _) = b.load(does);
        assert!(e.as_ref().unwrap().contains(says), "{does:?}: {e:?}");
        assert!(!part.exists(), "{does:?}");
    }
    // Somebody who stalls every time; the next run goes on.
    let (e, _) = b.load(&[Does::Stall(300_000), Does::Stall(0), Does::Stall(0)]);
    let e = e.unwrap();
    assert!(
        e.contains("too slow") && e.contains("292.9 KiB of 683.5 KiB are there"),
        "{e}"
    );
    assert!(part.exists());
    assert_eq!(b.load(&[]).0, None);

    // A file that has become shorter, and one that has become another.
    let (e, asked) = b.load(&[Does::Cut(100_000), Does::Status(416)]);
    assert!(e.unwrap().contains("shorter than the channel says"));
    assert_eq!(asked, [0, 100_000]);
    b.server.put(NAME, vec![1; 100]);
    let (e, _) = b.load(&[]);
    assert!(
        e.unwrap()
            .contains("shorter than the channel says; 100 B of")
    );
    b.server.put(NAME, vec![1; LEN]);
    let (e, _) = b.load(&[]);
    assert!(
        e.unwrap()
            .contains("not the file that the channel speaks of")
    );
    // Nobody there, and what curl would take for a pattern or a file of this machine.
    for (url, says) in [
        ("http://127.0.0.1:1/x", "cannot load http://127.0.0.1:1/x: "),
        ("file:///etc/passwd", "cannot load"),
        ("http://127.0.0.1:1/{a,b}", "/{a,b}: "),
    ] {
        let (e, _) = b.load_from(url, &[]);
        assert!(e.as_ref().unwrap().contains(says), "{e:?}");
    }
}
