// SPDX-License-Identifier: Apache-2.0
//! `distro/scripts/*.toml`: what takes the place of the maintainer scripts, which never run.
//!
//! Three levels, so that a security update of a package does not ask for a new review of text that
//! a tool generated:
//!
//! - *never*: scripts that have no part in composing an image (removal, debconf questions).
//! - *kinds*: sections that debhelper's tools generate, between `# Automatically added by …` and
//!   `# End automatically added section`, and *triggers*, each reviewed once with the reason.
//! - *packages*: everything else, package by package: the SHA-256 of what was reviewed, why it is
//!   handled as it is, and the effects that replace it.
//!
//! All files have one schema and are read as one table.

use crate::Result;
use crate::error::{Origin, parse_origin};
use crate::files::ModeRule;
use lama_exec::fs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One file of `distro/scripts/`, and all of them together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scripts {
    /// Scripts that are never run, by their name in the package (`prerm`), with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub never: BTreeMap<String, String>,
    /// Generated sections, by the tool that generates them (`dh_installsystemd`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, Kind>,
    /// Triggers, by name (`ldconfig`, `/usr/share/man`), with what takes their place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub triggers: BTreeMap<String, String>,
    /// Packages, by name; a name may end in `*`, and what that stands for is then replaced by `*`
    /// in the script before it is hashed (kernels carry their version in name and script).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, Package>,
}

/// A kind of generated section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// What takes its place, or why nothing does.
    pub why: String,
    /// Whether a section says something that no other file of the package says (which links an
    /// alternative has): then it is hashed and reviewed with the package.
    #[serde(default)]
    pub review: bool,
}

/// How one package's scripts are handled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// What was found in the scripts, and why they are handled so.
    pub why: String,
    /// SHA-256 digests of the reviewed scripts, by script name. Several where architectures or
    /// packages of two feeds differ.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scripts: BTreeMap<String, Vec<String>>,
    /// Steps that have to run because of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Users and groups, as lines of sysusers.d(5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysusers: Vec<String>,
    /// Lines of tmpfiles.d(5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfiles: Vec<String>,
    /// Directories to make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dirs: Vec<ModeRule>,
    /// Files to copy inside the root, from, to; the target stays where it exists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<FromTo>,
    /// Files to make; the file stays where it exists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<NewFile>,
    /// Owners and modes to set (dpkg-statoverride).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modes: Vec<ModeRule>,
    /// Links of the alternatives system; the one with the highest priority among all packages
    /// becomes a plain symbolic link, as nobody switches them on an immutable system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
    /// Files of other packages that this one moves out of its way (dpkg-divert).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diversions: Vec<FromTo>,
}

/// A step of composing that works on the whole tree.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// passwd, group, shadow and gshadow from base-passwd's masters and sysusers.d.
    Accounts,
    /// /etc/shells.
    Shells,
    /// The `common-*` files of /etc/pam.d.
    Pam,
    /// The bundle of certificate authorities.
    CaCertificates,
    /// Enabled units, from presets.
    Presets,
    /// Indexes of kernel modules.
    Depmod,
    /// The hardware database.
    Hwdb,
}

/// A pair of paths in the root, without leading slash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromTo {
    /// Where it is.
    pub from: String,
    /// Where it goes.
    pub to: String,
}

/// A file to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewFile {
    /// Its path in the root, without leading slash.
    pub path: String,
    /// Its text.
    #[serde(default)]
    pub text: String,
    /// Octal permission bits.
    #[serde(default = "plain")]
    pub mode: String,
}

fn plain() -> String {
    "0644".to_owned()
}

/// One link of one alternative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// The generic name, a path in the root.
    pub link: String,
    /// What it should point to, a path in the root.
    pub path: String,
    /// Its priority.
    #[serde(default)]
    pub priority: i32,
}

impl Scripts {
    /// Reads all files of the folder.
    ///
    /// # Errors
    /// Broken syntax, or one key in two files.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let mut all = Self::default();
        for e in fs::read_dir(dir)? {
            let path = e.path();
            if path.extension().is_some_and(|x| x == "toml") {
                let origin = Origin {
                    text: fs::read_to_string(&path)?,
                    path,
                };
                let one: Self = parse_origin(&origin)?;
                merge(
                    &origin,
                    "reason for never running",
                    &mut all.never,
                    one.never,
                )?;
                merge(&origin, "kind", &mut all.kinds, one.kinds)?;
                merge(&origin, "trigger", &mut all.triggers, one.triggers)?;
                merge(&origin, "package", &mut all.packages, one.packages)?;
            }
        }
        Ok(all)
    }

    /// How a package's scripts are handled, with what `*` in the record's name stands for.
    pub fn package<'a>(&'a self, name: &'a str) -> Option<(&'a Package, Option<&'a str>)> {
        if let Some(p) = self.packages.get(name) {
            return Some((p, None));
        }
        self.packages.iter().find_map(|(k, p)| {
            let rest = name.strip_prefix(k.strip_suffix('*')?)?;
            // A prefix must not swallow metapackages: versions begin with a digit.
            rest.starts_with(|c: char| c.is_ascii_digit())
                .then_some((p, Some(rest)))
        })
    }
}

fn merge<T>(
    origin: &Origin,
    what: &str,
    into: &mut BTreeMap<String, T>,
    from: BTreeMap<String, T>,
) -> Result<()> {
    for (k, v) in from {
        if into.contains_key(&k) {
            return Err(origin.error(
                origin.find(&k),
                format!("{what} {k:?} is described in another file of the folder already"),
                "keep one of the two".to_owned(),
            ));
        }
        into.insert(k, v);
    }
    Ok(())
}

/// Where a new record for `package` is written: a file of its own, so that records do not collide.
pub fn record_path(dir: &Path, package: &str) -> PathBuf {
    let safe: String = package
        .chars()
        .map(|c| if c == '*' { '@' } else { c })
        .collect();
    dir.join(format!("{safe}.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let d = tempfile::tempdir().unwrap();
        for (n, t) in files {
            fs::write(d.path().join(n), t).unwrap();
        }
        d
    }

    #[test]
    fn files_are_one_table_and_keys_are_unique() {
        let one = "[packages.a]\nwhy = \"x\"\nsteps = [\"pam\"]\n";
        let d = dir(&[
            ("a.toml", one),
            ("b.toml", "[triggers]\nldconfig = \"y\"\n"),
        ]);
        let s = Scripts::load(d.path()).unwrap();
        assert_eq!(s.packages["a"].steps, [Step::Pam]);
        assert_eq!(s.triggers["ldconfig"], "y");
        let d = dir(&[("a.toml", one), ("b.toml", one)]);
        let e = Scripts::load(d.path()).unwrap_err().to_string();
        assert!(e.contains("b.toml:1: package \"a\""), "{e}");
        let d = dir(&[("a.toml", "[packages.a]\nwhy = \"x\"\nusers = []\n")]);
        let e = Scripts::load(d.path()).unwrap_err().to_string();
        assert!(e.contains("a.toml:3: unknown field"), "{e}");
    }

    #[test]
    fn a_star_stands_for_a_version() {
        let d = dir(&[("a.toml", "[packages.\"linux-image-*\"]\nwhy = \"x\"\n")]);
        let s = Scripts::load(d.path()).unwrap();
        assert_eq!(
            s.package("linux-image-6.12.1-amd64").unwrap().1,
            Some("6.12.1-amd64")
        );
        assert!(s.package("linux-image-amd64").is_none());
    }
}
