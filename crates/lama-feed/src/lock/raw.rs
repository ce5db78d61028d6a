// SPDX-License-Identifier: Apache-2.0
//! The lock as it stands in the file.

use super::{Id, LockedPackage};
use crate::hash::Sha256;
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) version: Spanned<i64>,
    #[serde(default)]
    pub(super) set: BTreeMap<String, RawSet>,
    #[serde(default)]
    pub(super) package: Vec<Spanned<RawPackage>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawSet {
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) feeds: Vec<String>,
    #[serde(default)]
    pub(super) request: Vec<String>,
    pub(super) packages: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawPackage {
    name: String,
    version: String,
    architecture: String,
    source: String,
    source_version: String,
    feed: String,
    archive: String,
    path: String,
    size: u64,
    sha256: Sha256,
}

impl RawPackage {
    /// The same demands as an index's record has to meet: a lock is a file that somebody may have
    /// edited, and its paths go into URLs.
    pub(super) fn check(self) -> std::result::Result<LockedPackage, String> {
        let record = lama_solver::Record::from_stanza(lama_solver::Stanza {
            package: self.name.as_str().into(),
            version: self.version.as_str().into(),
            architecture: self.architecture.as_str().into(),
            source: self.source.as_str().into(),
            source_version: self.source_version.as_str().into(),
            filename: self.path.as_str().into(),
            size: self.size,
            sha256: self.sha256.to_string().into(),
            feed: self.feed.as_str().into(),
            ..lama_solver::Stanza::default()
        });
        record.map_err(|e| {
            format!(
                "package `{}`: {}: {}",
                self.name,
                e.field.to_lowercase(),
                e.what
            )
        })?;
        Ok(LockedPackage {
            id: Id {
                name: self.name,
                version: self.version,
                architecture: self.architecture,
            },
            source: self.source,
            source_version: self.source_version,
            feed: self.feed,
            archive: self.archive,
            path: self.path,
            size: self.size,
            sha256: self.sha256,
        })
    }
}
