// SPDX-License-Identifier: Apache-2.0
//! Servers of all kinds, by a script; those that talk HTTP are in crates/lama-bundle/tests.

use super::*;
use crate::delta::{BLOCK, hex};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::path::PathBuf;

/// What a server does at one request.
#[derive(Clone, Copy)]
enum Does {
    /// Sends so many bytes and ends, without a word or with [`Then`].
    Send(usize, Option<Then>),
    /// Sends all that is left, and so many bytes more.
    All(usize),
    /// Sends all that is left, with the byte at this place changed.
    Spoilt(usize),
}

struct Script {
    file: Vec<u8>,
    does: RefCell<Vec<Does>>,
    asked: RefCell<Vec<u64>>,
}

impl Get for Script {
    fn get(
        &self,
        _: &str,
        from: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> std::result::Result<(), Cut> {
        self.asked.borrow_mut().push(from);
        let does = self.does.borrow_mut().remove(0);
        let mut file = self.file.clone();
        let from = usize::try_from(from).unwrap();
        let (end, then) = match does {
            Does::Send(n, then) => ((from + n).min(file.len()), then),
            Does::All(more) => {
                file.resize(file.len() + more, 0);
                (file.len(), None)
            }
            Does::Spoilt(at) => {
                file[at] ^= 1;
                (file.len(), None)
            }
        };
        for piece in file[from..end].chunks(1000) {
            sink(piece).map_err(|why| Cut {
                why,
                then: Then::Stop,
            })?;
        }
        match then {
            None => Ok(()),
            Some(then) => Err(Cut {
                why: Error::new("cut off"),
                then,
            }),
        }
    }
}

/// A folder, and what is to be loaded into it.
struct Bench {
    dir: tempfile::TempDir,
    server: Script,
    sha256: String,
    kind: Kind,
    received: u64,
}

impl Bench {
    fn new(file: Vec<u8>, kind: Kind) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            sha256: hex(&Sha256::digest(&file)),
            server: Script {
                file,
                does: RefCell::default(),
                asked: RefCell::default(),
            },
            kind,
            received: 0,
        }
    }

    fn part(&self) -> PathBuf {
        self.dir.path().join("x.part")
    }

    fn put(&self, len: usize) {
        fs::write(self.part(), &self.server.file[..len], 0o600).unwrap();
    }

    /// Loads, and returns from where was asked.
    fn load(&mut self, does: &[Does]) -> (Result<()>, Vec<u64>) {
        *self.server.does.borrow_mut() = does.to_vec();
        let want = Want {
            url: "http://server/file",
            size: self.server.file.len() as u64,
            sha256: &self.sha256,
            kind: self.kind,
        };
        let patience = Patience {
            tries: 3,
            pause: Duration::ZERO,
        };
        let mut progress = Progress::new("test", want.size);
        let result = fetch(
            &want,
            &self.part(),
            &self.server,
            patience,
            &mut progress,
            &mut self.received,
        );
        if result.is_ok() {
            assert_eq!(fs::read(self.part()).unwrap(), self.server.file);
        }
        let left = self.server.does.borrow().len();
        assert_eq!(left, 0, "not all of the script was asked for");
        (result, self.server.asked.take())
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut x = 1u32;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn bundle() -> Bench {
    Bench::new(noise(STEP as usize + 300_000), Kind::Bundle)
}

/// A delta bundle of 10 chunks of a block; only its header and its digests matter here.
fn delta() -> Bench {
    let chunks = noise(10 * BLOCK);
    let header = Header {
        compatible: "c".into(),
        from: "1".into(),
        to: "2".into(),
        base: Vec::new(),
        bundle_size: 1 << 20,
        bundle_sha256: "0".repeat(64),
        cms: 100,
        nonce: "0".repeat(32),
        chunk: BLOCK as u32,
        size: chunks.len() as u64,
        chunks: chunks
            .chunks(BLOCK)
            .map(|c| hex(&Sha256::digest(c)))
            .collect(),
    };
    let file = [header.to_bytes().unwrap(), vec![7; 100], chunks].concat();
    Bench::new(file, Kind::Delta)
}

const AGAIN: Option<Then> = Some(Then::Again);
const MUCH: usize = STRIDE as usize;

#[test]
fn what_is_cut_off_goes_on() {
    let mut b = bundle();
    let (r, asked) = b.load(&[
        Does::Send(100_000, AGAIN),
        Does::Send(7, None),
        Does::All(0),
    ]);
    r.unwrap();
    assert_eq!(asked, [0, 100_000, 100_007]);
    assert_eq!(b.received, b.server.file.len() as u64);
    // As long as it gets on there are as many tries as it takes.
    let mut b = bundle();
    let mut does = vec![Does::Send(MUCH, AGAIN); 20];
    does.push(Does::All(0));
    b.load(&does).0.unwrap();
}

#[test]
fn patience_ends_and_the_next_run_goes_on() {
    let mut b = bundle();
    let (r, asked) = b.load(&[
        Does::Send(STEP as usize + 5, AGAIN),
        Does::Send(1, AGAIN),
        Does::Send(0, AGAIN),
    ]);
    let e = r.unwrap_err().to_string();
    assert!(e.starts_with("cut off; 4 MiB of 4.2 MiB are there"), "{e}");
    assert_eq!(asked.len(), 3);
    // Of a bundle, what had not been synced for sure is loaded once more; not before it comes.
    let (r, asked) = b.load(&[Does::Send(0, Some(Then::Stop))]);
    assert!(r.is_err());
    assert_eq!(asked, [6]);
    let (r, asked) = b.load(&[Does::All(0)]);
    r.unwrap();
    assert_eq!(asked, [6]);
    // What is whole is only looked at.
    assert_eq!(b.load(&[]).1, [0u64; 0]);
}

#[test]
fn who_refuses_is_not_asked_twice_and_nothing_is_left() {
    let mut b = bundle();
    let (r, asked) = b.load(&[Does::Send(0, Some(Then::Stop))]);
    assert_eq!(r.unwrap_err().to_string(), "cut off");
    assert_eq!((asked.len(), b.part().exists()), (1, false));
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let mut b = bundle();
    let (r, asked) = b.load(&[
        Does::Send(9000, AGAIN),
        Does::Send(0, Some(Then::Anew)),
        Does::All(0),
    ]);
    r.unwrap();
    assert_eq!(asked, [0, 9000, 0]);
    // One that always ends at the same place does not get on.
    let mut b = bundle();
    let two = [Does::Send(MUCH, AGAIN), Does::Send(0, Some(Then::Anew))];
    let does = [two[0], two[1], two[0]];
    assert!(b.load(&does).0.is_err());
}

#[test]
fn lies_are_found_at_the_end() {
    // Loaded in one go it is the server's word against the channel's.
    let mut b = bundle();
    let (r, asked) = b.load(&[Does::Spoilt(5)]);
    let e = r.unwrap_err();
    assert!(
        e.to_string()
            .contains("not the file that the channel speaks of")
            && e.help().is_some()
    );
    assert_eq!((asked.len(), b.part().exists()), (1, false));
    // In pieces, one of them may be of another time: once more, and no more.
    let mut b = bundle();
    b.load(&[Does::Send(9000, AGAIN), Does::Spoilt(9001), Does::All(0)])
        .0
        .unwrap();
    let mut b = bundle();
    let does = [Does::Send(9000, AGAIN), Does::Spoilt(9001), Does::Spoilt(5)];
    assert!(b.load(&does).0.is_err() && !b.part().exists());
    // More than there should be is not written.
    let mut b = bundle();
    let (r, _) = b.load(&[Does::All(1)]);
    assert!(
        r.unwrap_err()
            .to_string()
            .contains("larger than the channel says (4.2 MiB)")
    );
    assert!(!b.part().exists());
}

#[test]
fn of_a_delta_bundle_the_chunks_that_are_right_count() {
    let whole = delta().server.file.len();
    let chunk = |n: usize| (whole - (10 - n) * BLOCK) as u64;
    for (len, from) in [
        (50, 0),
        (whole - 10 * BLOCK, chunk(0)),
        (whole - 7 * BLOCK - 1, chunk(2)),
        (whole - 7 * BLOCK, chunk(3)),
    ] {
        let mut b = delta();
        b.put(len);
        let (r, asked) = b.load(&[Does::All(0)]);
        r.unwrap();
        assert_eq!(asked, [from], "{len}");
    }
    // What was spoilt on this disk, and on the way, is loaded again from there.
    let mut b = delta();
    let mut file = b.server.file.clone();
    file[whole - 4 * BLOCK + 9] ^= 1;
    fs::write(b.part(), file, 0o600).unwrap();
    let (r, asked) = b.load(&[Does::Spoilt(whole - 2 * BLOCK), Does::All(0)]);
    r.unwrap();
    assert_eq!(asked, [chunk(6), chunk(8)]);
    // A damaged header, or one whose digests are right but which is another one.
    let mut b = delta();
    let (r, _) = b.load(&[Does::Spoilt(20)]);
    assert!(r.is_err() && !b.part().exists());
    let mut b = delta();
    b.sha256 = "0".repeat(64);
    let (r, _) = b.load(&[Does::Send(9000, AGAIN), Does::All(0), Does::All(0)]);
    assert!(r.is_err() && !b.part().exists());
}

#[test]
fn a_disk_that_takes_nothing_is_named() {
    let mut b = bundle();
    std::fs::create_dir(b.part()).unwrap();
    let e = b.load(&[]).0.unwrap_err();
    assert!(e.to_string().starts_with("cannot open"), "{e}");
    // /dev/full takes every open and no byte.
    let mut b = bundle();
    std::os::unix::fs::symlink("/dev/full", b.part()).unwrap();
    let e = b.load(&[Does::All(0)]).0.unwrap_err();
    assert!(e.to_string().contains("cannot write"), "{e}");
    assert!(!b.part().is_symlink());
}
