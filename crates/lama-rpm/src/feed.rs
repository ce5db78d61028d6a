// SPDX-License-Identifier: Apache-2.0
//! A feed: a folder of packages with an index, `repodata/`, as dnf reads it. What is signed is
//! `repomd.xml`, which has the digests of all other files of the index, and they those of the
//! packages.

use crate::error::{Error, Result};
use crate::verify::Refused;
use crate::{packages, verify};
use lama_exec::fs;
use lama_keys::{OpenpgpCertificates, OpenpgpSigner, Signed, Unsigned};
use std::path::{Path, PathBuf};

/// The index, below a feed's folder.
pub const INDEX: &str = "repodata/repomd.xml";

/// What was done about an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Nothing: it is signed by the current key.
    Already,
    /// It was signed.
    Signed,
}

/// Its signature, and the certificates to trust it by.
fn beside(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let index = dir.join(INDEX);
    let with = |more: &str| dir.join(format!("{INDEX}.{more}"));
    (index, with("asc"), with("key"))
}

/// Signs the index of a feed, once every package of it is found to be signed by a key of the set.
/// `keyring` is laid beside it, for who wants to take the keys from there.
///
/// # Errors
/// There is no index, it is older than a package, or a package is refused.
pub fn sign(
    dir: &Path,
    signer: &OpenpgpSigner,
    certificates: &OpenpgpCertificates,
    keyring: &str,
) -> Result<Done> {
    let (index, signature, keys) = beside(dir);
    let data = read(dir, &index)?;
    let made = modified(&index)?;
    let mut refused = Vec::new();
    for package in packages(dir)? {
        match verify(&package, certificates) {
            Err(Error::Refused { path, why }) => {
                let name = path.strip_prefix(dir).unwrap_or(&path);
                refused.push(format!("  {}: {why}", name.display()));
            }
            Err(e) => return Err(e),
            Ok(_) if modified(&package)? > made => {
                return Err(Error::Stale {
                    dir: dir.to_owned(),
                    package,
                });
            }
            Ok(_) => {}
        }
    }
    if !refused.is_empty() {
        return Err(Error::Packages {
            dir: dir.to_owned(),
            refused,
        });
    }
    let same = fs::read_optional(&keys)?.as_deref() == Some(keyring.as_bytes());
    if !same {
        fs::write_atomic(&keys, keyring)?;
    }
    let current = |s: Signed| s.fingerprint == signer.fingerprint();
    if same && verify_index(dir, certificates).is_ok_and(current) {
        return Ok(Done::Already);
    }
    fs::write_atomic(&signature, signer.sign_armored(&data)?)?;
    verify_index(dir, certificates)?;
    Ok(Done::Signed)
}

/// Tells who signed the index of a feed.
///
/// # Errors
/// There is none, or its signature is refused.
pub fn verify_index(dir: &Path, certificates: &OpenpgpCertificates) -> Result<Signed> {
    let (index, signature, _) = beside(dir);
    let data = read(dir, &index)?;
    let refused = |why| Error::Refused {
        path: index.clone(),
        why,
    };
    let signature = fs::read_optional(&signature)?.ok_or_else(|| refused(Refused::NotSigned))?;
    // Binary signatures are for packages; dnf reads armored ones alone.
    if !signature.starts_with(b"-----BEGIN PGP SIGNATURE-----") {
        let what = Unsigned::Malformed("it is not armored".into());
        return Err(refused(what.into()));
    }
    certificates
        .verify(&signature, &data)
        .map_err(|e| refused(e.into()))
}

fn read(dir: &Path, index: &Path) -> Result<Vec<u8>> {
    fs::read_optional(index)?.ok_or_else(|| Error::NoIndex {
        dir: dir.to_owned(),
    })
}

fn modified(path: &Path) -> Result<std::time::SystemTime> {
    use fs::AtPath;
    Ok(fs::metadata(path)?.modified().at("read", path)?)
}
