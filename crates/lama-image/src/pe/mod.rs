// SPDX-License-Identifier: Apache-2.0
//! PE files: sections added to them, and Authenticode signatures (UEFI specification 32.2.4; Microsoft's "Windows
//! Authenticode Portable Executable Signature Format").
//!
//! The signatures are made here because `sbsign` and `systemd-sbsign` put the current time into every signature, so no
//! two builds would be equal. A PKCS#1 v1.5 signature without a signing time is a function of key
//! and file.

mod sections;

pub use sections::{add_sections, remove_sections, section};

use crate::{Error, Result};
use lama_keys::cms::{self, Parts};
use lama_keys::der::{Parameters, algorithm, identifier, oid, tlv};
use lama_keys::{CertificateInfo, Signer};
use sha2::{Digest as _, Sha256};

/// Places in a PE32+ file.
struct Layout {
    checksum: usize,
    /// The certificate table's entry in the data directory.
    directory: usize,
    /// The certificate table, at the end of the file: offset and size; size 0 where unsigned.
    table: (usize, usize),
    headers: usize,
    /// Raw data of the sections: offset and size, sorted.
    sections: Vec<(usize, usize)>,
}

fn le<const N: usize>(d: &[u8], at: usize) -> std::result::Result<u64, String> {
    let b = at
        .checked_add(N)
        .and_then(|end| d.get(at..end))
        .ok_or("it is cut short")?;
    Ok(b.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
}

fn int<const N: usize>(d: &[u8], at: usize) -> std::result::Result<usize, String> {
    usize::try_from(le::<N>(d, at)?).map_err(|e| e.to_string())
}

fn layout(d: &[u8]) -> std::result::Result<Layout, String> {
    if !d.starts_with(b"MZ") {
        return Err("not a PE file".into());
    }
    let pe = int::<4>(d, 0x3c)?;
    if le::<4>(d, pe)? != 0x4550 {
        return Err("not a PE file".into());
    }
    let optional = pe + 24;
    if le::<2>(d, optional)? != 0x20b {
        return Err("not a PE32+ (64-bit) file".into());
    }
    if le::<4>(d, optional + 108)? < 5 {
        return Err("its header has no place for a signature".into());
    }
    let directory = optional + 112 + 4 * 8;
    let table = (int::<4>(d, directory)?, int::<4>(d, directory + 4)?);
    if table.1 != 0 && table.0.checked_add(table.1) != Some(d.len()) {
        return Err("its signatures are not at the end".into());
    }
    let first = optional + int::<2>(d, pe + 20)?;
    let mut sections = Vec::new();
    for i in 0..int::<2>(d, pe + 6)? {
        let at = first + i * 40;
        let (size, offset) = (int::<4>(d, at + 16)?, int::<4>(d, at + 20)?);
        if size > 0 {
            sections.push((offset, size));
        }
    }
    sections.sort_unstable();
    Ok(Layout {
        checksum: optional + 64,
        directory,
        table,
        headers: int::<4>(d, optional + 60)?,
        sections,
    })
}

/// The Authenticode SHA-256 of a PE file, in which neither checksum nor signatures count.
pub fn digest(d: &[u8]) -> std::result::Result<[u8; 32], String> {
    let l = layout(d)?;
    hash(d, &l)
}

fn hash(d: &[u8], l: &Layout) -> std::result::Result<[u8; 32], String> {
    let cut = || String::from("it is cut short");
    let mut h = Sha256::new();
    h.update(d.get(..l.checksum).ok_or_else(cut)?);
    h.update(d.get(l.checksum + 4..l.directory).ok_or_else(cut)?);
    h.update(d.get(l.directory + 8..l.headers).ok_or_else(cut)?);
    let mut done = l.headers;
    for (offset, size) in &l.sections {
        let end = offset.checked_add(*size).ok_or_else(cut)?;
        h.update(d.get(*offset..end).ok_or_else(cut)?);
        done = done.checked_add(*size).ok_or_else(cut)?;
    }
    let end = d.len() - l.table.1;
    if end > done {
        h.update(d.get(done..end).ok_or_else(cut)?);
        h.update(&[0; 8][..(8 - end % 8) % 8]);
    }
    Ok(h.finalize().into())
}

/// Adds a signature to a PE file (to those it has, if any).
///
/// # Errors
/// Not a PE32+ file, or the key can't sign. `name` names the file in the message.
pub fn sign(
    mut pe: Vec<u8>,
    name: &str,
    certificate: &CertificateInfo,
    signer: &dyn Signer,
) -> Result<Vec<u8>> {
    let bad = |reason: String| Error::Format {
        path: name.to_owned(),
        reason,
    };
    // Aligned first: the hash covers the padding.
    if layout(&pe).map_err(bad)?.table.1 == 0 {
        pe.resize(pe.len().next_multiple_of(8), 0);
    }
    let l = layout(&pe).map_err(bad)?;
    let signature = authenticode(&hash(&pe, &l).map_err(bad)?, certificate, signer)?;
    let start = if l.table.1 == 0 { pe.len() } else { l.table.0 };
    let too_large = |_| bad("too large to be signed".into());
    let length = u32::try_from(8 + signature.len()).map_err(too_large)?;
    pe.extend(length.to_le_bytes());
    pe.extend(0x0200u16.to_le_bytes()); // WIN_CERT_REVISION_2_0
    pe.extend(0x0002u16.to_le_bytes()); // WIN_CERT_TYPE_PKCS_SIGNED_DATA
    pe.extend(signature);
    pe.resize(pe.len().next_multiple_of(8), 0);
    let table = [start, pe.len() - start].map(u32::try_from);
    for (i, v) in table.into_iter().enumerate() {
        put(&mut pe, l.directory + 4 * i, v.map_err(too_large)?);
    }
    put(&mut pe, l.checksum, 0);
    let sum = checksum(&pe);
    put(&mut pe, l.checksum, sum);
    Ok(pe)
}

fn put(d: &mut [u8], at: usize, v: u32) {
    if let Some(b) = d.get_mut(at..at + 4) {
        b.copy_from_slice(&v.to_le_bytes());
    }
}

/// The PE checksum: 16-bit words added with end-around carry, plus the length.
fn checksum(d: &[u8]) -> u32 {
    // Sums of 16-bit words with end-around carry may be taken in wider ones and folded at the end.
    let (words, rest) = d.as_chunks::<4>();
    let mut sum: u64 = words
        .iter()
        .map(|w| u64::from(u32::from_le_bytes(*w)))
        .sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    sum += u64::from(u32::from_le_bytes(last));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u32).wrapping_add(d.len() as u32)
}

