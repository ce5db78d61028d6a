// SPDX-License-Identifier: Apache-2.0
//! `baseline.json`: what a machine that boots these artefacts measures into its TPM, so that
//! somebody else can tell whether it did (`lama-node attest`).
//!
//! All of it is read from the finished artefacts. What firmware, hardware and the host's own
//! addon add is not known to a build and not in it.

use crate::{Error, Result, pe};
use lama_exec::fs;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// The name of the file.
pub const FILE: &str = "baseline.json";
/// Its format, which `lama-node` compares.
pub const FORMAT: u32 = 1;

/// The baseline. Digests are SHA-256 in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Baseline {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the distribution.
    pub version: String,
    /// The machine.
    pub bsp: String,
    /// The image.
    pub image: String,
    /// Root hash of the verity tree.
    pub root_hash: String,
    /// The unified kernel image.
    pub uki: Uki,
    /// Its addons, as in the index.
    pub addons: Vec<Addon>,
    /// The boot loader that starts the UKI, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<Loader>,
    /// Fingerprints of the certificates, one of which has signed UKI and addons.
    pub db: Vec<String>,
}

/// A UKI and what is measured of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Uki {
    /// Its file.
    pub file: String,
    /// The file's digest.
    pub sha256: String,
    /// Its Authenticode digest, which the firmware extends PCR 4 with.
    pub authenticode: String,
    /// That of the kernel in it, which some firmware extends PCR 4 with as well.
    pub kernel_authenticode: String,
    /// The command line in it.
    pub cmdline: Cmdline,
    /// Its sections, in the order in which systemd-stub extends PCR 11 with them.
    pub sections: Vec<Section>,
    /// PCR 11 of the SHA-256 bank after each phase of the boot (systemd-pcrphase.service(8)).
    pub pcr11: Vec<Phase>,
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cmdline {
    /// The text.
    pub text: String,
    /// Its digest.
    pub sha256: String,
}

/// A section of a UKI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Its name, with the dot.
    pub name: String,
    /// The digest of its content.
    pub sha256: String,
}

/// A phase of the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name, as it is measured: `ready`.
    pub phase: String,
    /// PCR 11 once it has been reached.
    pub sha256: String,
}

/// An addon of a UKI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Addon {
    /// Its file.
    pub file: String,
    /// The file's digest.
    pub sha256: String,
    /// Its Authenticode digest, which the firmware extends PCR 4 with.
    pub authenticode: String,
    /// What it adds to the command line; measured into PCR 12.
    pub cmdline: String,
}

/// A boot loader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Loader {
    /// Its file.
    pub file: String,
    /// The file's digest.
    pub sha256: String,
    /// Its Authenticode digest, which the firmware extends PCR 4 with.
    pub authenticode: String,
}

/// The sections that are measured, in systemd-stub's order (src/fundamental/uki.c of systemd 257):
/// all that it knows but `.pcrsig`, which cannot know itself.
const MEASURED: &[&str] = &[
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat",
    ".pcrpkey", ".profile", ".dtbauto", ".hwids",
];

/// The phases that a boot goes through. Those of a shutdown are measured too, but nobody asks then.
const PHASES: &[&str] = &["enter-initrd", "leave-initrd", "sysinit", "ready"];

/// A PCR of the SHA-256 bank.
struct Pcr([u8; 32]);

impl Pcr {
    fn extend(&mut self, data: &[u8]) {
        let digest = Sha256::digest(data);
        self.0 = Sha256::new()
            .chain_update(self.0)
            .chain_update(digest)
            .finalize()
            .into();
    }

    /// The digest of a TPM2 policy that demands this value of PCR 11 (TPM 2.0 Library, Part 3,
    /// TPM2_PolicyPCR): what `.pcrsig` signs.
    fn policy(&self) -> [u8; 32] {
        // TPM_CC_PolicyPCR; one selection: TPM_ALG_SHA256, three bytes, bit 11.
        const COMMAND: [u8; 4] = 0x17f_u32.to_be_bytes();
        const SELECTION: [u8; 10] = [0, 0, 0, 1, 0, 0x0b, 3, 0, 0x08, 0];
        Sha256::new()
            .chain_update([0; 32])
            .chain_update(COMMAND)
            .chain_update(SELECTION)
            .chain_update(Sha256::digest(self.0))
            .finalize()
            .into()
    }
}

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn bad(path: &Path) -> impl Fn(String) -> Error + '_ {
    |reason| Error::Format {
        path: path.display().to_string(),
        reason,
    }
}

impl Uki {
    /// Of a finished UKI.
    ///
    /// # Errors
    /// It is none, or the PCR policy that is in it was signed for other values than these.
    pub fn of(path: &Path) -> Result<Self> {
        let bad = bad(path);
        let data = fs::read(path)?;
        let name = path.display().to_string();
        let section = |s: &str| pe::section(&data, s, &name);
        let need = |s: &str| section(s)?.ok_or_else(|| bad(format!("it has no section {s}")));
        let mut pcr = Pcr([0; 32]);
        let mut sections = Vec::new();
        for s in MEASURED {
            let Some(content) = section(s)? else { continue };
            pcr.extend(&[s.as_bytes(), b"\0"].concat());
            pcr.extend(content);
            sections.push(Section {
                name: (*s).to_owned(),
                sha256: hex::encode(Sha256::digest(content)),
            });
        }
        let signed = section(".pcrsig")?.map(String::from_utf8_lossy);
        let mut pcr11 = Vec::new();
        for phase in PHASES {
            pcr.extend(phase.as_bytes());
            // What is predicted and what a TPM releases keys for must be the same thing.
            let policy = hex::encode(pcr.policy());
            if signed.as_ref().is_some_and(|s| !s.contains(&policy)) {
                return Err(bad(format!(
                    "its PCR policy was signed for another PCR 11 in the phase {phase}"
                )));
            }
            pcr11.push(Phase {
                phase: (*phase).to_owned(),
                sha256: hex::encode(pcr.0),
            });
        }
        let cmdline = need(".cmdline")?;
        Ok(Self {
            file: file_name(path),
            sha256: hex::encode(Sha256::digest(&data)),
            authenticode: hex::encode(pe::digest(&data).map_err(&bad)?),
            kernel_authenticode: hex::encode(pe::digest(need(".linux")?).map_err(&bad)?),
            cmdline: Cmdline {
                text: text(cmdline),
                sha256: hex::encode(Sha256::digest(cmdline)),
            },
            sections,
            pcr11,
        })
    }
}

impl Addon {
    /// Of a finished addon.
    ///
    /// # Errors
    /// It is none.
    pub fn of(path: &Path) -> Result<Self> {
        let data = fs::read(path)?;
        let cmdline = pe::section(&data, ".cmdline", &path.display().to_string())?;
        Ok(Self {
            file: file_name(path),
            sha256: hex::encode(Sha256::digest(&data)),
            authenticode: hex::encode(pe::digest(&data).map_err(bad(path))?),
            cmdline: text(cmdline.unwrap_or_default()),
        })
    }
}

impl Loader {
    /// Of a finished boot loader.
    ///
    /// # Errors
    /// It is none.
    pub fn of(path: &Path) -> Result<Self> {
        let data = fs::read(path)?;
        Ok(Self {
            file: file_name(path),
            sha256: hex::encode(Sha256::digest(&data)),
            authenticode: hex::encode(pe::digest(&data).map_err(bad(path))?),
        })
    }
}

impl Baseline {
    /// The file's content.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }
}
