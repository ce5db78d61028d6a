// SPDX-License-Identifier: Apache-2.0
//! The rules of choosing, one small universe each.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use lama_solver::{Dependencies, Error, Essential, Recommends, Request, Universe};

fn request(packages: &str) -> Request {
    Request {
        packages: packages.split_whitespace().map(str::to_owned).collect(),
        essential: Essential::Leave,
        ..Request::default()
    }
}

fn resolve(universe: &str, request: &Request) -> Result<String, Error> {
    let found = Universe::new(common::small(universe), "amd64").resolve(request)?;
    Ok(found
        .iter()
        .map(|r| format!("{}={}", r.package(), r.version()))
        .collect::<Vec<_>>()
        .join(" "))
}

/// Universe, request, answer (`-` for none), what it shows.
const RULES: &[(&str, &str, &str, &str)] = &[
    (
        "Package: a\nDepends: b, c\n\nPackage: b\n\nPackage: c\n\nPackage: d",
        "a",
        "a=1 b=1 c=1",
        "dependencies",
    ),
    (
        "Package: a\nPre-Depends: b\n\nPackage: b",
        "a",
        "a=1 b=1",
        "pre-dependencies",
    ),
    (
        "Package: a\nDepends: b\n\nPackage: b\nDepends: a",
        "a",
        "a=1 b=1",
        "a cycle",
    ),
    (
        "Package: a\nVersion: 1\n\nPackage: a\nVersion: 1.10\n\nPackage: a\nVersion: 1.9",
        "a",
        "a=1.10",
        "the highest version",
    ),
    (
        "Package: a\nVersion: 1\n\nPackage: a\nVersion: 2",
        "a=1",
        "a=1",
        "a version by name",
    ),
    (
        "Package: a\nDepends: b | c\n\nPackage: b\n\nPackage: c",
        "a",
        "a=1 b=1",
        "the first alternative",
    ),
    (
        "Package: a\nDepends: b | c\n\nPackage: b\n\nPackage: c",
        "a c",
        "a=1 c=1",
        "an alternative that is asked for",
    ),
    (
        "Package: a\nDepends: b | c\n\nPackage: c",
        "a",
        "a=1 c=1",
        "an alternative that is there",
    ),
    (
        "Package: a\nDepends: b | c\n\nPackage: b\nDepends: x\n\nPackage: c",
        "a",
        "a=1 c=1",
        "an alternative that works",
    ),
    (
        "Package: a\nDepends: b, c | d\n\nPackage: b\nConflicts: c\n\nPackage: c\n\nPackage: d",
        "a",
        "a=1 b=1 d=1",
        "an alternative without conflict",
    ),
    (
        "Package: a\nDepends: c | d, b\n\nPackage: b\nConflicts: c\n\nPackage: c\n\nPackage: d",
        "a",
        "a=1 b=1 d=1",
        "a conflict seen later",
    ),
    (
        "Package: a\nDepends: v\n\nPackage: b\nProvides: v\n\nPackage: v",
        "a",
        "a=1 v=1",
        "the real package before providers",
    ),
    (
        "Package: a\nDepends: v\n\nPackage: b\nProvides: v\nPriority: extra\n\nPackage: c\nProvides: v",
        "a",
        "a=1 c=1",
        "providers by priority",
    ),
    (
        "Package: a\nDepends: v (>= 2)\n\nPackage: b\nProvides: v\n\nPackage: c\nProvides: v (= 2.1)\nPriority: extra",
        "a",
        "a=1 c=1",
        "a provided version",
    ),
    (
        "Package: a\nDepends: v (>= 2)\n\nPackage: b\nProvides: v\n\nPackage: c\nProvides: v (= 1.9)",
        "a",
        "-",
        "providers without the version",
    ),
    (
        "Package: b\nProvides: v\n\nPackage: c\nProvides: v",
        "v c",
        "c=1",
        "a virtual request that another fulfils",
    ),
    ("Package: b\nProvides: v", "v", "b=1", "a virtual request"),
    (
        "Package: b\nProvides: v\nConflicts: v\n\nPackage: c\nProvides: v\nConflicts: v",
        "b",
        "b=1",
        "a conflict with oneself",
    ),
    (
        "Package: b\nProvides: v\nConflicts: v\n\nPackage: c\nProvides: v\nConflicts: v",
        "b c",
        "-",
        "a conflict by a virtual name",
    ),
    (
        "Package: a\nBreaks: b (<< 2)\n\nPackage: b\nVersion: 1\n\nPackage: b\nVersion: 2",
        "a b",
        "a=1 b=2",
        "Breaks with a version",
    ),
    (
        "Package: a\nBreaks: b (>= 2)\n\nPackage: b\nVersion: 1\n\nPackage: b\nVersion: 2",
        "a b",
        "a=1 b=1",
        "an older version where the newer one breaks",
    ),
    (
        "Package: a\nDepends: b (<< 2)\n\nPackage: b\nVersion: 1\n\nPackage: b\nVersion: 2",
        "a",
        "a=1 b=1",
        "an upper bound",
    ),
    (
        "Package: a\nDepends: b (>> 1~)\n\nPackage: b\nVersion: 1",
        "a",
        "a=1 b=1",
        "the tilde sorts first",
    ),
    (
        "Package: a\nDepends: b:any\n\nPackage: b\nMulti-Arch: allowed",
        "a",
        "a=1 b=1",
        ":any with Multi-Arch: allowed",
    ),
    (
        "Package: a\nDepends: b:any\n\nPackage: b\nMulti-Arch: foreign",
        "a",
        "-",
        ":any without it",
    ),
    (
        "Package: a\nDepends: b:native\n\nPackage: b",
        "a",
        "a=1 b=1",
        ":native",
    ),
    (
        "Package: a\nDepends: b:amd64\n\nPackage: b",
        "a",
        "a=1 b=1",
        "the architecture's name",
    ),
    (
        "Package: a\nDepends: b:arm64\n\nPackage: b",
        "a",
        "-",
        "another architecture's name",
    ),
    (
        "Package: a\nDepends: b\n\nPackage: b\nArchitecture: arm64",
        "a",
        "-",
        "another architecture's package",
    ),
    (
        "Package: a\nDepends: b\n\nPackage: b\nArchitecture: all",
        "a:amd64",
        "a=1 b=1",
        "`all` is native",
    ),
    (
        "Package: a\nDepends: b [arm64], c <!nodoc>\n\nPackage: b\n\nPackage: c",
        "a",
        "a=1 b=1 c=1",
        "restrictions are passed over",
    ),
    (
        "Package: a\nDepends: b (",
        "a",
        "-",
        "an unreadable relation",
    ),
    (
        "Package: a\nDepends: b | c\n\nPackage: b\nDepends: )\n\nPackage: c",
        "a",
        "a=1 c=1",
        "an unreadable relation that can be avoided",
    ),
    (
        "Package: a\nRecommends: b\n\nPackage: b",
        "a",
        "a=1",
        "no recommendations",
    ),
];

