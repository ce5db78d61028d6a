// SPDX-License-Identifier: Apache-2.0
//! systemd's own event log: what it measures once the firmware is gone. JSON records, each between a
//! record separator and a newline (RFC 7464), in the JSON form of the TCG Canonical Event Log
//! (systemd's TPM2_PCR_MEASUREMENTS document).

use super::bytes::{Digest, digest_of_hex, sha256};
use crate::error::{Context, Result};
use crate::{Error, fs};
use serde::Deserialize;

/// Where systemd keeps it; gone after a reboot, as PCRs are.
pub const PATH: &str = "/run/log/systemd/tpm2-measure.log";

/// A measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in the log, from 1.
    pub number: usize,
    /// The register.
    pub pcr: u32,
    /// What its SHA-256 bank was extended with.
    pub digest: Digest,
    /// `phase`, `machine-id`, `filesystem`, `volume-key` …
    pub kind: String,
    /// What was measured; of a secret only what it is.
    pub text: String,
}

impl Record {
    /// Whether the text is what was measured; nothing where a secret was measured, or what this
    /// program does not know.
    pub fn proven(&self) -> Option<bool> {
        matches!(self.kind.as_str(), "phase" | "machine-id" | "filesystem")
            .then(|| sha256(&self.text) == self.digest)
    }
}

#[derive(Deserialize)]
struct Raw {
    pcr: u32,
    digests: Vec<RawDigest>,
    #[serde(default)]
    content: Content,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDigest {
    hash_alg: String,
    digest: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    string: String,
    #[serde(default)]
    event_type: String,
}

/// That of this machine; empty where systemd has measured nothing.
///
/// # Errors
/// It cannot be read.
pub fn read() -> Result<String> {
    let data = fs::read_optional(PATH)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&data).into_owned())
}

/// Parses it.
///
/// # Errors
/// A record is no measurement, or has no SHA-256 digest.
pub fn parse(text: &str) -> Result<Vec<Record>> {
    text.split(['\u{1e}', '\n'])
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .enumerate()
        .map(|(i, l)| {
            record(l, i + 1).context(format_args!("systemd's event log: record {}", i + 1))
        })
        .collect()
}

fn record(line: &str, number: usize) -> Result<Record> {
    let raw: Raw = serde_json::from_str(line).context("it is no measurement")?;
    let digest = raw
        .digests
        .iter()
        .filter(|d| d.hash_alg == "sha256")
        .find_map(|d| digest_of_hex(&d.digest))
        .ok_or_else(|| Error::new("it has no SHA-256 digest"))?;
    Ok(Record {
        number,
        pcr: raw.pcr,
        digest,
        kind: raw.content.event_type,
        text: raw.content.string,
    })
}
