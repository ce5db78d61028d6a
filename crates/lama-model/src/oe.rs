// SPDX-License-Identifier: Apache-2.0
//! `distro/oe.toml`: how OpenEmbedded calls what the rest of `distro/` describes.

use crate::error::{Origin, parse_origin, suggest};
use crate::ids::Ids;
use crate::{Description, Result};
use lama_exec::fs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the oe engine needs to know.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Oe {
    /// The release of OpenEmbedded that the layers are for (`LAYERSERIES_COMPAT`).
    pub series: String,
    /// `MACHINE` by the name in `distro/machines/`.
    pub machines: BTreeMap<String, String>,
    /// More values of `MACHINE`, each with the machine of `distro/machines/` that it counts as.
    #[serde(default)]
    pub variants: BTreeMap<String, String>,
    /// Packages by Debian's name.
    pub packages: Packages,
    /// systemd units by Debian's name, where OpenEmbedded calls them otherwise.
    #[serde(default)]
    pub units: BTreeMap<String, String>,
    /// Accounts that recipes call otherwise than `ids.toml`: theirs by name, ours behind it.
    #[serde(default)]
    pub accounts: BTreeMap<String, String>,
    /// Users that only recipes have.
    #[serde(default)]
    pub users: BTreeMap<String, u32>,
    /// Groups that only recipes have.
    #[serde(default)]
    pub groups: BTreeMap<String, u32>,
}

/// What becomes of each Debian package; every package of a package group is in exactly one table.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Packages {
    /// Those that are called the same.
    #[serde(default)]
    pub same: Vec<String>,
    /// Those that are called or divided otherwise.
    #[serde(default)]
    pub other: BTreeMap<String, Vec<String>>,
    /// Those that are left out, with the reason.
    #[serde(default)]
    pub without: BTreeMap<String, String>,
}

impl Oe {
    /// Reads the table and checks it against the description: every machine and every package that
    /// it names exists there, and every package there is decided on.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn load(path: impl AsRef<Path>, description: &Description, ids: &Ids) -> Result<Self> {
        let path = path.as_ref();
        let origin = Origin {
            path: path.to_owned(),
            text: fs::read_to_string(path)?,
        };
        let oe: Self = parse_origin(&origin)?;
        oe.check(&origin, description, ids)?;
        Ok(oe)
    }

    /// The recipes' packages that stand for these of Debian, sorted.
    pub fn packages<'a>(&'a self, debian: &'a [String]) -> BTreeSet<&'a str> {
        let mut out = BTreeSet::new();
        for name in debian {
            match self.packages.other.get(name) {
                Some(names) => out.extend(names.iter().map(String::as_str)),
                None if self.packages.without.contains_key(name) => {}
                None => {
                    out.insert(name.as_str());
                }
            }
        }
        out
    }

    /// A unit as OpenEmbedded calls it.
    pub fn unit<'a>(&'a self, debian: &'a str) -> &'a str {
        self.units.get(debian).map_or(debian, String::as_str)
    }

    /// Every value of `MACHINE` with the machine of `distro/machines/` that it is, sorted.
    pub fn all_machines(&self) -> BTreeMap<&str, &str> {
        let own = self
            .machines
            .iter()
            .map(|(bsp, m)| (m.as_str(), bsp.as_str()));
        let more = self
            .variants
            .iter()
            .map(|(m, bsp)| (m.as_str(), bsp.as_str()));
        own.chain(more).collect()
    }

    fn check(&self, origin: &Origin, description: &Description, ids: &Ids) -> Result<()> {
        for bsp in self.machines.keys().chain(self.variants.values()) {
            let known = description.machines().map(|(n, _)| n);
            if !description.machines().any(|(n, _)| n == bsp) {
                let m = format!("there is no machine {bsp:?}");
                return Err(origin.error(origin.find(bsp), m, suggest(bsp, known)));
            }
        }
        if self.all_machines().len() != self.machines.len() + self.variants.len() {
            let m = "two machines have the same MACHINE".to_owned();
            return Err(origin.error(origin.find("[machines]"), m, "give each its own".to_owned()));
        }
        self.check_packages(origin, description)?;
        for (theirs, ours) in &self.accounts {
            if !ids.users.contains_key(ours) && !ids.groups.contains_key(ours) {
                let m = format!("{theirs} is to be {ours:?}, which ids.toml does not have");
                let known = ids.users.keys().map(String::as_str);
                return Err(origin.error(origin.find_value(ours), m, suggest(ours, known)));
            }
        }
        for (what, own, all) in [
            ("user", &self.users, &ids.users),
            ("group", &self.groups, &ids.groups),
        ] {
            for (name, id) in own {
                let same = all.iter().find(|(n, i)| *i == id && *n != name);
                let taken = same.or_else(|| own.iter().find(|(n, i)| *i == id && *n != name));
                let twice = all.get_key_value(name);
                if let Some((other, _)) = twice.or(taken) {
                    let m = format!("the {what} {name} = {id} is in conflict with {other}");
                    let h = format!("the next free number is {}", ids.next_free());
                    return Err(origin.error(origin.find(&format!("{name} = {id}")), m, h));
                }
            }
        }
        Ok(())
    }

    fn check_packages(&self, origin: &Origin, description: &Description) -> Result<()> {
        let mut used: BTreeSet<&str> = BTreeSet::new();
        for (_, g) in description.package_groups() {
            let by_arch = g.arch_packages.values().flatten();
            used.extend(g.packages.iter().chain(by_arch).map(String::as_str));
        }
        for (_, i) in description.images() {
            used.extend(i.packages.iter().map(String::as_str));
        }
        let p = &self.packages;
        let tables = (p.same.iter())
            .chain(p.other.keys())
            .chain(p.without.keys());
        let mut decided = BTreeSet::new();
        for name in tables {
            if !decided.insert(name.as_str()) {
                let m = format!("the package {name} is in two tables, or twice in one");
                let h = "keep one: `same`, `other` or `without`".to_owned();
                return Err(origin.error(origin.find_value(name), m, h));
            }
            if !used.contains(name.as_str()) {
                let m = format!("no package group has the package {name}");
                let h = suggest(name, used.iter().copied()).filter(|h| h.starts_with("did"));
                let h = h.unwrap_or_else(|| "remove it here".to_owned());
                return Err(origin.error(origin.find_value(name), m, h));
            }
        }
        if let Some(name) = used.difference(&decided).next() {
            let m = format!("it is not said what the package {name} is with OpenEmbedded");
            let h = "add it under [packages]: to `same`, to `other` with the names of its packages, or to `without` with the reason".to_owned();
            return Err(origin.error(origin.find("[packages]"), m, h));
        }
        Ok(())
    }
}
