// SPDX-License-Identifier: Apache-2.0
//! IMA's log, in the kernel's binary form (Documentation/security/IMA-templates.rst;
//! security/integrity/ima/ima_fs.c, `ima_measurements_show`). Numbers are of the machine's own byte
//! order, which on all of ours is little-endian.

use super::bytes::{Digest, Reader, hex, sha256};
use crate::error::{Context, Result};
use crate::{Error, fs};

/// The folder with its files.
const DIR: &str = "/sys/kernel/security/integrity/ima";
/// The register that it is measured into (CONFIG_IMA_MEASURE_PCR_IDX).
pub const PCR: u32 = 10;
/// What a register is extended with when a file was changed while it was measured, or measured while
/// it was changed: nothing that could be predicted.
const VIOLATION: Digest = [0xff; 32];
/// Longest name of a template.
const NAME: usize = 64;

/// The length of the digest that leads each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// That of the SHA-1 bank, of which nothing can be checked here.
    Sha1,
    /// That of the SHA-256 bank (Linux 6.10 and later).
    Sha256,
}

/// A measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the log, from 1.
    pub number: usize,
    /// The register, 10.
    pub pcr: u32,
    /// What its SHA-256 bank was extended with.
    pub digest: Digest,
    /// Whether the digest that the log gives is that of the record; true where it gives none.
    pub intact: bool,
    /// Whether it is the note of a violation.
    pub violation: bool,
    /// The file's digest, `sha256:…`.
    pub file: String,
    /// The file's path as the program that opened it saw it, or `boot_aggregate`.
    pub path: String,
}

/// The log of this machine and its form; nothing where the kernel has no IMA.
///
/// # Errors
/// It cannot be read.
pub fn read() -> Result<Option<(Lead, Vec<u8>)>> {
    let names = [
        (Lead::Sha256, "binary_runtime_measurements_sha256"),
        (Lead::Sha1, "binary_runtime_measurements"),
    ];
    for (lead, name) in names {
        if let Some(data) = fs::read_optional(format!("{DIR}/{name}"))? {
            return Ok(Some((lead, data)));
        }
    }
    Ok(None)
}

/// Parses it.
///
/// # Errors
/// It is cut short, or of the template `ima`, which has no lengths.
pub fn parse(data: &[u8], lead: Lead) -> Result<Vec<Entry>> {
    let mut r = Reader::new(data);
    let mut entries = Vec::new();
    while !r.is_empty() {
        let number = entries.len() + 1;
        let e = entry(&mut r, lead, number);
        entries.push(e.context(format_args!("IMA's log: entry {number}"))?);
    }
    Ok(entries)
}

fn entry(r: &mut Reader<'_>, lead: Lead, number: usize) -> Result<Entry> {
    let pcr = r.u32()?;
    let logged = r.take(match lead {
        Lead::Sha1 => 20,
        Lead::Sha256 => 32,
    })?;
    let len = r.u32()?;
    if usize::try_from(len).map_or(true, |n| n > NAME) {
        return Err(Error::new("the name of its template is too long"));
    }
    let name = r.take32(len)?;
    if name == b"ima" {
        return Err(
            Error::new("it is of the template ima, which is not supported")
                .hint("boot with ima_template=ima-ng"),
        );
    }
    let len = r.u32()?;
    let data = r.take32(len)?;
    let violation = logged.iter().all(|b| *b == 0);
    let own = sha256(data);
    let (file, path) = fields(data)?;
    Ok(Entry {
        number,
        pcr,
        digest: if violation { VIOLATION } else { own },
        intact: violation || lead == Lead::Sha1 || logged == own.as_slice(),
        violation,
        file,
        path,
    })
}

/// The first two fields, which of all templates but `ima` are a digest and a name.
fn fields(data: &[u8]) -> Result<(String, String)> {
    let mut r = Reader::new(data);
    let len = r.u32()?;
    let digest = r.take32(len)?;
    let len = r.u32()?;
    let path = r.take32(len)?;
    // `algorithm:`, NUL, digest.
    let at = digest.iter().position(|b| *b == 0);
    let (algorithm, digest) = digest.split_at(at.map_or(0, |a| a + 1));
    let algorithm = String::from_utf8_lossy(algorithm);
    let path = String::from_utf8_lossy(path);
    Ok((
        format!("{}{}", algorithm.trim_end_matches('\0'), hex(digest)),
        path.trim_end_matches('\0').to_owned(),
    ))
}

/// What the first entry must hold: the SHA-256 over PCRs 0 to 9 as they were when the kernel started
/// (ima_crypto.c, `ima_calc_boot_aggregate`).
pub fn boot_aggregate(pcrs: &super::pcr::Values) -> String {
    let all: Vec<u8> = pcrs.range(0..=9).flat_map(|(_, v)| *v).collect();
    format!("sha256:{}", hex(&sha256(all)))
}
