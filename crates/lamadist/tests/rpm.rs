// SPDX-License-Identifier: Apache-2.0
//! `lamadist rpm`, as it is called and answers. What it signs is tested in lama-rpm.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, with a cache and keys of the test's own.
fn lamadist(dir: &Path, args: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_lamadist"));
    c.arg("rpm").args(args).current_dir(dir);
    c.env(
        "LAMADIST_DISTRO",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../distro"),
    );
    c.env("LAMADIST_CACHE", dir.join("cache"));
    c.env("LAMADIST_KEYS", dir.join("keys"));
    c.output().unwrap()
}

#[track_caller]
fn good(out: &Output) -> String {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    String::from_utf8(out.stdout.clone()).unwrap()
}

#[track_caller]
fn bad(out: &Output, words: &[&str]) {
    let text = [&out.stdout[..], &out.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(out.status.code(), Some(1), "{text}");
    for w in words {
        assert!(text.contains(w), "no `{w}`: {text}");
    }
}

fn package(dir: &Path) -> PathBuf {
    let mut b = rpm::PackageBuilder::new("demo", "1.0", "Apache-2.0", "noarch", "A test");
    let at = rpm::FileOptions::new("/usr/share/demo");
    b.with_file_contents("Hello\n", at).unwrap();
    let path = dir.join("feed/noarch/demo-1.0-1.noarch.rpm");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    b.build().unwrap().write_file(&path).unwrap();
    path
}

#[test]
fn packages_and_a_feed() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    let p = package(d);
    let unsigned = lamadist(d, &["verify", "feed"]);
    bad(
        &unsigned,
        &[
            "refused",
            "it is not signed",
            "hint: sign it: `lamadist rpm sign`",
        ],
    );
    assert!(good(&lamadist(d, &["sign", "feed"])).starts_with("signed "));
    let json = good(&lamadist(d, &["sign", "feed", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["state"], "already");
    assert_eq!(json[0]["file"], p.to_str().unwrap());
    assert_eq!(json[0]["key"].as_str().unwrap().len(), 40);
    assert!(good(&lamadist(d, &["verify", "feed"])).starts_with("current "));

    bad(
        &lamadist(d, &["feed", "feed"]),
        &["no feed", "hint: make its index first: `createrepo_c"],
    );
    std::fs::create_dir(d.join("feed/repodata")).unwrap();
    std::fs::write(d.join("feed/repodata/repomd.xml"), "<repomd/>").unwrap();
    bad(
        &lamadist(d, &["verify", "feed"]),
        &["repomd.xml: it is not signed", "1 of 2 files"],
    );
    assert!(good(&lamadist(d, &["feed", "feed"])).starts_with("signed "));
    assert_eq!(good(&lamadist(d, &["verify", "feed"])).lines().count(), 2);
    let keys = std::fs::read_to_string(d.join("feed/repodata/repomd.xml.key")).unwrap();
    assert_eq!(good(&lamadist(d, &["key"])), keys);

    let mut bytes = std::fs::read(&p).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&p, bytes).unwrap();
    bad(
        &lamadist(d, &["verify", "feed"]),
        &["it was changed: the ", "hint: do not use it"],
    );
    bad(
        &lamadist(d, &["sign", "--replace", "feed"]),
        &["it was changed"],
    );
}

#[test]
fn where_there_is_nothing() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    bad(
        &lamadist(d, &["verify"]),
        &["BitBake has left no packages", "hint: name the packages"],
    );
    bad(&lamadist(d, &["verify", "none"]), &["none: No such file"]);
    std::fs::create_dir(d.join("empty")).unwrap();
    bad(&lamadist(d, &["sign", "empty"]), &["there are no packages"]);
    bad(
        &lamadist(d, &["sign", "empty", "--release"]),
        &["holds no key set", "hint:"],
    );
    std::fs::write(d.join("text.rpm"), "text").unwrap();
    bad(
        &lamadist(d, &["verify", "text.rpm"]),
        &["cut off", "hint: do not use it"],
    );
}
