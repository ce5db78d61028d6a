// SPDX-License-Identifier: Apache-2.0
//! Update bundles: RAUC bundles of the format `crypt`, signed and encrypted to one or many machines,
//! and delta bundles, out of which a machine makes one itself.
//!
//! RAUC makes, signs and encrypts them, and is the judge of signatures, here as on the node: its
//! program comes from the tools tree. What is read here besides: everything that a bundle says of
//! itself, for people ([`open`]), whether all of its bytes are what was signed ([`check`]), and how
//! the payload of one follows from the images of another ([`delta`]).
//!
//! | module | what |
//! |---|---|
//! | [`make`] | images to a bundle |
//! | [`open`] | a bundle's parts: manifest, signer, recipients |
//! | [`check`] | whether it may be installed |
//! | [`manifest`] | RAUC's manifest, written and read |
//! | [`cms`] | recipients and certificates of a CMS structure (RFC 5652) |
//! | [`delta`] | delta bundles; their format is `lama_node::delta`'s |
//! | [`channel`] | channel files, which say what a track is at, and the folder that they are served from |

pub mod channel;
pub mod check;
pub mod cms;
pub mod delta;
mod error;
pub mod make;
pub mod manifest;
pub mod open;

pub use error::{Error, Result};
pub use open::Bundle;

use lama_exec::fs::{self, AtPath};
use sha2::{Digest, Sha256};

/// Bytes and SHA-256, in hexadecimal, of a file.
///
/// # Errors
/// It cannot be read.
pub fn digest(path: &std::path::Path) -> Result<(u64, String)> {
    let mut h = Sha256::new();
    let size = std::io::copy(&mut fs::open(path)?, &mut h).at("read", path)?;
    Ok((size, lama_node::delta::hex(&h.finalize())))
}
