// SPDX-License-Identifier: Apache-2.0
//! The folder that a web server serves: `DIR/TRACK/COMPATIBLE-IMAGE.channel`, and beside it what the
//! channel files name.
//!
//! Bundles and delta bundles have the first digits of their own SHA-256 in their names, so a name
//! stands for one content for ever: servers and caches may keep them, and a machine that is loading one
//! is not given another. The channel file is the only one that is replaced, and comes last.

use super::{Channel, Claim, Delta, EXTENSION, File, judge, open, sign};
use crate::error::issue;
use crate::{Error, Result, digest};
use lama_exec::Tools;
use lama_exec::fs::{self, AtPath, FileLock, Staged};
use lama_keys::KeySet;
use lama_node::delta::{Header, hex};
use lama_node::update::version::Version;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Digits of the SHA-256 in a name.
pub(super) const DIGITS: usize = 8;

/// The files of one track, machine and image; nobody else changes the folder meanwhile.
#[derive(Debug)]
pub struct Site {
    pub(super) folder: PathBuf,
    /// What names begin with.
    pub(super) stem: String,
    _lock: FileLock,
}

impl Site {
    /// Where the channel file of a track, machine and image is in `dir`.
    ///
    /// # Errors
    /// A name that cannot be part of an address.
    pub fn place(dir: &Path, track: &str, compatible: &str, image: &str) -> Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
        for name in [track, compatible, image] {
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                return Err(issue(
                    format!("{name:?} cannot be part of an address"),
                    "use letters, digits and -._+ only",
                ));
            }
        }
        Ok(dir
            .join(track)
            .join(format!("{compatible}-{image}.{EXTENSION}")))
    }

    /// Opens the folder of a channel file ([`Site::place`]), which is made where missing, and waits for
    /// whoever works in it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(file: &Path) -> Result<Self> {
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self {
            _lock: FileLock::folder(folder)?,
            folder: folder.to_owned(),
            stem: stem.into_owned(),
        })
    }

    /// The channel file.
    pub fn file(&self) -> PathBuf {
        self.path(&format!("{}.{EXTENSION}", self.stem))
    }

    /// A file beside it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The channel file that is there, trusted by `keyring`.
    ///
    /// # Errors
    /// Others have signed it, or it is damaged: then nobody knows what it must not go back behind.
    pub fn last(&self, tools: &Tools, keyring: &str, scratch: &Path) -> Result<Option<Claim>> {
        let file = self.file();
        if !file.exists() {
            return Ok(None);
        }
        open(&file, tools, keyring, scratch).map(Some)
    }

    /// The name of a bundle.
    pub fn bundle_name(&self, version: &str, sha256: &str) -> String {
        let digits = sha256.get(..DIGITS).unwrap_or(sha256);
        format!("{}-{version}-{digits}.raucb", self.stem)
    }

    /// The name of a delta bundle.
    pub fn delta_name(&self, from: &str, to: &str, sha256: &str) -> String {
        let digits = sha256.get(..DIGITS).unwrap_or(sha256);
        format!("{}-{from}-to-{to}-{digits}.delta", self.stem)
    }

    /// Copies a file to the folder, whole and on the disk before it has its name. One that is there
    /// already stays; another content under that name is never replaced.
    ///
    /// # Errors
    /// It is not what `size` and `sha256` say, or something else has its name.
    pub fn put(&self, from: &Path, name: String, (size, sha256): (u64, String)) -> Result<File> {
        let to = self.path(&name);
        if to.exists() {
            if digest(&to)? != (size, sha256.clone()) {
                return Err(issue(
                    format!("{} is there with another content", to.display()),
                    "it was damaged, or put there by hand: remove it and publish again",
                ));
            }
        } else {
            copy(from, &to, (size, &sha256))?;
        }
        let url = name;
        Ok(File { url, size, sha256 })
    }

    /// Checks that a delta bundle is whole and leads to this bundle, and puts it into the folder. None
    /// where it is not smaller than the bundle.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn put_delta(
        &self,
        file: &Path,
        compatible: &str,
        to: &Target<'_>,
    ) -> Result<Option<Delta>> {
        let refused = |reason: String, hint: &str| Error::Refused {
            path: file.to_owned(),
            reason,
            hint: hint.to_owned(),
        };
        let bad = |source| Error::Delta {
            path: file.to_owned(),
            source,
        };
        let header = Header::read(&mut fs::open(file)?).map_err(bad)?;
        let (good, whole) = Header::verified(&mut fs::open(file)?).map_err(bad)?;
        let (size, sha256) = digest(file)?;
        if !whole || good != size {
            return Err(refused(
                "it is damaged, or was not copied whole".to_owned(),
                "copy it again, or make it anew with `lamadist bundle --from`",
            ));
        }
        if header.bundle_sha256 != to.bundle.sha256
            || header.bundle_size != to.bundle.size
            || header.compatible != compatible
            || header.to != to.version
        {
            return Err(refused(
                format!(
                    "it leads to another bundle ({} for {}, SHA-256 {}) than the one that is published ({} for {compatible}, SHA-256 {})",
                    header.to,
                    header.compatible,
                    header.bundle_sha256,
                    to.version,
                    to.bundle.sha256
                ),
                "a bundle that was made or encrypted anew is another one: make the delta bundle again",
            ));
        }
        let parse = |v: &str| Version::parse(v).map_err(bad);
        if parse(&header.from)? >= parse(&header.to)? {
            return Err(refused(
                format!("it leads from {} to {}", header.from, header.to),
                "machines go forward by themselves only: begin with an older version",
            ));
        }
        if size >= to.bundle.size {
            return Ok(None);
        }
        let name = self.delta_name(&header.from, &header.to, &sha256);
        Ok(Some(Delta {
            from: header.from,
            file: self.put(file, name, (size, sha256))?,
        }))
    }

    /// Signs the channel file and puts it into its place, when everything else is on the disk; not
    /// before a node would take it.
    ///
    /// # Errors
    /// The key cannot sign, or is not one that the key set's own certificates trust.
    pub fn issue(
        &self,
        channel: &Channel,
        keys: &KeySet,
        tools: &Tools,
        scratch: &Path,
    ) -> Result<Claim> {
        let file = self.file();
        let der = sign(channel, keys, tools)?;
        let claim = judge(&file, &der, tools, &keys.rauc_keyring_pem()?, scratch)?;
        fs::sync_file_system(&self.folder)?;
        let mut staged = Staged::new(&file)?;
        staged.write_all(&der).at("write", &file)?;
        staged.commit_synced(0o644)?;
        fs::sync_file_system(&self.folder)?;
        Ok(claim)
    }
}

