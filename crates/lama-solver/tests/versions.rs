// SPDX-License-Identifier: Apache-2.0
//! Versions and relations: dpkg as the oracle for the order, properties for the parsers.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::cmp::Ordering;
use std::process::Command;

use lama_solver::relation::{Bound, Op, Qualifier, Relation};
use lama_solver::{Relations, version};
use proptest::prelude::*;

const VERSIONS: &[&str] = &[
    "0",
    "1",
    "1.0",
    "1.00",
    "01.0",
    "1.0-0",
    "1.0-1",
    "1.0-1+b1",
    "1.0-1~bpo12+1",
    "1.0~rc1",
    "1.0~rc1~",
    "1.0~~",
    "1.0~",
    "1.0+dfsg",
    "1.0+dfsg-1",
    "1.0a",
    "1.a",
    "1.a0",
    "1.",
    "1.0.1",
    "1.10",
    "1.9",
    "0:1.0",
    "1:0.1",
    "2:0",
    "1:1.0-1",
    "1-1-1",
    "1-1.0",
    "1:2:3",
    "1.0-1.1",
    "20240101",
    "99999999999999999999999999999999",
    "99999999999999999999999999999998",
    "1.0.",
    "1.0-",
    "1.0+",
    "1.0A",
    "1.0.A",
    "1.0~a",
    "1.0~1",
    "2.41-12+deb13u5",
    "1:1.3.dfsg+really1.3.1-1+deb13u1",
    "1:2.75-10+deb13u1+b3",
    "1:4.4.38-1",
];

/// dpkg's answer; None where it isn't there.
fn dpkg(a: &str, op: &str, b: &str) -> Option<bool> {
    let out = Command::new("dpkg")
        .args(["--compare-versions", a, op, b])
        .output()
        .ok()?;
    Some(out.status.success())
}

#[test]
fn order_is_dpkgs() {
    if dpkg("1", "eq", "1").is_none() {
        println!("SKIP: no dpkg here");
        return;
    }
    let valid: Vec<&str> = VERSIONS
        .iter()
        .copied()
        .filter(|v| version::is_valid(v))
        .collect();
    assert!(valid.len() > 35);
    // One process a pair: every third pair keeps the test short and still meets every version.
    for (i, a) in valid.iter().enumerate() {
        for (j, b) in valid.iter().enumerate() {
            if !(i + j).is_multiple_of(3) {
                continue;
            }
            let ours = version::compare(a, b);
            let op = match ours {
                Ordering::Less => "lt",
                Ordering::Equal => "eq",
                Ordering::Greater => "gt",
            };
            assert_eq!(dpkg(a, op, b), Some(true), "{a} {ours:?} {b}");
        }
    }
}

#[test]
fn order_of_known_pairs() {
    for (a, order, b) in [
        ("1.0~rc1", Ordering::Less, "1.0"),
        ("1.0", Ordering::Less, "1.0+b1"),
        ("1.9", Ordering::Less, "1.10"),
        ("9", Ordering::Less, "1:0"),
        ("1.0-1", Ordering::Less, "1.0-1.1"),
        ("1.0-1~bpo12+1", Ordering::Less, "1.0-1"),
        ("1.0", Ordering::Equal, "1.0-0"),
        ("0:1.0", Ordering::Equal, "1.00"),
        ("1.a", Ordering::Equal, "1.a0"),
        ("1.0.A", Ordering::Greater, "1.0A"),
    ] {
        assert_eq!(version::compare(a, b), order, "{a} {b}");
        assert_eq!(version::compare(b, a), order.reverse(), "{b} {a}");
    }
}

#[test]
fn valid_versions() {
    for good in [
        "1",
        "1:2-3",
        "1.0+dfsg~rc1-2+b1",
        "a",
        "1_2",
        "0:0",
        "1:2:3",
    ] {
        assert!(version::is_valid(good), "{good}");
    }
    for bad in [
        "",
        "1 2",
        "1-",
        ":1",
        "-1",
        "x:1",
        "99999999999:1",
        "1/2",
        "1:",
        "ä",
        "1:-1",
    ] {
        assert!(!version::is_valid(bad), "{bad}");
    }
}

