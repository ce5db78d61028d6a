// SPDX-License-Identifier: Apache-2.0
//! What was loaded and not installed yet, in a folder on /var.
//!
//! Files are called by the SHA-256 that the channel file says of them, so that what belongs to another
//! version is known without opening it, and goes. Who has the folder open has it alone.
//!
//! | File | |
//! |---|---|
//! | `SHA256.raucb`, `SHA256.delta` | whole, and right when it was put there |
//! | `….part` | a download that goes on |
//! | `….new` | a bundle that is being made out of a delta bundle; begun anew after a power cut |
//! | `note.json` | [`Note`] |
//! | `channel` | the channel file that a bundle was loaded for, as it was signed |

use super::fetch::Kind;
use crate::error::Context;
use crate::{Error, Result, fs};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Its name, below [`super::book::DIR`].
const NAME: &str = "load";
const LOCK: &str = "lock";
const NOTE: &str = "note.json";
const CHANNEL: &str = "channel";

/// What is known of what lies here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The version that it leads to.
    pub version: String,
    /// SHA-256 of its bundle.
    pub sha256: String,
    /// Bytes of its bundle.
    pub size: u64,
    /// Bytes that have been loaded for it so far.
    pub loaded: u64,
}

/// What was loaded ahead, for whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ahead {
    /// The version.
    pub version: String,
    /// Bytes that have been loaded for it.
    pub loaded: u64,
    /// Bytes of its bundle.
    pub size: u64,
    /// Whether all is there for an installation without the server.
    pub ready: bool,
}

/// The folder, opened.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    _lock: fs::Lock,
}

impl Store {
    /// Below this directory ([`super::book::DIR`]).
    ///
    /// # Errors
    /// Another process has it open; it cannot be made.
    pub fn open(below: &Path) -> Result<Self> {
        Self::try_open(below)?.ok_or_else(|| {
            Error::new("an update is being loaded or installed already")
                .hint("wait for it: systemctl status lamadist-update, lama-node update")
        })
    }

