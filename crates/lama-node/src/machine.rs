// SPDX-License-Identifier: Apache-2.0
//! `/usr/lib/lamadist/machine.json`: what the build says of the image and of the machine it is for.

use crate::error::{Context, Result};
use crate::fs;
use crate::loader::Loader;
use crate::update::version::Version;
use serde::Deserialize;

/// Where the build lays it.
pub const PATH: &str = "/usr/lib/lamadist/machine.json";

/// The image and its machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Machine {
    /// The machine (`distro/machines/`).
    pub bsp: String,
    /// The image (`distro/images/`).
    pub image: String,
    /// Its version.
    pub version: String,
    /// RAUC's `compatible`.
    pub compatible: String,
    /// What starts the UKI of a slot; the firmware, where the image is older than the word.
    #[serde(default)]
    pub loader: Loader,
    /// What the image does to data that earlier versions left.
    #[serde(default)]
    pub migration: Option<Migration>,
    /// How its disk is divided, in this order.
    pub layout: Vec<Partition>,
}

/// A change of data after which earlier versions cannot read it any more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Migration {
    /// The first version that does it.
    pub since: String,
    /// What becomes of which data.
    pub note: String,
}

impl Migration {
    /// Whether it lies between these two versions. Candidates of `since` do it already.
    ///
    /// # Errors
    /// One of them is none.
    pub fn is_between(&self, older: &str, newer: &str) -> Result<bool> {
        let since = Version::parse(&self.since)?;
        let does = |v: &str| Ok::<_, crate::Error>(Version::parse(v)?.release() >= since);
        Ok(!does(older)? && does(newer)?)
    }
}

/// One partition (`distro/layouts/`).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Partition {
    /// Its GPT name.
    pub label: String,
    /// Its type UUID.
    pub r#type: String,
    /// What it holds.
    pub role: Role,
    /// The slot it belongs to, `a` or `b`.
    #[serde(default)]
    pub slot: Option<String>,
    /// Bytes; none where it takes the rest of the disk.
    #[serde(default)]
    pub size: Option<u64>,
    /// Whether it is LUKS2.
    #[serde(default)]
    pub encrypted: bool,
    /// `ext4` or `xfs`, where one is made at installation.
    #[serde(default)]
    pub filesystem: Option<String>,
}

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The EFI system partition.
    Esp,
    /// A root file system.
    Root,
    /// The verity hash tree of a root.
    Verity,
    /// What is mounted at /var.
    Var,
}

impl Machine {
    /// That of the running system.
    ///
    /// # Errors
    /// The file is missing or of another version of this program.
    pub fn read() -> Result<Self> {
        Self::parse(&fs::read(PATH)?).context(PATH)
    }

    /// Parses the file's content.
    ///
    /// # Errors
    /// It is not what the build writes.
    pub fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).context("cannot be understood")
    }

    /// The EFI system partition.
    pub fn esp(&self) -> Option<&Partition> {
        self.layout.iter().find(|p| p.role == Role::Esp)
    }

    /// Its GPT name.
    pub fn esp_label(&self) -> &str {
        self.esp().map_or("esp", |p| p.label.as_str())
    }

    /// Its number in the partition table.
    pub fn esp_number(&self) -> usize {
        let mut roles = self.layout.iter();
        roles.position(|p| p.role == Role::Esp).unwrap_or(0) + 1
    }
}
