// SPDX-License-Identifier: Apache-2.0
//! What a host changed in /etc against its image, and what the image changed below that.
//!
//! /etc is an overlay (Documentation/filesystems/overlayfs.rst): the image's /etc below, the host's
//! changes in a directory on /var above. Both are read as directories; symbolic links are never
//! followed, and nothing here writes.

pub mod base;
pub mod lower;
pub mod reset;

use crate::attest::bytes::hex;
use crate::error::Context;
use crate::{Result, fs};
use base::Base;
use lower::Lower;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::ffi::CString;
use std::fs::Metadata;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the host's changes lie.
pub const UPPER: &str = "/var/lib/lamadist/etc/upper";
/// State of what does not exist.
pub const ABSENT: &str = "absent";
/// Whose extended attributes the overlay uses; `user.` is for tests without privileges.
pub const TRUSTED: &str = "trusted.";

/// What the host did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The image has no such file.
    Added,
    /// Its content, or what it is.
    Changed,
    /// It is hidden: a whiteout.
    Removed,
    /// Mode or owner only.
    Mode,
    /// Nothing: a copy that equals the image's, and hides what later images bring.
    Same,
    /// A directory in place of the image's, all of which it hides.
    Replaced,
}

/// What the image did since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Image {
    /// Nothing.
    Unchanged,
    /// It brings another file now, which the host's hides.
    Changed,
    /// It is not recorded yet how it was.
    Unknown,
}

/// One change of the host.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// Below /etc, as [`escape`] shows it.
    pub path: String,
    /// What the host did.
    pub kind: Kind,
    /// What the image did since.
    pub image: Image,
    /// Modes and owners, where they are all that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How the image's is now: SHA-256 of a file, or [`ABSENT`], `directory`, `link to …`.
    pub lower: String,
    /// The path itself, relative.
    #[serde(skip)]
    pub at: PathBuf,
}

/// All changes, sorted by path. `attributes` is [`TRUSTED`].
///
/// # Errors
/// Something cannot be read.
pub fn changes(lower: &Path, upper: &Path, attributes: &str) -> Result<Vec<Change>> {
    let walk = Walk {
        upper,
        opaque: format!("{attributes}overlay.opaque"),
        metacopy: format!("{attributes}overlay.metacopy"),
    };
    let mut out = Vec::new();
    walk.directory(Path::new(""), Some(lower), &mut out)?;
    out.sort_by(|a, b| a.at.cmp(&b.at));
    Ok(out)
}

struct Walk<'a> {
    upper: &'a Path,
    opaque: String,
    metacopy: String,
}

impl Walk<'_> {
    /// The changes in the upper directory `at`. `lower` is what lies below it, where that is a
    /// directory: a link there must not lead anywhere.
    fn directory(&self, at: &Path, lower: Option<&Path>, out: &mut Vec<Change>) -> Result<()> {
        let dir = self.upper.join(at);
        let what = format!("cannot list {}", escape(&dir));
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            r => r.context(&what)?,
        };
        for entry in entries {
            let name = entry.context(&what)?.file_name();
            let below = lower.map(|l| l.join(&name));
            self.entry(at.join(&name), below.as_deref(), out)?;
        }
        Ok(())
    }

    fn entry(&self, at: PathBuf, below: Option<&Path>, out: &mut Vec<Change>) -> Result<()> {
        let upper = self.upper.join(&at);
        // It may be gone since it was listed.
        let Some(meta) = metadata(&upper)? else {
            return Ok(());
        };
        let image = below.map(metadata).transpose()?.flatten();
        let image_dir = image.as_ref().is_some_and(Metadata::is_dir);
        let mut lower = match below {
            Some(b) => state(b)?,
            None => ABSENT.to_owned(),
        };
        let mut detail = None;
        let kind = if whiteout(&meta) {
            if image_dir {
                lower = tree(below)?;
            }
            Kind::Removed
        } else if let Some(image) = image {
            detail = attributes(&image, &meta);
            let mine = if has(&upper, &self.metacopy) {
                lower.clone()
            } else {
                state(&upper)?
            };
            if meta.is_dir() && image_dir && has(&upper, &self.opaque) {
                lower = tree(below)?;
                detail = None;
                Kind::Replaced
            } else if mine != lower {
                detail = None;
                Kind::Changed
            } else if detail.is_some() {
                Kind::Mode
            } else {
                Kind::Same
            }
        } else {
            Kind::Added
        };
        // A directory of the overlay is there for what is in it.
        let plain = meta.is_dir() && kind == Kind::Same;
        if !plain {
            out.push(Change {
                path: escape(&at),
                kind,
                image: Image::Unknown,
                detail,
                lower,
                at: at.clone(),
            });
        }
        if meta.is_dir() {
            self.directory(&at, below.filter(|_| image_dir), out)?;
        }
        Ok(())
    }
}

/// What a path holds: SHA-256 of a file, or words.
///
/// # Errors
/// It cannot be read.
pub fn state(path: &Path) -> Result<String> {
    let Some(meta) = metadata(path)? else {
        return Ok(ABSENT.to_owned());
    };
    if meta.is_dir() {
        return Ok("directory".to_owned());
    }
    let what = format!("cannot read {}", escape(path));
    if meta.is_symlink() {
        let to = std::fs::read_link(path).context(&what)?;
        return Ok(format!("link to {}", escape(&to)));
    }
    if !meta.is_file() {
        let kind = meta.mode() & libc::S_IFMT;
        return Ok(format!("special file {kind:o} {}", meta.rdev()));
    }
    let mut file = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .context(&what)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = match file.read(&mut buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            r => r.context(&what)?,
        };
        match buffer.get(..n) {
            None | Some([]) => break,
            Some(b) => hash.update(b),
        }
    }
    Ok(hex(&hash.finalize()))
}

