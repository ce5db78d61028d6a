// SPDX-License-Identifier: Apache-2.0
//! Delta bundles: out of what a machine has and a small file, the full signed bundle, bit for bit.
//!
//! A RAUC bundle of the format `crypt` is an encrypted squashfs, its hash tree, and a CMS structure,
//! encrypted to the machines, with the signed manifest in it: the squashfs's key and the root of the
//! tree. A delta bundle holds that same CMS structure and says how the squashfs's bytes follow from
//! the images of an earlier version. Who makes the bundle out of it checks it against the root hash in
//! the manifest; RAUC then checks the signature and installs, as any other bundle. So nothing in here
//! is trusted: what is wrong makes another bundle than the signed one, and that is noticed.
//!
//! # The file
//!
//! | Bytes | What |
//! |---|---|
//! | 8 | `LAMADLT1` |
//! | 4 | length of the header, little-endian |
//! | … | the header, JSON ([`Header`]) |
//! | `cms` | the CMS structure of the bundle |
//! | … | chunks of `chunk` bytes, the last one shorter; the header has the SHA-256 of each |
//!
//! The chunks are one stream, encrypted in sectors of 4096 bytes like the bundle's own payload
//! ([`crypt`]), by a key that follows from the bundle's ([`crypt::delta_key`]), and padded with zeros:
//!
//! | Bytes | What |
//! |---|---|
//! | 4 | length of the plan, little-endian |
//! | … | the plan, JSON ([`Plan`]) |
//! | `control` | instructions, zstd |
//! | `literals` | bytes that no image of the earlier version has, zstd |
//!
//! An instruction is three numbers (LEB128): where to go in the earlier images from where the last
//! instruction ended (zigzag), how many bytes to copy from there, and how many to take from the
//! literals in place of the next ones. What can be computed is not in the file: hash indexes and the
//! hash tree of the root ([`Segment`]).

pub mod crypt;
pub mod ops;
pub mod rebuild;
pub mod sink;
pub mod tree;

use crate::error::Context;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Read;

/// The first bytes of the file.
pub const MAGIC: &[u8; 8] = b"LAMADLT1";
/// A header is not longer than this, in bytes.
const MOST_HEADER: usize = 4 << 20;
/// The CMS structure is not longer than this (RAUC: MAX_BUNDLE_SIGNATURE_SIZE), in bytes.
pub const MOST_CMS: usize = 64 << 10;
/// A chunk is not longer than this, in bytes.
const MOST_CHUNK: u32 = 16 << 20;
/// Bytes of a block of a bundle's payload, its hash tree, and hash indexes.
pub const BLOCK: usize = 4096;

/// What everybody may know of a delta bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Header {
    /// RAUC's `compatible`.
    pub compatible: String,
    /// The version whose images it needs.
    pub from: String,
    /// The version that it leads to.
    pub to: String,
    /// The images that it needs, one after another.
    pub base: Vec<Image>,
    /// Bytes of the bundle.
    pub bundle_size: u64,
    /// SHA-256 of the bundle.
    pub bundle_sha256: String,
    /// Bytes of the CMS structure.
    pub cms: u32,
    /// 16 random bytes: each delta bundle has a key of its own.
    pub nonce: String,
    /// Bytes of a chunk, a multiple of 4096.
    pub chunk: u32,
    /// Bytes of all chunks, a multiple of 4096.
    pub size: u64,
    /// SHA-256 of each chunk.
    pub chunks: Vec<String>,
}

/// An image of the earlier version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// RAUC's slot class: `rootfs` or `uki`.
    pub class: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: String,
}

/// How the payload follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// Its parts, one after another.
    pub segments: Vec<Segment>,
    /// Bytes of the compressed instructions.
    pub control: u64,
    /// Bytes of the instructions.
    pub control_raw: u64,
    /// Bytes of the compressed literals.
    pub literals: u64,
    /// Bytes of the literals.
    pub literals_raw: u64,
}

/// A part of the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Segment {
    /// What instructions make.
    Patch {
        /// Bytes.
        size: u64,
    },
    /// SHA-256 of each block of an earlier part of the payload (RAUC's block-hash-index).
    Index {
        /// Where that begins, in bytes from the payload's beginning.
        start: u64,
        /// Its bytes, a multiple of 4096.
        size: u64,
    },
    /// The dm-verity hash tree of an earlier part of the payload, without its superblock.
    Tree {
        /// Where that begins.
        start: u64,
        /// Its bytes, a multiple of 4096.
        size: u64,
        /// The salt, in hexadecimal.
        salt: String,
    },
}

