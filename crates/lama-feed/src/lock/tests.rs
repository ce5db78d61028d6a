// SPDX-License-Identifier: Apache-2.0
//! The lock's own tests.

use super::*;
use proptest::prelude::*;

fn package(name: &str, version: &str, arch: &str) -> LockedPackage {
    LockedPackage {
        id: Id {
            name: name.into(),
            version: version.into(),
            architecture: arch.into(),
        },
        source: format!("src-{name}"),
        source_version: version.into(),
        feed: "debian".into(),
        archive: "debian".into(),
        path: format!("pool/main/x/{name}_{version}_{arch}.deb").replace(':', "%3a"),
        size: 7,
        sha256: Sha256::of(version.as_bytes()),
    }
}

fn sample() -> Lock {
    let mut l = Lock::default();
    let r = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    l.replace_set(
        "x86_64/base",
        "amd64",
        &r(&["b", "a", "a"]),
        [package("b", "1:2-1", "amd64"), package("a", "1", "all")],
    );
    l.replace_set("tools", "amd64", &r(&["a"]), [package("a", "1", "all")]);
    l
}

fn parse(text: &str) -> Result<Lock> {
    Lock::parse(text, Path::new("x.lock"))
}

#[test]
fn rendered_and_read_again() {
    let l = sample();
    assert_eq!(parse(&l.render()).unwrap(), l);
    assert_eq!(l.packages().count(), 2);
    assert_eq!(l.set("x86_64/base").unwrap().request, ["a", "b"]);
    let names: Vec<_> = l
        .packages_of("tools")
        .unwrap()
        .iter()
        .map(|p| p.id.to_string())
        .collect();
    assert_eq!(names, ["a=1:all"]);
    assert_eq!(l.packages_of("no"), None);
    assert_eq!(l.packages().next().unwrap().component(), "main");
    assert!(parse("version = 1\n").unwrap().packages().next().is_none());
    let text = l.render();
    assert!(text.contains("\n    \"b=1:2-1:amd64\",\n"), "{text}");
}

#[test]
fn errors_name_the_line() {
    let text = sample().render();
    let line_of = |what: &str| 1 + text.lines().position(|l| l.contains(what)).unwrap();
    let block = |what: &str| {
        let n = line_of(what);
        text.lines()
            .take(n)
            .collect::<Vec<_>>()
            .iter()
            .rposition(|l| *l == "[[package]]")
            .unwrap()
            + 1
    };
    for (from, to, line, says) in [
        (
            "version = 1\n",
            "version = 2\n",
            line_of("version = 1"),
            "version 2",
        ),
        (
            "version = 1\n",
            "version = = 1\n",
            line_of("version = 1"),
            "",
        ),
        (
            "    \"b=1:2-1:amd64\"",
            "    \"c=1:amd64\"",
            line_of("\"b=1:2-1:amd64\""),
            "not in the lock",
        ),
        (
            "    \"b=1:2-1:amd64\"",
            "    \"c\"",
            line_of("\"b=1:2-1:amd64\""),
            "no `name=",
        ),
        (
            "pool/main/x/b",
            "../etc/b",
            block("pool/main/x/b"),
            "filename",
        ),
        (
            "name = \"b\"",
            "name = \"a b\"",
            block("name = \"b\""),
            "package",
        ),
        ("size = 7", "size = -7", line_of("size = 7"), ""),
        ("size = 7", "seize = 7", line_of("size = 7"), "seize"),
        (
            "sha256 = \"",
            "sha256 = \"A",
            line_of("sha256 = "),
            "SHA-256",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        match parse(&text.replacen(from, to, 1)) {
            Err(Error::Syntax { line: l, what, .. }) => {
                assert_eq!(l, line, "{to}: {what}");
                assert!(what.contains(says), "{to}: {what}");
            }
            other => panic!("{to}: {other:?}"),
        }
    }
}

#[test]
fn files() {
    let d = tempfile::tempdir().unwrap();
    let path = d.path().join("x.lock");
    assert_eq!(Lock::load(&path).unwrap(), Lock::default());
    sample().save(&path).unwrap();
    assert_eq!(Lock::load(&path).unwrap(), sample());
    fs::write(&path, b"version = 1\n# \xff\n").unwrap();
    let e = Lock::load(&path).unwrap_err().to_string();
    assert!(e.ends_with("x.lock:2: not UTF-8"), "{e}");
}

#[test]
fn renewal_and_difference() {
    let old = sample();
    let keep: Vec<_> = old
        .prefer("x86_64/base", &Renew::Nothing)
        .into_iter()
        .collect();
    assert_eq!(keep.len(), 2);
    let named = Renew::Named(["src-b".to_owned()].into());
    assert_eq!(
        old.prefer("x86_64/base", &named)
            .into_keys()
            .collect::<Vec<_>>(),
        ["a"]
    );
    assert!(old.prefer("x86_64/base", &Renew::All).is_empty());
    assert_eq!(old.unknown(["a", "src-b", "c"]), ["c"]);

    let mut new = old.clone();
    new.replace_set(
        "x86_64/base",
        "amd64",
        &[],
        [package("b", "1:2-2", "amd64"), package("c", "3", "amd64")],
    );
    let mut second = new.clone();
    second.retain_sets(|s| s != "tools");
    let lines = |a, b| {
        Lock::diff(a, b)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        lines(&old, &new),
        [
            "a all: 1, other content or sets (tools)",
            "b amd64: 1:2-1 -> 1:2-2 (debian)",
            "c amd64: added 3 (debian; x86_64/base)",
        ]
    );
    assert_eq!(lines(&new, &second), ["a all: removed 1 (tools)"]);
    assert_eq!(
        lines(&new, &old)[1],
        "b amd64: 1:2-2 -> 1:2-1, a lower version (debian)"
    );
    assert!(lines(&old, &old).is_empty());
}

proptest! {
    #[test]
    fn never_panics(text in "([a-z0-9=\\[\\]\"{}, \n.]|\\PC)*") {
        let _ = parse(&text);
    }

    #[test]
    fn edited_ones_never_panic(at in 0usize..1500, with in "\\PC{0,3}", cut in 0usize..5) {
        let text = sample().render();
        let mut at = at % text.len();
        while !text.is_char_boundary(at) { at -= 1; }
        let end = (at + cut).min(text.len());
        let _ = parse(&format!("{}{with}{}", &text[..at], &text[end..]));
    }

    #[test]
    fn round_trip(sets in proptest::collection::btree_map(
        "[a-z0-9_/\"\\\\ é.-]{1,12}",
        (proptest::collection::vec("\\PC{0,9}", 0..4), proptest::collection::btree_set(
            ("[a-z][a-z0-9+.-]{1,6}", "([0-9]:)?[0-9][a-z0-9.+~]{0,6}(-[0-9a-z]{1,4})?", "amd64|arm64|all"), 0..6)),
        0..4))
    {
        let mut l = Lock::default();
        for (name, (request, packages)) in &sets {
            let p = packages.iter().map(|(n, v, a)| package(n, v, a));
            l.replace_set(name, "amd64", request, p);
        }
        let text = l.render();
        let again = parse(&text).unwrap();
        prop_assert_eq!(&again, &l);
        prop_assert_eq!(again.render(), text);
    }
}
