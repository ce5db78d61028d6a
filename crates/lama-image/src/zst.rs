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
const FRAME: u64 = 4 << 20;

/// Compressed data by the BLAKE3 digest of what was compressed.
#[derive(Debug, Clone)]
pub struct FrameCache {
    dir: PathBuf,
}

impl FrameCache {
    /// A cache in this directory, made when it is first needed. Any number of builds may share it.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// What `make` compresses `data` to, `how` being everything besides it that the result depends
    /// on; from the cache where it has been made before.
    pub fn compressed(
        &self,
        data: &[u8],
        how: &str,
        make: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let place = self
            .dir
            .join(format!("{}-{how}.zst", blake3::hash(data).to_hex()));
        // A power cut may have left it short: what it says of itself has to be so.
        let whole = |known: &[u8]| {
            let content = zstd::zstd_safe::get_frame_content_size(known)
                .ok()
                .flatten();
            content == Some(data.len() as u64)
                && zstd::zstd_safe::find_frame_compressed_size(known).ok() == Some(known.len())
        };
        if let Some(known) = fs::read_optional(&place)?.filter(|k| whole(k)) {
            touch(&place);
            return Ok(known);
        }
        let made = make()?;
        debug_assert!(whole(&made), "a frame that says how long it is");
        fs::write_atomic(&place, &made)?;
        Ok(made)
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

/// How an image is compressed.
#[derive(Debug, Clone)]
pub struct Compression {
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Offsets in bytes, ascending, at which a frame begins whatever came before: those of the
    /// partitions, so that the frames of one are the same wherever it lies.
    pub starts: Vec<u64>,
    /// Finished frames.
    pub cache: Option<FrameCache>,
}

impl Compression {
    /// Compresses `from` to `to`, and hashes both on the way. Returns what `from` and `to` are.
    pub fn compress(&self, from: &Path, to: &Path) -> Result<(Artifact, Artifact)> {
        let mut out = Staged::new(to)?;
        let mut hash = Sha256::new();
        let mut size = 0;
        let read = self.frames(from, |data| {
            hash.update(data);
            size += data.len() as u64;
            Ok(out.write_all(data).at("write", to)?)
        })?;
        out.commit(0o644)?;
        let written = Artifact {
            path: to.to_owned(),
            size,
            sha256: hex::encode(hash.finalize()),
        };
        Ok((read, written))
    }

    /// Puts the frames of a file into the cache, before it becomes a partition of the image. Returns
    /// what the file is.
    pub fn prepare(&self, from: &Path) -> Result<Artifact> {
        let alone = Self {
            starts: Vec::new(),
            ..self.clone()
        };
        alone.frames(from, |_| Ok(()))
    }

    /// Gives the frames of `from` to `take`, in order.
    fn frames(
        &self,
        from: &Path,
        mut take: impl FnMut(&[u8]) -> Result<()> + Send,
    ) -> Result<Artifact> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut file = fs::open(from)?;
        std::thread::scope(|s| {
            // Frames go to the workers in turn and come back in turn, so their order is kept. One
            // waiting at each worker bounds the memory.
            let mut workers = Vec::new();
            // Fresh memory costs more than what it is filled with, so buffers come back.
            let (give_back, used) = mpsc::channel::<Vec<u8>>();
            for _ in 0..threads {
                let give_back = give_back.clone();
                let (to_worker, frames) = mpsc::sync_channel::<Vec<u8>>(1);
                let (done, from_worker) = mpsc::sync_channel::<Result<Vec<u8>>>(1);
                s.spawn(move || {
                    for f in frames {
                        let made = self.frame(&f, from);
                        // Nobody takes it any more once all is read.
                        let _ = give_back.send(f);
                        if done.send(made).is_err() {
                            break;
                        }
                    }
                });
                workers.push((to_worker, from_worker));
            }
            let (to_workers, from_workers): (Vec<_>, Vec<_>) = workers.into_iter().unzip();

            let taker = s.spawn(move || -> Result<()> {
                // A worker that has nothing more to say has ended, as then have all after it.
                (0..)
                    .map_while(|i: usize| from_workers.get(i % threads).and_then(|w| w.recv().ok()))
                    .try_for_each(|data| take(&data?))
            });

            let mut hash = Sha256::new();
            let mut size = 0;
            for w in (0..).map_while(|i: usize| to_workers.get(i % threads)) {
                let next = self.starts.iter().find(|o| **o > size);
                let len = next.map_or(FRAME, |o| FRAME.min(o - size));
                let mut data = used
                    .try_recv()
                    .unwrap_or_else(|_| Vec::with_capacity(FRAME as usize));
                data.clear();
                (&mut file)
                    .take(len)
                    .read_to_end(&mut data)
                    .at("read", from)?;
                if data.is_empty() {
                    break;
                }
                hash.update(&data);
                size += data.len() as u64;
                if w.send(data).is_err() {
                    break; // the taker knows why
                }
            }
            drop(to_workers);
            taker
                .join()
                .map_err(|_| Error::Thread("the compression"))??;
            Ok(Artifact {
                path: from.to_owned(),
                size,
                sha256: hex::encode(hash.finalize()),
            })
        })
    }

    fn frame(&self, data: &[u8], from: &Path) -> Result<Vec<u8>> {
        let make = || -> Result<Vec<u8>> {
            let mut z = zstd::bulk::Compressor::new(self.level).at("compress", from)?;
            z.include_checksum(true).at("compress", from)?;
            Ok(z.compress(data).at("compress", from)?)
        };
        match &self.cache {
            Some(c) => c.compressed(data, &self.level.to_string(), make),
            None => make(),
        }
    }
}

/// Marks a frame as used; only `prune` looks at that.
fn touch(p: &Path) {
    if let Ok(f) = fs::open(p) {
        let _ = f.set_modified(std::time::SystemTime::now());
    }
}
