// SPDX-License-Identifier: Apache-2.0
//! The store: files by their SHA-256, shared by all builds of a user.
//!
//! ```text
//! objects/sha256/ab/abcdef…   complete and verified files
//! partial/abcdef…             downloads under way or interrupted, each locked by who writes it
//! ```
//!
//! A file gets its name under `objects` by a rename, after its size and hash were found right. So
//! several processes can fill one store at once, and a killed one leaves at most a partial file,
//! which the next continues.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lama_exec::fs::{self, AtPath, FsError};

use crate::hash::{Hasher, Sha256};

/// Interrupted downloads that nobody continued for this long are removed.
const STALE: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// Why the store cannot serve.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// Data that is not what its name says.
    #[error("{what}: {problem}")]
    #[diagnostic(help("the source of the data is damaged; nothing was stored"))]
    Mismatch {
        /// What was to be stored.
        what: String,
        /// In what it differs.
        problem: String,
    },
}

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

/// A content-addressed store.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store at `root`, creating it where missing, and clears away what interrupted
    /// downloads left long ago.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let s = Self {
            root: root.as_ref().to_owned(),
        };
        fs::create_dir_all(s.root.join("objects/sha256"))?;
        fs::create_dir_all(s.partials())?;
        s.sweep();
        Ok(s)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    /// Where an object is, or would be.
    pub fn path_of(&self, sha256: Sha256) -> PathBuf {
        let name = sha256.to_string();
        let short = name.get(..2).unwrap_or_default();
        self.root.join("objects/sha256").join(short).join(&name)
    }

    /// An object of that hash and size (bytes), if it is there. One whose size has changed is
    /// removed: a disk error or a hand has damaged it.
    pub fn get(&self, sha256: Sha256, size: u64) -> Result<Option<PathBuf>> {
        let path = self.path_of(sha256);
        match fs::metadata(&path) {
            Ok(m) if m.len() == size => Ok(Some(path)),
            Ok(m) => {
                tracing::warn!("{}: {} bytes, not {size}: removed", path.display(), m.len());
                fs::remove_file(&path)?;
                Ok(None)
            }
            Err(e) if e.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Reads an object again and compares its hash; a damaged one is removed. Whether it is there
    /// and good.
    pub fn verify(&self, sha256: Sha256) -> Result<bool> {
        let path = self.path_of(sha256);
        let file = match fs::open(&path) {
            Ok(f) => f,
            Err(e) if e.source.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        if Sha256::of_reader(file).at("read", &path)? == sha256 {
            return Ok(true);
        }
        tracing::warn!("{}: damaged, removed", path.display());
        fs::remove_file(&path)?;
        Ok(false)
    }

    /// Stores what `r` gives, which must have this hash and size. `what` names it in errors.
    pub fn insert(
        &self,
        what: &str,
        sha256: Sha256,
        size: u64,
        mut r: impl Read,
    ) -> Result<PathBuf> {
        let mut p = match self.begin(sha256, size)? {
            Begun::Present(path) => return Ok(path),
            Begun::Partial(p) => p,
        };
        p.restart()?;
        let mismatch = |problem: String| Error::Mismatch {
            what: what.to_owned(),
            problem,
        };
        let mut buf = vec![0; 1 << 17];
        loop {
            let n = match r.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    p.discard()?;
                    return Err(mismatch(format!("cannot be read: {e}")));
                }
            };
            if p.len() + n as u64 > size {
                p.discard()?;
                return Err(mismatch(format!("longer than {size} bytes")));
            }
            p.write(buf.get(..n).unwrap_or_default())?;
        }
        if p.len() != size {
            let problem = format!("{} bytes in place of {size}", p.len());
            p.discard()?;
            return Err(mismatch(problem));
        }
        match p.finish()? {
            Finished::Stored(path) => Ok(path),
            Finished::WrongHash(found) => {
                Err(mismatch(format!("SHA-256 is {found} in place of {sha256}")))
            }
        }
    }

    /// Begins or continues an object. Waits where another process is at it, and finds the object
    /// present then.
    pub(crate) fn begin(&self, sha256: Sha256, size: u64) -> Result<Begun> {
        if let Some(path) = self.get(sha256, size)? {
            return Ok(Begun::Present(path));
        }
        let path = self.partials().join(sha256.to_string());
        loop {
            fs::create_dir_all(self.partials())?;
            let file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .at("create", &path)?;
            file.lock().at("lock", &path)?;
            if let Some(done) = self.get(sha256, size)? {
                // Ours may be a fresh, empty one beside an object just finished by another.
                if same_file(&file, &path)? {
                    fs::remove_file(&path)?;
                }
                return Ok(Begun::Present(done));
            }
            // Whoever held the lock may have renamed or removed the file meanwhile.
            if !same_file(&file, &path)? {
                continue;
            }
            let target = self.path_of(sha256);
            let mut p = Partial {
                file,
                path,
                target,
                sha256,
                hasher: Hasher::default(),
                len: 0,
            };
            p.recover(size)?;
            return Ok(Begun::Partial(p));
        }
    }

    /// Removes old partial files that nobody holds. Failing at that harms nothing.
    fn sweep(&self) {
        for e in fs::read_dir(self.partials()).unwrap_or_default() {
            let old = e
                .metadata()
                .and_then(|m| m.modified())
                .is_ok_and(|t| t.elapsed().is_ok_and(|age| age > STALE));
            if old {
                let path = e.path();
                if let Ok(f) = File::options().write(true).open(&path)
                    && f.try_lock().is_ok()
                {
                    let _ = fs::remove_file(&path);
                }
            }
        }
    }
}