/// A digest of all that is in a directory of the image.
fn tree(dir: Option<&Path>) -> Result<String> {
    fn add(dir: &Path, hash: &mut Sha256) -> Result<()> {
        let what = format!("cannot list {}", escape(dir));
        let mut names = Vec::new();
        for e in std::fs::read_dir(dir).context(&what)? {
            names.push(e.context(&what)?.file_name());
        }
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let state = state(&path)?;
            hash.update(name.as_bytes());
            hash.update(b"\0");
            hash.update(&state);
            hash.update(b"\0");
            if state == "directory" {
                add(&path, hash)?;
            }
        }
        hash.update(b"\0");
        Ok(())
    }
    let Some(dir) = dir else {
        return Ok(ABSENT.to_owned());
    };
    let mut hash = Sha256::new();
    add(dir, &mut hash)?;
    Ok(format!("directory {}", hex(&hash.finalize())))
}

/// What it is, links not followed; none where it is not.
fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(m) => Ok(Some(m)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e).context(format_args!("cannot look at {}", escape(path))),
    }
}

fn whiteout(meta: &Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

/// How mode and owner differ.
fn attributes(image: &Metadata, host: &Metadata) -> Option<String> {
    let mode = |m: &Metadata| m.mode() & 0o7777;
    let owner = |m: &Metadata| (m.uid(), m.gid());
    let mut said = Vec::new();
    // Links have no mode of their own.
    if mode(image) != mode(host) && !host.is_symlink() {
        said.push(format!("mode {:04o}, was {:04o}", mode(host), mode(image)));
    }
    if owner(image) != owner(host) {
        let ((u, g), (wu, wg)) = (owner(host), owner(image));
        said.push(format!("owner {u}:{g}, was {wu}:{wg}"));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

/// Whether a file or directory has this extended attribute, whatever its value.
fn has(path: &Path, name: &str) -> bool {
    let (Ok(path), Ok(name)) = (
        CString::new(path.as_os_str().as_bytes()),
        CString::new(name),
    ) else {
        return false;
    };
    // SAFETY: both are NUL-terminated and live; with size 0 nothing is written.
    unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}

/// A path in one line: control characters, what turns the direction of writing, the backslash, and
/// bytes that are not UTF-8 are shown as `\xNN`. Two paths never look the same.
pub fn escape(path: &Path) -> String {
    let mut s = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' | '\u{feff}');
            if c.is_control() || hidden || c == '\\' {
                let mut b = [0; 4];
                for x in c.encode_utf8(&mut b).bytes() {
                    s += &format!("\\x{x:02x}");
                }
            } else {
                s.push(c);
            }
        }
        for b in chunk.invalid() {
            s += &format!("\\x{b:02x}");
        }
    }
    s
}

/// The change that somebody names: as it is shown, or as the path is, below /etc or with it.
pub fn find<'a>(changes: &'a [Change], name: &str) -> Option<&'a Change> {
    let name = name.strip_prefix("/etc/").unwrap_or(name);
    changes
        .iter()
        .find(|c| c.path == name || c.at == Path::new(name))
}

/// The unified diff of the image's file and the host's.
///
/// # Errors
/// One of them is not a regular file, or diff(1) fails.
pub fn diff(lower: &Path, upper: &Path, change: &Change) -> Result<String> {
    use crate::Error;
    use crate::run::Run;
    let (old, new) = (lower.join(&change.at), upper.join(&change.at));
    let file = |p: &Path| Ok::<_, Error>(metadata(p)?.is_some_and(|m| m.is_file()));
    let none = Path::new("/dev/null");
    let old = match change.kind {
        Kind::Added => none,
        _ if file(&old)? => &old,
        _ => return Err(not_file(change)),
    };
    let new = match change.kind {
        Kind::Removed => none,
        _ if file(&new)? => &new,
        _ => return Err(not_file(change)),
    };
    let run = Run::new("diff").args(["-u", "--label"]);
    let run = run.args([format!("image/{}", change.path), "--label".to_owned()]);
    let run = run.arg(format!("host/{}", change.path)).arg("--");
    let line = run.line();
    let out = run.arg(old).arg(new).any()?;
    match out.status.code() {
        Some(0 | 1) => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        _ => Err(Error::new(format!(
            "{line}: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        ))),
    }
}

fn not_file(change: &Change) -> crate::Error {
    crate::Error::new(format!(
        "{} is not a regular file on both sides",
        change.path
    ))
    .hint("only regular files are compared by line")
}

/// The files of this host's that hide another one of the image's than they were made from.
///
/// # Errors
/// Only root can tell; something cannot be read.
pub fn hidden() -> Result<Vec<String>> {
    let lower = Lower::open()?;
    let mut all = changes(&lower.etc(), Path::new(UPPER), TRUSTED)?;
    Base::read(Path::new(base::PATH))?.compare(&mut all);
    let all = all.into_iter().filter(|c| c.image == Image::Changed);
    Ok(all.map(|c| c.path).collect())
}

/// Whether /etc of this machine has an upper directory.
///
/// # Errors
/// It has none.
pub fn check() -> Result<()> {
    if Path::new(UPPER).is_dir() {
        return Ok(());
    }
    Err(crate::Error::new(format!("there is no {UPPER}"))
        .hint("this is for LamaDist machines, whose /etc is an overlay; run it as root"))
}

/// As [`fs::read_optional`], parsed.
fn json<T: serde::de::DeserializeOwned + Default>(path: &Path) -> Result<T> {
    match fs::read_optional(path)? {
        None => Ok(T::default()),
        Some(d) => serde_json::from_slice(&d)
            .context(format_args!("cannot understand {}", path.display()))
            .map_err(|e| e.hint("move the file away; it is written anew")),
    }
}
