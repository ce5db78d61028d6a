// SPDX-License-Identifier: Apache-2.0
//! A finished file with its size and digest.

use crate::Result;
use lama_exec::fs::{self, AtPath};
use sha2::{Digest as _, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file that a stage has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where it lies.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

impl Artifact {
    /// Describes data that has just been written to `path`.
    pub fn of(path: impl Into<PathBuf>, data: &[u8]) -> Self {
        Self {
            path: path.into(),
            size: data.len() as u64,
            sha256: hex::encode(Sha256::digest(data)),
        }
    }
}

/// Hashes a file as it is.
pub fn hash_file(path: &Path) -> Result<Artifact> {
    let mut f = fs::open(path)?;
    let mut h = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let n = f.read(&mut buf).at("read", path)?;
        if n == 0 {
            break;
        }
        h.update(buf.get(..n).unwrap_or_default());
        size += n as u64;
    }
    Ok(Artifact {
        path: path.to_owned(),
        size,
        sha256: hex::encode(h.finalize()),
    })
}
