// SPDX-License-Identifier: Apache-2.0
//! Universes out of chance against two judges: every subset tried by hand (is there an answer,
//! and does ours hold?), and the real apt.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use lama_exec::fs;
use lama_solver::relation::Relation;
use lama_solver::{Essential, Record, RelationField, Request, Universe};

fn request(name: &str) -> Request {
    Request {
        packages: vec![name.into()],
        essential: Essential::Leave,
        ..Request::default()
    }
}

/// Whether `r` is what `rel` means; written without a look at the solver.
fn fulfils(r: &Record, rel: &Relation<'_>) -> bool {
    let real = r.package() == rel.name && rel.bound.is_none_or(|b| b.admits(r.version()));
    real || r
        .relations(RelationField::Provides)
        .unwrap()
        .each()
        .any(|p| {
            p.name == rel.name
                && match (rel.bound, p.bound) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(want), Some(have)) => want.admits(have.version),
                }
        })
}

fn holds(set: &[&Record]) -> bool {
    set.iter().all(|r| {
        let requires = r.relations(RelationField::Depends).unwrap();
        let met = |c: &Vec<Relation<'_>>| c.iter().any(|rel| set.iter().any(|o| fulfils(o, rel)));
        let refuses = [RelationField::Conflicts, RelationField::Breaks]
            .iter()
            .any(|f| {
                r.relations(*f).unwrap().each().any(|rel| {
                    set.iter()
                        .any(|o| o.package() != r.package() && fulfils(o, rel))
                })
            });
        requires.clauses.iter().all(met) && !refuses
    })
}

/// Whether any subset with `name` in it holds.
fn possible(all: &[Record], name: &str) -> bool {
    fn go<'a>(by_name: &[Vec<&'a Record>], set: &mut Vec<&'a Record>, name: &str) -> bool {
        let Some((first, rest)) = by_name.split_first() else {
            return set.iter().any(|r| r.package() == name) && holds(set);
        };
        if go(rest, set, name) {
            return true;
        }
        for r in first {
            set.push(r);
            if go(rest, set, name) {
                return true;
            }
            set.pop();
        }
        false
    }
    let names: BTreeSet<&str> = all.iter().map(Record::package).collect();
    let by_name: Vec<Vec<&Record>> = names
        .iter()
        .map(|n| all.iter().filter(|r| r.package() == *n).collect())
        .collect();
    go(&by_name, &mut Vec::new(), name)
}

#[test]
fn an_answer_wherever_there_is_one_and_it_holds() {
    let (mut found, mut none) = (0, 0);
    for seed in 0..1500 {
        let all = common::records(&common::chance(seed, "x"), "main");
        let answer = Universe::new(all.clone(), "amd64").resolve(&request("xp0"));
        match answer {
            Ok(set) => {
                let set: Vec<&Record> = set.iter().collect();
                let names: BTreeSet<&str> = set.iter().map(|r| r.package()).collect();
                assert_eq!(names.len(), set.len(), "seed {seed}: one version each");
                assert!(names.contains("xp0") && holds(&set), "seed {seed}: {set:?}");
                found += 1;
            }
            Err(e) => {
                assert!(!possible(&all, "xp0"), "seed {seed}: {e}");
                none += 1;
            }
        }
    }
    assert!(
        found > 300 && none > 300,
        "{found} with an answer, {none} without"
    );
}

#[test]
fn apt_finds_nothing_that_we_do_not() {
    const UNIVERSES: u64 = 120;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("apt-random");
    for d in ["lists/partial", "archives/partial", "etc", "parts", "repo"] {
        fs::create_dir_all(dir.join(d)).unwrap();
    }
    let packages: String = (0..UNIVERSES)
        .map(|seed| common::chance(seed, &format!("u{seed}")))
        .collect();
    fs::write(dir.join("repo/Packages"), &packages).unwrap();
    fs::write(dir.join("status"), "").unwrap();
    let here = dir.display().to_string();
    fs::write(
        dir.join("etc/sources.list"),
        format!("deb [trusted=yes] copy:{here}/repo ./\n"),
    )
    .unwrap();
    let apt = |args: &[&str]| {
        let mut c = Command::new("apt-get");
        c.env("LC_ALL", "C");
        for o in [
            format!("Dir={here}"),
            format!("Dir::State={here}"),
            format!("Dir::State::status={here}/status"),
            format!("Dir::Cache={here}"),
            format!("Dir::Etc={here}/etc"),
            format!("Dir::Etc::sourceparts={here}/parts"),
            format!("Dir::Etc::preferencesparts={here}/parts"),
            "APT::Architecture=amd64".into(),
            "APT::Architectures=amd64".into(),
            "APT::Solver=internal".into(),
            "APT::Sandbox::User=".into(),
            "Acquire::Languages=none".into(),
        ] {
            c.arg("-o").arg(o);
        }
        c.args(args).output()
    };
    match apt(&["-qq", "update"]) {
        Err(e) => return println!("SKIP: apt-get: {e}"),
        Ok(o) => assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr)),
    }
    let universe = Universe::new(common::records(&packages, "main"), "amd64");
    let (mut same, mut other, mut more, mut neither) = (0, 0, 0, 0);
    for seed in 0..UNIVERSES {
        let name = format!("u{seed}p0");
        let out = apt(&["-qq", "-s", "--no-install-recommends", "install", &name]).unwrap();
        let theirs: BTreeSet<String> = String::from_utf8(out.stdout)
            .unwrap()
            .lines()
            .filter_map(|l| l.strip_prefix("Inst "))
            .map(|l| {
                l.split_whitespace()
                    .take(2)
                    .collect::<Vec<_>>()
                    .join(" ")
                    .replace('(', "")
            })
            .collect();
        let ours = universe.resolve(&request(&name)).ok().map(|set| {
            set.iter()
                .map(|r| format!("{} {}", r.package(), r.version()))
                .collect::<BTreeSet<_>>()
        });
        match (out.status.success(), ours) {
            (true, Some(ours)) if ours == theirs => same += 1,
            (true, Some(ours)) => {
                println!("seed {seed}: apt {theirs:?} we {ours:?}");
                other += 1;
            }
            (true, None) => panic!("seed {seed}: apt finds {theirs:?}"),
            // apt looks at one version of a package only, and gives up early.
            (false, Some(_)) => more += 1,
            (false, None) => neither += 1,
        }
    }
    println!("{same} same, {other} other, {more} only we, {neither} neither");
    assert!(
        same > 20 && other * 10 <= same,
        "{same} same answers, {other} other ones"
    );
}
