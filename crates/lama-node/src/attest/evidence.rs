// SPDX-License-Identifier: Apache-2.0
//! What a node shows of itself: PCR values, logs, and a TPM's signature over the former. One JSON file,
//! which can be checked on any machine.

use super::bytes::{base64, digest_of_hex, hex, unbase64};
use super::ima::{self, Lead};
use super::{eventlog, pcr, userspace};
use crate::error::{Context, Result};
use crate::kernel::Cmdline;
use crate::machine::Machine;
use crate::{Error, fs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format that this program knows.
pub const FORMAT: u32 = 1;

/// The evidence. None of it counts by itself: the logs must give the PCR values, and those the digest
/// that the TPM has signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Evidence {
    /// [`FORMAT`].
    pub format: u32,
    /// What the node says of itself.
    pub claims: Claims,
    /// PCRs of the SHA-256 bank by number, in hexadecimal.
    pub pcrs: BTreeMap<u32, String>,
    /// The firmware's event log, Base64.
    pub event_log: String,
    /// systemd's event log.
    pub userspace_log: String,
    /// IMA's log; none where the kernel has no IMA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<Ima>,
    /// The TPM's signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<Quote>,
}

/// What a node says of itself. Where the logs prove it, that is said in the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Claims {
    /// The machine.
    #[serde(default)]
    pub bsp: Option<String>,
    /// The image.
    #[serde(default)]
    pub image: Option<String>,
    /// The version.
    #[serde(default)]
    pub version: Option<String>,
    /// The kernel command line.
    #[serde(default)]
    pub cmdline: String,
    /// The firmware's variable `SetupMode`: whether anybody may enroll keys.
    #[serde(default)]
    pub setup_mode: Option<bool>,
}

/// IMA's log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ima {
    /// `sha256` or `sha1`: of which bank the digests in it are.
    pub lead: String,
    /// In the kernel's binary form, Base64.
    pub log: String,
}

/// A quote.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Quote {
    /// TPMS_ATTEST, Base64.
    pub message: String,
    /// TPMT_SIGNATURE, Base64.
    pub signature: String,
    /// The attestation key's public part, PEM.
    pub key: String,
}

impl Claims {
    /// Those of this machine.
    fn read() -> Result<Self> {
        let mut claims = Self {
            // Not trimmed: a space at its end was measured, too.
            cmdline: fs::text("/proc/cmdline")?.trim_end_matches('\n').to_owned(),
            setup_mode: setup_mode()?,
            ..Self::default()
        };
        if let Ok(m) = Machine::read() {
            claims.bsp = Some(m.bsp);
            claims.image = Some(m.image);
            claims.version = Some(m.version);
        } else {
            let text = fs::line("/usr/lib/os-release").unwrap_or_default();
            // Its lines are shell assignments, which words of a command line are like.
            let os = Cmdline::parse(&text);
            claims.image = os
                .get("VARIANT_ID")
                .or(os.get("IMAGE_ID"))
                .map(str::to_owned);
            claims.version = os
                .get("IMAGE_VERSION")
                .or(os.get("VERSION_ID"))
                .map(str::to_owned);
        }
        Ok(claims)
    }
}

/// EFI variable `SetupMode` (UEFI specification 3.3): four bytes of attributes, then the value.
fn setup_mode() -> Result<Option<bool>> {
    let path = "/sys/firmware/efi/efivars/SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let data = fs::read_optional(path)?;
    Ok(data.and_then(|d| d.get(4).map(|b| *b == 1)))
}

impl Evidence {
    /// That of this machine, without a quote. Values are read before logs: what is logged in between
    /// is then more than the values, never less.
    ///
    /// # Errors
    /// There is no TPM, or a log cannot be read.
    pub fn collect(pcrs: &pcr::Values) -> Result<Self> {
        let ima = ima::read()?.map(|(lead, log)| Ima {
            lead: match lead {
                Lead::Sha1 => "sha1",
                Lead::Sha256 => "sha256",
            }
            .to_owned(),
            log: base64(&log),
        });
        Ok(Self {
            format: FORMAT,
            claims: Claims::read()?,
            pcrs: pcrs.iter().map(|(n, v)| (*n, hex(v))).collect(),
            event_log: base64(&eventlog::EventLog::read()?),
            userspace_log: userspace::read()?,
            ima,
            quote: None,
        })
    }

    /// Parses a file's content.
    ///
    /// # Errors
    /// It is no evidence, or of another format.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let e: Self = serde_json::from_slice(json).context("it is no evidence")?;
        if e.format != FORMAT {
            return Err(Error::new(format!(
                "it is of format {}, and this program knows format {FORMAT}",
                e.format
            )));
        }
        Ok(e)
    }

    /// The PCR values.
    ///
    /// # Errors
    /// One is no SHA-256 digest.
    pub fn values(&self) -> Result<pcr::Values> {
        self.pcrs
            .iter()
            .map(|(n, v)| {
                let v = digest_of_hex(v);
                let bad = || Error::new(format!("the value of PCR {n} is no SHA-256 digest"));
                Ok((*n, v.ok_or_else(bad)?))
            })
            .collect()
    }

    /// The firmware's events.
    ///
    /// # Errors
    /// The log cannot be understood.
    pub fn firmware(&self) -> Result<eventlog::EventLog> {
        let data = unbase64(&self.event_log);
        let data = data.ok_or_else(|| Error::new("the firmware's event log is no Base64"))?;
        eventlog::EventLog::parse(&data)
    }

    /// systemd's measurements.
    ///
    /// # Errors
    /// The log cannot be understood.
    pub fn userspace(&self) -> Result<Vec<userspace::Record>> {
        userspace::parse(&self.userspace_log)
    }

    /// IMA's measurements; none where the kernel has no IMA.
    ///
    /// # Errors
    /// The log cannot be understood.
    pub fn ima(&self) -> Result<Option<Vec<ima::Entry>>> {
        let Some(i) = &self.ima else { return Ok(None) };
        let lead = match i.lead.as_str() {
            "sha1" => Lead::Sha1,
            "sha256" => Lead::Sha256,
            other => {
                return Err(Error::new(format!(
                    "IMA's log is of an unknown bank, {other}"
                )));
            }
        };
        let data = unbase64(&i.log).ok_or_else(|| Error::new("IMA's log is no Base64"))?;
        ima::parse(&data, lead).map(Some)
    }
}
