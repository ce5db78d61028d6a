// SPDX-License-Identifier: Apache-2.0
//! `distro/files.toml`: owners and modes of what `distro/files/` lays into the root, and what is
//! left out of it.
//!
//! A file below `distro/files/` is 0755 where executable and 0644 otherwise, a directory 0755, all
//! root's: the builder's umask has no say. This table names the exceptions.

use crate::Result;
use crate::error::{Origin, parse_origin};
use lama_exec::fs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Exceptions and omissions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRules {
    /// Owners and modes.
    #[serde(default)]
    pub modes: Vec<ModeRule>,
    /// Packages whose files are not laid into the root, each with the reason. They are resolved and
    /// locked like all others, since a dependency names them.
    #[serde(default)]
    pub drop: BTreeMap<String, String>,
}

/// Owner and mode of one path; in the tree or in a reviewed script's effects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModeRule {
    /// The path in the root, without a leading slash.
    pub path: String,
    /// Octal permission bits such as "4754"; unchanged where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Owner by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Group by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl ModeRule {
    /// The permission bits; none where not given.
    ///
    /// # Errors
    /// The text, where it is no octal number up to 7777.
    pub fn bits(&self) -> std::result::Result<Option<u32>, &str> {
        match self.mode.as_deref() {
            None => Ok(None),
            Some(m) => match u32::from_str_radix(m, 8) {
                Ok(v) if v <= 0o7777 => Ok(Some(v)),
                _ => Err(m),
            },
        }
    }
}

impl FileRules {
    /// Reads the table.
    ///
    /// # Errors
    /// Broken syntax, or a mode that is not octal.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let origin = Origin {
            path: path.to_owned(),
            text: fs::read_to_string(path)?,
        };
        let rules: Self = parse_origin(&origin)?;
        for r in &rules.modes {
            if let Err(m) = r.bits() {
                return Err(origin.error(
                    origin.find(m),
                    format!("{:?} is no octal mode", m),
                    "write it like \"0640\"".to_owned(),
                ));
            }
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        let rule = |m: &str| ModeRule {
            path: "x".into(),
            mode: Some(m.into()),
            user: None,
            group: None,
        };
        for (text, want) in [("0640", Ok(Some(0o640))), ("4754", Ok(Some(0o4754)))] {
            assert_eq!(rule(text).bits(), want);
        }
        for text in ["8", "rw", "10000", ""] {
            assert_eq!(rule(text).bits(), Err(text));
        }
    }
}
