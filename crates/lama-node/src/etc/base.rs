// SPDX-License-Identifier: Apache-2.0
//! The record of how the image's files were when the host changed them.

use super::{ABSENT, Change, Image, Kind};
use crate::error::Context;
use crate::{Result, fs};
use std::collections::BTreeMap;
use std::path::Path;

/// Where it is kept.
pub const PATH: &str = "/var/lib/lamadist/etc/base.json";

/// Path to state, as [`Change`] has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base(BTreeMap<String, String>);

impl Base {
    /// Reads it; empty where there is none.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn read(path: &Path) -> Result<Self> {
        super::json(path).map(Self)
    }

    /// Writes it, where it differs from what was `read`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path, read: &Self) -> Result<()> {
        if self == read {
            return Ok(());
        }
        let json = serde_json::to_vec_pretty(&self.0).context("cannot write JSON")?;
        fs::write(path, json, 0o600)
    }

    /// Takes up changes that are new, drops those that are gone. What the host's copy equals needs
    /// no older base. Returns how many were taken up and dropped.
    pub fn record(&mut self, changes: &[Change]) -> (usize, usize) {
        let before = self.0.len();
        self.0.retain(|p, _| changes.iter().any(|c| c.path == *p));
        let dropped = before - self.0.len();
        let kept = self.0.len();
        for c in changes {
            if hides_nothing(c) {
                self.0.insert(c.path.clone(), c.lower.clone());
            } else {
                self.0.entry(c.path.clone()).or_insert(c.lower.clone());
            }
        }
        (self.0.len() - kept, dropped)
    }

    /// Takes the image's as it is now as what this change was made from.
    pub fn accept(&mut self, change: &Change) {
        self.0.insert(change.path.clone(), change.lower.clone());
    }

    /// Says of each change what the image did since.
    pub fn compare(&self, changes: &mut [Change]) {
        for c in changes {
            c.image = match self.0.get(&c.path) {
                _ if hides_nothing(c) => Image::Unchanged,
                None => Image::Unknown,
                Some(b) if *b == c.lower => Image::Unchanged,
                Some(_) => Image::Changed,
            };
        }
    }
}

/// Whether the host's content is the image's.
fn hides_nothing(c: &Change) -> bool {
    match c.kind {
        Kind::Same | Kind::Mode => true,
        Kind::Removed => c.lower == ABSENT,
        Kind::Added | Kind::Changed | Kind::Replaced => false,
    }
}
