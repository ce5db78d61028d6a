// SPDX-License-Identifier: Apache-2.0
//! What the tests share: a reader of `Packages` files, and small universes written by hand.

#![allow(dead_code)]

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
