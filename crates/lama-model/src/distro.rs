// SPDX-License-Identifier: Apache-2.0
//! `distro/lamadist.toml`: the distribution itself.

use crate::error::suggest;
use crate::machine::Version;
use crate::{Arch, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The distribution: its name, version base, tracks and package feeds.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Distro {
    /// `ID=` of os-release(5): lower-case letters, digits, `.`, `_`, `-`.
    pub id: String,
    /// `NAME=` of os-release(5).
    pub name: String,
    /// The version that the next release is counted from, `MAJOR.MINOR.PATCH`.
    pub version: String,
    /// `HOME_URL=` of os-release(5).
    pub home_url: String,
    /// The time that everything built carries, in seconds since 1970
    /// (<https://reproducible-builds.org/specs/source-date-epoch/>).
    pub source_date_epoch: u64,
    /// What this version does to data that earlier ones left.
    #[serde(default)]
    pub migration: Option<Migration>,
    /// Release tracks by name.
    pub tracks: BTreeMap<String, Track>,
    /// Package feeds of the debian engine by name.
    pub feeds: BTreeMap<String, Feed>,
    /// Packages of the tools tree that builds run their external programs from.
    pub tools: Vec<String>,
    /// What compiles the program on the node.
    pub toolchain: Toolchain,
    /// Packages of the container that BitBake runs in.
    #[serde(default)]
    pub builder: Vec<String>,
    /// Paths of packages that are left out of every image, as glob patterns (`*` crosses `/`); a
    /// pattern that begins with `!` keeps what an earlier one excluded.
    #[serde(default)]
    pub exclude: Vec<String>,
}

impl Distro {
    /// Whether there is a track of this name.
    ///
    /// # Errors
    /// There is none: which there are.
    pub fn check_track(&self, name: &str) -> Result<()> {
        if self.tracks.contains_key(name) {
            return Ok(());
        }
        Err(Error::Unknown {
            kind: "track",
            name: name.to_owned(),
            hint: suggest(name, self.tracks.keys().map(String::as_str)),
        })
    }
}

/// A change of data on /var after which earlier versions cannot read it any more: nobody goes back over
/// it without being told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Migration {
    /// The first version that does it, `MAJOR.MINOR.PATCH`.
    pub since: Version,
    /// What becomes of which data, for the administrator, in a line of at most 300 characters.
    pub note: String,
}

/// The compiler of the program on the node, from the feeds like everything else.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Toolchain {
    /// Packages on every builder.
    pub packages: Vec<String>,
    /// Packages on builders of one architecture only: what compiles for the other ones.
    #[serde(default)]
    pub arch_packages: BTreeMap<Arch, Vec<String>>,
    /// Packages of the *machine's* architecture that are taken where that is not the builder's,
    /// without what they depend on: the compiler's libraries.
    #[serde(default)]
    pub std: Vec<String>,
}

/// A line of releases.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Track {
    /// For whom it is.
    pub description: String,
    /// Months that a release of this track receives security updates.
    pub support_months: u32,
}

/// A Debian package feed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Feed {
    /// The archive's name: the last component of a mirror's URL, `debian` or `debian-security`.
    pub archive: String,
    /// The suite below `dists/`: a code name, never `stable`.
    pub suite: String,
    /// The components always used (`main`); machines may name more.
    pub components: Vec<String>,
    /// OpenPGP certificates that sign it, relative to `distro/`.
    pub keys: Vec<String>,
}
