// SPDX-License-Identifier: Apache-2.0
//! The encrypted volumes of a new disk: formatted, filled, and closed to all but the machine.
//!
//! systemd-repart(8) could do that, too, but formats LUKS2 with the disk's sectors, which are 512 bytes
//! on most: eight times as many pieces to encrypt as with [`luks::SECTOR`]. And it does one thing after
//! the other, where the TPM is waited for as well as the disk.

use crate::error::{Context, Result};
use crate::install::{say, source};
use crate::luks::{self, Opener};
use crate::machine::{Machine, Partition, Role};
use crate::run::Run;
use crate::{Error, fs};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What volumes are called while they are open here, before their GPT name.
const PREFIX: &str = "lamadist-install-";
/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;
/// Bytes after which the kernel is told to write: it would wait for much more by itself.
const BEHIND: u64 = 8 << 20;

/// How volumes are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// By the TPM.
    Tpm,
    /// By a passphrase.
    Passphrase,
}

/// All volumes of a disk.
pub struct Volumes<'a> {
    /// Opens all of them, and stays with whoever installs.
    pub recovery: &'a str,
    /// What opens them from now on.
    pub lock: Lock,
    /// The passphrase where it is one.
    pub passphrase: Option<&'a str>,
    /// What slot A's root is copied from.
    pub root: &'a Path,
    /// The TPM does one thing at a time, and a passphrase takes much memory.
    one: Mutex<()>,
}

impl<'a> Volumes<'a> {
    /// With these.
    pub fn new(recovery: &'a str, lock: Lock, passphrase: Option<&'a str>, root: &'a Path) -> Self {
        Self {
            recovery,
            lock,
            passphrase,
            root,
            one: Mutex::new(()),
        }
    }

    /// Makes one of them. Sees that it opens by both of its keys; it is closed afterwards.
    ///
    /// # Errors
    /// cryptsetup's, systemd-cryptenroll's, mkfs's; the root cannot be read, or not be written.
    pub fn make(&self, p: &Partition, device: &str) -> Result<()> {
        luks::format(device, &p.label, self.recovery)?;
        // Both work on the same header, which cryptsetup locks.
        std::thread::scope(|s| {
            let sealing = s.spawn(|| self.seal(device));
            let filled = self.fill(p, device);
            let panicked = |_| Err(Error::new("sealing came to no end"));
            sealing.join().unwrap_or_else(panicked).and(filled)
        })
        .context(format_args!("volume {}", p.label))
    }

    fn seal(&self, device: &str) -> Result<()> {
        let opener = Opener::Key(self.recovery);
        // What another thread left in a panic is no secret of this one's.
        let _one = self.one.lock().unwrap_or_else(|e| e.into_inner());
        match (self.lock, self.passphrase) {
            (Lock::Passphrase, Some(p)) => {
                luks::add_passphrase(device, opener, p)?;
                luks::check(device, Opener::Key(p))
            }
            _ => {
                luks::seal(device, opener)?;
                luks::check(device, Opener::Tpm)
            }
        }
    }

    /// Opened by the recovery key, so that is known to do it.
    fn fill(&self, p: &Partition, device: &str) -> Result<()> {
        let volume = Open::new(device, &p.label, self.recovery)?;
        match p.role {
            Role::Root if p.slot.as_deref() == Some("a") => {
                let size = source::bytes(self.root)?;
                copy(self.root, &volume.path(), size)?;
            }
            Role::Var => make_fs(p, &volume.path())?,
            _ => (),
        }
        volume.close()
    }
}

/// Closes what an installation has left that was killed in the same live system.
///
/// # Errors
/// Something uses it.
pub fn close_left(machine: &Machine) -> Result<()> {
    for p in machine.layout.iter().filter(|p| p.encrypted) {
        let name = format!("{PREFIX}{}", p.label);
        if Path::new("/dev/mapper").join(&name).exists() {
            Open(name).close()?;
        }
    }
    Ok(())
}

/// An open volume, by its name; dropping it closes it.
struct Open(String);

impl Open {
    fn new(device: &str, label: &str, key: &str) -> Result<Self> {
        let name = format!("{PREFIX}{label}");
        let run = Run::new("cryptsetup").args(["open", "--type=luks2", "--batch-mode"]);
        // Each is written by one process, from one place to the other: who writes encrypts, and hands
        // nothing to the kernel's queues.
        let run = run.args(["--perf-no_read_workqueue", "--perf-no_write_workqueue"]);
        let run = run.args(["--disable-external-tokens", "--key-file", "-"]);
        run.args([device, &name]).stdin(key).run()?;
        Ok(Self(name))
    }

    fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.0)
    }

    fn close(mut self) -> Result<()> {
        let name = std::mem::take(&mut self.0);
        let run = Run::new("cryptsetup").args(["close", &name]);
        run.run().map(|_| ())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let _ = Run::new("cryptsetup").args(["close", &self.0]).any();
        }
    }
}

fn make_fs(p: &Partition, device: &Path) -> Result<()> {
    let kind = p.filesystem.as_deref().unwrap_or("ext4");
    let run = Run::new(format!("mkfs.{kind}")).arg("-q");
    // The partition was discarded as a whole.
    let run = match kind {
        "xfs" => run.arg("-K"),
        _ => run.args(["-m", "0", "-E", "nodiscard,lazy_itable_init=1"]),
    };
    // As much of a name as both take.
    let label: String = p.label.chars().take(12).collect();
    run.args(["-L", &label])
        .arg(device)
        .run()
        .context("cannot make the file system")
        .map(|_| ())
}

/// Copies a block device onto another, and says how far it is.
fn copy(from: &Path, to: &Path, size: u64) -> Result<()> {
    let reading = format!("cannot read {}", from.display());
    let writing = format!("cannot write {}", to.display());
    let (mut source, mut target) = (fs::open(from)?, fs::open_device(to)?);
    let mut piece = vec![0; PIECE];
    let (mut done, mut told, mut shown) = (0u64, 0u64, 0u64);
    while done < size {
        let n = source.read(&mut piece).context(&reading)?;
        let Some(data) = piece.get(..n).filter(|d| !d.is_empty()) else {
            return Err(Error::new(format!(
                "{} ends after {done} of {size} bytes",
                from.display()
            )));
        };
        target.write_all(data).context(&writing)?;
        done = done.saturating_add(n as u64);
        if done.saturating_sub(told) >= BEHIND {
            begin_writing(&target, told, done.saturating_sub(told));
            told = done;
        }
        let quarter = done.saturating_mul(4) / size;
        if quarter > shown {
            shown = quarter;
            say(&format!("{} % of the root is copied", shown * 25));
        }
    }
    target.sync_all().context(writing)
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
        assert!(copy(&a, &b, 1).is_err() && !b.exists());
        fs::write(&b, "", 0o600).unwrap();
        copy(&a, &b, data.len() as u64).unwrap();
        assert!(fs::read(&b).unwrap() == data);
        let e = copy(&a, &b, 4_000_000).unwrap_err();
        assert!(
            e.to_string()
                .ends_with("a ends after 3500000 of 4000000 bytes"),
            "{e}"
        );
        assert!(copy(&a, Path::new("/dev/full"), 1 << 20).is_err());
    }
}
