// SPDX-License-Identifier: Apache-2.0
//! Signing a package: its signature header is written anew, the rest copied as it is.

use crate::digest::{self, HEADER_SHA256};
use crate::error::{Error, Result};
use crate::header::{self, Entry, SIGNATURE_REGION};
use crate::package::{Format, Package, padding};
use crate::verify::{self, DSA, OLD, OPENPGP, RSA, Refused};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lama_exec::fs::{self, AtPath, Staged};
use lama_keys::{OpenpgpCertificates, OpenpgpSigner, Unsigned};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Room that rpm leaves for signatures; the header is as long as it has to be here.
const RESERVED: [u32; 2] = [999, 1008];

/// What is done about the signatures of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// The package is refused.
    Refuse,
    /// They are replaced.
    Replace,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Nothing: it is signed by the current key.
    Already,
    /// It was not signed before.
    Signed,
    /// It was signed by this key.
    Replaced(String),
}

/// Signs a package by the current key. It is written beside and renamed, so that it is whole at any
/// moment; links to it are followed, other names of the same file keep what they have.
///
/// # Errors
/// A digest of it is wrong, a signature by a key of the set does not fit, others have signed it and
/// are not to be replaced, or it cannot be written.
pub fn sign(
    path: &Path,
    signer: &OpenpgpSigner,
    certificates: &OpenpgpCertificates,
    others: Others,
) -> Result<Done> {
    let path = &std::fs::canonicalize(path).at("find", path)?;
    let package = Package::open(path)?;
    let before = verify::signed(&package, certificates);
    // What is damaged must not be called good.
    digest::check(&package)?;
    let done = match before {
        Ok(s) if s.fingerprint == signer.fingerprint() => return Ok(Done::Already),
        Ok(s) => Done::Replaced(s.fingerprint),
        Err(Refused::NotSigned) => Done::Signed,
        Err(Refused::Signature(Unsigned::Foreign(key))) if others == Others::Replace => {
            Done::Replaced(key)
        }
        Err(Refused::Old | Refused::Signature(Unsigned::Weak { .. }))
            if others == Others::Replace =>
        {
            Done::Replaced("of another kind".to_owned())
        }
        Err(why) => {
            return Err(Error::Refused {
                path: path.clone(),
                why,
            });
        }
    };
    let signature = signature_header(&package, signer)?;
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    let mut staged = Staged::new(path)?;
    let at = staged.path().to_owned();
    let pad = vec![0; padding(signature.len())];
    for part in [&package.lead, &signature, &pad, &package.header_bytes] {
        staged.write_all(part).at("write", &at)?;
    }
    let mut payload = package.payload()?;
    io::copy(&mut payload, staged.file()).at("write", &at)?;
    staged.flush().at("write", &at)?;
    // As anybody else will look at it, before it has its name.
    let signed = verify::verify(&at, certificates)?;
    if signed.fingerprint != signer.fingerprint() {
        return Err(Error::Refused {
            path: path.clone(),
            why: Refused::Signature(Unsigned::Foreign(signed.fingerprint)),
        });
    }
    staged.commit_synced(mode)?;
    Ok(done)
}

/// The signature header with our signature in place of those that there are, and all else.
fn signature_header(package: &Package, signer: &OpenpgpSigner) -> Result<Vec<u8>> {
    let gone = [&[SIGNATURE_REGION, DSA, RSA, OPENPGP][..], &OLD, &RESERVED].concat();
    let mut entries: Vec<Entry> = (package.signature.entries().iter())
        .filter(|e| !gone.contains(&e.tag))
        .cloned()
        .collect();
    // `%_pkgverify_level all` asks for a digest beside the signature.
    if package.signature.get(HEADER_SHA256).is_none() {
        let digest = hex::encode(Sha256::digest(&package.header_bytes));
        entries.push(Entry::string(HEADER_SHA256, &digest));
    }
    let signature = signer.sign(&package.header_bytes)?;
    entries.push(match package.format() {
        Format::V6 => Entry::strings(OPENPGP, &BASE64_STANDARD.encode(signature)),
        Format::V4 if signer.is_rsa() => Entry::bytes(RSA, signature),
        Format::V4 => Entry::bytes(DSA, signature),
    });
    header::write(entries, SIGNATURE_REGION).ok_or_else(|| Error::Refused {
        path: package.path().to_owned(),
        why: Refused::Malformed("its signature header is too large".into()),
    })
}
