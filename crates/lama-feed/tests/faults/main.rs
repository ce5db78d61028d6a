// SPDX-License-Identifier: Apache-2.0
//! Servers that lie, break off and lag; disks that fill up; processes that are killed.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod indexes;
mod processes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{Archive, NOW, Reply, Server, key, release_text};
use lama_exec::fs;
use lama_exec::progress::Quiet;
use lama_feed::{Arch, Feed, LockedPackage, Mirrors, Options, Record, Sha256, Store};

fn options() -> Options {
    Options {
        parallel: 4,
        attempts: 3,
        pause: Duration::from_millis(1),
        timeout: Duration::from_secs(5),
    }
}

fn feed_at(dir: &Path, bases: &[String]) -> Feed {
    let named: Vec<String> = bases.iter().map(|b| format!("debian={b}")).collect();
    let mirrors = Mirrors::named(&named).unwrap();
    let store = Store::open(dir.join("store")).unwrap();
    Feed::new(vec![Archive::config(dir)], mirrors, store, Arc::new(Quiet))
        .with_options(options())
        .with_now(NOW)
}

fn amd64() -> Arch {
    Arch::new("amd64").unwrap()
}

/// Every file below `dir`, sorted.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for e in fs::read_dir(dir).unwrap() {
        if e.file_type().unwrap().is_dir() {
            out.extend(files(&e.path()));
        } else {
            out.push(e.path());
        }
    }
    out
}

/// Nothing stands under a final name that is not what the name says.
fn store_is_sound(dir: &Path) {
    for f in files(&dir.join("store/objects")) {
        let sum = Sha256::of_reader(fs::open(&f).unwrap()).unwrap();
        assert_eq!(f.file_name().unwrap().to_str().unwrap(), sum.to_string());
    }
}

struct Case {
    dir: tempfile::TempDir,
    archive: Archive,
}

impl Case {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            archive: Archive::new(8),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn pinned(&self) -> Vec<LockedPackage> {
        let dir = tempfile::tempdir().unwrap();
        let s = Server::honest(self.archive.clone());
        let feed = feed_at(dir.path(), &[s.base()]);
        feed.pin(&feed.records(&amd64()).unwrap()).unwrap()
    }

    /// Fetches all packages from a server that treats package files as `f` does; `Ok`: the log.
    fn fetch(
        &self,
        f: impl Fn(&common::Request, &[u8]) -> Reply + Send + Sync + 'static,
    ) -> Result<Vec<String>, String> {
        let a = self.archive.clone();
        let s = Server::new(move |r| {
            match r.path.strip_prefix("/debian/").and_then(|p| a.files.get(p)) {
                Some(d) if r.path.ends_with(".deb") => f(r, d),
                _ => Server::file(&a, r),
            }
        });
        let pinned = self.pinned();
        let result = feed_at(self.path(), &[s.base()]).fetch(&pinned);
        store_is_sound(self.path());
        match result {
            Ok(paths) => {
                for (p, path) in pinned.iter().zip(paths) {
                    assert_eq!(Sha256::of(&fs::read(path).unwrap()), p.sha256);
                }
                assert!(files(&self.path().join("store/partial")).is_empty());
                Ok(s.log())
            }
            Err(e) => Err(e.to_string()),
        }
    }
}

#[test]
fn an_honest_server_is_asked_once() {
    let c = Case::new();
    let s = Server::honest(c.archive.clone());
    let feed = feed_at(c.path(), &[s.base()]);
    let records = feed.records(&amd64()).unwrap();
    assert_eq!(
        records
            .iter()
            .map(Record::package)
            .collect::<Vec<_>>()
            .len(),
        8
    );
    let pinned = feed.pin(&records).unwrap();
    feed.fetch(&pinned).unwrap();
    assert_eq!(s.log().len(), 1 + 1 + 8);
    // Again: only the release is asked for.
    assert_eq!(feed.records(&amd64()).unwrap(), records);
    feed.fetch(&pinned).unwrap();
    assert_eq!(s.log().len(), 1 + 1 + 8 + 1);
    // The store serves without any mirror.
    let none = Feed::new(
        vec![],
        Mirrors::default(),
        feed.store().clone(),
        Arc::new(Quiet),
    );
    assert_eq!(none.fetch(&pinned).unwrap().len(), 8);
    store_is_sound(c.path());
}

#[test]
fn broken_transfers_are_resumed() {
    let c = Case::new();
    let log = c
        .fetch(|r, d| {
            let mut reply = Reply::part(d, r.from);
            if r.before < 3 {
                reply.cut = Some(30_000);
            }
            reply
        })
        .unwrap();
    assert!(log.iter().any(|l| l.ends_with(".deb 60000")), "{log:?}");
}

