// SPDX-License-Identifier: Apache-2.0
//! A block device copied onto another one: one thread reads, and may begin before there is anywhere to
//! write; another writes, which encrypts where the target is a volume that does so at once.

use crate::error::{Context, Error, Result};
use crate::fs;
use crate::install::{say, source};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;
/// Pieces that are read ahead: what a machine with little memory can spare.
const PIECES: usize = 64;
/// Bytes after which the kernel is told to write: it would wait for much more by itself.
const BEHIND: u64 = 8 << 20;

/// What is read of a device, ahead of whoever writes it. Dropping it ends the reading.
pub struct Ahead {
    from: PathBuf,
    size: u64,
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
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
        // SAFETY: a plain system call on an open descriptor; it is advice.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_SEQUENTIAL) };
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
        let (mut done, mut told, mut shown) = (0u64, 0u64, 0u64);
        for piece in &self.full {
            target.write_all(&piece).context(&writing)?;
            done = done.saturating_add(piece.len() as u64);
            // The reader may be done already.
            let _ = self.empty.send(piece);
            if done.saturating_sub(told) >= BEHIND {
                begin_writing(&target, told, done.saturating_sub(told));
                told = done;
            }
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

/// Reads until it has all, the file ends, or nobody takes it any more.
fn read(
    mut file: File,
    size: u64,
    filled: &SyncSender<Vec<u8>>,
    emptied: &Receiver<Vec<u8>>,
) -> std::io::Result<()> {
    let mut left = size;
    while left > 0 {
        let mut piece = emptied.try_recv().unwrap_or_default();
        piece.resize(usize::try_from(left).map_or(PIECE, |l| l.min(PIECE)), 0);
        let n = file.read(&mut piece)?;
        piece.truncate(n);
        left = left.saturating_sub(n as u64);
        if n == 0 || filled.send(piece).is_err() {
            break;
        }
    }
    Ok(())
}

/// Lets the kernel begin to write these bytes of a file. It would do so later by itself.
fn begin_writing(file: &File, at: u64, len: u64) {
    if let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) {
        // SAFETY: a plain system call on an open descriptor.
        unsafe {
            libc::sync_file_range(file.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE);
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
        let data: Vec<u8> = (0..3_500_000u32).map(|n| n as u8).collect();
        fs::write(&a, &data, 0o600).unwrap();
        let copy = |size, to: &Path| Ahead::first(&a, size)?.write(to);
        assert!(copy(1, &b).is_err() && !b.exists());
        fs::write(&b, "", 0o600).unwrap();
        copy(data.len() as u64, &b).unwrap();
        assert!(fs::read(&b).unwrap() == data);
        let e = copy(4_000_000, &b).unwrap_err();
        assert!(
            e.to_string()
                .ends_with("a ends after 3500000 of 4000000 bytes"),
            "{e}"
        );
        assert!(copy(1 << 20, Path::new("/dev/full")).is_err());
        // More than is read ahead, and nobody who takes it.
        drop(Ahead::first(Path::new("/dev/zero"), 1 << 40).unwrap());
        let e = Ahead::first(dir.path(), 1).unwrap().write(&b).unwrap_err();
        assert!(e.to_string().starts_with("cannot read "), "{e}");
    }
}
