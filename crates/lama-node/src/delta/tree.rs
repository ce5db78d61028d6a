// SPDX-License-Identifier: Apache-2.0
//! dm-verity hash trees of SHA-256 in blocks of 4096 bytes (kernel:
//! Documentation/admin-guide/device-mapper/verity.rst), out of the digests of the data.

use super::BLOCK;
use sha2::{Digest, Sha256};

/// Bytes of a digest.
pub const DIGEST: usize = 32;

/// Digests of blocks, gathered while the data goes by.
pub struct Leaves {
    salted: Sha256,
    block: Vec<u8>,
    digests: Vec<u8>,
}

impl Leaves {
    /// With a salt before each block; an empty one gives plain digests.
    pub fn new(salt: &[u8]) -> Self {
        Self {
            salted: Sha256::new_with_prefix(salt),
            block: Vec::with_capacity(BLOCK),
            digests: Vec::new(),
        }
    }

    /// Takes in data.
    pub fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = BLOCK - self.block.len();
            let (now, rest) = data.split_at(room.min(data.len()));
            data = rest;
            if self.block.is_empty() && now.len() == BLOCK {
                self.digest(now);
            } else {
                self.block.extend_from_slice(now);
                if self.block.len() == BLOCK {
                    let block = std::mem::take(&mut self.block);
                    self.digest(&block);
                    self.block = block;
                    self.block.clear();
                }
            }
        }
    }

    fn digest(&mut self, block: &[u8]) {
        let mut h = self.salted.clone();
        h.update(block);
        self.digests.extend_from_slice(&h.finalize());
    }

    /// The digests of all whole blocks, one after another.
    pub fn digests(&self) -> &[u8] {
        &self.digests
    }

    /// The tree, its uppermost level first, and the root hash.
    pub fn tree(self) -> (Vec<u8>, [u8; DIGEST]) {
        let mut level = self.digests;
        let mut levels = Vec::new();
        while level.len() > DIGEST {
            level.resize(level.len().div_ceil(BLOCK) * BLOCK, 0);
            let mut up = Vec::with_capacity(level.len() / BLOCK * DIGEST);
            for block in level.chunks(BLOCK) {
                let mut h = self.salted.clone();
                h.update(block);
                up.extend_from_slice(&h.finalize());
            }
            levels.push(std::mem::replace(&mut level, up));
        }
        levels.reverse();
        let mut root = [0; DIGEST];
        for (to, from) in root.iter_mut().zip(&level) {
            *to = *from;
        }
        (levels.concat(), root)
    }
}
