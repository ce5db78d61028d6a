// SPDX-License-Identifier: Apache-2.0
//! Servers that lie, break off and lag; disks that fill up; processes that are killed.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

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

#[test]
fn releases_that_cannot_be_trusted() {
    let good = Archive::new(1);
    let listed = [("main/binary-amd64/Packages.xz".to_owned(), vec![1])].into();
    let text = release_text(&listed);
    for (release, says) in [
        (text.clone(), "no cleartext-signed"),
        (common::Key::new("X <x@example>").sign(&text), "unknown"),
        (
            key().sign(&text).replace("Origin: Test", "Origin: Toast"),
            "is bad",
        ),
        (
            key().sign(&text.replace("Tue, 01 Dec 2026", "Mon, 23 Nov 2026")),
            "it expired on 2026-11-23",
        ),
        (
            key().sign(&text.replace("Codename: s", "Codename: t")),
            "not for `s`",
        ),
    ] {
        let c = Case::new();
        let mut a = good.clone();
        a.set_release(&release);
        let s = Server::honest(a);
        let e = feed_at(c.path(), &[s.base()])
            .records(&amd64())
            .unwrap_err();
        let shown = e.to_string();
        assert!(shown.contains(says) && shown.contains(&s.base()), "{shown}");
        assert!(miette::Diagnostic::help(&e).is_some());
        assert!(
            files(&c.path().join("store")).is_empty(),
            "something was kept"
        );
        // A second mirror mends it.
        let second = Server::honest(good.clone());
        feed_at(c.path(), &[s.base(), second.base()])
            .records(&amd64())
            .unwrap();
    }
}

#[test]
fn indexes_that_lie() {
    let honest = Archive::new(3);
    let xz: Vec<String> = honest
        .files
        .keys()
        .filter(|p| p.starts_with("dists/s/main"))
        .cloned()
        .collect();
    for lie in [
        (|d: &mut Vec<u8>| d[10] ^= 1) as fn(&mut Vec<u8>),
        |d| d.truncate(d.len() - 1),
        |d| d.push(0),
        |d| d.clear(),
    ] {
        let c = Case::new();
        let mut a = honest.clone();
        for p in &xz {
            lie(a.files.get_mut(p).unwrap());
        }
        let s = Server::honest(a);
        let e = feed_at(c.path(), &[s.base()])
            .records(&amd64())
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("test/main/binary-amd64/Packages.xz could not be fetched"),
            "{e}"
        );
        store_is_sound(c.path());
        assert!(files(&c.path().join("store/objects")).is_empty());
        let good = Server::honest(honest.clone());
        assert_eq!(
            feed_at(c.path(), &[good.base()])
                .records(&amd64())
                .unwrap()
                .len(),
            3
        );
    }
    // Signed nonsense is told with its line.
    for (index, says) in [
        ("Package: a\nnonsense\n", "line 2"),
        ("\nPackage: a\nVersion: 1\n", "line 2"),
        (
            "Package: a\nVersion: 1\nArchitecture: amd64\nFilename: ../x\nSize: 1\nSHA256: 0\n",
            "Filename",
        ),
    ] {
        let c = Case::new();
        let mut a = honest.clone();
        a.set_index(index);
        let s = Server::honest(a);
        let e = feed_at(c.path(), &[s.base()])
            .records(&amd64())
            .unwrap_err()
            .to_string();
        assert!(e.contains(says) && e.contains("Packages.xz"), "{e}");
    }
}

#[test]
fn without_by_hash_the_plain_name_serves() {
    let c = Case::new();
    let mut a = c.archive.clone();
    a.files.retain(|p, _| !p.contains("by-hash"));
    let s = Server::honest(a);
    assert_eq!(
        feed_at(c.path(), &[s.base()])
            .records(&amd64())
            .unwrap()
            .len(),
        8
    );
}

