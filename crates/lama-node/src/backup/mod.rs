// SPDX-License-Identifier: Apache-2.0
//! Backup of the data partition, and with it of the host's identity, by restic.
//!
//! `/var` holds all that a node does not get from its image: data, and in `lib/lamadist/etc/upper`
//! what was changed in `/etc`, host keys and machine ID included. So one snapshot of `/var` is the
//! host.

pub mod config;
pub mod disk;
pub mod host;
pub mod message;
pub mod onto;
pub mod progress;
pub mod restic;
pub mod restore;
pub mod scope;
pub mod secret;
pub mod select;
pub mod state;
pub mod swap;
pub mod time;

use std::path::{Path, PathBuf};

/// The tag of every snapshot that is made here.
pub const TAG: &str = "lamadist";

/// The upper layer of `/etc`, below `/var`.
pub const ETC_UPPER: &str = "lib/lamadist/etc/upper";

/// The system that is backed up or restored: the running one, or one whose root lies elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    root: PathBuf,
}

impl System {
    /// The system at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The system whose root is `dir`. restic stores a relative path as it is given, so it is made an
    /// absolute one.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn open(dir: &str) -> crate::Result<Self> {
        crate::fs::canonical(dir).map(Self::at)
    }

    /// Whether it is the one that runs.
    pub fn running(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A path in it, given without the leading `/`.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// Its `/var`.
    pub fn var(&self) -> PathBuf {
        self.path("var")
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.path(config::PATH)
    }

    /// Where restic keeps copies of indexes: systemd's `CacheDirectory=` in a service.
    pub fn cache(&self) -> PathBuf {
        std::env::var_os("CACHE_DIRECTORY")
            .map_or_else(|| self.path("var/cache/restic"), PathBuf::from)
    }
}

impl Default for System {
    fn default() -> Self {
        Self::at("/")
    }
}

/// Bytes for people: `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    let mut unit = "B";
    let mut n = bytes;
    let mut tenth = 0;
    for u in ["KiB", "MiB", "GiB", "TiB"] {
        if n < 1024 {
            break;
        }
        tenth = (n % 1024) * 10 / 1024;
        n /= 1024;
        unit = u;
    }
    if unit == "B" {
        format!("{n} B")
    } else {
        format!("{n}.{tenth} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (n, s) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(n), s);
        }
    }
}
