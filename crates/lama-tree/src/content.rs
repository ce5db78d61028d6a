// SPDX-License-Identifier: Apache-2.0
//! Content of regular files: bytes in memory, or a slice of a memory-mapped file.

use crate::{Error, Result};
use lama_exec::fs::{self, AtPath};
use memmap2::Mmap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A memory-mapped file that contents point into, such as a package's decompressed archive.
pub struct Blob {
    map: Option<Mmap>,
    path: PathBuf,
}

impl Blob {
    /// Maps a file. It must not change while mapped: map only files of the content-addressed
    /// store, or of a private directory.
    pub fn map(path: impl AsRef<Path>) -> Result<Arc<Self>> {
        let path = path.as_ref().to_owned();
        let file = fs::open(&path)?;
        let len = file.metadata().at("look at", &path)?.len();
        let map = if len == 0 {
            None
        } else {
            // SAFETY: the store's files are immutable by construction; a file truncated by somebody
            // else would end the process by SIGBUS, which leaves nothing half-written.
            Some(unsafe { Mmap::map(&file) }.at("map", &path)?)
        };
        Ok(Arc::new(Self { map, path }))
    }

    /// The mapped bytes.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({})", self.path.display())
    }
}

/// The content of a regular file. Cheap to clone.
#[derive(Clone)]
pub enum Content {
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// A range of a mapped file; made by [`Content::slice`], which checks it.
    Slice(Arc<Blob>, usize, usize),
}

impl Content {
    /// `len` bytes of `blob` from `offset` on.
    ///
    /// # Errors
    /// The range lies outside the file.
    pub fn slice(blob: &Arc<Blob>, offset: usize, len: usize) -> Result<Self> {
        let total = blob.bytes().len();
        match offset.checked_add(len) {
            Some(end) if end <= total => Ok(Self::Slice(Arc::clone(blob), offset, len)),
            _ => Err(Error::Range {
                path: blob.path().to_owned(),
                offset,
                len,
                total,
            }),
        }
    }

    /// A whole file, mapped.
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        let blob = Blob::map(path)?;
        let len = blob.bytes().len();
        Ok(Self::Slice(blob, 0, len))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(b) => b,
            Self::Slice(b, o, l) => b.bytes().get(*o..*o + *l).unwrap_or(&[]),
        }
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(b) => b.len(),
            Self::Slice(_, _, l) => *l,
        }
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

macro_rules! from_bytes {
    ($($t:ty),*) => {$(
        impl From<$t> for Content {
            fn from(v: $t) -> Self {
                Self::Bytes(Vec::<u8>::from(v).into())
            }
        }
    )*};
}
from_bytes!(Vec<u8>, &[u8], String, &str);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.len())
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}
impl Eq for Content {}
