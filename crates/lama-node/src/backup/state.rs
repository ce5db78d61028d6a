// SPDX-License-Identifier: Apache-2.0
//! What became of the last backup, for `status` and for whoever watches over the machine.

use super::{System, time};
use crate::error::{Context, Result};
use crate::fs;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Below `/var`. No backup holds it: it is this machine's.
pub const DIR: &str = "lib/lamadist/backup";

/// What became of the last backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct State {
    /// When one was tried, in seconds since 1970; 0: never.
    pub last_run: u64,
    /// When one succeeded.
    pub last_success: Option<u64>,
    /// Its snapshot.
    pub snapshot: Option<String>,
    /// Files in it.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes that it added to the repository.
    pub added: u64,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// Why the last try failed.
    pub error: Option<String>,
}

/// How the backups of a machine are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Nobody set them up.
    Off,
    /// There was none yet.
    Never,
    /// The last one succeeded, not long ago.
    Ok,
    /// The last one succeeded, too long ago.
    Stale,
    /// The last one failed.
    Failed,
}

impl State {
    fn path(system: &System) -> PathBuf {
        system.var().join(DIR).join("state.json")
    }

    /// Reads it; the default where there is none, or one that cannot be understood.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(system: &System) -> Result<Self> {
        let data = fs::read_optional(Self::path(system))?;
        Ok(data
            .and_then(|d| serde_json::from_slice(&d).ok())
            .unwrap_or_default())
    }

    /// Writes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, system: &System) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).context("cannot write JSON")?;
        fs::write(Self::path(system), json, 0o644)
    }

    /// How the backups are at `now`, if one may be `max_age` days old.
    pub fn health(&self, now: u64, max_age: u32) -> Health {
        let limit = u64::from(max_age) * 86400;
        match (self.last_success, &self.error) {
            (_, Some(_)) => Health::Failed,
            (None, None) => Health::Never,
            (Some(t), None) if now.saturating_sub(t) > limit => Health::Stale,
            _ => Health::Ok,
        }
    }

    /// In a few lines.
    pub fn show(&self, health: Health, now: u64) -> String {
        let mut s = match health {
            Health::Off => {
                return "off; `lama-node backup setup --repository …` begins".to_owned();
            }
            Health::Never => "set up, no backup yet".to_owned(),
            Health::Ok => "ok".to_owned(),
            Health::Stale => "stale".to_owned(),
            Health::Failed => format!("failed: {}", self.error.as_deref().unwrap_or_default()),
        };
        if let Some(t) = self.last_success {
            s += &format!(
                "\nlast success {} ({} ago): snapshot {}, {} in {} files, {} added",
                time::show(i64::try_from(t).unwrap_or(i64::MAX)),
                time::span(now.saturating_sub(t)),
                self.snapshot.as_deref().unwrap_or("?"),
                super::size(self.bytes),
                self.files,
                super::size(self.added),
            );
        }
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health() {
        let s = |last_success, error: Option<&str>| State {
            last_success,
            error: error.map(str::to_owned),
            ..State::default()
        };
        let day = 86400;
        assert_eq!(s(None, None).health(9, 3), Health::Never);
        assert_eq!(s(Some(day), None).health(4 * day, 3), Health::Ok);
        assert_eq!(s(Some(day), None).health(4 * day + 1, 3), Health::Stale);
        assert_eq!(s(Some(day), Some("x")).health(day, 3), Health::Failed);
        // A clock that went back.
        assert_eq!(s(Some(day), None).health(0, 3), Health::Ok);
    }
}