#[test]
fn a_lagging_mirror_does_not_turn_time_back() {
    let c = Case::new();
    let old = Archive::new(1);
    let listed = |a: &Archive| {
        let xz = a.files["dists/s/main/binary-amd64/Packages.xz"].clone();
        release_text(&[("main/binary-amd64/Packages.xz".to_owned(), xz)].into())
    };
    let mut new = Archive::new(2);
    new.set_release(&key().sign(&listed(&new).replace("24 Nov 2026 11:00", "24 Nov 2026 11:30")));
    let s = Server::honest(new);
    assert_eq!(
        feed_at(c.path(), &[s.base()])
            .records(&amd64())
            .unwrap()
            .len(),
        2
    );
    let lagging = Server::honest(old);
    assert_eq!(
        feed_at(c.path(), &[lagging.base()])
            .records(&amd64())
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn an_absent_architecture_or_component() {
    let c = Case::new();
    let s = Server::honest(c.archive.clone());
    let e = feed_at(c.path(), &[s.base()])
        .records(&Arch::new("arm64").unwrap())
        .unwrap_err();
    assert!(e.to_string().contains("no packages for arm64"), "{e}");
    let mut config = Archive::config(c.path());
    config.components.push("contrib".into());
    let store = Store::open(c.path().join("store")).unwrap();
    let mirrors = Mirrors::named(&[format!("debian={}", s.base())]).unwrap();
    let feed = Feed::new(vec![config], mirrors, store, Arc::new(Quiet)).with_now(NOW);
    let e = feed.records(&amd64()).unwrap_err();
    assert!(e.to_string().contains("no component `contrib`"), "{e}");
}

#[test]
fn a_damaged_copy_of_an_index_is_made_anew() {
    let c = Case::new();
    let s = Server::honest(c.archive.clone());
    let feed = feed_at(c.path(), &[s.base()]);
    let records = feed.records(&amd64()).unwrap();
    let copies = files(&c.path().join("store/indexes"));
    assert_eq!(copies.len(), 1);
    let text = fs::read_to_string(&copies[0]).unwrap();
    assert!(!text.contains("Description"), "{text}");
    for damage in [&text[..text.len() / 2], "", "\u{0}\n# end\n"] {
        fs::write(&copies[0], damage).unwrap();
        assert_eq!(feed.records(&amd64()).unwrap(), records);
        assert_eq!(fs::read_to_string(&copies[0]).unwrap(), text);
    }
}

#[test]
fn several_at_once_fetch_each_file_once() {
    let c = Case::new();
    let a = c.archive.clone();
    let s = Server::new(move |r| {
        let mut reply = Server::file(&a, r);
        reply.slow = 2;
        reply
    });
    let pinned = c.pinned();
    std::thread::scope(|t| {
        for _ in 0..5 {
            t.spawn(|| feed_at(c.path(), &[s.base()]).fetch(&pinned).unwrap());
        }
    });
    assert_eq!(s.log().len(), 8, "{:?}", s.log());
    store_is_sound(c.path());
    assert!(files(&c.path().join("store/partial")).is_empty());
}

/// Not a test of its own: what `a_killed_process…` starts and kills.
#[test]
fn child_that_fetches() {
    let (Ok(dir), Ok(base)) = (
        std::env::var("FEED_TEST_DIR"),
        std::env::var("FEED_TEST_BASE"),
    ) else {
        return;
    };
    let feed = feed_at(Path::new(&dir), &[base]);
    let pinned = feed.pin(&feed.records(&amd64()).unwrap()).unwrap();
    feed.fetch(&pinned).unwrap();
}

#[test]
fn a_killed_process_leaves_nothing_half_and_is_continued() {
    let c = Case::new();
    let a = c.archive.clone();
    let s = Server::new(move |r| {
        let mut reply = Server::file(&a, r);
        reply.slow = 5;
        reply
    });
    // The child has the same key by its file.
    Archive::config(c.path());
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_fetches"])
        .env("FEED_TEST_DIR", c.path())
        .env("FEED_TEST_BASE", s.base())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let partial = c.path().join("store/partial");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let grown = || {
        partial.is_dir()
            && files(&partial)
                .iter()
                .any(|f| fs::metadata(f).is_ok_and(|m| m.len() > 20_000))
    };
    while !grown() {
        assert!(std::time::Instant::now() < deadline, "nothing was fetched");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    store_is_sound(c.path());
    let log = c.fetch(|r, d| Reply::part(d, r.from)).unwrap();
    let resumed = |l: &&String| {
        l.rsplit_once(".deb ")
            .is_some_and(|(_, n)| n.parse::<u64>().unwrap() > 10_000)
    };
    assert!(log.iter().any(|l| resumed(&l)), "{log:?}");
}

#[test]
fn a_full_disk() {
    let c = Case::new();
    let disk = c.path().join("store");
    fs::create_dir_all(&disk).unwrap();
    let mounted = rustix::mount::mount(
        "tmpfs",
        &disk,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=300k"),
    );
    if let Err(e) = mounted {
        println!("SKIP: a small tmpfs cannot be mounted here: {e}");
        return;
    }
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        }
    }
    let unmount = Unmount(disk.clone());
    let s = Server::honest(c.archive.clone());
    let pinned = c.pinned();
    let e = feed_at(c.path(), &[s.base()]).fetch(&pinned).unwrap_err();
    assert!(e.to_string().contains("No space left"), "{e}");
    let help = miette::Diagnostic::help(&e).unwrap().to_string();
    assert!(help.contains("free some space"), "{help}");
    store_is_sound(c.path());
    // With room again, it goes on where it stopped.
    rustix::mount::mount_remount(&disk, rustix::mount::MountFlags::empty(), c"size=10m").unwrap();
    feed_at(c.path(), &[s.base()]).fetch(&pinned).unwrap();
    store_is_sound(c.path());
    drop(unmount);
}
