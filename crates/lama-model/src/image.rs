// SPDX-License-Identifier: Apache-2.0
//! `distro/images/*.toml` and `distro/packagegroups/*.toml`: what is in an image.

use crate::Arch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use toml::Spanned;

/// An image: package groups and packages on top of another image.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// What it is for, in a line.
    pub description: String,
    /// The image it adds to.
    #[schemars(with = "Option<String>")]
    pub extends: Option<Spanned<String>>,
    /// Package groups.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub groups: Vec<Spanned<String>>,
    /// Packages.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Folders of `distro/files/` laid into the root, in this order.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub files: Vec<Spanned<String>>,
    /// systemd units enabled by the preset, besides those of its groups.
    #[serde(default)]
    pub enable: Vec<String>,
    /// How its EROFS is compressed; inherited where not set.
    pub compression: Option<Compression>,
}

/// Compression of an EROFS, mkfs.erofs(1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Compression {
    /// `-z`: algorithm and level, such as `lz4hc,9`; `none` stores.
    pub algorithm: String,
    /// `-C`: the largest physical cluster, in bytes, a multiple of 4096.
    #[serde(default = "cluster")]
    pub cluster: u32,
}

fn cluster() -> u32 {
    65536
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            algorithm: "lz4hc,9".to_owned(),
            cluster: cluster(),
        }
    }
}

/// A package group: packages that serve one purpose, and the units they bring.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackageGroup {
    /// Its purpose, in a line.
    pub description: String,
    /// Groups it includes.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub groups: Vec<Spanned<String>>,
    /// Packages.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Packages for one architecture only.
    #[serde(default)]
    pub arch_packages: BTreeMap<Arch, Vec<String>>,
    /// systemd units enabled by the preset; all others are disabled.
    #[serde(default)]
    pub enable: Vec<String>,
}
