// SPDX-License-Identifier: Apache-2.0
//! `distro/ids.toml`: the number of every system user and group.
//!
//! /etc and /var outlive the slots, so a number must never depend on which packages an image has or
//! on the order in which they are configured.

use crate::Result;
use crate::error::{Origin, parse_origin};
use lama_exec::fs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Names and numbers. Once given, a number is never reused for another name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    /// User IDs by name.
    #[serde(default)]
    pub users: BTreeMap<String, u32>,
    /// Group IDs by name.
    #[serde(default)]
    pub groups: BTreeMap<String, u32>,
}

impl Ids {
    /// Reads the table.
    ///
    /// # Errors
    /// Broken syntax, or one number for two names.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let origin = Origin {
            path: path.to_owned(),
            text: fs::read_to_string(path)?,
        };
        let ids: Self = parse_origin(&origin)?;
        for (what, table) in [("user", &ids.users), ("group", &ids.groups)] {
            let mut seen: BTreeMap<u32, &str> = BTreeMap::new();
            for (name, id) in table {
                if let Some(other) = seen.insert(*id, name) {
                    return Err(origin.error(
                        origin.find(&format!("{name} = {id}")),
                        format!("{what}s {other:?} and {name:?} have the same number {id}"),
                        format!("the next free one is {}", ids.next_free()),
                    ));
                }
            }
        }
        Ok(ids)
    }

    /// The first number from 200 on that is no user's and no group's: the range that neither
    /// Debian's static IDs (0–99) nor adduser (100 up) nor systemd-sysusers (999 down) begin with.
    pub fn next_free(&self) -> u32 {
        (200..1000)
            .find(|n| {
                !self
                    .users
                    .values()
                    .chain(self.groups.values())
                    .any(|v| v == n)
            })
            .unwrap_or(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_of_one_number_are_refused() {
        let d = tempfile::tempdir().unwrap();
        let p = d.path().join("ids.toml");
        fs::write(&p, "[users]\na = 200\nb = 200\n").unwrap();
        let e = Ids::load(&p).unwrap_err().to_string();
        assert!(e.contains("ids.toml:3: users \"a\" and \"b\""), "{e}");
        fs::write(&p, "[users]\na = 200\n[groups]\na = 200\nx = 201\n").unwrap();
        assert_eq!(Ids::load(&p).unwrap().next_free(), 202);
    }
}
