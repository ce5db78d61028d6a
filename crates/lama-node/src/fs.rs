// SPDX-License-Identifier: Apache-2.0
//! Files, with errors that name the path.
#![allow(clippy::disallowed_methods)]

use crate::error::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The whole content.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    fs::read(path).context(format_args!("cannot read {}", path.display()))
}

/// The whole content, or nothing where there is no such file.
///
/// # Errors
/// The file cannot be read.
pub fn read_optional(path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
    let path = path.as_ref();
    match fs::read(path) {
        Ok(d) => Ok(Some(d)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e).context(format_args!("cannot read {}", path.display())),
    }
}

/// A text file; what is not UTF-8 in it is replaced.
///
/// # Errors
/// The file cannot be read.
pub fn text(path: impl AsRef<Path>) -> Result<String> {
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
}

/// A line of sysfs or procfs without its newline; nothing where it cannot be read.
pub fn line(path: impl AsRef<Path>) -> Option<String> {
    let data = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&data).trim().to_owned())
}

/// The names in a directory, sorted; none where there is no such directory.
///
/// # Errors
/// The directory cannot be read.
pub fn names(path: impl AsRef<Path>) -> Result<Vec<String>> {
    let path = path.as_ref();
    let what = format!("cannot list {}", path.display());
    let entries = match fs::read_dir(path) {
        Ok(e) => e,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).context(what),
    };
    let mut out = Vec::new();
    for e in entries {
        out.push(e.context(&what)?.file_name().to_string_lossy().into_owned());
    }
    out.sort();
    Ok(out)
}

/// A directory and those above it.
///
/// # Errors
/// It cannot be made.
pub fn create_dir(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path).context(format_args!("cannot make {}", path.display()))
}

/// Writes a file beside its place with `mode`, syncs it and renames it there.
///
/// # Errors
/// It cannot be written; what was there before stays.
pub fn write(path: impl AsRef<Path>, data: impl AsRef<[u8]>, mode: u32) -> Result<()> {
    let mut r: &[u8] = data.as_ref();
    copy(&mut r, path, mode).map(|_| ())
}

/// As [`write()`], from a reader. Returns the number of bytes.
///
/// # Errors
/// It cannot be read or written; what was there before stays.
pub fn copy(from: &mut impl Read, path: impl AsRef<Path>, mode: u32) -> Result<u64> {
    let path = path.as_ref();
    let what = format!("cannot write {}", path.display());
    if let Some(dir) = path.parent() {
        create_dir(dir)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut write = || -> std::io::Result<u64> {
        let _ = fs::remove_file(&new);
        let mut f = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        let n = std::io::copy(from, &mut f)?;
        f.flush()?;
        // The umask may have taken some of it; FAT has no modes.
        let _ = f.set_permissions(fs::Permissions::from_mode(mode));
        f.sync_all()?;
        fs::rename(&new, path)?;
        if let Some(dir) = path.parent() {
            // Some file systems do not sync directories.
            let _ = File::open(dir).and_then(|d| d.sync_all());
        }
        Ok(n)
    };
    write()
        .inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
        .context(what)
}

/// Brings what was changed in a directory to the disk.
///
/// # Errors
/// It cannot be opened, or the disk is broken.
pub fn sync(dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    let synced = File::open(dir).and_then(|d| d.sync_all());
    synced.context(format_args!("cannot sync {}", dir.display()))
}

/// What is done where somebody else holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// To wait.
    Wait,
    /// To go without.
    Leave,
}

/// A lock on a file (flock(2)), which ends with this.
///
/// It is given back, not only closed: a program that another thread begins at that moment has the
/// descriptor, too, until it is executed, and would hold the lock as long.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: a plain system call on an open descriptor. Where it fails, closing does it.
        unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

/// Locks a file, which is made. Nothing is where somebody else holds it and is not waited for.
///
/// # Errors
/// The file cannot be made or locked.
pub fn lock(path: impl AsRef<Path>, busy: Busy) -> Result<Option<Lock>> {
    let path = path.as_ref();
    let what = format!("cannot lock {}", path.display());
    if let Some(dir) = path.parent() {
        create_dir(dir)?;
    }
    // Not one that is renamed into its place: everybody has to have the same.
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .context(&what)?;
    let how = match busy {
        Busy::Wait => libc::LOCK_EX,
        Busy::Leave => libc::LOCK_EX | libc::LOCK_NB,
    };
    loop {
        // SAFETY: a plain system call on an open descriptor.
        if unsafe { libc::flock(file.as_raw_fd(), how) } == 0 {
            return Ok(Some(Lock(file)));
        }
        let e = std::io::Error::last_os_error();
        match e.kind() {
            ErrorKind::Interrupted => {}
            ErrorKind::WouldBlock => return Ok(None),
            _ => return Err(e).context(what),
        }
    }
}

