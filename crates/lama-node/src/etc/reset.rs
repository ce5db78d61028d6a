// SPDX-License-Identifier: Apache-2.0
//! Giving files of the image back.
//!
//! Taking a file out of the upper directory while the overlay is mounted is undefined
//! (Documentation/filesystems/overlayfs.rst, "Changes to underlying filesystems"); copying the
//! image's content into the mounted /etc leaves a copy above, which hides the next image's. So a
//! reset is a wish that is written down, and the next boot's initrd fulfils it before it mounts.

use super::{Change, Kind, UPPER, changes};
use crate::error::Context;
use crate::{Error, Result, fs};
use std::collections::BTreeSet;
use std::path::Path;

/// Where wishes are kept.
pub const PATH: &str = "/var/lib/lamadist/etc/reset.json";

/// Why a change cannot be reset, where it can't.
///
/// # Errors
/// It is an added file or a directory.
pub fn possible(change: &Change, upper: &Path) -> Result<()> {
    let at = upper.join(&change.at);
    let dir = std::fs::symlink_metadata(&at).is_ok_and(|m| m.is_dir());
    match change.kind {
        Kind::Added => Err(Error::new(format!("the image has no {}", change.path))
            .hint("remove it from /etc with rm; that is complete at once")),
        Kind::Mode if dir => Err(Error::new(format!("{} is a directory", change.path))
            .hint("give it its mode and owner back with chmod and chown")),
        _ if dir => Err(Error::new(format!("{} is a directory", change.path))
            .hint("reset the files in it one by one")),
        _ => Ok(()),
    }
}

/// Writes a wish down.
///
/// # Errors
/// The file cannot be read or written.
pub fn wish(path: &Path, change: &Change) -> Result<()> {
    let mut all: BTreeSet<String> = super::json(path)?;
    all.insert(change.path.clone());
    let json = serde_json::to_vec_pretty(&all).context("cannot write JSON")?;
    fs::write(path, json, 0o600)
}

/// Fulfils the wishes of the system whose root is at `root`, before its /etc is mounted. Returns the
/// paths that were reset. A wish that cannot be fulfilled is forgotten, never in the way of booting.
///
/// # Errors
/// Something cannot be read or removed.
pub fn apply(root: &Path, attributes: &str) -> Result<Vec<String>> {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let path = below(PATH);
    if fs::read_optional(&path)?.is_none() {
        return Ok(Vec::new());
    }
    // First of all: what fails here must not be tried at every boot.
    let wishes: Result<BTreeSet<String>> = super::json(&path);
    fs::remove(&path)?;
    let (wishes, upper) = (wishes?, below(UPPER));
    let mut done = Vec::new();
    for c in changes(&root.join("etc"), &upper, attributes)? {
        if wishes.contains(&c.path) && possible(&c, &upper).is_ok() {
            fs::remove(upper.join(&c.at))?;
            done.push(c.path);
        }
    }
    Ok(done)
}
