// SPDX-License-Identifier: Apache-2.0
//! Which files of the folder nobody needs any more.

use super::site::{DIGITS, Site};
use super::{EXTENSION, read};
use crate::{Error, Result};
use lama_exec::fs;
use lama_node::update::version::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

impl Site {
    /// Removes bundles and delta bundles of this machine and image, except those of the `keep` newest
    /// versions, and those that a channel file of the folder names. Returns what was removed.
    ///
    /// # Errors
    /// A channel file of the folder cannot be read: then nothing is removed.
    pub fn prune(&self, keep: usize) -> Result<Vec<PathBuf>> {
        let mut named = BTreeSet::new();
        let mut found = Vec::new();
        for e in fs::read_dir(&self.folder)? {
            let path = e.path();
            let name = e.file_name();
            let Some(name) = name.to_str() else { continue };
            if path.extension().is_some_and(|x| x == EXTENSION) {
                let c = read(&path)?.channel;
                let files = c.deltas.iter().map(|d| &d.file).chain([&c.bundle]);
                named.extend(files.map(|f| last_part(&f.url).to_owned()));
            } else if let Some(version) = version_of(&self.stem, name) {
                found.push((version, name.to_owned()));
            }
        }
        let mut versions: Vec<&Version> = found.iter().map(|f| &f.0).collect();
        versions.sort_by(|a, b| b.cmp(a));
        versions.dedup();
        versions.truncate(keep);
        let mut removed = Vec::new();
        for (version, name) in &found {
            if !versions.contains(&version) && !named.contains(name) {
                let path = self.path(name);
                fs::remove_file(&path)?;
                removed.push(path);
            }
        }
        Ok(removed)
    }
}

impl Site {
    /// Bundles of the newest versions before `version` that are published here, at most `count`, the
    /// newest first; of one that was published more than once, the file with the last name.
    ///
    /// # Errors
    /// The folder cannot be read, or `version` is none.
    pub fn before(&self, version: &str, count: usize) -> Result<Vec<(String, PathBuf)>> {
        let running = Version::parse(version).map_err(|e| Error::Value {
            what: "version",
            value: e.to_string(),
        })?;
        let mut found = BTreeMap::new();
        for e in fs::read_dir(&self.folder)? {
            let name = e.file_name();
            let Some(name) = name.to_str().filter(|n| n.ends_with(".raucb")) else {
                continue;
            };
            if let Some(v) = version_of(&self.stem, name).filter(|v| *v < running) {
                let last = found.entry(v).or_insert_with(|| name.to_owned());
                if name > &**last {
                    name.clone_into(last);
                }
            }
        }
        let newest = found.into_iter().rev().take(count);
        Ok(newest
            .map(|(v, name)| (v.to_string(), self.path(&name)))
            .collect())
    }
}

/// The version that a file of ours is of, or leads to; none of a file of others.
fn version_of(stem: &str, name: &str) -> Option<Version> {
    let name = name.strip_prefix(stem)?.strip_prefix('-')?;
    // Three numbers: else it may be the rest of another image's name.
    let whole = |v: &str| {
        let numbers = v.split(['-', '+']).next().unwrap_or_default();
        let parsed = Version::parse(v).ok();
        parsed.filter(|_| numbers.split('.').count() == 3)
    };
    let (from, rest) = match name.strip_suffix(".delta") {
        Some(delta) => {
            let (from, rest) = delta.rsplit_once("-to-")?;
            (Some(from), rest)
        }
        None => (None, name.strip_suffix(".raucb")?),
    };
    let (version, digits) = rest.rsplit_once('-')?;
    let hex = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let known = from.is_none_or(|f| whole(f).is_some());
    whole(version).filter(|_| hex && known)
}

fn last_part(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_versions() {
        let dir = tempfile::tempdir().unwrap();
        let file = Site::place(dir.path(), "stable", "lamadist-x86_64", "base").unwrap();
        let site = Site::open(&file).unwrap();
        assert_eq!(site.file(), file);
        let (bundle, delta) = (
            site.bundle_name("1.4.0-rc.1", &"ab".repeat(32)),
            site.delta_name("1.3.0-dev", "1.4.0-rc.1", &"cd".repeat(32)),
        );
        assert_eq!(bundle, "lamadist-x86_64-base-1.4.0-rc.1-abababab.raucb");
        for name in [&bundle, &delta] {
            assert_eq!(
                version_of(&site.stem, name).unwrap().to_string(),
                "1.4.0-rc.1"
            );
        }
        for others in [
            "lamadist-x86_64-base.channel",
            "lamadist-x86_64-base-1.4.0.raucb",
            "lamadist-x86_64-base-2-1.4.0-abababab.raucb",
            "lamadist-x86_64-base-dev-1.4.0-abababab.raucb",
            "lamadist-x86_64-baseline-1.4.0-abababab.raucb",
            "lamadist-rk1-base-1.4.0-abababab.raucb",
            "lamadist-x86_64-base-1.4.0-abababax.raucb",
            "lamadist-x86_64-base-1.4.0-abababab.delta",
            "notes.txt",
        ] {
            assert!(version_of(&site.stem, others).is_none(), "{others}");
        }
        for (track, compatible) in [("../x", "c"), ("", "c"), ("stable", "c/d"), (".x", "c")] {
            assert!(Site::place(dir.path(), track, compatible, "base").is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_name_makes_it_panic(name in "c-base[-.a-f0-9to]*(raucb|delta)?", any in "\\PC*") {
            let _ = (version_of("c-base", &name), version_of("", &any));
        }
    }
}