#[test]
fn a_server_without_ranges() {
    let c = Case::new();
    c.fetch(|r, d| {
        let mut reply = Reply::part(d, 0);
        if r.before < 2 {
            reply.cut = Some(30_000);
        }
        reply
    })
    .unwrap();
}

#[test]
fn a_server_that_is_ill_for_a_while() {
    let c = Case::new();
    c.fetch(|r, d| {
        if r.before < 2 {
            Reply::status("503 Busy")
        } else {
            Reply::part(d, r.from)
        }
    })
    .unwrap();
    let c = Case::new();
    let e = c.fetch(|_, _| Reply::status("503 Busy")).unwrap_err();
    assert!(
        e.contains("8 files could not be fetched") && e.contains("503"),
        "{e}"
    );
}

#[test]
fn a_redirect_is_followed() {
    let c = Case::new();
    let s = Server::honest(c.archive.clone());
    let base = s.base();
    c.fetch(move |r, _| {
        let mut reply = Reply::status("302 Found");
        reply.headers.push(format!(
            "Location: {base}{}",
            r.path.trim_start_matches("/debian")
        ));
        reply
    })
    .unwrap();
    let c = Case::new();
    let e = c
        .fetch(|r, _| {
            let mut reply = Reply::status("302 Found");
            reply.headers.push(format!("Location: {}", r.path));
            reply
        })
        .unwrap_err();
    assert!(e.contains("redirect"), "{e}");
}

#[test]
fn lies_about_packages() {
    type Lie = fn(&common::Request, &[u8]) -> Reply;
    let lies: [(&str, Lie); 5] = [
        ("SHA-256 is", |r, d| {
            let mut d = d.to_vec();
            d[5] ^= 1;
            Reply::part(&d, r.from)
        }),
        ("where the index or lock says", |r, d| {
            Reply::part(&d[..d.len() - 1], r.from)
        }),
        ("where the index or lock says", |r, d| {
            Reply::part(&[d, b"x"].concat(), r.from)
        }),
        // Longer without an announcement: cut off, not followed to its end.
        ("longer than the", |_, d| {
            let mut reply = Reply::part(&d.repeat(50), 0);
            reply.length = None;
            reply
        }),
        ("broke off", |_, d| {
            let mut reply = Reply::part(d, 0);
            reply.cut = Some(0);
            reply
        }),
    ];
    for (says, lie) in lies {
        let c = Case::new();
        let e = c.fetch(lie).unwrap_err();
        assert!(e.contains(says), "{says}: {e}");
        assert!(e.contains("p0=1:amd64"), "{e}");
        assert!(files(&c.path().join("store/objects")).is_empty());
        // The next one works.
        c.fetch(|r, d| Reply::part(d, r.from)).unwrap();
    }
}

#[test]
fn what_has_left_one_mirror_is_looked_for_on_the_next() {
    let c = Case::new();
    let mut gone = c.archive.clone();
    gone.files.retain(|p, _| !p.ends_with(".deb"));
    let (first, second) = (
        Server::honest(gone.clone()),
        Server::honest(c.archive.clone()),
    );
    let pinned = c.pinned();
    feed_at(c.path(), &[first.base(), second.base()])
        .fetch(&pinned)
        .unwrap();
    assert_eq!(first.log().len(), 8);

    let c = Case::new();
    let third = Server::honest(gone);
    let e = feed_at(c.path(), &[first.base(), third.base()])
        .fetch(&pinned[..1])
        .unwrap_err();
    let text = e.to_string();
    assert!(text.contains("p0=1:amd64 could not be fetched"), "{text}");
    assert!(
        text.contains(&first.base()) && text.contains(&third.base()),
        "{text}"
    );
    assert!(text.contains("404"), "{text}");
    let help = miette::Diagnostic::help(&e).unwrap().to_string();
    assert!(help.contains("snapshot"), "{help}");
}

#[test]
fn a_dead_server_is_passed_over() {
    let c = Case::new();
    let dead = {
        let l = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/debian", l.local_addr().unwrap())
    };
    let alive = Server::honest(c.archive.clone());
    let feed = feed_at(c.path(), &[dead, alive.base()]);
    let pinned = feed.pin(&feed.records(&amd64()).unwrap()).unwrap();
    feed.fetch(&pinned).unwrap();
}

#[test]
fn a_file_url() {
    let c = Case::new();
    let root = c.path().join("mirror with blanks/debian");
    for (path, data) in &c.archive.files {
        let p = root.join(path);
        fs::create_dir_all(p.parent().unwrap()).unwrap();
        fs::write(p, data).unwrap();
    }
    let base = format!("file://{}", root.display()).replace(' ', "%20");
    let feed = feed_at(c.path(), &[base]);
    let pinned = feed.pin(&feed.records(&amd64()).unwrap()).unwrap();
    assert_eq!(feed.fetch(&pinned).unwrap().len(), 8);
}
