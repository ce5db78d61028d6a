// SPDX-License-Identifier: Apache-2.0
//! Paths in a tree: relative, normalised, UTF-8.

use crate::{Error, Result};
use std::fmt;

/// A path below a tree's root: `usr/lib/os-release`. Without leading or trailing `/`, `.` or `..`;
/// the root itself is the empty path. Ordered so that a directory's entries follow it directly.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TreePath(String);

impl TreePath {
    /// The root.
    pub const ROOT: TreePath = TreePath(String::new());

    /// Normalises `./usr//lib/`, `/usr/lib`, `usr/lib` to `usr/lib`.
    ///
    /// # Errors
    /// `..` or a NUL byte in it.
    pub fn new(text: &str) -> Result<Self> {
        let mut out = String::with_capacity(text.len());
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => return Err(Error::Path(text.to_owned())),
                p if p.contains('\0') => return Err(Error::Path(text.to_owned())),
                p => {
                    if !out.is_empty() {
                        out.push('/');
                    }
                    out.push_str(p);
                }
            }
        }
        Ok(Self(out))
    }

    /// The text, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it lies in; none for the root.
    pub fn parent(&self) -> Option<TreePath> {
        if self.0.is_empty() {
            return None;
        }
        Some(Self(
            self.0
                .rsplit_once('/')
                .map_or_else(String::new, |(d, _)| d.to_owned()),
        ))
    }

    /// The last component; empty for the root.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// This path with one more component (or several).
    pub fn join(&self, name: &str) -> Result<TreePath> {
        Self::new(&format!("{}/{name}", self.0))
    }

    /// Whether it is `dir` or lies below it.
    pub fn is_under(&self, dir: &TreePath) -> bool {
        dir.is_root()
            || self.0 == dir.0
            || self
                .0
                .strip_prefix(dir.as_str())
                .is_some_and(|r| r.starts_with('/'))
    }
}

impl Ord for TreePath {
    /// Component by component, so that `a/b` comes before `a-b`.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |b: &u8| if *b == b'/' { 0 } else { *b };
        self.0
            .bytes()
            .map(|b| key(&b))
            .cmp(other.0.bytes().map(|b| key(&b)))
    }
}
impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}
impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