/// Opens a file for reading.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    File::open(path).context(format_args!("cannot open {}", path.display()))
}

/// Opens a file for reading and writing, which is made where there is none; what is in it stays.
///
/// # Errors
/// It cannot be opened.
pub fn open_rw(path: impl AsRef<Path>, mode: u32) -> Result<File> {
    let path = path.as_ref();
    let mut o = File::options();
    o.read(true).write(true).create(true).truncate(false);
    let file = o.mode(mode).open(path);
    file.context(format_args!("cannot open {}", path.display()))
}

/// Opens a device for reading and writing. Where there is none, nothing is made in its place.
///
/// # Errors
/// It cannot be opened.
pub fn open_device(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    let file = File::options().read(true).write(true).open(path);
    file.context(format_args!("cannot open {}", path.display()))
}

/// Renames a file that was written beside its place, and syncs both it and its directory.
///
/// # Errors
/// It cannot be synced or renamed.
pub fn commit(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let what = format!("cannot write {}", to.display());
    open(from)?.sync_all().context(&what)?;
    rename(from, to)?;
    if let Some(dir) = to.parent() {
        // Some file systems do not sync directories.
        let _ = File::open(dir).and_then(|d| d.sync_all());
    }
    Ok(())
}

/// Bytes of a file; none where there is no such file.
pub fn size(path: impl AsRef<Path>) -> Option<u64> {
    let meta = fs::symlink_metadata(path).ok()?;
    meta.is_file().then_some(meta.len())
}

/// SHA-256 of a file in lower-case hexadecimal, and its bytes.
///
/// # Errors
/// It cannot be read.
pub fn sha256(path: impl AsRef<Path>) -> Result<(String, u64)> {
    let path = path.as_ref();
    let mut file = open(path)?;
    let (mut h, mut size) = (Sha256::new(), 0);
    let mut buf = vec![0; 1 << 16];
    loop {
        let n = file.read(&mut buf);
        let n = n.context(format_args!("cannot read {}", path.display()))?;
        if n == 0 {
            return Ok((crate::delta::hex(&h.finalize()), size));
        }
        h.update(buf.get(..n).unwrap_or_default());
        size += n as u64;
    }
}

/// Bytes that are free in the file system at a path, without those that root alone may use.
///
/// # Errors
/// There is no such path.
pub fn free(path: impl AsRef<Path>) -> Result<u64> {
    let s = crate::health::checks::statvfs(&path.as_ref().to_string_lossy())?;
    Ok(s.f_bavail.saturating_mul(s.f_frsize))
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
/// It cannot be removed.
pub fn remove(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).context(format_args!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The path with all links followed.
///
/// # Errors
/// There is no such file.
pub fn canonical(path: impl AsRef<Path>) -> Result<PathBuf> {
    let path = path.as_ref();
    fs::canonicalize(path).context(format_args!("cannot find {}", path.display()))
}

/// `len` random bytes of the kernel's.
///
/// # Errors
/// `/dev/urandom` cannot be read.
pub fn random(len: usize) -> Result<Vec<u8>> {
    let mut b = vec![0; len];
    open("/dev/urandom")?
        .read_exact(&mut b)
        .context("cannot read /dev/urandom")?;
    Ok(b)
}

/// Renames within a file system.
///
/// # Errors
/// It cannot be renamed.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    fs::rename(from, to).context(format_args!(
        "cannot rename {} to {}",
        from.display(),
        to.display()
    ))
}

/// Removes a directory and all in it; one that is not there is fine.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove_tree(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).context(format_args!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/lock");
        let held = lock(&path, Busy::Wait).unwrap();
        assert!(held.is_some());
        assert!(lock(&path, Busy::Leave).unwrap().is_none());
        // As a program has it that is being begun.
        let elsewhere = held.as_ref().map(|l| l.0.try_clone().unwrap());
        drop(held);
        assert!(lock(&path, Busy::Leave).unwrap().is_some());
        drop(elsewhere);
        assert!(lock("/proc/lock", Busy::Leave).is_err());
        sync(dir.path()).unwrap();
        assert!(sync("/nonexistent").is_err());
    }
}
