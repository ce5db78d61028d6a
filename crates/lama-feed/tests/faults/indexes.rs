// SPDX-License-Identifier: Apache-2.0
//! Releases and indexes that lie, lag and are damaged.

use super::*;

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
