// SPDX-License-Identifier: Apache-2.0
//! What is in the image, for people and scanners: /usr/lib/lamadist/packages.json, and dpkg's own
//! form of the same in /usr/lib/lamadist/dpkg/status (dpkg's place, /var/lib/dpkg, is not part of
//! the image).

use crate::unpack::Unpacked;
use crate::{PackageInput, Result};
use lama_tree::{Node, Tree};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One package of the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture (`all` where independent).
    pub arch: String,
    /// The source package it was built from.
    pub source: String,
    /// SHA-256 of the `.deb`, in hexadecimal.
    pub sha256: String,
    /// Its size once unpacked, in KiB, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_size: Option<u64>,
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
        })
        .collect();
    out.sort();
    out
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
    let json = serde_json::to_string_pretty(manifest).unwrap_or_default();
    tree.add(
        "usr/lib/lamadist/packages.json",
        Node::file(format!("{json}\n"), 0o644),
    )?;
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
