// SPDX-License-Identifier: Apache-2.0
//! What is served.

use crate::{Error, Result};
use lama_exec::fs::{self, AtPath};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Names and what is behind them. It does not change while it is served.
#[derive(Debug, Clone, Default)]
pub struct Files(BTreeMap<String, Entry>);

/// One file.
#[derive(Debug, Clone)]
pub struct Entry {
    content: Content,
    size: u64,
    counted: bool,
}

#[derive(Debug, Clone)]
enum Content {
    /// Opened when it was added: what replaces it under its name meanwhile is not served.
    File(Arc<File>),
    Text(Arc<[u8]>),
}

impl Files {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file under a name such as `hosts/nas/installer.efi`. Complete downloads of it count
    /// (see [`crate::Options::count`]).
    ///
    /// # Errors
    /// It cannot be opened; the name is taken, or no name.
    pub fn add_file(&mut self, name: &str, path: &Path) -> Result<()> {
        let file = fs::open(path)?;
        let size = file.metadata().at("look at", path)?.len();
        let content = Content::File(Arc::new(file));
        self.add(
            name,
            Entry {
                content,
                size,
                counted: true,
            },
        )
    }

    /// Adds a text.
    ///
    /// # Errors
    /// The name is taken, or no name.
    pub fn add_text(&mut self, name: &str, text: &str) -> Result<()> {
        let data: Arc<[u8]> = text.as_bytes().into();
        let size = data.len() as u64;
        self.add(
            name,
            Entry {
                content: Content::Text(data),
                size,
                counted: false,
            },
        )
    }

    /// Serves what `old` names under the name `new`, too.
    ///
    /// # Errors
    /// There is no `old`; the name is taken, or no name.
    pub fn alias(&mut self, new: &str, old: &str) -> Result<()> {
        let entry = self.0.get(old).cloned().ok_or_else(|| Error::Name {
            name: old.to_owned(),
            reason: "there is no such file",
        })?;
        self.add(new, entry)
    }

    fn add(&mut self, name: &str, entry: Entry) -> Result<()> {
        let bad = |reason| {
            Err(Error::Name {
                name: name.to_owned(),
                reason,
            })
        };
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        let part = |p: &str| !p.is_empty() && p != "." && p != ".." && p.bytes().all(plain);
        if !name.split('/').all(part) {
            return bad("a name is of letters, digits, `.`, `_` and `-`, in parts between slashes");
        }
        if self.0.contains_key(name) {
            return bad("the name is taken");
        }
        self.0.insert(name.to_owned(), entry);
        Ok(())
    }

    /// What a client asks for: with or without slashes in front (some firmware writes two), the name
    /// as it was added and nothing else.
    pub fn get(&self, asked: &str) -> Option<&Entry> {
        self.0.get(asked.trim_start_matches('/'))
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Entry {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn counted(&self) -> bool {
        self.counted
    }

    /// Reads from `offset` on. Returns 0 at the end only; a file that has become shorter is an error.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.size.saturating_sub(offset);
        let want = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let buf = buf.get_mut(..want).unwrap_or_default();
        if buf.is_empty() {
            return Ok(0);
        }
        let n = match &self.content {
            Content::File(f) => f.read_at(buf, offset)?,
            Content::Text(t) => {
                let from = usize::try_from(offset).ok().and_then(|o| t.get(o..));
                let from = from.unwrap_or_default();
                let n = from.len().min(buf.len());
                for (to, from) in buf.iter_mut().zip(from) {
                    *to = *from;
                }
                n
            }
        };
        if n == 0 {
            return Err(io::Error::other("the file was cut short"));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some() -> Files {
        let mut f = Files::new();
        f.add_text("boot.ipxe", "#!ipxe\n").unwrap();
        f.add_text("hosts/nas/installer.efi", "nas").unwrap();
        f
    }

    #[test]
    fn only_names_that_were_added_lead_anywhere() {
        let f = some();
        for there in ["boot.ipxe", "/boot.ipxe", "//hosts/nas/installer.efi"] {
            assert!(f.get(there).is_some(), "{there}");
        }
        for not in [
            "",
            "/",
            "hosts",
            "hosts/nas",
            "../boot.ipxe",
            "hosts/../boot.ipxe",
            "hosts/nas/../../boot.ipxe",
            "/etc/passwd",
            "..\\boot.ipxe",
            "hosts//nas/installer.efi",
            "BOOT.IPXE",
            "boot.ipxe\0",
            "%62oot.ipxe",
        ] {
            assert!(f.get(not).is_none(), "{not}");
        }
    }

    #[test]
    fn a_name_is_a_name() {
        let mut f = some();
        for bad in [
            "",
            "/x",
            "x/",
            "a//b",
            "..",
            "a/../b",
            "a b",
            "ü",
            "boot.ipxe",
        ] {
            assert!(f.add_text(bad, "").is_err(), "{bad:?}");
        }
        f.alias("installer.efi", "hosts/nas/installer.efi").unwrap();
        assert!(f.alias("x", "y").is_err());
        assert_eq!(f.names().count(), 3);
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_and_one_that_is_replaced_is_not() {
        let d = tempfile::tempdir().unwrap();
        let p = d.path().join("f");
        fs::write(&p, "0123456789").unwrap();
        let mut f = Files::new();
        f.add_file("f", &p).unwrap();
        let e = f.get("f").unwrap();
        let mut buf = [0; 4];
        assert_eq!(e.read_at(&mut buf, 8).unwrap(), 2);
        assert_eq!(e.read_at(&mut buf, 10).unwrap(), 0);
        fs::write_atomic(&p, "abc").unwrap();
        assert_eq!((e.read_at(&mut buf, 4).unwrap(), &buf), (4, b"4567"));
        fs::write_atomic(&p, "0123456789").unwrap();
        let mut f = Files::new();
        f.add_file("f", &p).unwrap();
        fs::write(&p, "").unwrap();
        assert!(f.get("f").unwrap().read_at(&mut buf, 0).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_is_there_or_not(name in ".*") {
            let f = some();
            if f.get(&name).is_some() {
                let name = name.trim_start_matches('/');
                prop_assert!(f.names().any(|n| n == name));
            }
        }
    }
}