fn same_file(file: &File, path: &Path) -> Result<bool> {
    let a = file.metadata().at("look at", path)?;
    match fs::metadata(path) {
        Ok(b) => Ok((a.dev(), a.ino()) == (b.dev(), b.ino())),
        Err(e) if e.source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// How an object begins.
pub(crate) enum Begun {
    /// It is there already.
    Present(PathBuf),
    /// It is to be written, possibly from where an earlier attempt stopped.
    Partial(Partial),
}

/// How it ends.
pub(crate) enum Finished {
    /// Under its name.
    Stored(PathBuf),
    /// It has another hash; nothing is left of it.
    WrongHash(Sha256),
}

/// An object being written, locked.
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    sha256: Sha256,
    hasher: Hasher,
    len: u64,
}

impl Partial {
    /// How many bytes there are.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn recover(&mut self, size: u64) -> Result<()> {
        let have = self.file.metadata().at("look at", &self.path)?.len();
        if have > size {
            return self.restart();
        }
        let mut buf = vec![0; 1 << 17];
        loop {
            match self.file.read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    self.hasher.update(buf.get(..n).unwrap_or_default());
                    self.len += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).at("read", &self.path).map_err(Into::into),
            }
        }
    }

    /// Begins anew.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).at("truncate", &self.path)?;
        self.file.seek(SeekFrom::Start(0)).at("write", &self.path)?;
        self.hasher = Hasher::default();
        self.len = 0;
        Ok(())
    }

    /// Appends.
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<()> {
        if let Err(e) = self.file.write_all(data) {
            // Some bytes may have been written: cut them off, so that length and hash agree.
            let _ = self.file.set_len(self.len);
            return Err(e).at("write", &self.path).map_err(Into::into);
        }
        self.hasher.update(data);
        self.len += data.len() as u64;
        Ok(())
    }

    /// Checks the hash and gives the file its name.
    pub(crate) fn finish(self) -> Result<Finished> {
        let found = self.hasher.clone().finish();
        if found != self.sha256 {
            self.discard()?;
            return Ok(Finished::WrongHash(found));
        }
        if let Some(dir) = self.target.parent() {
            fs::create_dir_all(dir)?;
        }
        self.file.sync_data().at("write", &self.path)?;
        fs::rename(&self.path, &self.target)?;
        Ok(Finished::Stored(self.target))
    }

    /// Removes it.
    pub(crate) fn discard(self) -> Result<()> {
        Ok(fs::remove_file(&self.path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let d = tempfile::tempdir().unwrap();
        let s = Store::open(d.path()).unwrap();
        (d, s)
    }

    fn partials(s: &Store) -> usize {
        fs::read_dir(s.partials()).unwrap().len()
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let (_d, s) = store();
        let sum = Sha256::of(b"data");
        assert_eq!(s.get(sum, 4).unwrap(), None);
        let path = s.insert("x", sum, 4, &b"data"[..]).unwrap();
        assert_eq!(s.get(sum, 4).unwrap(), Some(path.clone()));
        assert_eq!(fs::read(&path).unwrap(), b"data");
        assert!(s.verify(sum).unwrap());
        assert_eq!(s.insert("x", sum, 4, &b"not read"[..]).unwrap(), path);
        assert_eq!(partials(&s), 0);
    }

    #[test]
    fn lies_are_not_stored() {
        let (_d, s) = store();
        let sum = Sha256::of(b"data");
        for (data, problem) in [
            (&b"dat"[..], "3 bytes in place of 4"),
            (b"data+", "longer"),
            (b"date", "SHA-256 is"),
        ] {
            let e = s.insert("x", sum, 4, data).unwrap_err().to_string();
            assert!(e.contains(problem), "{e}");
            assert_eq!(s.get(sum, 4).unwrap(), None);
            assert_eq!(partials(&s), 0);
        }
    }

    #[test]
    fn damage_is_found_and_removed() {
        let (_d, s) = store();
        let sum = Sha256::of(b"data");
        let path = s.insert("x", sum, 4, &b"data"[..]).unwrap();
        fs::write(&path, b"da").unwrap();
        assert_eq!(s.get(sum, 4).unwrap(), None);
        s.insert("x", sum, 4, &b"data"[..]).unwrap();
        fs::write(&path, b"date").unwrap();
        assert!(!s.verify(sum).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn an_interrupted_one_is_continued() {
        let (_d, s) = store();
        let sum = Sha256::of(b"data");
        let Begun::Partial(mut p) = s.begin(sum, 4).unwrap() else {
            panic!()
        };
        p.write(b"da").unwrap();
        drop(p);
        let Begun::Partial(mut p) = s.begin(sum, 4).unwrap() else {
            panic!()
        };
        assert_eq!(p.len(), 2);
        p.write(b"ta").unwrap();
        assert!(matches!(p.finish().unwrap(), Finished::Stored(_)));
        // One that is longer than it can be begins anew.
        let other = Sha256::of(b"");
        fs::write(s.partials().join(other.to_string()), b"junk").unwrap();
        let Begun::Partial(p) = s.begin(other, 0).unwrap() else {
            panic!()
        };
        assert_eq!(p.len(), 0);
    }

    #[test]
    fn old_leftovers_are_swept_unless_held() {
        let (d, s) = store();
        let old = std::time::SystemTime::now() - STALE * 2;
        let age = |p: &Path| {
            File::options()
                .write(true)
                .open(p)
                .unwrap()
                .set_modified(old)
                .unwrap()
        };
        let Begun::Partial(held) = s.begin(Sha256::of(b"held"), 4).unwrap() else {
            panic!()
        };
        let left = s.partials().join("left");
        fs::write(&left, b"x").unwrap();
        fs::write(s.partials().join("young"), b"x").unwrap();
        age(&left);
        age(&held.path);
        Store::open(d.path()).unwrap();
        assert!(held.path.exists() && !left.exists());
        assert_eq!(partials(&s), 2);
    }
}
