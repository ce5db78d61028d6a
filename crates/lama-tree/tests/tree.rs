// SPDX-License-Identifier: Apache-2.0
//! The tree's rules, and round trips through its formats.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use lama_tree::{
    Blob, Kind, Node, Tree, TreePath, read_dir, read_tar, write_cpio, write_dir, write_tar,
};
use proptest::prelude::*;

fn p(s: &str) -> TreePath {
    TreePath::new(s).unwrap()
}

fn merged() -> Tree {
    let mut t = Tree::new();
    t.add("usr/lib", Node::dir(0o755)).unwrap();
    t.add("lib", Node::symlink("usr/lib")).unwrap();
    t
}

#[test]
fn paths_are_normalised_and_sorted_by_component() {
    assert_eq!(p("./usr//lib/"), p("/usr/lib"));
    assert!(TreePath::new("a/../b").is_err());
    let mut v = vec![p("a-b"), p("a/b"), p("a"), p("a.b")];
    v.sort();
    assert_eq!(v, vec![p("a"), p("a/b"), p("a-b"), p("a.b")]);
    assert!(p("usr/lib").is_under(&p("usr")) && !p("usrlib").is_under(&p("usr")));
}

#[test]
fn a_merged_usr_is_followed() {
    let mut t = merged();
    t.add("lib/x", Node::file("1", 0o644)).unwrap();
    t.add("lib", Node::dir(0o755)).unwrap();
    assert_eq!(
        t.lookup("usr/lib/x").unwrap().content().unwrap().bytes(),
        b"1"
    );
    assert!(matches!(t.lookup("lib").unwrap().kind, Kind::Symlink(_)));
    assert_eq!(t.read("lib/x").unwrap(), b"1");
}

#[test]
fn what_cannot_be_is_refused() {
    let mut t = merged();
    t.add("usr/lib/x", Node::file("1", 0o644)).unwrap();
    assert!(
        t.add("usr/lib/x/y", Node::dir(0o755)).is_err(),
        "a file is no directory"
    );
    assert!(
        t.add("usr/lib", Node::file("", 0o644)).is_err(),
        "a full directory is not replaced"
    );
    t.add("a", Node::symlink("b")).unwrap();
    t.add("b", Node::symlink("a")).unwrap();
    assert!(t.add("a/x", Node::dir(0o755)).is_err(), "a loop");
}

#[test]
fn retain_keeps_parents() {
    let mut t = merged();
    t.add("usr/share/doc/a", Node::file("1", 0o644)).unwrap();
    t.retain(|p, _| p.as_str() == "usr/share/doc/a");
    let names: Vec<_> = t.iter().map(|(p, _)| p.as_str().to_owned()).collect();
    assert_eq!(
        names,
        ["", "usr", "usr/share", "usr/share/doc", "usr/share/doc/a"]
    );
}

fn roundtrip(t: &Tree) -> Tree {
    let mut tar = Vec::new();
    write_tar(t, &mut tar, 1).unwrap();
    let f = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(f.path(), &tar).unwrap();
    let mut back = Tree::new();
    read_tar(&Blob::map(f.path()).unwrap(), |p, n| {
        back.insert(&p, n).map(|_| ())
    })
    .unwrap();
    back
}

#[test]
fn tar_keeps_everything() {
    let mut t = merged();
    let mut ping = Node::file("ping", 0o755);
    ping.xattrs.insert(
        "security.capability".into(),
        vec![1, 0, 0, 2, 0, 255, b'\n'],
    );
    t.add("usr/bin/ping", ping).unwrap();
    t.add("usr/bin/su", Node::file("su", 0o4755)).unwrap();
    t.add(
        "dev/null",
        Node {
            kind: Kind::CharDev(1, 3),
            ..Node::file("", 0o666)
        },
    )
    .unwrap();
    t.add(
        "run/pipe",
        Node {
            kind: Kind::Fifo,
            ..Node::file("", 0o600)
        },
    )
    .unwrap();
    t.add(
        &format!("usr/share/{}/f", "long".repeat(60)),
        Node::file("x", 0o640).owned(70_000, 4),
    )
    .unwrap();
    let back = roundtrip(&t);
    assert_eq!(t, back);
    assert_eq!(t.digest(), back.digest());
}

#[test]
fn a_directory_gives_the_tree_back() {
    let mut t = merged();
    t.add("usr/bin/x", Node::file("x", 0o755)).unwrap();
    let d = tempfile::tempdir().unwrap();
    write_dir(&t, &d.path().join("t")).unwrap();
    assert_eq!(read_dir(&d.path().join("t")).unwrap(), t);
}

#[test]
fn cpio_reads_it_back() {
    let mut t = merged();
    t.add("init", Node::file("#!/bin/sh\n", 0o755)).unwrap();
    let mut v = Vec::new();
    write_cpio(&t, &mut v, 1).unwrap();
    let out = lama_exec::Tools::host()
        .command("cpio")
        .args(["-t", "--quiet"])
        .stdin_bytes(v.clone())
        .text();
    match out {
        Ok(s) => assert_eq!(s, ".\ninit\nlib\nusr\nusr/lib"),
        Err(lama_exec::ToolError::Start { .. }) => {
            eprintln!("SKIP: no cpio on this machine to compare with");
            assert!(v.starts_with(b"070701") && v.len() % 4 == 0);
        }
        Err(e) => panic!("{e}"),
    }
}

proptest! {
    #[test]
    fn any_bytes_as_tar_never_panic(data in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let f = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(f.path(), &data).unwrap();
        let _ = read_tar(&Blob::map(f.path()).unwrap(), |_, _| Ok(()));
    }

    #[test]
    fn a_damaged_tar_never_panics(at in 0usize..2048, to in any::<u8>()) {
        let mut t = merged();
        t.add("usr/x", Node::file("hello", 0o644)).unwrap();
        let mut tar = Vec::new();
        write_tar(&t, &mut tar, 1).unwrap();
        let at = at % tar.len();
        tar[at] = to;
        let f = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(f.path(), &tar).unwrap();
        let _ = read_tar(&Blob::map(f.path()).unwrap(), |_, _| Ok(()));
    }

    #[test]
    fn any_text_is_a_path_or_an_error(s in ".{0,40}") {
        if let Ok(p) = TreePath::new(&s) {
            prop_assert_eq!(TreePath::new(p.as_str()).unwrap(), p);
        }
    }
}
