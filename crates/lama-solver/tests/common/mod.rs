// SPDX-License-Identifier: Apache-2.0
//! What the tests share: a reader of `Packages` files, and small universes written by hand.

#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;

use lama_solver::Record;

/// The records of a `Packages` file.
pub fn records(text: &str, feed: &str) -> Vec<Record> {
    let feed: Arc<str> = feed.into();
    let mut out = Vec::new();
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.is_empty() {
            if !fields.is_empty() {
                let get = |name: &str| fields.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
                out.push(Record::from_fields(get, &feed).unwrap());
            }
            fields.clear();
        } else if !line.starts_with(' ')
            && let Some((name, value)) = line.split_once(':')
        {
            fields.push((name, value.trim()));
        }
    }
    out
}

/// Records of a universe written by hand: stanzas with the fields that matter; the others are
/// made up.
pub fn small(text: &str) -> Vec<Record> {
    let sha256 = "0".repeat(64);
    let mut out = String::new();
    for stanza in text.split("\n\n").map(str::trim).filter(|s| !s.is_empty()) {
        out.push_str(stanza);
        for (field, value) in [
            ("Version", "1"),
            ("Architecture", "amd64"),
            ("Filename", "x.deb"),
            ("Size", "1"),
        ] {
            if !stanza.lines().any(|l| l.starts_with(&format!("{field}:"))) {
                out.push_str(&format!("\n{field}: {value}"));
            }
        }
        out.push_str(&format!("\nSHA256: {sha256}\n\n"));
    }
    records(&out, "main")
}

/// A small universe out of chance: up to six packages in one or two versions, two virtual names,
/// every kind of relation. All names begin with `prefix`.
pub fn chance(seed: u64, prefix: &str) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut roll = |n: u64| {
        // xorshift64*: good enough to vary universes, and the same everywhere.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    };
    let mut out = String::new();
    let names = 3 + roll(4);
    for p in 0..names {
        for version in 1..=(1 + roll(2)) {
            out.push_str(&format!(
                "Package: {prefix}p{p}\nVersion: {version}\nArchitecture: amd64\n"
            ));
            if roll(3) == 0 {
                let bound = if roll(2) == 0 { " (= 2)" } else { "" };
                out.push_str(&format!("Provides: {prefix}v{}{bound}\n", roll(2)));
            }
            let target = |roll: &mut dyn FnMut(u64) -> u64| {
                let kind = if roll(4) == 0 {
                    format!("v{}", roll(2))
                } else {
                    format!("p{}", roll(7))
                };
                let bound = ["", "", " (>= 2)", " (<< 2)", " (= 1)"][roll(5) as usize];
                format!("{prefix}{kind}{bound}")
            };
            let mut clauses = Vec::new();
            for _ in 0..roll(3) {
                let mut c = target(&mut roll);
                if roll(2) == 0 {
                    c = format!("{c} | {}", target(&mut roll));
                }
                clauses.push(c);
            }
            if !clauses.is_empty() {
                out.push_str(&format!("Depends: {}\n", clauses.join(", ")));
            }
            for field in ["Conflicts", "Breaks"] {
                if roll(5) == 0 {
                    out.push_str(&format!("{field}: {}\n", target(&mut roll)));
                }
            }
            out.push_str(&format!(
                "Filename: {prefix}p{p}_{version}.deb\nSize: 1\nSHA256: {}\n\n",
                "0".repeat(64)
            ));
        }
    }
    out
}
