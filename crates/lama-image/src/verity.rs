// SPDX-License-Identifier: Apache-2.0
//! The dm-verity hash tree, in an image of its own.
//!
//! Format 1 with a superblock, SHA-256, data and hash blocks of 4096 bytes, as
//! `veritysetup format` makes it (kernel: Documentation/admin-guide/device-mapper/verity.rst;
//! cryptsetup: `lib/verity/verity.c` for the superblock). Written here instead of by the tool
//! because hashing is all there is to it, and all cores can share that; the tests have
//! `veritysetup verify` check the result.

use crate::{Artifact, Error, Result};
use lama_exec::fs::{self, AtPath, Staged};
use sha2::{Digest as _, Sha256};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use uuid::Uuid;

/// Data and hash block size in bytes.
pub const BLOCK: usize = 4096;
const DIGEST: usize = 32;
const PER_BLOCK: usize = BLOCK / DIGEST;
/// Data blocks that a thread takes at a time (1 MiB).
const CHUNK: usize = 256;

/// What the tree depends on besides the data.
#[derive(Debug, Clone)]
pub struct Options {
    /// UUID in the superblock.
    pub uuid: Uuid,
    /// Salt, hashed before each block.
    pub salt: [u8; 32],
}

/// A finished hash tree.
#[derive(Debug, Clone)]
pub struct Verity {
    /// The image.
    pub image: Artifact,
    /// The root hash, lower-case hexadecimal: `roothash=` of the kernel command line.
    pub root_hash: String,
}

/// Makes the hash tree `out` of the image `data`, whose length must be a multiple of 4096 bytes.
pub fn format(data: &Path, out: &Path, options: &Options) -> Result<Verity> {
    let file = fs::open(data)?;
    let len = file.metadata().at("look at", data)?.len();
    let bad = |reason: String| Error::Format {
        path: data.display().to_string(),
        reason,
    };
    if len == 0 || !len.is_multiple_of(BLOCK as u64) {
        return Err(bad(format!(
            "{len} bytes long; a verity-protected image must be a multiple of {BLOCK}"
        )));
    }
    let blocks = usize::try_from(len / BLOCK as u64).map_err(|_| bad("too large".into()))?;
    let salted = Sha256::new_with_prefix(options.salt);

    let mut level = vec![0u8; blocks * DIGEST];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = std::sync::Mutex::new(level.chunks_mut(CHUNK * DIGEST).enumerate());
    std::thread::scope(|s| {
        let jobs: Vec<_> = (0..threads)
            .map(|_| {
                s.spawn(|| -> Result<()> {
                    let mut buf = vec![0; CHUNK * BLOCK];
                    loop {
                        let next = match work.lock() {
                            Ok(mut w) => w.next(),
                            Err(_) => return Err(Error::Thread("the verity tree")),
                        };
                        let Some((i, hashes)) = next else {
                            return Ok(());
                        };
                        let n = hashes.len() / DIGEST * BLOCK;
                        let part = buf.get_mut(..n).unwrap_or_default();
                        file.read_exact_at(part, (i * CHUNK * BLOCK) as u64)
                            .at("read", data)?;
                        hash_blocks(&salted, part, hashes);
                    }
                })
            })
            .collect();
        jobs.into_iter()
            .try_for_each(|j| j.join().unwrap_or(Err(Error::Thread("the verity tree"))))
    })?;

    // Levels from the data upwards, each padded to whole blocks; on disk the uppermost is first.
    let mut levels = Vec::new();
    while level.len() > DIGEST {
        level.resize(level.len().div_ceil(BLOCK) * BLOCK, 0);
        let mut up = vec![0; level.len() / BLOCK * DIGEST];
        hash_blocks(&salted, &level, &mut up);
        levels.push(std::mem::replace(&mut level, up));
    }
    let root = level;

    let mut image = superblock(blocks as u64, options);
    for l in levels.iter().rev() {
        image.extend_from_slice(l);
    }
    let mut staged = Staged::new(out)?;
    staged.write_all(&image).at("write", out)?;
    staged.commit(0o644)?;
    Ok(Verity {
        image: Artifact::of(out, &image),
        root_hash: hex::encode(root),
    })
}

fn hash_blocks(salted: &Sha256, data: &[u8], out: &mut [u8]) {
    for (block, digest) in data.chunks(BLOCK).zip(out.chunks_mut(DIGEST)) {
        let mut h = salted.clone();
        h.update(block);
        digest.copy_from_slice(&h.finalize());
    }
}

/// `struct verity_sb`, padded to a hash block.
fn superblock(blocks: u64, o: &Options) -> Vec<u8> {
    let mut b = Vec::with_capacity(BLOCK);
    b.extend(b"verity\0\0");
    b.extend(1u32.to_le_bytes()); // superblock version
    b.extend(1u32.to_le_bytes()); // hash type: normal (the salt comes first)
    b.extend(o.uuid.as_bytes());
    let mut algorithm = [0; 32];
    algorithm[..6].copy_from_slice(b"sha256");
    b.extend(algorithm);
    b.extend((BLOCK as u32).to_le_bytes());
    b.extend((BLOCK as u32).to_le_bytes());
    b.extend(blocks.to_le_bytes());
    b.extend((o.salt.len() as u16).to_le_bytes());
    b.extend([0; 6]);
    b.extend(o.salt);
    b.resize(BLOCK, 0);
    b
}

/// The size in bytes of the tree of an image of `data` bytes, superblock included.
pub fn size_for(data: u64) -> u64 {
    let (mut blocks, mut total) = (data.div_ceil(BLOCK as u64), 1);
    while blocks > 1 {
        blocks = blocks.div_ceil(PER_BLOCK as u64);
        total += blocks;
    }
    total * BLOCK as u64
}