    /// The same, unless another process has it open. What an interrupted making or installation left
    /// goes.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn try_open(below: &Path) -> Result<Option<Self>> {
        let dir = below.join(NAME);
        fs::create_dir(&dir)?;
        let what = format!("cannot close {}", dir.display());
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).context(what)?;
        let Some(lock) = fs::lock(dir.join(LOCK), fs::Busy::Leave)? else {
            return Ok(None);
        };
        let this = Self { dir, _lock: lock };
        let noted = note(&this.dir).ok().flatten().map(|n| n.sha256);
        let noted = noted.map(|sha256| format!("{sha256}.raucb"));
        this.remove(|name| {
            // A bundle that nobody noted came of an administrator's file.
            let strange = name.ends_with(".raucb") && Some(name) != noted.as_deref();
            strange || name.ends_with(".new")
        })?;
        Ok(Some(this))
    }

    /// Removes all that lies there, unless somebody is at work on it.
    pub fn clear_below(below: &Path) {
        if !below.join(NAME).is_dir() {
            return;
        }
        // What cannot be removed now is removed before the next download.
        if let Ok(Some(store)) = Self::try_open(below) {
            let _ = store.clear();
        }
    }

    /// What was loaded ahead; it may be asked for while somebody loads.
    ///
    /// # Errors
    /// The note cannot be read.
    pub fn ahead(below: &Path) -> Result<Option<Ahead>> {
        let dir = below.join(NAME);
        let Some(note) = note(&dir)? else {
            return Ok(None);
        };
        let ahead = Ahead {
            ready: file(&dir, &note.sha256, Kind::Bundle)?.is_file(),
            version: note.version,
            loaded: note.loaded,
            size: note.size,
        };
        Ok(Some(ahead).filter(|a| a.ready || a.loaded > 0))
    }

    /// Where a whole file lies.
    ///
    /// # Errors
    /// The digest is none.
    pub fn file(&self, sha256: &str, kind: Kind) -> Result<PathBuf> {
        file(&self.dir, sha256, kind)
    }

    /// Where it lies while it is being loaded.
    ///
    /// # Errors
    /// As [`Store::file`].
    pub fn part(&self, sha256: &str, kind: Kind) -> Result<PathBuf> {
        Ok(beside(&self.file(sha256, kind)?, ".part"))
    }

    /// Where a bundle lies while it is being made.
    ///
    /// # Errors
    /// As [`Store::file`].
    pub fn new_bundle(&self, sha256: &str) -> Result<PathBuf> {
        Ok(beside(&self.file(sha256, Kind::Bundle)?, ".new"))
    }

    /// Where the channel file lies that a bundle was loaded for.
    pub fn channel(&self) -> PathBuf {
        self.dir.join(CHANNEL)
    }

    /// The note of this bundle, or a new one. What was loaded for others goes.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn begin(&self, version: &str, bundle: (&str, u64), others: &[&str]) -> Result<Note> {
        let (sha256, size) = bundle;
        let sha256 = sha256.to_ascii_lowercase();
        let mut wanted = vec![sha256.clone()];
        wanted.extend(others.iter().map(|s| s.to_ascii_lowercase()));
        let known = note(&self.dir).ok().flatten();
        let known = known.filter(|n| n.sha256 == sha256);
        self.remove(|name| {
            let ours = wanted.iter().any(|w| name.starts_with(w.as_str()));
            let kept = [NOTE, CHANNEL].contains(&name) && known.is_some();
            !ours && !kept
        })?;
        Ok(known.unwrap_or(Note {
            version: version.to_owned(),
            sha256,
            size,
            loaded: 0,
        }))
    }

    /// Writes a note down.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note(&self, note: &Note) -> Result<()> {
        let json = serde_json::to_vec(note).context("cannot write JSON")?;
        fs::write(self.dir.join(NOTE), json, 0o600)
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn clear(&self) -> Result<()> {
        self.remove(|_| true)
    }

    fn remove(&self, which: impl Fn(&str) -> bool) -> Result<()> {
        for name in fs::names(&self.dir)? {
            if name != LOCK && which(&name) {
                fs::remove(self.dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Bytes that are free where it lies.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn free(&self) -> Result<u64> {
        fs::free(&self.dir)
    }
}

fn note(dir: &Path) -> Result<Option<Note>> {
    let path = dir.join(NOTE);
    let Some(data) = fs::read_optional(&path)? else {
        return Ok(None);
    };
    let note: serde_json::Result<Note> = serde_json::from_slice(&data);
    note.map(Some)
        .context(format_args!("{} cannot be understood", path.display()))
}

fn file(dir: &Path, sha256: &str, kind: Kind) -> Result<PathBuf> {
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::new(format!("{sha256:?} is no SHA-256")));
    }
    let end = match kind {
        Kind::Bundle => "raucb",
        Kind::Delta => "delta",
    };
    Ok(dir.join(format!("{}.{end}", sha256.to_ascii_lowercase())))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_lies_here_at_most() {
        let t = tempfile::tempdir().unwrap();
        let store = Store::open(t.path()).unwrap();
        let e = Store::open(t.path()).unwrap_err();
        assert!(e.to_string().contains("already") && e.help().is_some());
        let sha = |c: &str| c.repeat(64);
        let put = |path: PathBuf| fs::write(path, "x", 0o600).unwrap();
        let names = |store: &Store| fs::names(&store.dir).unwrap();
        assert!(store.file("../x", Kind::Delta).is_err());
        assert!(store.file(&"/".repeat(64), Kind::Delta).is_err());

        let mut note = store.begin("1.1.0", (&sha("A"), 9), &[&sha("b")]).unwrap();
        note.loaded = 7;
        store.note(&note).unwrap();
        put(store.part(&sha("a"), Kind::Bundle).unwrap());
        put(store.file(&sha("b"), Kind::Delta).unwrap());
        put(store.channel());
        put(store.new_bundle(&sha("a")).unwrap());
        assert_eq!(names(&store).len(), 6);
        drop(store);

        // What was being made when the power went is begun anew; the rest goes on.
        fs::write(
            t.path().join(NAME).join(format!("{}.raucb", sha("d"))),
            "x",
            0o600,
        )
        .unwrap();
        let store = Store::open(t.path()).unwrap();
        assert_eq!(names(&store).len(), 5);
        let again = store.begin("1.1.0", (&sha("a"), 9), &[&sha("b")]).unwrap();
        assert_eq!((again, names(&store).len()), (note, 5));
        let ahead = Store::ahead(t.path()).unwrap().unwrap();
        assert_eq!((ahead.loaded, ahead.ready), (7, false));
        put(store.file(&sha("a"), Kind::Bundle).unwrap());
        assert!(Store::ahead(t.path()).unwrap().unwrap().ready);

        // Another version.
        let other = store.begin("1.2.0", (&sha("c"), 9), &[]).unwrap();
        assert_eq!((other.loaded, names(&store)), (0, vec![LOCK.to_owned()]));
        put(store.file(&sha("c"), Kind::Bundle).unwrap());
        Store::clear_below(t.path());
        assert_eq!(names(&store).len(), 2);
        drop(store);
        Store::clear_below(t.path());
        assert_eq!(fs::names(t.path().join(NAME)).unwrap(), [LOCK]);
        Store::clear_below(&t.path().join("none"));
    }
}
