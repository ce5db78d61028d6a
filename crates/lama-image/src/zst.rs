// SPDX-License-Identifier: Apache-2.0
//! Compression of a large image in independent zstd frames.
//!
//! Frames of a fixed amount of data make the result independent of the number of threads, let all
//! cores work, and let unchanged parts of an image be taken from a cache. A sequence of frames is
//! an ordinary `.zst` file (RFC 8878, 3).

use crate::{Artifact, Error, Result};
use lama_exec::fs::{self, AtPath, Staged};
use sha2::{Digest as _, Sha256};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

/// Bytes in a frame: as much as level 11 can look back.
const FRAME: usize = 4 << 20;

/// The level that a frame is tried at first, and that it keeps where it hardly shrinks.
const QUICK: i32 = 3;

/// Finished frames by the digest of what they hold.
#[derive(Debug, Clone)]
pub struct FrameCache {
    dir: PathBuf,
}

impl FrameCache {
    /// A cache in this directory, made when it is first needed. Any number of builds may share it.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn place(&self, digest: &str, level: i32) -> PathBuf {
        self.dir.join(format!("{digest}-{level}.zst"))
    }

    /// Removes the frames longest unused until at most `limit` bytes are left.
    pub fn prune(&self, limit: u64) -> Result<()> {
        if !self.dir.is_dir() {
            return Ok(());
        }
        let mut all = Vec::new();
        for e in fs::read_dir(&self.dir)? {
            // One that another build has just removed is no matter.
            if let Ok(m) = e.metadata() {
                all.push((m.modified().ok(), m.len(), e.path()));
            }
        }
        all.sort();
        let mut total: u64 = all.iter().map(|e| e.1).sum();
        for (_, len, path) in all {
            if total <= limit {
                break;
            }
            fs::remove_file(path)?;
            total -= len;
        }
        Ok(())
    }
}

/// Compresses `from` to `to`, and hashes both on the way. Returns what `from` and `to` are.
pub fn compress(
    from: &Path,
    to: &Path,
    level: i32,
    cache: Option<&FrameCache>,
) -> Result<(Artifact, Artifact)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut file = fs::open(from)?;
    std::thread::scope(|s| {
        let lost = || Error::Thread("the compression");
        // Frames go to the workers in turn and come back in turn, so their order is kept. One
        // waiting at each worker bounds the memory.
        let mut workers = Vec::new();
        for _ in 0..threads {
            let (to_worker, frames) = mpsc::sync_channel::<Vec<u8>>(1);
            let (done, from_worker) = mpsc::sync_channel::<Result<Vec<u8>>>(1);
            s.spawn(move || {
                for f in frames {
                    if done.send(frame(&f, from, level, cache)).is_err() {
                        break;
                    }
                }
            });
            workers.push((to_worker, from_worker));
        }
        let (to_workers, from_workers): (Vec<_>, Vec<_>) = workers.into_iter().unzip();

        let writer = s.spawn(move || -> Result<Artifact> {
            let mut out = Staged::new(to)?;
            let mut hash = Sha256::new();
            let mut size = 0;
            // A worker that has nothing more to say has ended, as then have all after it.
            for data in (0..)
                .map_while(|i: usize| from_workers.get(i % threads).and_then(|w| w.recv().ok()))
            {
                let data = data?;
                hash.update(&data);
                size += data.len() as u64;
                out.write_all(&data).at("write", to)?;
            }
            out.commit(0o644)?;
            Ok(Artifact {
                path: to.to_owned(),
                size,
                sha256: hex::encode(hash.finalize()),
            })
        });

        let mut hash = Sha256::new();
        let mut size = 0;
        for w in (0..).map_while(|i: usize| to_workers.get(i % threads)) {
            let mut data = Vec::with_capacity(FRAME);
            (&mut file)
                .take(FRAME as u64)
                .read_to_end(&mut data)
                .at("read", from)?;
            if data.is_empty() {
                break;
            }
            hash.update(&data);
            size += data.len() as u64;
            if w.send(data).is_err() {
                break; // the writer knows why
            }
        }
        drop(to_workers);
        let written = writer.join().map_err(|_| lost())??;
        let read = Artifact {
            path: from.to_owned(),
            size,
            sha256: hex::encode(hash.finalize()),
        };
        Ok((read, written))
    })
}

fn frame(data: &[u8], from: &Path, level: i32, cache: Option<&FrameCache>) -> Result<Vec<u8>> {
    let place = cache.map(|c| c.place(&hex::encode(Sha256::digest(data)), level));
    if let Some(p) = &place
        && let Some(known) = fs::read_optional(p)?
    {
        touch(p);
        return Ok(known);
    }
    let at = |level| -> Result<Vec<u8>> {
        let mut z = zstd::bulk::Compressor::new(level).at("compress", from)?;
        z.include_checksum(true).at("compress", from)?;
        Ok(z.compress(data).at("compress", from)?)
    };
    // What is compressed already (an EROFS, an initrd) gains 2 % more from level 11 for twelve times
    // the work: the whole build would spend half its time here.
    let mut made = at(level.min(QUICK))?;
    if level > QUICK && made.len() < data.len() / 4 * 3 {
        made = at(level)?;
    }
    if let Some(p) = &place {
        fs::write_atomic(p, &made)?;
    }
    Ok(made)
}

/// Marks a frame as used; only `prune` looks at that.
fn touch(p: &Path) {
    if let Ok(f) = fs::open(p) {
        let _ = f.set_modified(std::time::SystemTime::now());
    }
}
