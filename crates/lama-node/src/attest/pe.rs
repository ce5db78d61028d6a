// SPDX-License-Identifier: Apache-2.0
//! Addons in files: the digest by which the firmware knows them, and what they say (Microsoft PE
//! Format; "Windows Authenticode Portable Executable Signature Format"; UAPI.5).

use super::baseline::Addon;
use super::bytes::{Digest, Reader, hex};
use crate::{Context, Error, Result, fs};
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// A section: its name, where its data is, and how long that is in the file and in memory.
struct Section {
    name: [u8; 8],
    at: usize,
    raw: usize,
    size: usize,
}

/// Where things are in a PE32+ file.
struct Layout {
    checksum: usize,
    /// The entry of the certificate table.
    directory: usize,
    /// The length of the certificate table, which is at the end.
    signatures: usize,
    headers: usize,
    sections: Vec<Section>,
}

fn at(data: &[u8], at: usize) -> Result<Reader<'_>> {
    let rest = data
        .get(at..)
        .ok_or_else(|| Error::new("it is cut short"))?;
    Ok(Reader::new(rest))
}

fn size(r: &mut Reader<'_>) -> Result<usize> {
    usize::try_from(r.u32()?).map_err(|_| Error::new("a number is too large"))
}

/// The layout of a file of this length that begins so.
fn layout(d: &[u8], length: usize) -> Result<Layout> {
    let not = || Error::new("it is no PE32+ file");
    if !d.starts_with(b"MZ") {
        return Err(not());
    }
    let pe = size(&mut at(d, 0x3c)?)?;
    let mut r = at(d, pe)?;
    if r.array::<4>()? != *b"PE\0\0" {
        return Err(not());
    }
    r.take(2)?;
    let count = r.u16()?;
    r.take(12)?;
    let optional_size = usize::from(r.u16()?);
    let optional = pe.saturating_add(24);
    let mut o = at(d, optional)?;
    if o.u16()? != 0x20b {
        return Err(not());
    }
    o.take(58)?;
    let headers = size(&mut o)?;
    o.take(44)?;
    if o.u32()? < 5 {
        return Err(Error::new("its header has no place for a signature"));
    }
    o.take(4 * 8)?;
    let (table, signatures) = (size(&mut o)?, size(&mut o)?);
    if signatures != 0 && table.checked_add(signatures) != Some(length) {
        return Err(Error::new("its signatures are not at the end"));
    }
    let mut r = at(d, optional.saturating_add(optional_size))?;
    let mut sections = Vec::new();
    for _ in 0..count {
        let name = r.array()?;
        let size_in_memory = size(&mut r)?;
        r.take(4)?;
        let (raw, at) = (size(&mut r)?, size(&mut r)?);
        r.take(16)?;
        sections.push(Section {
            name,
            at,
            raw,
            size: size_in_memory.min(raw),
        });
    }
    sections.sort_by_key(|s| s.at);
    Ok(Layout {
        checksum: optional + 64,
        directory: optional + 112 + 4 * 8,
        signatures,
        headers,
        sections,
    })
}

/// The Authenticode SHA-256, for which neither checksum nor signatures count.
///
/// # Errors
/// It is no PE32+ file.
pub fn authenticode(d: &[u8]) -> Result<Digest> {
    let l = layout(d, d.len())?;
    let piece = |from: usize, to: usize| {
        let piece = d.get(from..to);
        piece.ok_or_else(|| Error::new("it is cut short"))
    };
    let mut h = Sha256::new();
    h.update(piece(0, l.checksum)?);
    h.update(piece(l.checksum + 4, l.directory)?);
    h.update(piece(l.directory + 8, l.headers)?);
    let mut done = l.headers;
    for s in l.sections.iter().filter(|s| s.raw > 0) {
        h.update(piece(s.at, s.at.saturating_add(s.raw))?);
        done = done.saturating_add(s.raw);
    }
    let end = d.len() - l.signatures;
    if end > done {
        h.update(piece(done, end)?);
        h.update(vec![0; (8 - end % 8) % 8]);
    }
    Ok(h.finalize().into())
}

/// The command line that a UKI or addon holds.
///
/// # Errors
/// It is no PE32+ file.
pub fn cmdline(d: &[u8]) -> Result<String> {
    let l = layout(d, d.len())?;
    let section = l.sections.iter().find(|s| s.name == *b".cmdline");
    let data = section.and_then(|s| d.get(s.at..s.at.saturating_add(s.size)));
    let text = data.unwrap_or_default().split(|b| *b == 0).next();
    Ok(String::from_utf8_lossy(text.unwrap_or_default()).into_owned())
}

/// How much of a file its headers are looked for in.
const HEAD: u64 = 64 << 10;
/// How long a section or a table of signatures may be that is read whole.
const LIMIT: usize = 4 << 20;

/// A UKI or addon on disk. They are large, and only what is asked for is read.
pub struct Image {
    file: std::fs::File,
    length: usize,
    layout: Layout,
}

impl Image {
    /// Opens it.
    ///
    /// # Errors
    /// It cannot be read, or is no PE32+ file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        use std::io::Read;
        let path = path.as_ref();
        let file = fs::open(path)?;
        let length = fs::size(path).unwrap_or_default();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut head = Vec::new();
        let read = (&file).take(HEAD).read_to_end(&mut head);
        read.context(path.display())?;
        let layout = layout(&head, length).context(path.display())?;
        Ok(Self {
            file,
            length,
            layout,
        })
    }

    fn piece(&self, at: usize, size: usize) -> Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        if size > LIMIT {
            return Err(Error::new("a part of it is too long"));
        }
        let mut data = vec![0; size];
        let read = self.file.read_exact_at(&mut data, at as u64);
        read.context("it cannot be read")?;
        Ok(data)
    }

    /// The content of a section; its name has eight bytes, padded with zeros. None where it has none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn section(&self, name: &[u8; 8]) -> Result<Option<Vec<u8>>> {
        let found = self.layout.sections.iter().find(|s| s.name == *name);
        found.map(|s| self.piece(s.at, s.size)).transpose()
    }

    /// The table of its signatures.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn signatures(&self) -> Result<Vec<u8>> {
        let size = self.layout.signatures;
        self.piece(self.length.saturating_sub(size), size)
    }
}

/// An addon of this host's own, from its file.
///
/// # Errors
/// It cannot be read, or is none.
pub fn addon(path: &str) -> Result<Addon> {
    let data = fs::read(path)?;
    Ok(Addon {
        file: path.rsplit('/').next().unwrap_or(path).to_owned(),
        authenticode: hex(&authenticode(&data).context(path)?),
        cmdline: cmdline(&data).context(path)?,
    })
}
