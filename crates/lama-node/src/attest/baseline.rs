// SPDX-License-Identifier: Apache-2.0
//! `baseline.json`: what a machine measures that boots a build, as the build predicted it (docs/ARCHITECTURE.md).

use super::bytes::{Digest, digest_of_hex, sha256};
use super::pcr;
use crate::error::{Context, Result};
use crate::{Error, fs};
use serde::Deserialize;

/// The format that this program knows.
pub const FORMAT: u32 = 1;

/// The baseline. Digests are SHA-256 in lower-case hexadecimal.
#[derive(Debug, Clone, Deserialize)]
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
    /// Its addons.
    pub addons: Vec<Addon>,
    /// The boot loader that starts the UKI, where there is one.
    #[serde(default)]
    pub loader: Option<Loader>,
    /// Fingerprints of the certificates that sign for `db`.
    pub db: Vec<String>,
}

/// A UKI.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Uki {
    /// Its Authenticode digest, measured into PCR 4.
    pub authenticode: String,
    /// That of the kernel in it, which some firmware measures as well.
    pub kernel_authenticode: String,
    /// The command line in it.
    pub cmdline: Cmdline,
    /// Its sections in the order in which they are measured.
    pub sections: Vec<Section>,
    /// PCR 11 after each phase of the boot.
    pub pcr11: Vec<Phase>,
}

/// A command line.
#[derive(Debug, Clone, Deserialize)]
pub struct Cmdline {
    /// The text.
    pub text: String,
}

/// A section of a UKI.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Section {
    /// Its name, with the dot.
    pub name: String,
    /// The digest of its content.
    pub sha256: String,
}

/// A phase of the boot.
#[derive(Debug, Clone, Deserialize)]
pub struct Phase {
    /// Its name.
    pub phase: String,
    /// PCR 11 once it has been reached.
    pub sha256: String,
}

/// An addon of a UKI.
#[derive(Debug, Clone, Deserialize)]
pub struct Addon {
    /// Its file.
    pub file: String,
    /// Its Authenticode digest, measured into PCR 4.
    pub authenticode: String,
    /// What it adds to the command line, measured into PCR 12.
    pub cmdline: String,
}

/// A boot loader.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Loader {
    /// Its file.
    pub file: String,
    /// Its Authenticode digest, measured into PCR 4.
    pub authenticode: String,
}

impl Baseline {
    /// Reads it from a file.
    ///
    /// # Errors
    /// It cannot be read, or is of another format.
    pub fn read(path: &str) -> Result<Self> {
        Self::parse(&fs::read(path)?).context(path)
    }

    /// Parses the file's content.
    ///
    /// # Errors
    /// It is no baseline, or of another format.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let b: Self = serde_json::from_slice(json).context("it is no baseline")?;
        if b.format != FORMAT {
            return Err(Error::new(format!(
                "it is of format {}, and this program knows format {FORMAT}",
                b.format
            ))
            .hint("take a lama-node as new as the build"));
        }
        Ok(b)
    }

    /// PCR 11 once systemd-stub has measured the sections and systemd these phases.
    pub fn pcr11<'a>(&self, phases: impl IntoIterator<Item = &'a str>) -> Option<Digest> {
        let mut value = [0; 32];
        for s in &self.uki.sections {
            value = pcr::extend(&value, &sha256(format!("{}\0", s.name)));
            value = pcr::extend(&value, &digest_of_hex(&s.sha256)?);
        }
        for p in phases {
            value = pcr::extend(&value, &sha256(p));
        }
        Some(value)
    }
}
