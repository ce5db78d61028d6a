// SPDX-License-Identifier: Apache-2.0
//! What a feed is.

use std::fmt;
use std::path::PathBuf;

/// One feed: a suite of an archive, and who may sign it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedConfig {
    /// Its name, such as `debian-security`.
    pub name: String,
    /// The archive, which is the last path component of its mirrors' URLs: `debian`.
    pub archive: String,
    /// Suite or codename, such as `trixie-security`; the folder below `dists/`.
    pub suite: String,
    /// Components: `main`, `non-free-firmware` …
    pub components: Vec<String>,
    /// OpenPGP certificates, armored or binary, any of which may sign the feed.
    pub keys: Vec<PathBuf>,
}

/// An architecture by Debian's name: `amd64`, `arm64` …
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch(String);

/// A text that names no architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no architecture; Debian's names are amd64, arm64, riscv64 …")]
pub struct NoArch(String);

impl Arch {
    /// The architecture of that name. `all` and `any` are none.
    pub fn new(name: &str) -> Result<Self, NoArch> {
        if lama_solver::relation::is_arch(name) && !matches!(name, "all" | "any") {
            Ok(Self(name.to_owned()))
        } else {
            Err(NoArch(name.chars().take(40).collect()))
        }
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Arch {
    type Err = NoArch;

    fn from_str(s: &str) -> Result<Self, NoArch> {
        Self::new(s)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
