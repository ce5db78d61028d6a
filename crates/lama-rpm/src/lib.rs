// SPDX-License-Identifier: Apache-2.0
//! Signed RPM packages and feeds.
//!
//! A package is a lead, a *signature header*, the *header* (all metadata) and a compressed payload.
//! Signatures cover the header; the header has the payload's digest, so both are covered. They stand
//! in the signature header, which nothing covers: it is rewritten to sign a package.
//!
//! - [`Package`]: a file, taken apart.
//! - [`verify`]: who signed it, and is every digest right?
//! - [`sign`]: in place, by the `openpgp` key of a key set.
//! - [`feed`]: the index of a folder of packages, `repodata/`.
//!
//! The format: <https://rpm-software-management.github.io/rpm/manual/>, "V4 package format" and "V6
//! package format". Nothing here reads more of a package than it takes to sign and to believe it.

mod digest;
mod error;
pub mod feed;
pub mod header;
mod package;
mod sign;
mod verify;

pub use error::{Error, Result};
pub use package::{Format, Package};
pub use sign::{Done, Others, sign};
pub use verify::{Refused, verify};

use lama_exec::fs;
use std::path::{Path, PathBuf};

/// The packages that `path` names: itself, or all `*.rpm` in the folder and below, sorted. Links are
/// not followed.
///
/// # Errors
/// A folder cannot be read, or there is no such file.
pub fn packages(path: &Path) -> Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut out = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let at = entry.path();
            let kind = fs::symlink_metadata(&at)?.file_type();
            if kind.is_dir() {
                folders.push(at);
            } else if kind.is_file() && at.extension().is_some_and(|e| e == "rpm") {
                out.push(at);
            }
        }
    }
    out.sort();
    Ok(out)
}
