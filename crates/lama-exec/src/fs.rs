// SPDX-License-Identifier: Apache-2.0
//! `std::fs` with errors that name the path and the attempted operation.
//!
//! New files are made atomically by [`write_atomic`] or [`Staged`]: a temporary sibling, written,
//! flushed and renamed, so an interruption never leaves half a file under its final name.
#![allow(clippy::disallowed_methods)]

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// An I/O error with the path it happened at.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("cannot {action} {}: {source}", path.display())]
#[diagnostic(help("{}", hint(source)))]
pub struct FsError {
    /// What was attempted, as a verb: `read`, `write`, `create directory` …
    pub action: &'static str,
    /// The path it was attempted on.
    pub path: PathBuf,
    /// The operating system's answer.
    pub source: io::Error,
}

fn hint(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::StorageFull => {
            "the file system is full: free some space, or point LAMADIST_CACHE or --deploy elsewhere"
        }
        io::ErrorKind::QuotaExceeded => "the disk quota is used up: free some space",
        io::ErrorKind::PermissionDenied => {
            "check the owner and mode of the path; was it made by another user or by root?"
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only",
        io::ErrorKind::NotFound => "check the spelling, and that the file has been made",
        _ => "check the path and the file system it is on",
    }
}

/// Result of a file operation.
pub type Result<T> = std::result::Result<T, FsError>;

/// Extension that attaches a path to an [`io::Result`].
pub trait AtPath<T> {
    /// Names the operation and the path in the error.
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| FsError {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

/// Reads a whole file.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    std::fs::read(path.as_ref()).at("read", path.as_ref())
}

/// Reads a whole UTF-8 file.
pub fn read_to_string(path: impl AsRef<Path>) -> Result<String> {
    std::fs::read_to_string(path.as_ref()).at("read", path.as_ref())
}

/// Reads a whole file, or `None` where it does not exist.
pub fn read_optional(path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path.as_ref()) {
        Ok(data) => Ok(Some(data)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("read", path.as_ref()),
    }
}

/// Writes a file in place (not atomic: for scratch files only).
pub fn write(path: impl AsRef<Path>, data: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path.as_ref(), data).at("write", path.as_ref())
}

/// Opens a file for reading.
pub fn open(path: impl AsRef<Path>) -> Result<File> {
    File::open(path.as_ref()).at("open", path.as_ref())
}

/// Creates or truncates a file for writing (scratch files only; see [`Staged`]).
pub fn create(path: impl AsRef<Path>) -> Result<File> {
    File::create(path.as_ref()).at("create", path.as_ref())
}

/// Creates a directory and its parents.
pub fn create_dir_all(path: impl AsRef<Path>) -> Result<()> {
    std::fs::create_dir_all(path.as_ref()).at("create directory", path.as_ref())
}

/// Renames a file or directory.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    std::fs::rename(from.as_ref(), to.as_ref()).at("move a file to", to.as_ref())
}

/// Removes a file; a missing one is no error.
pub fn remove_file(path: impl AsRef<Path>) -> Result<()> {
    match std::fs::remove_file(path.as_ref()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        r => r.at("remove", path.as_ref()),
    }
}

/// Removes a directory with all it holds; a missing one is no error.
pub fn remove_dir_all(path: impl AsRef<Path>) -> Result<()> {
    match std::fs::remove_dir_all(path.as_ref()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        r => r.at("remove", path.as_ref()),
    }
}

/// Metadata of a path, following symbolic links.
pub fn metadata(path: impl AsRef<Path>) -> Result<Metadata> {
    std::fs::metadata(path.as_ref()).at("look at", path.as_ref())
}

/// Metadata of a path itself, not of what it links to.
pub fn symlink_metadata(path: impl AsRef<Path>) -> Result<Metadata> {
    std::fs::symlink_metadata(path.as_ref()).at("look at", path.as_ref())
}

/// The target of a symbolic link.
pub fn read_link(path: impl AsRef<Path>) -> Result<PathBuf> {
    std::fs::read_link(path.as_ref()).at("read link", path.as_ref())
}

/// The entries of a directory, sorted by name.
pub fn read_dir(path: impl AsRef<Path>) -> Result<Vec<std::fs::DirEntry>> {
    let path = path.as_ref();
    let mut v = std::fs::read_dir(path)
        .and_then(|d| d.collect::<io::Result<Vec<_>>>())
        .at("list", path)?;
    v.sort_by_key(std::fs::DirEntry::file_name);
    Ok(v)
}

/// A file being made: written under a temporary sibling name, and given its final name only by
/// [`Staged::commit`]. Dropped without that, nothing is left.
#[derive(Debug)]
pub struct Staged {
    tmp: tempfile::NamedTempFile,
    target: PathBuf,
    /// Dropped after `tmp`, so that an interrupt in between finds the file.
    _pending: Pending,
}

/// A temporary path that an interrupt removes ([`crate::interrupt`]).
#[derive(Debug)]
struct Pending(PathBuf);

impl Pending {
    fn new(path: &Path) -> Self {
        crate::interrupt::remember(path);
        Self(path.to_owned())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        crate::interrupt::forget(&self.0);
    }
}

/// A temporary folder, removed with all it holds when dropped, or when the process is interrupted.
#[derive(Debug)]
pub struct Scratch {
    dir: tempfile::TempDir,
    _pending: Pending,
}

