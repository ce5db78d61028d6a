// SPDX-License-Identifier: Apache-2.0
//! `Packages` indexes: from the compressed file in the store to the solver's records.
//!
//! What the solver never asks for (descriptions, tags, other hashes: more than half of the text)
//! is left out of a copy beside the store, named by the index's hash, which the next run reads
//! instead of decompressing 50 MB again.

use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use lama_exec::fs::{self, AtPath, FsError};
use lama_solver::{Record, RecordError};

use crate::deb::xz_reader;
use crate::deb822::{self, Reader, Stanza};
use crate::hash::Sha256;
use crate::store::Store;

/// Limit of an index, decompressed.
const MAX_INDEX: u64 = 1 << 30;
/// Changed whenever [`FIELDS`] or the form changes, so that old copies are not read.
const FORM: &str = "1";
/// Last line of a copy: what is cut off lacks it.
const END: &str = "# end\n";
/// The fields that are kept.
const FIELDS: &[&str] = &[
    "Package",
    "Version",
    "Architecture",
    "Multi-Arch",
    "Essential",
    "Priority",
    "Source",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Provides",
    "Conflicts",
    "Breaks",
    "Replaces",
    "Filename",
    "Size",
    "SHA256",
];

/// Why an index cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// It cannot be decompressed, or is no text.
    #[error("index {name}: {what}")]
    #[diagnostic(help(
        "the index is what the signed release promises, yet unusable: its publisher made a mistake; another mirror will not help"
    ))]
    Broken {
        /// The index.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// Its syntax.
    #[error("index {name}: {source}")]
    #[diagnostic(help(
        "the index is what the signed release promises, yet unusable: its publisher made a mistake; another mirror will not help"
    ))]
    Syntax {
        /// The index.
        name: String,
        /// What is wrong, and where.
        source: deb822::Error,
    },
    /// A package in it.
    #[error("index {name}, line {line}: {source}")]
    #[diagnostic(help(
        "the index is what the signed release promises, yet unusable: its publisher made a mistake; another mirror will not help"
    ))]
    Record {
        /// The index.
        name: String,
        /// Line of the stanza.
        line: usize,
        /// What is wrong.
        source: RecordError,
    },
}

/// Result of reading an index.
pub type Result<T> = std::result::Result<T, Error>;

/// The records of the index that is stored at `path` under `sha256`. `name` names it in errors;
/// its ending (`.xz`, `.gz` or none) tells the compression.
pub fn load(
    store: &Store,
    path: &Path,
    sha256: Sha256,
    name: &str,
    feed: &Arc<str>,
) -> Result<Vec<Record>> {
    let copy = store
        .root()
        .join("indexes")
        .join(format!("{sha256}.{FORM}"));
    if let Some(data) = fs::read_optional(&copy)? {
        let whole = String::from_utf8(data).ok().filter(|t| t.ends_with(END));
        match whole.map(|t| records(&t, name, feed)) {
            Some(Ok(r)) => return Ok(r),
            _ => tracing::warn!("{}: damaged, made anew", copy.display()),
        }
    }
    let text = decompress(path, name)?;
    let (slim, records) = digest(&text, name, feed)?;
    fs::write_atomic(&copy, slim)?;
    Ok(records)
}

fn decompress(path: &Path, name: &str) -> Result<String> {
    let broken = |what: String| Error::Broken {
        name: name.into(),
        what,
    };
    let raw = BufReader::with_capacity(1 << 18, fs::open(path)?);
    let mut reader: Box<dyn Read> = if name.ends_with(".xz") {
        Box::new(xz_reader(raw).at("read", path)?)
    } else if name.ends_with(".gz") {
        Box::new(flate2::bufread::MultiGzDecoder::new(raw))
    } else {
        Box::new(raw)
    };
    let mut v = Vec::new();
    reader
        .by_ref()
        .take(MAX_INDEX + 1)
        .read_to_end(&mut v)
        .map_err(|e| broken(e.to_string()))?;
    if v.len() as u64 > MAX_INDEX {
        return Err(broken(format!("more than {MAX_INDEX} bytes, decompressed")));
    }
    String::from_utf8(v).map_err(|e| broken(e.to_string()))
}

/// The records of an index's text.
pub fn records(text: &str, name: &str, feed: &Arc<str>) -> Result<Vec<Record>> {
    let mut out = Vec::new();
    each(text, name, |s| {
        out.push(record(s, name, feed)?);
        Ok(())
    })?;
    Ok(out)
}

/// The text without what nobody asks for, and its records.
fn digest(text: &str, name: &str, feed: &Arc<str>) -> Result<(String, Vec<Record>)> {
    let mut out = Vec::new();
    let mut slim = String::with_capacity(text.len() / 2);
    each(text, name, |s| {
        out.push(record(s, name, feed)?);
        for f in s
            .fields
            .iter()
            .filter(|f| FIELDS.iter().any(|n| n.eq_ignore_ascii_case(f.name)))
        {
            slim.push_str(f.name);
            slim.push_str(": ");
            slim.push_str(f.value);
            slim.push('\n');
        }
        slim.push('\n');
        Ok(())
    })?;
    slim.push_str(END);
    Ok((slim, out))
}

fn each(text: &str, name: &str, mut f: impl FnMut(&Stanza<'_>) -> Result<()>) -> Result<()> {
    let mut reader = Reader::new(text);
    let mut s = Stanza::default();
    while reader.read(&mut s).map_err(|source| Error::Syntax {
        name: name.into(),
        source,
    })? {
        f(&s)?;
    }
    Ok(())
}

fn record(s: &Stanza<'_>, name: &str, feed: &Arc<str>) -> Result<Record> {
    Record::from_fields(|n| s.get(n), feed).map_err(|source| Error::Record {
        name: name.into(),
        line: s.line,
        source,
    })
}
