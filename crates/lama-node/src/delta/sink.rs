// SPDX-License-Identifier: Apache-2.0
//! Where a bundle is put together: the payload goes in, encrypted and hashed on the way, so that all
//! of it passes through memory once and little of it at a time.

use super::crypt::Cipher;
use super::tree::Leaves;
use super::{BLOCK, hex, unhex};
use crate::error::Context;
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::io::Write;

/// What the signed manifest of a `crypt` bundle says of its payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Crypt {
    /// The payload's key.
    pub key: [u8; 32],
    /// The salt of its hash tree.
    pub salt: Vec<u8>,
    /// The tree's root.
    pub hash: String,
    /// Bytes of the tree.
    pub tree: u64,
}

impl Crypt {
    /// Reads a manifest (RAUC 1.13, "`[bundle]` Section").
    ///
    /// # Errors
    /// It is none of a `crypt` bundle.
    pub fn parse(manifest: &str) -> Result<Self> {
        let mut section = "";
        let mut get = |name: &str| {
            section = "";
            for line in manifest.lines().map(str::trim) {
                if let Some(s) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                    section = s;
                } else if let Some((k, v)) = line.split_once('=') {
                    if section == "bundle" && k.trim() == name {
                        return Ok(v.trim().to_owned());
                    }
                }
            }
            Err(Error::new(format!("the manifest has no {name}")))
        };
        let format = get("format")?;
        if format != "crypt" {
            return Err(Error::new(format!(
                "a bundle of the format {format}, not crypt"
            )));
        }
        let bytes = |text: String, name: &str| {
            unhex(&text).ok_or_else(|| Error::new(format!("{name} of the manifest is no number")))
        };
        let key = bytes(get("crypt-key")?, "crypt-key")?;
        let tree = get("verity-size")?.parse().ok();
        Ok(Self {
            key: <[u8; 32]>::try_from(key)
                .map_err(|_| Error::new("crypt-key of the manifest is of another length"))?,
            salt: bytes(get("verity-salt")?, "verity-salt")?,
            hash: get("verity-hash")?,
            tree: tree.ok_or_else(|| Error::new("verity-size of the manifest is no number"))?,
        })
    }
}

/// Digests of a part of the payload, which later parts are computed from.
struct Tap {
    start: u64,
    end: u64,
    leaves: Leaves,
}

/// A bundle being put together.
pub struct Sink<W: Write> {
    out: W,
    cipher: Cipher,
    tree: Leaves,
    whole: Sha256,
    size: u64,
    block: Vec<u8>,
    at: u64,
    taps: Vec<Tap>,
}

impl<W: Write> Sink<W> {
    /// Into `out`, as this manifest says.
    pub fn new(out: W, crypt: &Crypt) -> Self {
        Self {
            out,
            cipher: Cipher::new(&crypt.key),
            tree: Leaves::new(&crypt.salt),
            whole: Sha256::new(),
            size: 0,
            block: Vec::with_capacity(BLOCK),
            at: 0,
            taps: Vec::new(),
        }
    }

    /// Gathers digests of `size` bytes from `start` on.
    pub fn tap(&mut self, start: u64, size: u64, salt: &[u8]) {
        self.taps.push(Tap {
            start,
            end: start.saturating_add(size),
            leaves: Leaves::new(salt),
        });
    }

    /// The gathered digests of that part, once it has gone by; each can be taken once.
    ///
    /// # Errors
    /// It is not there yet.
    pub fn take(&mut self, start: u64, size: u64) -> Result<Leaves> {
        let end = start.checked_add(size).filter(|e| *e <= self.at);
        let i = self
            .taps
            .iter()
            .position(|t| t.start == start && Some(t.end) == end);
        i.map(|i| self.taps.remove(i).leaves)
            .ok_or_else(|| Error::new("a part follows from one that does not come before it"))
    }

    /// Bytes of the payload so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Takes in the next bytes of the payload.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn push(&mut self, mut data: &[u8]) -> Result<()> {
        for t in &mut self.taps {
            let from = t.start.saturating_sub(self.at);
            let to = t.end.saturating_sub(self.at).min(data.len() as u64);
            let (from, to) = (usize::try_from(from), usize::try_from(to));
            if let (Ok(from), Ok(to)) = (from, to) {
                t.leaves.update(data.get(from..to).unwrap_or_default());
            }
        }
        self.at += data.len() as u64;
        while !data.is_empty() {
            let room = BLOCK - self.block.len();
            let (now, rest) = data.split_at(room.min(data.len()));
            data = rest;
            self.block.extend_from_slice(now);
            if self.block.len() == BLOCK {
                let mut block = std::mem::take(&mut self.block);
                self.cipher.encrypt(&mut block, self.size / BLOCK as u64);
                self.tree.update(&block);
                self.write(&block)?;
                block.clear();
                self.block = block;
            }
        }
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.whole.update(data);
        self.size += data.len() as u64;
        self.out.write_all(data).context("cannot write the bundle")
    }

    /// Appends the hash tree and the CMS structure. Returns what was written to, and the bundle's
    /// SHA-256.
    ///
    /// # Errors
    /// It is not the payload that the manifest speaks of.
    pub fn finish(mut self, crypt: &Crypt, cms: &[u8]) -> Result<(W, String)> {
        if !self.block.is_empty() {
            return Err(Error::new("the payload is no multiple of 4096 bytes"));
        }
        let leaves = std::mem::replace(&mut self.tree, Leaves::new(&[]));
        let (tree, root) = leaves.tree();
        if hex(&root) != crypt.hash || tree.len() as u64 != crypt.tree {
            return Err(Error::new(
                "what was put together is not the bundle that was signed",
            ));
        }
        self.write(&tree)?;
        self.write(cms)?;
        self.write(&(cms.len() as u64).to_be_bytes())?;
        Ok((self.out, hex(&self.whole.finalize())))
    }
}
