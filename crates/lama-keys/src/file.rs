// SPDX-License-Identifier: Apache-2.0
//! `keyset.toml`: what a key set consists of.

use crate::error::{Error, Result};
use crate::pkcs11::{PinValue, Pkcs11Uri};
use crate::role::Role;
use lama_exec::fs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use uuid::Uuid;

/// The format this version writes and reads.
pub(crate) const FORMAT: i64 = 1;
/// The name of the file in the directory of a key set.
pub(crate) const FILE_NAME: &str = "keyset.toml";

/// What a key set may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Made without asking, for one's own machine. Everything it signs carries a mark.
    Development,
    /// Made on purpose, for what others install.
    Release,
}

/// How tools reach PKCS#11 tokens: the table `[pkcs11]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pkcs11Access {
    /// The PKCS#11 module to load, as seen by the tools (a path in the tools tree).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<PathBuf>,
    /// Paths of this machine the module needs (a socket such as /run/pcscd, a token directory).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathBuf>,
    /// Environment variables the module needs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// One key, as the file names it. Paths are relative to the set; a private key may be elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Entry {
    pub algorithm: String,
    /// Path or `pkcs11:` URI; absent where the key is kept elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    pub certificate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// SHA-256 of the certificate (of the SPKI for `pcr`), or the OpenPGP fingerprint; lower case.
    pub fingerprint: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Previous>,
}

/// A key that was replaced and is still honoured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Previous {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    pub certificate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    pub fingerprint: String,
    /// Of `rauc-ca`: the certificate of its successor's key by this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_certificate: Option<String>,
}

impl Previous {
    /// The files that it names, of those that hold no private key.
    pub(crate) fn public_files(&self) -> impl Iterator<Item = &String> {
        let more = [&self.public_key, &self.cross_certificate];
        std::iter::once(&self.certificate).chain(more.into_iter().flatten())
    }
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct KeySetFile {
    pub format: i64,
    pub kind: Kind,
    pub name: String,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// When a key of it was last replaced; the time stamp of the enrolment files.
    pub changed: jiff::Timestamp,
    /// The owner of the entries in the firmware's databases.
    pub owner_guid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pkcs11: Option<Pkcs11Access>,
    pub roles: BTreeMap<Role, Entry>,
}

impl KeySetFile {
    /// Parses and checks the text of the file at `path`.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self> {
        // The format first: a newer one may have fields this version can't judge.
        #[derive(Deserialize)]
        struct OnlyFormat {
            format: i64,
        }
        let syntax = |e: toml::de::Error| {
            let at = e.span().map_or(0, |s| s.start);
            let line = 1 + text.bytes().take(at).filter(|b| *b == b'\n').count();
            Error::Syntax {
                path: path.to_owned(),
                line,
                message: e.message().to_owned(),
            }
        };
        let format = toml::from_str::<OnlyFormat>(text).map_err(syntax)?.format;
        if format != FORMAT {
            return Err(Error::Format {
                path: path.to_owned(),
                found: format,
            });
        }
        let file: Self = toml::from_str(text).map_err(syntax)?;
        file.check(path)?;
        Ok(file)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let invalid = |what: String, hint: &str| Error::Invalid {
            path: path.to_owned(),
            what,
            hint: hint.to_owned(),
        };
        for role in Role::ALL {
            let Some(e) = self.roles.get(&role) else {
                return Err(invalid(
                    format!("the role `{role}` is missing"),
                    "every role needs its table [roles.…]",
                ));
            };
            if role == Role::Pcr && e.public_key.is_none() {
                return Err(invalid(
                    "`pcr` has no `public-key`".into(),
                    "name the file that holds the SPKI in PEM form",
                ));
            }
            let private = e
                .private_key
                .iter()
                .chain(e.previous.iter().filter_map(|p| p.private_key.as_ref()));
            for key in private {
                if key.starts_with("pkcs11:") {
                    if Pkcs11Uri::parse(key, PinValue::Allowed)?.has_pin_value() {
                        return Err(Error::PinValue {
                            path: path.to_owned(),
                            role,
                        });
                    }
                } else if !Path::new(key).is_absolute() {
                    inside(key).map_err(|w| invalid(w, INSIDE))?;
                }
            }
            let public = std::iter::once(&e.certificate)
                .chain(&e.public_key)
                .chain(e.previous.iter().flat_map(Previous::public_files));
            for name in public {
                inside(name).map_err(|w| invalid(w, INSIDE))?;
            }
        }
        Ok(())
    }

    /// The text of the file.
    pub(crate) fn render(&self) -> Result<String> {
        let body =
            toml::to_string(self).map_err(crate::error::crypto("cannot write keyset.toml"))?;
        let warning = match self.kind {
            Kind::Development => {
                "# Development keys: made automatically, NOT FOR RELEASE. Safe to remove.\n"
            }
            Kind::Release => {
                "# Release keys. This file holds no secret; the private keys it names do.\n"
            }
        };
        Ok(format!(
            "# A LamaDist key set; `lamadist keys status` explains it.\n{warning}{body}"
        ))
    }

    /// Writes it to `dir`, atomically: this is what makes a change of the set take effect.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        write_synced(&dir.join(FILE_NAME), self.render()?.as_bytes(), 0o644)
    }
}

const INSIDE: &str = "name files of the key set by a relative path without `..`";

fn inside(name: &str) -> std::result::Result<(), String> {
    let p = Path::new(name);
    if !name.is_empty() && p.components().all(|c| matches!(c, Component::Normal(_))) {
        Ok(())
    } else {
        Err(format!("`{name}` leads out of the key set"))
    }
}

/// Writes a file atomically and waits until it is on the disk, name included.
pub(crate) fn write_synced(path: &Path, data: &[u8], mode: u32) -> Result<()> {
    use fs::AtPath;
    use std::io::Write;
    let mut f = fs::Staged::new(path)?;
    f.write_all(data).at("write", path)?;
    f.file().sync_all().at("write", path)?;
    f.commit(mode)?;
    match path.parent() {
        Some(dir) => sync_dir(dir),
        None => Ok(()),
    }
}

/// Waits until the names in a directory are on the disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    use fs::AtPath;
    Ok(fs::open(dir)?.sync_all().at("flush", dir)?)
}