#[test]
fn relations_as_written_in_archives() {
    for (text, shown) in [
        ("a", "a"),
        ("a(>=1)|b:any", "a (>= 1) | b:any"),
        (
            " a ( << 1:2-3~ ) ,b:native , c:arm64 (= 1)",
            "a (<< 1:2-3~), b:native, c:arm64 (= 1)",
        ),
        ("a (> 1), b (< 1)", "a (>= 1), b (<= 1)"),
        (
            "a [amd64 !arm64] <!nocheck> <stage1>, b (>= 1) [i386]",
            "a, b (>= 1)",
        ),
        ("a,, b,", "a, b"),
        ("", ""),
        ("a |\n b", "a | b"),
        ("lib++1.0-dev", "lib++1.0-dev"),
    ] {
        assert_eq!(
            Relations::parse(text).unwrap().to_string(),
            shown,
            "{text:?}"
        );
    }
    for bad in [
        "a b",
        "a (",
        "a (1)",
        "a (>= )",
        "a (>= 1",
        "|",
        "a |",
        "a:",
        "a:b_c",
        "(>= 1)",
        "a (>= 1) (= 1)",
        "a (>= 1 2)",
        "ä",
        "$x",
    ] {
        assert!(Relations::parse(bad).is_err(), "{bad:?}");
    }
}

fn relation() -> impl Strategy<Value = (String, Option<usize>, Option<(usize, String)>)> {
    let name = "[a-z0-9][a-z0-9+.-]{0,8}";
    let v = "([0-9]:)?[0-9][0-9a-z.+~]{0,6}(-[0-9][0-9a-z.+~]{0,3})?";
    (
        name,
        proptest::option::of(0..3usize),
        proptest::option::of((0..5usize, v)),
    )
}

const OPS: [Op; 5] = [
    Op::Earlier,
    Op::EarlierOrEqual,
    Op::Equal,
    Op::LaterOrEqual,
    Op::Later,
];
const QUALIFIERS: [Qualifier<'static>; 3] = [
    Qualifier::Any,
    Qualifier::Native,
    Qualifier::Arch("riscv64"),
];

proptest! {
    #[test]
    fn relations_round_trip(all in proptest::collection::vec(proptest::collection::vec(relation(), 1..4), 0..6)) {
        let clauses: Vec<Vec<Relation<'_>>> = all.iter().map(|c| c.iter().map(|(name, q, v)| Relation {
            name,
            qualifier: q.map(|q| QUALIFIERS[q]),
            bound: v.as_ref().map(|(op, v)| Bound { op: OPS[*op], version: v }),
        }).collect()).collect();
        let relations = Relations { clauses };
        let text = relations.to_string();
        prop_assert_eq!(Relations::parse(&text).unwrap(), relations);
    }

    #[test]
    fn parsers_never_panic(text in "\\PC{0,60}") {
        let _ = Relations::parse(&text);
        let _ = version::is_valid(&text);
    }

    #[test]
    fn near_relations_never_panic(text in "[ab:|,()<>=\\[\\] 1.~-]{0,40}") {
        if let Ok(r) = Relations::parse(&text) {
            let shown = r.to_string();
            prop_assert_eq!(Relations::parse(&shown).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn the_order_is_an_order(a in "[0-9a.~+:-]{0,8}", b in "[0-9a.~+:-]{0,8}", c in "[0-9a.~+:-]{0,8}") {
        let le = |x: &str, y: &str| version::compare(x, y).is_le();
        prop_assert_eq!(version::compare(&a, &b), version::compare(&b, &a).reverse());
        prop_assert!(!(le(&a, &b) && le(&b, &c)) || le(&a, &c));
    }
}
