// SPDX-License-Identifier: Apache-2.0
//! Packages, decompressed once.
//!
//! The store keeps of every package its `data.tar`, decompressed, as `unpacked/<sha256>.tar`, and
//! its control data as `unpacked/<sha256>.json`. A warm build maps and indexes them; nothing is read
//! that no stage asks for.

use crate::{Error, PackageInput, Result};
use lama_exec::fs::{self, AtPath};
use lama_exec::progress::{Progress, Unit};
use lama_feed::deb::Deb;
use lama_tree::{Blob, Node, TreePath};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Raised when the form of what is kept changes: older files are then made anew.
const FORMAT: u32 = 1;

/// A package's control data as kept in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    format: u32,
    /// The fields of its control stanza, in order.
    pub fields: Vec<(String, String)>,
    /// Its maintainer scripts, `triggers` and `conffiles`, by name, in hexadecimal (a script may be
    /// a binary program).
    scripts: BTreeMap<String, String>,
}

impl Control {
    /// A field's value; names compare without regard to case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(k, _)| k.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
    /// Scripts, `triggers` and `conffiles`, by name.
    pub fn scripts(&self) -> impl Iterator<Item = (&str, Vec<u8>)> {
        self.scripts
            .iter()
            .map(|(k, v)| (k.as_str(), hex::decode(v).unwrap_or_default()))
    }
    /// Control data from its parts.
    pub fn new(fields: Vec<(String, String)>, scripts: &BTreeMap<String, Vec<u8>>) -> Self {
        let scripts = scripts
            .iter()
            .map(|(k, v)| (k.clone(), hex::encode(v)))
            .collect();
        Self {
            format: FORMAT,
            fields,
            scripts,
        }
    }
}

/// An unpacked package.
#[derive(Debug)]
pub struct Unpacked {
    /// Control data.
    pub control: Control,
    /// Its files in the archive's order, contents in the mapped archive.
    pub members: Vec<(TreePath, Node)>,
}

/// Where the unpacked package of this digest is kept.
fn places(store: &Path, sha256: &str) -> (PathBuf, PathBuf) {
    let dir = store.join("unpacked");
    (
        dir.join(format!("{sha256}.tar")),
        dir.join(format!("{sha256}.json")),
    )
}

/// Unpacks all packages on all processors; the answer is in the order of `packages`.
///
/// # Errors
/// A damaged package; a full disk. Nothing half-written stays under its final name.
pub fn unpack(
    store: &Path,
    packages: &[PackageInput],
    progress: &dyn Progress,
) -> Result<Vec<Unpacked>> {
    let task = progress.task("Unpacking packages", Unit::Items, packages.len() as u64);
    // The largest first: a kernel that starts last would keep one processor busy alone.
    let mut order: Vec<usize> = (0..packages.len()).collect();
    let size = |i: &usize| {
        packages
            .get(*i)
            .and_then(|p| std::fs::metadata(&p.deb).ok())
            .map_or(0, |m| m.len())
    };
    order.sort_by_cached_key(|i| (std::cmp::Reverse(size(i)), *i));
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Unpacked>)>> = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(packages.len());
    std::thread::scope(|s| {
        for _ in 0..workers.max(1) {
            s.spawn(|| {
                while let Some(i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Some(p) = packages.get(*i) else { break };
                    let r = one(store, p);
                    let failed = r.is_err();
                    if let Ok(mut d) = done.lock() {
                        d.push((*i, r));
                    }
                    task.message(&p.name);
                    task.advance(1);
                    if failed {
                        next.store(order.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut done = done
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, r)| r).collect()
}

fn one(store: &Path, p: &PackageInput) -> Result<Unpacked> {
    let (tar, json) = places(store, &p.sha256);
    let control = match kept(&tar, &json)? {
        Some(c) => c,
        None => extract(&p.deb, &tar, &json)?,
    };
    let mut members = Vec::new();
    lama_tree::read_tar(&Blob::map(&tar)?, |path, node| {
        members.push((path, node));
        Ok(())
    })?;
    Ok(Unpacked { control, members })
}

/// What is kept already, if it is whole and of this format.
fn kept(tar: &Path, json: &Path) -> Result<Option<Control>> {
    // The index is written last: where it is, the archive is.
    let Some(text) = fs::read_optional(json)? else {
        return Ok(None);
    };
    if std::fs::symlink_metadata(tar).is_err() {
        return Ok(None);
    }
    Ok(serde_json::from_slice::<Control>(&text)
        .ok()
        .filter(|c| c.format == FORMAT))
}

fn extract(deb: &Path, tar: &Path, json: &Path) -> Result<Control> {
    let d = Deb::open(deb)?;
    let c = d.control()?;
    let fields = c
        .fields
        .iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    let control = Control::new(fields, &c.scripts);
    let mut out = fs::Staged::new(tar)?;
    std::io::copy(&mut d.data_reader()?, out.file()).at("decompress into", tar)?;
    out.commit_synced(0o644)?;
    let text = serde_json::to_vec(&control).map_err(|e| Error::Effect {
        origin: json.display().to_string(),
        what: e.to_string(),
    })?;
    fs::write_atomic(json, text)?;
    Ok(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_data_survive_the_store() {
        let scripts = BTreeMap::from([("postinst".to_owned(), b"\x7fELF\xff".to_vec())]);
        let c = Control::new(vec![("Package".into(), "a".into())], &scripts);
        let text = serde_json::to_vec(&c).unwrap();
        let back: Control = serde_json::from_slice(&text).unwrap();
        assert_eq!(back, c);
        assert_eq!(back.field("package"), Some("a"));
        assert_eq!(
            back.scripts().next(),
            Some(("postinst", b"\x7fELF\xff".to_vec()))
        );
    }

    #[test]
    fn an_older_format_is_made_anew() {
        let d = tempfile::tempdir().unwrap();
        let (tar, json) = places(d.path(), "00");
        assert!(kept(&tar, &json).unwrap().is_none());
        fs::create_dir_all(d.path().join("unpacked")).unwrap();
        fs::write(&tar, "").unwrap();
        let mut c = Control::new(vec![], &BTreeMap::new());
        fs::write(&json, serde_json::to_vec(&c).unwrap()).unwrap();
        assert!(kept(&tar, &json).unwrap().is_some());
        c.format = 0;
        fs::write(&json, serde_json::to_vec(&c).unwrap()).unwrap();
        assert!(kept(&tar, &json).unwrap().is_none());
    }
}
