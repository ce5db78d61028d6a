// SPDX-License-Identifier: Apache-2.0
//! Channel files: which bundle a track is at, signed (docs/UPDATE.md).
//!
//! The format is `lama_node::update::channel`'s, and so is how the signature is checked. Here one is
//! read for people ([`read`]), judged by a keyring ([`open`]), and signed ([`sign`]); what the next one
//! says follows from the last one ([`next`]), and [`site`] is the folder that a web server serves.

pub mod next;
mod prune;
pub mod site;

use crate::cms::{Certificate, Cms};
use crate::error::format;
use crate::{Error, Result};
use lama_exec::fs::{self, AtPath};
use lama_exec::{Tools, fs::Scratch};
use lama_keys::{CertificateInfo, KeySet, Role};
pub use lama_node::update::channel::{Channel, Delta, File};
use lama_node::update::channel::{LIMIT, VERIFY};
use std::io::Read;
use std::path::Path;

/// The ending of a channel file's name.
pub const EXTENSION: &str = "channel";

const HINT: &str = "it is no channel file, or was not copied whole; `lamadist channel` issues one";

/// What a channel file says, whoever signed it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What it says.
    pub channel: Channel,
    /// By the certificates that came along: who says so.
    pub signers: Vec<Certificate>,
}

/// Whether a file is a signed message, as channel files are. A bundle is none: its signature comes
/// last.
///
/// # Errors
/// It cannot be read.
pub fn is_one(file: &Path) -> Result<bool> {
    let size = fs::metadata(file)?.len();
    Ok(size <= LIMIT && matches!(Cms::parse(&fs::read(file)?), Some(Cms::Signed(_))))
}

/// Reads a channel file. The signature is not checked: [`open`] does that.
///
/// # Errors
/// It is none, or is damaged.
pub fn read(file: &Path) -> Result<Claim> {
    claim(file, &load(file)?)
}

fn load(file: &Path) -> Result<Vec<u8>> {
    let mut der = Vec::new();
    let opened = fs::open(file)?;
    opened
        .take(LIMIT + 1)
        .read_to_end(&mut der)
        .at("read", file)?;
    if der.len() as u64 > LIMIT {
        return Err(format(file, "it is too long for a channel file", HINT));
    }
    Ok(der)
}

fn claim(file: &Path, der: &[u8]) -> Result<Claim> {
    let Some(Cms::Signed(signed)) = Cms::parse(der) else {
        return Err(format(file, "it is no signed message", HINT));
    };
    let content = signed.content.as_deref();
    let content = content.ok_or_else(|| format(file, "nothing is in the signed message", HINT))?;
    Ok(Claim {
        channel: parse(file, content)?,
        signers: signed.signed_by().cloned().collect(),
    })
}

/// Reads a channel file that is signed by whom `keyring` (certificates, PEM) trusts, as a node does it.
/// `scratch` is a folder for short-lived files.
///
/// # Errors
/// It is none, is damaged, or others have signed it.
pub fn open(file: &Path, tools: &Tools, keyring: &str, scratch: &Path) -> Result<Claim> {
    judge(file, &load(file)?, tools, keyring, scratch)
}

/// As [`open`], of what is in `file` or is going to be.
fn judge(file: &Path, der: &[u8], tools: &Tools, keyring: &str, scratch: &Path) -> Result<Claim> {
    let claim = claim(file, der)?;
    let dir = Scratch::new_in(scratch)?;
    let (message, ring) = (dir.path().join("message"), dir.path().join("keyring.pem"));
    fs::write(&message, der)?;
    fs::write(&ring, keyring)?;
    let cmd = tools.command("openssl").args(VERIFY).arg("-CAfile");
    let cmd = cmd.arg(&ring).arg("-in").arg(&message);
    let (status, out) = cmd.bind_ro(dir.path()).run_any()?;
    if !status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let why = said.lines().rfind(|l| !l.trim().is_empty());
        return Err(Error::Refused {
            path: file.to_owned(),
            reason: format!(
                "it is not signed by anybody who is trusted here: {}",
                why.unwrap_or("openssl does not say why").trim()
            ),
            hint: "name the key set that it was signed with (--keys, --release)".to_owned(),
        });
    }
    Ok(Claim {
        channel: parse(file, &out.stdout)?,
        ..claim
    })
}

fn parse(file: &Path, json: &[u8]) -> Result<Channel> {
    Channel::parse(json).map_err(|source| Error::Channel {
        path: file.to_owned(),
        source,
    })
}

/// The message that a node reads.
///
/// # Errors
/// The key cannot sign.
pub fn sign(channel: &Channel, keys: &KeySet, tools: &Tools) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(channel).unwrap_or_default();
    json.push(b'\n');
    let certificate = CertificateInfo::read(&keys.certificate_path(Role::RaucSigning))?;
    let chain = keys.rauc_intermediates();
    let chain: Result<Vec<_>> = chain
        .iter()
        .map(|p| Ok(CertificateInfo::read(p)?))
        .collect();
    let signer = keys.signer(Role::RaucSigning, Some(tools))?;
    Ok(lama_keys::cms::sign(
        &json,
        &certificate,
        &chain?,
        signer.as_ref(),
    )?)
}
