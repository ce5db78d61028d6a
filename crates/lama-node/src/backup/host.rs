// SPDX-License-Identifier: Apache-2.0
//! Who a host is: kept in `/var` beside the data, for part of it may come from a signed addon on the
//! ESP, which no backup of `/var` holds.

use super::{ETC_UPPER, System};
use crate::error::{Context, Result};
use crate::fs;
use crate::machine::Machine;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where it lies below `/var`.
pub const PATH: &str = "lib/lamadist/host.json";

/// Who a host is, and what it ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Host {
    /// Its name.
    pub hostname: String,
    /// machine-id(5); empty where it has none.
    pub machine_id: String,
    /// The machine it was built for.
    pub bsp: String,
    /// The image.
    pub image: String,
    /// Its version.
    pub version: String,
}

impl Host {
    /// That of a system.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn of(system: &System) -> Result<Self> {
        let machine = fs::read_optional(system.path("usr/lib/lamadist/machine.json"))?;
        let machine = machine.and_then(|m| Machine::parse(&m).ok());
        let name = if system.running() {
            fs::line("/proc/sys/kernel/hostname")
        } else {
            fs::line(system.path("etc/hostname"))
        };
        let machine_id = fs::line(system.path("etc/machine-id")).filter(|m| is_machine_id(m));
        let (bsp, image, version) = machine
            .map(|m| (m.bsp, m.image, m.version))
            .unwrap_or_default();
        Ok(Self {
            hostname: name.filter(|n| is_name(n)).unwrap_or("localhost".into()),
            machine_id: machine_id.unwrap_or_default(),
            bsp,
            image,
            version,
        })
    }

    /// Reads what a backup left in `var`.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn load(var: &Path) -> Result<Option<Self>> {
        let path = var.join(PATH);
        match fs::read_optional(&path)? {
            None => Ok(None),
            Some(d) => serde_json::from_slice(&d).context(path.display()).map(Some),
        }
    }

    /// Writes it into `var`, if it says something else there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, var: &Path) -> Result<()> {
        if Self::load(var).ok().flatten().as_ref() == Some(self) {
            return Ok(());
        }
        let json = serde_json::to_vec_pretty(self).context("cannot write JSON")?;
        fs::write(var.join(PATH), json, 0o644)
    }

    /// Writes name and machine ID into the upper layer of `/etc` in `var`, where it has none: a
    /// host that had them from its addon is the same host without it.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn settle(&self, var: &Path) -> Result<()> {
        let upper = var.join(ETC_UPPER);
        let settle = |name: &str, value: &str| {
            let path = upper.join(name);
            // An empty machine-id is what systemd calls "not set yet".
            let there = fs::line(&path).is_some_and(|l| !l.is_empty() && l != "uninitialized");
            if there || value.is_empty() {
                return Ok(());
            }
            fs::write(path, format!("{value}\n"), 0o644)
        };
        if is_machine_id(&self.machine_id) {
            settle("machine-id", &self.machine_id)?;
        }
        if is_name(&self.hostname) && self.hostname != "localhost" {
            settle("hostname", &self.hostname)?;
        }
        Ok(())
    }
}

fn is_machine_id(s: &str) -> bool {
    s.len() == 32 && s.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_name(s: &str) -> bool {
    (1..=64).contains(&s.len())
        && !s.starts_with(['-', '.'])
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_settled_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host {
            hostname: "nas".into(),
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            ..Host::default()
        };
        host.save(dir.path()).unwrap();
        assert_eq!(Host::load(dir.path()).unwrap(), Some(host.clone()));
        let upper = dir.path().join(ETC_UPPER);
        fs::write(upper.join("hostname"), "other\n", 0o644).unwrap();
        fs::write(upper.join("machine-id"), "\n", 0o644).unwrap();
        host.settle(dir.path()).unwrap();
        assert_eq!(fs::text(upper.join("hostname")).unwrap(), "other\n");
        assert_eq!(fs::line(upper.join("machine-id")).unwrap(), host.machine_id);
    }
}