/// What delta bundles have to lead to.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The version.
    pub version: &'a str,
    /// Its bundle.
    pub bundle: &'a File,
}

/// How a file is that a channel file names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
    /// It lies beside it, as it was signed.
    Whole,
    /// It does not lie beside it.
    Missing,
    /// It has another size.
    Size {
        /// Bytes.
        found: u64,
    },
    /// It has another content.
    Content,
    /// It is on another server, or in another folder; nobody looked.
    Elsewhere,
}

/// Compares a file with what the channel file in `folder` says of it.
///
/// # Errors
/// It is there and cannot be read.
pub fn state(folder: &Path, file: &File) -> Result<State> {
    if file.url.contains(['/', '%', '?', '#', ':']) {
        return Ok(State::Elsewhere);
    }
    let path = folder.join(&file.url);
    if !path.is_file() {
        return Ok(State::Missing);
    }
    let size = fs::metadata(&path)?.len();
    if size != file.size {
        return Ok(State::Size { found: size });
    }
    Ok(match digest(&path)? {
        (_, sha256) if sha256.eq_ignore_ascii_case(&file.sha256) => State::Whole,
        _ => State::Content,
    })
}

fn copy(from: &Path, to: &Path, (size, sha256): (u64, &str)) -> Result<()> {
    fs::check_room(to, size)?;
    let mut source = fs::open(from)?;
    let mut staged = Staged::new(to)?;
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    loop {
        let n = source.read(&mut buf).at("read", from)?;
        let part = buf.get(..n).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        hash.update(part);
        staged.write_all(part).at("write", to)?;
    }
    if hex(&hash.finalize()) != sha256 {
        return Err(issue(
            format!("{} was changed while it was copied", from.display()),
            "publish again when nothing writes to it",
        ));
    }
    Ok(staged.commit_synced(0o644)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::open(&dir.path().join("stable/c-base.channel")).unwrap();
        let from = dir.path().join("from");
        fs::write(&from, "content").unwrap();
        let what = digest(&from).unwrap();
        let name = || site.bundle_name("1.0.0", &what.1);
        let put = site.put(&from, name(), what.clone()).unwrap();
        assert_eq!((put.size, &put.sha256), (7, &what.1));
        let folder = dir.path().join("stable");
        let state = |f: &File| state(&folder, f).unwrap();
        assert_eq!(state(&put), State::Whole);
        // Once more, from a file that is gone: it is there.
        fs::remove_file(&from).unwrap();
        assert_eq!(site.put(&from, name(), what.clone()).unwrap(), put);

        for (content, says) in [
            ("conten", State::Size { found: 6 }),
            ("Content", State::Content),
        ] {
            fs::write(site.path(&put.url), content).unwrap();
            assert_eq!(state(&put), says);
            let e = site.put(&from, name(), what.clone()).unwrap_err();
            assert!(e.to_string().contains("another content"), "{e}");
            assert_eq!(fs::read(site.path(&put.url)).unwrap(), content.as_bytes());
        }
        fs::remove_file(site.path(&put.url)).unwrap();
        assert_eq!(state(&put), State::Missing);
        for url in ["https://h/b", "/b", "../b", "a%62"] {
            let elsewhere = File {
                url: url.into(),
                ..put.clone()
            };
            assert_eq!(state(&elsewhere), State::Elsewhere);
        }
        // What is not as it was said to be does not get its name.
        fs::write(&from, "others").unwrap();
        let e = site.put(&from, name(), what.clone()).unwrap_err();
        assert!(e.to_string().contains("was changed"), "{e}");
        assert!(fs::read_dir(&folder).unwrap().is_empty());
    }
}
