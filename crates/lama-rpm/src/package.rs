// SPDX-License-Identifier: Apache-2.0
//! A package file, taken apart.

use crate::error::{Error, Result};
use crate::header::{self, Header, PREAMBLE};
use crate::verify::Refused;
use lama_exec::fs::{self, AtPath};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes of the lead, which says nothing that the header does not say better.
const LEAD: usize = 96;
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
/// Where the lead has the kind of signatures, and the one kind that there is: a header.
const LEAD_SIGNATURES: std::ops::Range<usize> = 78..80;
const IN_A_HEADER: &[u8] = &[0, 5];

/// Of the header: the format's version, where it is not 4.
const RPMFORMAT: u32 = 5114;
/// Of the signature header: the length of header and payload, of four or of eight bytes.
const SIZES: [u32; 2] = [1000, 270];

/// Version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Signatures apart by algorithm.
    V4,
    /// A list of signatures; rpm 6 and later.
    V6,
}

/// A package file. Only its headers are in memory.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    file: File,
    pub(crate) lead: Vec<u8>,
    pub(crate) signature: Header,
    /// The header as it stands in the file: what signatures cover.
    pub(crate) header_bytes: Vec<u8>,
    pub(crate) header: Header,
    payload_at: u64,
}

impl Package {
    /// Opens a package and reads its headers.
    ///
    /// # Errors
    /// It cannot be read, is no package, or is shorter or longer than it says.
    pub fn open(path: &Path) -> Result<Self> {
        let mut from = Reader {
            path,
            file: fs::open(path)?,
            at: 0,
        };
        let lead = from.take(LEAD)?;
        if !lead.starts_with(&LEAD_MAGIC) || lead.get(LEAD_SIGNATURES) != Some(IN_A_HEADER) {
            return Err(from.refused(Refused::Malformed("it is no RPM package".into())));
        }
        let (bytes, signature) = from.header()?;
        from.take(padding(bytes.len()))?;
        let (header_bytes, header) = from.header()?;
        let length = from.file.metadata().at("read", path)?.len();
        let said = SIZES.iter().find_map(|t| signature.get_number(*t));
        let is = (length.saturating_sub(from.at)).saturating_add(size(header_bytes.len()));
        if let Some(said) = said
            && said != is
        {
            let what = format!("header and payload have {is} bytes, and should have {said}");
            return Err(from.refused(Refused::Length(what)));
        }
        Ok(Self {
            path: path.to_owned(),
            payload_at: from.at,
            file: from.file,
            lead,
            signature,
            header_bytes,
            header,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of its format.
    pub fn format(&self) -> Format {
        match self.header.get_number(RPMFORMAT) {
            Some(6..) => Format::V6,
            _ => Format::V4,
        }
    }

    /// The payload, from its beginning.
    pub(crate) fn payload(&self) -> Result<&File> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.payload_at))
            .at("read", &self.path)?;
        Ok(file)
    }
}

/// Bytes between a signature header and the header.
pub(crate) fn padding(length: usize) -> usize {
    length.next_multiple_of(8) - length
}

fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Reads what has to be there.
struct Reader<'a> {
    path: &'a Path,
    file: File,
    at: u64,
}

impl Reader<'_> {
    fn refused(&self, why: Refused) -> Error {
        Error::Refused {
            path: self.path.to_owned(),
            why,
        }
    }

    fn take(&mut self, bytes: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        (&mut self.file)
            .take(size(bytes))
            .read_to_end(&mut out)
            .at("read", self.path)?;
        if out.len() < bytes {
            return Err(self.refused(Refused::Length("it ends within its headers".into())));
        }
        self.at += size(bytes);
        Ok(out)
    }

    fn header(&mut self) -> Result<(Vec<u8>, Header)> {
        let bad = |e: header::Malformed| Refused::Malformed(e.0);
        let mut bytes = self.take(PREAMBLE)?;
        let rest = header::rest(&bytes).map_err(|e| self.refused(bad(e)))?;
        bytes.extend(self.take(rest)?);
        let header = Header::parse(&bytes).map_err(|e| self.refused(bad(e)))?;
        Ok((bytes, header))
    }
}
