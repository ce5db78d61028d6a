// SPDX-License-Identifier: Apache-2.0
//! Who signed a package, and is it what was signed?

use crate::digest;
use crate::error::{Error, Result};
use crate::header::Entry;
use crate::package::Package;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lama_keys::{OpenpgpCertificates, Signed, Unsigned};
use std::path::Path;

/// Signatures of the header, as OpenPGP packets: by algorithms of DSA's kind (with all elliptic
/// curves), by RSA, and a list of them in base64.
pub(crate) const DSA: u32 = 267;
pub(crate) const RSA: u32 = 268;
pub(crate) const OPENPGP: u32 = 278;
/// Signatures over header and payload, as old versions of rpm made them.
pub(crate) const OLD: [u32; 2] = [1002, 1005];

/// Why a package or an index is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no package, or a damaged one.
    #[error("it cannot be read: {0}")]
    Malformed(String),
    /// It ends too early, or goes on.
    #[error("it is cut off or has grown: {0}")]
    Length(String),
    /// There is no signature.
    #[error("it is not signed")]
    NotSigned,
    /// A signature is not good.
    #[error("{0}")]
    Signature(#[from] Unsigned),
    /// A signature of a kind that is not looked at.
    #[error("it bears a signature of the old kind, over header and payload")]
    Old,
    /// It is not what its digests say.
    #[error("it was changed: {0}")]
    Digest(String),
    /// A signature would not cover the payload.
    #[error(
        "its header has no SHA-256 or SHA-512 of the payload, which a signature would not cover"
    )]
    NoPayloadDigest,
}

impl Refused {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotSigned => "sign it: `lamadist rpm sign`, and for an index `lamadist rpm feed`",
            Self::Signature(Unsigned::Foreign(_)) => {
                "`lamadist keys status` shows the keys of the set; a package whose origin you know can be signed with `lamadist rpm sign --replace`"
            }
            Self::Old => {
                "a package whose origin you know can be signed with `lamadist rpm sign --replace`"
            }
            Self::NoPayloadDigest => "build it with rpm 4.14 or later",
            Self::Signature(Unsigned::Weak { .. }) => {
                "a package whose origin you know can be signed with `lamadist rpm sign --replace`"
            }
            Self::Malformed(_)
            | Self::Length(_)
            | Self::Digest(_)
            | Self::Signature(Unsigned::Changed(_) | Unsigned::Malformed(_)) => {
                "do not use it: build or fetch it again"
            }
        }
    }
}

/// Tells who signed a package. Every signature that it bears has to be good, its digests right; where
/// one is by a previous key, it is taken for one of that.
///
/// # Errors
/// It is refused, or cannot be read.
pub fn verify(path: &Path, certificates: &OpenpgpCertificates) -> Result<Signed> {
    let package = Package::open(path)?;
    let signed = signed(&package, certificates).map_err(|why| Error::Refused {
        path: path.to_owned(),
        why,
    })?;
    digest::check(&package)?;
    Ok(signed)
}

/// The signatures alone.
pub(crate) fn signed(
    package: &Package,
    certificates: &OpenpgpCertificates,
) -> std::result::Result<Signed, Refused> {
    let mut found: Option<Signed> = None;
    for signature in signatures(package)? {
        let signed = certificates.verify(&signature, &package.header_bytes)?;
        if found.as_ref().is_none_or(|f| !f.previous) {
            found = Some(signed);
        }
    }
    found.ok_or(Refused::NotSigned)
}

/// All signatures of a package.
fn signatures(package: &Package) -> std::result::Result<Vec<Vec<u8>>, Refused> {
    let h = &package.signature;
    if OLD.iter().any(|t| h.get(*t).is_some()) {
        return Err(Refused::Old);
    }
    let bad = |e: &Entry| Refused::Malformed(format!("the signature {} of it", e.tag));
    let mut out = Vec::new();
    for tag in [DSA, RSA] {
        if let Some(e) = h.get(tag) {
            out.push(h.get_bytes(tag).ok_or_else(|| bad(e))?.to_vec());
        }
    }
    if let Some(e) = h.get(OPENPGP) {
        for text in h.get_strings(OPENPGP).ok_or_else(|| bad(e))? {
            out.push(BASE64_STANDARD.decode(text).map_err(|_| bad(e))?);
        }
    }
    Ok(out)
}