const SPC_INDIRECT_DATA: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x04];
const SPC_PE_IMAGE_DATA: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x0f];

/// The PKCS#7 SignedData of an image's digest.
fn authenticode(
    digest: &[u8; 32],
    certificate: &CertificateInfo,
    signer: &dyn Signer,
) -> Result<Vec<u8>> {
    let obsolete: Vec<u8> = "<<<Obsolete>>>"
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let link = tlv(0xa0, &[&tlv(0xa2, &[&tlv(0x80, &[&obsolete])])]);
    let image = tlv(0x30, &[&tlv(0x03, &[&[0]]), &link]);
    // The parts of SpcIndirectDataContent: its digest is taken without the outer tag and length.
    let what = tlv(0x30, &[&identifier(SPC_PE_IMAGE_DATA), &image]);
    let sha256 = algorithm(oid::SHA256, Parameters::Null);
    let hashed = tlv(0x30, &[&sha256, &tlv(0x04, &[digest])]);
    let content_digest = Sha256::new()
        .chain_update(&what)
        .chain_update(&hashed)
        .finalize();
    let attributes = cms::attributes(SPC_INDIRECT_DATA, &content_digest);
    let content = tlv(
        0x30,
        &[
            &identifier(SPC_INDIRECT_DATA),
            &tlv(0xa0, &[&tlv(0x30, &[&what, &hashed])]),
        ],
    );
    let parts = Parts {
        digest: &sha256,
        signature_algorithm: &algorithm(oid::RSA, Parameters::Null),
        content: &content,
        attributes: Some(&attributes),
        certificate,
        chain: &[],
    };
    let signature = cms::sign_attributes(&attributes, signer)?;
    Ok(cms::content_info(&parts.signed(&signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_input_panics(mut d: Vec<u8>, at: u16, v: u32) {
            let _ = digest(&d);
            // Something that looks like a PE file on the way in.
            d.resize(d.len().max(0x200), 0);
            d[..2].copy_from_slice(b"MZ");
            d[0x3c..0x40].copy_from_slice(&0x40u32.to_le_bytes());
            d[0x40..0x44].copy_from_slice(b"PE\0\0");
            d[0x58..0x5a].copy_from_slice(&0x20bu16.to_le_bytes());
            d[0x58 + 108] = 16;
            let at = usize::from(at) % (d.len() - 4);
            put(&mut d, at, v);
            let _ = digest(&d);
            let _ = section(&d, ".sbat", "x");
            let _ = remove_sections(&d, &[".linux", ""], "x");
            let _ = add_sections(&d, &[(".sbat", b"1"), (".linux", &[0; 70])], "x");
        }
    }
}