impl Scratch {
    /// Makes one in `parent`, which is created where missing.
    pub fn new_in(parent: impl AsRef<Path>) -> Result<Self> {
        let parent = parent.as_ref();
        create_dir_all(parent)?;
        let dir = tempfile::Builder::new()
            .prefix(".tmp-")
            .tempdir_in(parent)
            .at("create a folder in", parent)?;
        let _pending = Pending::new(dir.path());
        Ok(Self { dir, _pending })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Gives the folder its final name; nothing may be there yet.
    pub fn keep_as(self, target: impl AsRef<Path>) -> Result<()> {
        rename(self.dir.path(), target)?;
        // Nothing is left to remove.
        let _ = self.dir.keep();
        Ok(())
    }
}

impl Staged {
    /// Starts a file that shall become `target`. The parent directory is created.
    pub fn new(target: impl AsRef<Path>) -> Result<Self> {
        let target = target.as_ref().to_owned();
        let dir = parent(&target);
        create_dir_all(dir)?;
        let tmp = tempfile::Builder::new()
            .prefix(".tmp-")
            .tempfile_in(dir)
            .at("create a file in", dir)?;
        let _pending = Pending::new(tmp.path());
        Ok(Self {
            tmp,
            target,
            _pending,
        })
    }

    /// The temporary path, for a tool that writes it.
    pub fn path(&self) -> &Path {
        self.tmp.path()
    }

    /// The open temporary file.
    pub fn file(&mut self) -> &mut File {
        self.tmp.as_file_mut()
    }

    /// As [`Staged::commit`], once the content is on the disk: for what is kept between runs and
    /// trusted for being there, so that a power cut leaves it whole or not at all.
    pub fn commit_synced(self, mode: u32) -> Result<()> {
        let path = self.tmp.path();
        // By path: a tool may have replaced the file we opened.
        let file = File::open(path).at("open", path)?;
        file.sync_data().at("write to the disk", path)?;
        self.commit(mode)
    }

    /// Gives the file its mode (permission bits) and final name, replacing what was there.
    pub fn commit(self, mode: u32) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        // By path: a tool may have replaced the file we opened.
        std::fs::set_permissions(self.tmp.path(), std::fs::Permissions::from_mode(mode))
            .at("set the mode of", self.tmp.path())?;
        self.tmp
            .persist(&self.target)
            .map_err(|e| e.error)
            .at("move a file to", &self.target)?;
        Ok(())
    }
}

impl Write for Staged {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.tmp.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.tmp.flush()
    }
}

/// Writes a file so that its final name never shows half of it. Mode 0644.
pub fn write_atomic(path: impl AsRef<Path>, data: impl AsRef<[u8]>) -> Result<()> {
    write_atomic_mode(path, data, 0o644)
}

/// [`write_atomic`] with permission bits, for private keys (0600) and programs (0755).
pub fn write_atomic_mode(path: impl AsRef<Path>, data: impl AsRef<[u8]>, mode: u32) -> Result<()> {
    let mut f = Staged::new(path.as_ref())?;
    f.write_all(data.as_ref()).at("write", path.as_ref())?;
    f.commit(mode)
}

/// Reads all of `r`, naming `path` in the error.
pub fn read_all(mut r: impl Read, path: &Path) -> Result<Vec<u8>> {
    let mut v = Vec::new();
    r.read_to_end(&mut v).at("read", path)?;
    Ok(v)
}

fn parent(p: &Path) -> &Path {
    match p.parent() {
        Some(d) if !d.as_os_str().is_empty() => d,
        _ => Path::new("."),
    }
}

/// An error where the file system that `path` is on has no room for `need` bytes: what a tool says of
/// that may be anything (mkfs.erofs: "invalid chksum").
pub fn check_room(path: impl AsRef<Path>, need: u64) -> Result<()> {
    let path = path.as_ref();
    let at = rustix::fs::statvfs(parent(path)).map_err(io::Error::from);
    let at = at.at("look at the file system of", path)?;
    if at.f_bavail.saturating_mul(at.f_frsize) >= need {
        return Ok(());
    }
    Err(io::Error::from(rustix::io::Errno::NOSPC)).at("write", path)
}

/// Writes all of the file system that `path` is on to the disk.
pub fn sync_file_system(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let file = File::open(path).at("open", path)?;
    let synced = rustix::fs::syncfs(&file).map_err(io::Error::from);
    synced.at("write to the disk", path)
}

/// An exclusive lock on a file, held until dropped; other processes wait for it.
#[derive(Debug)]
pub struct FileLock(#[allow(dead_code)] File);

impl FileLock {
    /// Waits for and takes the lock; the file is created where missing.
    pub fn exclusive(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        create_dir_all(parent(path))?;
        let f = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .at("open", path)?;
        f.lock().at("lock", path)?;
        Ok(Self(f))
    }

    /// As [`FileLock::exclusive`], on a folder that is there; nothing is made in it.
    pub fn folder(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let f = File::open(path).at("open", path)?;
        f.lock().at("lock", path)?;
        Ok(Self(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abandoned_staged_file_leaves_nothing() {
        let d = tempfile::tempdir().unwrap();
        let target = d.path().join("x");
        let mut s = Staged::new(&target).unwrap();
        s.write_all(b"half").unwrap();
        drop(s);
        assert!(read_dir(d.path()).unwrap().is_empty());
    }

    #[test]
    fn errors_name_the_path() {
        let e = read("/nonexistent/file").unwrap_err();
        assert!(
            e.to_string().starts_with("cannot read /nonexistent/file: "),
            "{e}"
        );
    }
}