impl Header {
    /// Reads the header; `file` stands before the CMS structure then.
    ///
    /// # Errors
    /// The file is no delta bundle, or says of itself what cannot be.
    pub fn read(file: &mut impl Read) -> Result<Self> {
        Self::read_sized(file).map(|(header, _)| header)
    }

    /// The header, and the bytes that it takes.
    fn read_sized(file: &mut impl Read) -> Result<(Self, u64)> {
        let what = "cannot read the delta bundle";
        let mut start = [0; 12];
        file.read_exact(&mut start).context(what)?;
        let (magic, len) = start.split_at(8);
        if magic != MAGIC {
            return Err(Error::new(
                "this is no delta bundle, or one of a later format",
            ));
        }
        let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
        if len > MOST_HEADER {
            return Err(Error::new(format!("a header of {len} bytes is too long")));
        }
        let mut json = vec![0; len];
        file.read_exact(&mut json).context(what)?;
        let header: Self = serde_json::from_slice(&json).context("the header")?;
        header.check()?;
        Ok((header, start.len() as u64 + len as u64))
    }

    /// The bytes that stand before the CMS structure.
    ///
    /// # Errors
    /// It says what cannot be.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.check()?;
        let json = serde_json::to_vec(self).context("the header")?;
        let len = u32::try_from(json.len()).ok();
        let len = len.filter(|l| *l as usize <= MOST_HEADER);
        let len = len.ok_or_else(|| Error::new("the header is too long"))?;
        let mut out = MAGIC.to_vec();
        out.extend(len.to_le_bytes());
        out.extend(json);
        Ok(out)
    }

    fn check(&self) -> Result<()> {
        let bad = |what: &str| Err(Error::new(format!("the header is wrong: {what}")));
        let block = BLOCK as u64;
        if self.cms == 0 || self.cms as usize > MOST_CMS {
            return bad("the size of the CMS structure");
        }
        if self.chunk == 0 || self.chunk % BLOCK as u32 != 0 || self.chunk > MOST_CHUNK {
            return bad("the size of a chunk");
        }
        if self.size == 0
            || self.size % block != 0
            || self.size.div_ceil(u64::from(self.chunk)) != self.chunks.len() as u64
        {
            return bad("the number of chunks");
        }
        if self.nonce.len() != 32 || unhex(&self.nonce).is_none() {
            return bad("the nonce");
        }
        let total = self
            .base
            .iter()
            .try_fold(0u64, |n, i| n.checked_add(i.size));
        if total.is_none() || self.bundle_size < block || self.bundle_size > 1 << 40 {
            return bad("a size");
        }
        Ok(())
    }

    /// Bytes of the chunk with this number.
    pub fn chunk_len(&self, n: usize) -> usize {
        let at = (n as u64).saturating_mul(u64::from(self.chunk));
        let left = self.size.saturating_sub(at);
        usize::try_from(left.min(u64::from(self.chunk))).unwrap_or(0)
    }

    /// How much of a file that was downloaded in part is good: the number of its bytes, and whether
    /// that is all of it. A download goes on from there.
    ///
    /// # Errors
    /// The file cannot be read, or its header is not whole yet or not right.
    pub fn verified(file: &mut impl Read) -> Result<(u64, bool)> {
        let (header, mut good) = Self::read_sized(file)?;
        let mut cms = Vec::new();
        file.by_ref()
            .take(u64::from(header.cms))
            .read_to_end(&mut cms)
            .context("cannot read the delta bundle")?;
        if cms.len() < header.cms as usize {
            return Ok((good, false));
        }
        good += cms.len() as u64;
        let mut chunk = Vec::new();
        for (n, want) in header.chunks.iter().enumerate() {
            chunk.clear();
            let len = header.chunk_len(n);
            file.by_ref()
                .take(len as u64)
                .read_to_end(&mut chunk)
                .context("cannot read the delta bundle")?;
            if chunk.len() < len || hex(&Sha256::digest(&chunk)) != *want {
                return Ok((good, false));
            }
            good += len as u64;
        }
        Ok((good, true))
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes of hexadecimal digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let digits = digits.filter(|d| d.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|p| p[0] << 4 | p[1]).collect())
}