#[test]
fn rules() {
    for (universe, asked, answer, what) in RULES {
        let found = resolve(universe, &request(asked)).unwrap_or_else(|e| match e {
            Error::Unsatisfiable { .. } | Error::Unknown { .. } => "-".into(),
            Error::Request { .. } => panic!("{e}"),
        });
        assert_eq!(found, *answer, "{what}");
    }
}

#[test]
fn recommendations_where_possible() {
    let r = Request {
        recommends: Recommends::Install,
        ..request("a")
    };
    let u = "Package: a\nRecommends: b, c, d\n\nPackage: b\nRecommends: e\n\nPackage: c\nConflicts: a\n\nPackage: e";
    assert_eq!(resolve(u, &r).unwrap(), "a=1 b=1 e=1");
}

#[test]
fn packages_alone() {
    let universe = "Package: a\nVersion: 2\nDepends: b\n\nPackage: a\nVersion: 1\nDepends: nobody\n\n\
                    Package: b\n\nPackage: c";
    let mut alone = request("a c");
    alone.dependencies = Dependencies::Leave;
    assert_eq!(resolve(universe, &alone).unwrap(), "a=2 c=1");
    alone.prefer = [("a".into(), "1".into())].into();
    assert_eq!(resolve(universe, &alone).unwrap(), "a=1 c=1");
    alone.packages.push("d".into());
    assert!(matches!(
        resolve(universe, &alone),
        Err(Error::Unknown { .. })
    ));
}

