// SPDX-License-Identifier: Apache-2.0
//! What is said when there is no answer.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use lama_solver::{Essential, Request, Universe};
use miette::Diagnostic;

fn explain(universe: &str, packages: &str) -> String {
    let request = Request {
        packages: packages.split_whitespace().map(str::to_owned).collect(),
        essential: Essential::Leave,
        ..Request::default()
    };
    let e = Universe::new(common::small(universe), "amd64")
        .resolve(&request)
        .unwrap_err();
    format!("{e}\nhint: {}", e.help().unwrap())
}

#[test]
fn too_old_a_version() {
    let u = "Package: samba\nVersion: 2:4.22\nDepends: libc6, libfoo (>= 2)\n\n\
        Package: libc6\n\nPackage: libfoo\nVersion: 1.0";
    insta::assert_snapshot!(explain(u, "samba"));
}

#[test]
fn nothing_by_that_name_far_down() {
    let u = "Package: a\nDepends: b\n\nPackage: b\nDepends: c (>= 1)\n\nPackage: c\nDepends: gone | lost (>= 3)";
    insta::assert_snapshot!(explain(u, "a"));
}

#[test]
fn every_alternative_fails() {
    let u = "Package: a\nDepends: b | c\n\nPackage: b\nDepends: gone\n\nPackage: c\nConflicts: a";
    insta::assert_snapshot!(explain(u, "a"));
}

#[test]
fn two_requests_conflict() {
    let u = "Package: other\n\nPackage: a\n\nPackage: b\nConflicts: a (<< 2)";
    insta::assert_snapshot!(explain(u, "other a b"));
}

#[test]
fn dependencies_of_two_requests_conflict() {
    let u = "Package: a\nDepends: x\n\nPackage: x\nDepends: mta\n\nPackage: b\nDepends: exim\n\n\
        Package: exim\nProvides: mta\nConflicts: mta\n\nPackage: postfix\nProvides: mta\nConflicts: mta\n\n\
        Package: c\nDepends: postfix";
    insta::assert_snapshot!(explain(u, "a b c"));
}

#[test]
fn two_versions_of_one_package() {
    let u = "Package: a\nDepends: l (= 1)\n\nPackage: b\nDepends: l (= 2)\n\n\
        Package: l\nVersion: 1\n\nPackage: l\nVersion: 2";
    insta::assert_snapshot!(explain(u, "a b"));
}

#[test]
fn a_version_by_name() {
    let u = "Package: a\nVersion: 1\n\nPackage: a\nVersion: 2\n\nPackage: b\nDepends: a (>= 2)";
    insta::assert_snapshot!(explain(u, "b a=1"));
}

#[test]
fn a_provided_version_does_not_do() {
    let u = "Package: a\nDepends: v (>= 2)\n\nPackage: p\nProvides: v\n\nPackage: q\nVersion: 7\nProvides: v (= 1.5)";
    insta::assert_snapshot!(explain(u, "a"));
}

#[test]
fn an_unreadable_relation() {
    insta::assert_snapshot!(explain("Package: a\nDepends: b (>= ", "a"));
}

#[test]
fn unknown_names() {
    let u = "Package: smartmontools\n\nPackage: podman\n\nPackage: a\nVersion: 3";
    insta::assert_snapshot!(explain(u, "smartmontool podman qqqqqq a=4"));
}

#[test]
fn requests_that_cannot_be_read() {
    let u = "Package: a";
    let all: Vec<String> = ["a b", "", "a=", "a:b c", "-a", "a=1 2"]
        .iter()
        .map(|p| {
            let request = Request {
                packages: vec![(*p).into()],
                ..Request::default()
            };
            let e = Universe::new(common::small(u), "amd64")
                .resolve(&request)
                .unwrap_err();
            e.to_string()
        })
        .collect();
    insta::assert_snapshot!(all.join("\n"));
}
