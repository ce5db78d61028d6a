// SPDX-License-Identifier: Apache-2.0
//! What is in the image, for people and scanners: /usr/lib/lamadist/packages.json, and of the packages
//! dpkg's own form of the same in /usr/lib/lamadist/dpkg/status (dpkg's place, /var/lib/dpkg, is not part of
//! the image).

use crate::unpack::Unpacked;
use crate::{PackageInput, Result};
use lama_tree::{Node, Tree};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the list lies in the root.
const PATH: &str = "usr/lib/lamadist/packages.json";

/// One package of the image, or a program that was compiled for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture (`all` where independent).
    pub arch: String,
    /// The source package it was built from; of a program its folder in the checkout.
    pub source: String,
    /// SHA-256 of the `.deb`, or of the program, in hexadecimal.
    pub sha256: String,
    /// Its size once unpacked, in KiB, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_size: Option<u64>,
    /// What it is; a package where that is not said.
    #[serde(default, skip_serializing_if = "Kind::is_package")]
    pub kind: Kind,
    /// SPDX expression of a program's licence; those of a package are in /usr/share/doc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// What a program was compiled from, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crates: Vec<Crate>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A package of the feeds.
    #[default]
    Package,
    /// A program of ours, compiled while the image was built.
    Program,
}

impl Kind {
    fn is_package(&self) -> bool {
        *self == Self::Package
    }
}

/// A crate of crates.io that a program was compiled from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the `.crate` file, in hexadecimal.
    pub sha256: String,
    /// SPDX expression of its licence, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// What it does in it.
    pub part: Part,
}

/// How a crate came to be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// It is part of the program.
    Linked,
    /// It ran while that was compiled: a macro, or what one needs.
    Build,
}

/// The manifest of these packages, sorted, without those that are not laid into the root.
pub fn manifest(
    packages: &[PackageInput],
    unpacked: &[Unpacked],
    drop: &BTreeMap<String, String>,
) -> Vec<Entry> {
    let mut out: Vec<Entry> = packages
        .iter()
        .zip(unpacked)
        .filter(|(p, _)| !drop.contains_key(&p.name))
        .map(|(p, u)| Entry {
            name: p.name.clone(),
            version: p.version.clone(),
            arch: p.arch.clone(),
            source: p.source.clone(),
            sha256: p.sha256.clone(),
            installed_size: u
                .control
                .field("Installed-Size")
                .and_then(|s| s.parse().ok()),
            kind: Kind::Package,
            license: None,
            crates: Vec::new(),
        })
        .collect();
    out.sort();
    out
}

/// Writes the list into the tree, in place of one that is there.
///
/// # Errors
/// The tree is at fault.
pub fn list(tree: &mut Tree, manifest: &[Entry]) -> Result<()> {
    let json = serde_json::to_string_pretty(manifest).unwrap_or_default();
    tree.add(PATH, Node::file(format!("{json}\n"), 0o644))?;
    Ok(())
}

/// Writes both forms into the tree.
///
/// # Errors
/// The tree is at fault.
pub fn write(
    tree: &mut Tree,
    packages: &[PackageInput],
    unpacked: &[Unpacked],
    manifest: &[Entry],
) -> Result<()> {
    list(tree, manifest)?;
    let mut all: Vec<(&PackageInput, &Unpacked)> = packages
        .iter()
        .zip(unpacked)
        .filter(|(p, _)| {
            manifest
                .iter()
                .any(|m| m.name == p.name && m.arch == p.arch)
        })
        .collect();
    all.sort_by_key(|(p, _)| (&p.name, &p.arch));
    let mut status = String::new();
    for (_, u) in all {
        for (k, v) in &u.control.fields {
            status += &format!("{k}: {v}\n");
            if k.eq_ignore_ascii_case("package") {
                status += "Status: install ok installed\n";
            }
        }
        status.push('\n');
    }
    tree.add("usr/lib/lamadist/dpkg/status", Node::file(status, 0o644))?;
    Ok(())
}
