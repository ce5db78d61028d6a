// SPDX-License-Identifier: Apache-2.0
//! A block device copied onto another one: one thread reads, and may begin before there is anywhere to
//! write; another writes. Both past the page cache (open(2), `O_DIRECT`), which nobody needs to hold what
//! is read once, and which costs several times what the disks do where the processor is slow.

use crate::error::{Context, Error, Result};
use crate::fs;
use crate::install::{say, source};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

/// Bytes that are copied at once: enough for all processors to encrypt some.
const PIECE: usize = 4 << 20;
/// Pieces that are read ahead: what a machine with little memory can spare.
const PIECES: usize = 16;
/// What memory and offsets are multiples of where the page cache is passed: the largest sector.
const ALIGNED: usize = 4096;

/// What is read of a device, ahead of whoever writes it. Dropping it ends the reading.
pub struct Ahead {
    from: PathBuf,
    size: u64,
    full: Receiver<Piece>,
    empty: Sender<Piece>,
    reader: JoinHandle<Result<()>>,
}

impl Ahead {
    /// Begins to read a device.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn read(from: &Path) -> Result<Self> {
        Self::first(from, source::bytes(from)?)
    }

    /// Begins to read the first so many bytes of a device or file.
    fn first(from: &Path, size: u64) -> Result<Self> {
        let file = fs::open(from)?;
        direct(&file, size);
        let (filled, full) = sync_channel(PIECES);
        let (empty, emptied) = channel();
        let path = from.to_owned();
        Ok(Self {
            from: from.to_owned(),
            size,
            full,
            empty,
            reader: thread::spawn(move || {
                read(file, size, &filled, &emptied)
                    .context(format_args!("cannot read {}", path.display()))
            }),
        })
    }

    /// Writes it onto a device that is there, and says how far it is. Returns when it is on the disk.
    ///
    /// # Errors
    /// It cannot be read, ends too early, or cannot be written.
    pub fn write(self, to: &Path) -> Result<()> {
        let writing = format!("cannot write {}", to.display());
        let mut target = fs::open_device(to)?;
        direct(&target, self.size);
        let (mut done, mut shown) = (0u64, 0u64);
        for piece in &self.full {
            target.write_all(piece.data()).context(&writing)?;
            done = done.saturating_add(piece.length as u64);
            // The reader may be done already.
            let _ = self.empty.send(piece);
            let quarter = done.saturating_mul(4) / self.size.max(1);
            if quarter > shown {
                shown = quarter;
                say(&format!("{} % of the root is copied", shown * 25));
            }
        }
        let panicked = |_| Err(Error::new("reading came to no end"));
        self.reader.join().unwrap_or_else(panicked)?;
        if done < self.size {
            let (from, size) = (self.from.display(), self.size);
            return Err(Error::new(format!(
                "{from} ends after {done} of {size} bytes"
            )));
        }
        target.sync_all().context(writing)
    }
}

/// Memory for what is copied at once.
struct Piece {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Piece {
    fn new() -> Self {
        let memory = vec![0; PIECE + ALIGNED];
        let start = memory.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        Self {
            memory,
            start,
            length: 0,
        }
    }

    fn data(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }

    /// Fills it by one read of at most so many bytes.
    fn fill(&mut self, from: &mut File, most: u64) -> std::io::Result<()> {
        let most = usize::try_from(most).map_or(PIECE, |m| m.min(PIECE));
        self.length = from.read(&mut self.memory[self.start..self.start + most])?;
        Ok(())
    }
}

/// Reads until it has all, the file ends, or nobody takes it any more.
fn read(
    mut file: File,
    size: u64,
    filled: &SyncSender<Piece>,
    emptied: &Receiver<Piece>,
) -> std::io::Result<()> {
    let mut left = size;
    while left > 0 {
        let mut piece = emptied.try_recv().unwrap_or_else(|_| Piece::new());
        piece.fill(&mut file, left)?;
        let n = piece.length;
        left = left.saturating_sub(n as u64);
        if n == 0 || filled.send(piece).is_err() {
            break;
        }
    }
    Ok(())
}

/// Passes the page cache from here on, where a block device can, and so much is whole sectors.
fn direct(file: &File, size: u64) {
    let device = file
        .metadata()
        .is_ok_and(|m| m.file_type().is_block_device());
    if device && size % ALIGNED as u64 == 0 {
        // SAFETY: plain system calls on an open descriptor. One that refuses stays as it is.
        unsafe {
            let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
            libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_or_says_why_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let data: Vec<u8> = (0..9_500_000u32).map(|n| n as u8).collect();
        fs::write(&a, &data, 0o600).unwrap();
        let copy = |size, to: &Path| Ahead::first(&a, size)?.write(to);
        assert!(copy(1, &b).is_err() && !b.exists());
        fs::write(&b, "", 0o600).unwrap();
        copy(data.len() as u64, &b).unwrap();
        assert!(fs::read(&b).unwrap() == data);
        let e = copy(10_000_000, &b).unwrap_err();
        assert!(
            e.to_string()
                .ends_with("a ends after 9500000 of 10000000 bytes"),
            "{e}"
        );
        assert!(copy(1 << 20, Path::new("/dev/full")).is_err());
        // More than is read ahead, and nobody who takes it.
        drop(Ahead::first(Path::new("/dev/zero"), 1 << 40).unwrap());
        let e = Ahead::first(dir.path(), 1).unwrap().write(&b).unwrap_err();
        assert!(e.to_string().starts_with("cannot read "), "{e}");
    }
}