#[test]
fn essential_packages() {
    let u = "Package: a\n\nPackage: b\nEssential: yes\nDepends: c\n\nPackage: c\n\nPackage: d";
    let r = Request {
        essential: Essential::Include,
        ..request("a")
    };
    assert_eq!(resolve(u, &r).unwrap(), "a=1 b=1 c=1");
    assert_eq!(resolve(u, &request("a")).unwrap(), "a=1");
}

#[test]
fn locked_versions_are_kept_where_possible() {
    let u = "Package: a\nDepends: b\n\nPackage: b\nVersion: 1\n\nPackage: b\nVersion: 2\n\nPackage: c\nDepends: b (>= 2)";
    let prefer = [
        ("b".to_owned(), "1".to_owned()),
        ("gone".to_owned(), "7".to_owned()),
    ]
    .into();
    let r = Request {
        prefer,
        ..request("a")
    };
    assert_eq!(resolve(u, &r).unwrap(), "a=1 b=1");
    let r = Request {
        packages: vec!["a".into(), "c".into()],
        ..r
    };
    assert_eq!(resolve(u, &r).unwrap(), "a=1 b=2 c=1");
}

#[test]
fn the_first_feed_wins_between_equal_versions() {
    let one = |feed: &str| {
        common::records(
            &format!(
                "Package: a\nVersion: 1\nArchitecture: all\nFilename: x\nSize: 1\nSHA256: {}\n",
                "0".repeat(64)
            ),
            feed,
        )
    };
    let all = one("first").into_iter().chain(one("second"));
    let found = Universe::new(all, "arm64").resolve(&request("a")).unwrap();
    assert_eq!(found[0].feed(), "first");
}

#[test]
fn order_of_the_request_hardly_matters_and_answers_repeat() {
    let u = "Package: a\nDepends: v\n\nPackage: b\nDepends: d | c\n\nPackage: c\nProvides: v\n\nPackage: d\nProvides: v";
    let first = resolve(u, &request("a b")).unwrap();
    for _ in 0..20 {
        assert_eq!(resolve(u, &request("a b")).unwrap(), first);
        assert_eq!(resolve(u, &request("b a")).unwrap(), first);
    }
}

/// A chain that would overflow any stack if it were followed without a limit.
#[test]
fn a_chain_of_dependencies_without_end() {
    let n = 5_000;
    let mut u = String::new();
    for i in 0..n {
        u.push_str(&format!("Package: p{i}\nDepends: p{}\n\n", i + 1));
    }
    u.push_str(&format!("Package: p{n}\n"));
    let found = Universe::new(common::small(&u), "amd64")
        .resolve(&request("p0"))
        .unwrap();
    assert_eq!(found.len(), n + 1);
}

#[test]
fn records_survive_serialization() {
    let all = common::small("Package: a\nDepends: b (>= 1)\nSource: s (2)\nMulti-Arch: same");
    let json = serde_json::to_string(&all).unwrap();
    let back: Vec<lama_solver::Record> = serde_json::from_str(&json).unwrap();
    assert_eq!(all, back);
    assert_eq!((back[0].source(), back[0].source_version()), ("s", "2"));
    let evil = json.replace("x.deb", "../../etc/passwd");
    assert!(serde_json::from_str::<Vec<lama_solver::Record>>(&evil).is_err());
}
