// SPDX-License-Identifier: Apache-2.0
//! A package's digests. Those of the payload stand in the header, and so a signature covers them;
//! the others are in the signature header, find accidents, and are checked because rpm does.

use crate::error::{Error, Result};
use crate::package::Package;
use crate::verify::Refused;
use lama_exec::fs::AtPath;
use md5::Md5;
use sha1::Sha1;
use sha2::digest::DynDigest;
use sha2::{Sha256, Sha512};
use sha3::Sha3_256;
use std::io::Read;

/// Of the signature header, over the header: hexadecimal.
pub(crate) const HEADER_SHA256: u32 = 273;
const OF_HEADER: [(u32, &str); 3] = [
    (269, "SHA-1"),
    (HEADER_SHA256, "SHA-256"),
    (279, "SHA3-256"),
];
/// Of the signature header, over header and payload: bytes.
const MD5: u32 = 1004;
/// Of the header, over the payload: hexadecimal. The first has its algorithm beside it, by OpenPGP's
/// number; rpm has never used another than SHA-256.
const PAYLOAD_SHA256: u32 = 5092;
const PAYLOAD_ALGORITHM: u32 = 5093;
const SHA256_NUMBER: u64 = 8;
const OF_PAYLOAD: [(u32, &str); 3] = [
    (PAYLOAD_SHA256, "SHA-256"),
    (5121, "SHA-512"),
    (5123, "SHA3-256"),
];

fn hasher(name: &str) -> Box<dyn DynDigest> {
    match name {
        "SHA-1" => Box::new(Sha1::default()),
        "SHA-512" => Box::new(Sha512::default()),
        "SHA3-256" => Box::new(Sha3_256::default()),
        _ => Box::new(Sha256::default()),
    }
}

/// Checks all digests that there are, and that the payload has one.
///
/// # Errors
/// One is wrong, or the payload cannot be read.
pub(crate) fn check(package: &Package) -> Result<()> {
    let refused = |why| Error::Refused {
        path: package.path().to_owned(),
        why,
    };
    let wrong = |what: String| refused(Refused::Digest(what));
    let text = |said: Option<Vec<&str>>, name: &str, of: &str| match said.as_deref() {
        Some([one]) => Ok(one.to_lowercase()),
        _ => Err(wrong(format!("the {name} of the {of} cannot be read"))),
    };
    for (tag, name) in OF_HEADER {
        if package.signature.get(tag).is_none() {
            continue;
        }
        let said = text(package.signature.get_strings(tag), name, "header")?;
        let mut h = hasher(name);
        h.update(&package.header_bytes);
        if said != hex::encode(h.finalize()) {
            return Err(wrong(format!("the {name} of the header is another")));
        }
    }
    let mut expected: Vec<(&str, String, Box<dyn DynDigest>)> = Vec::new();
    for (tag, name) in OF_PAYLOAD {
        if package.header.get(tag).is_some() {
            let said = text(package.header.get_strings(tag), name, "payload")?;
            expected.push((name, said, hasher(name)));
        }
    }
    let algorithm = package.header.get_number(PAYLOAD_ALGORITHM);
    let other = package.header.get(PAYLOAD_SHA256).is_some()
        && algorithm.is_some_and(|a| a != SHA256_NUMBER);
    // SHA3-256 alone is something that no rpm makes.
    if other || !expected.iter().any(|(name, ..)| *name != "SHA3-256") {
        return Err(refused(Refused::NoPayloadDigest));
    }
    if let Some(said) = package.signature.get_bytes(MD5) {
        let mut h = Md5::default();
        DynDigest::update(&mut h, &package.header_bytes);
        expected.push(("MD5", hex::encode(said), Box::new(h)));
    }
    let mut payload = package.payload()?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = payload.read(&mut buffer).at("read", package.path())?;
        if read == 0 {
            break;
        }
        for (_, _, h) in &mut expected {
            h.update(buffer.get(..read).unwrap_or_default());
        }
    }
    for (name, said, h) in expected {
        if said != hex::encode(h.finalize()) {
            return Err(wrong(format!("the {name} of the payload is another")));
        }
    }
    Ok(())
}
