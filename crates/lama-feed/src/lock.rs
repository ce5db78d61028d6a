// SPDX-License-Identifier: Apache-2.0
//! `lamadist.lock`: every package of every image and of the tools tree, pinned.
//!
//! TOML, sorted, one package a block and one member of a set a line, so that a change of the lock
//! reads well in a diff. A locked package names its archive and the path in it: a build needs no
//! index.
//!
//! ```toml
//! version = 1
//!
//! [set."x86_64/base"]
//! architecture = "amd64"
//! feeds = ["debian debian trixie main"]
//! request = ["bash"]
//! packages = [
//!     "bash=5.2.37-2+b5:amd64",
//! ]
//!
//! [[package]]
//! name = "bash"
//! version = "5.2.37-2+b5"
//! architecture = "amd64"
//! source = "bash"
//! source-version = "5.2.37-2"
//! feed = "debian"
//! archive = "debian"
//! path = "pool/main/b/bash/bash_5.2.37-2+b5_amd64.deb"
//! size = 1500000
//! sha256 = "…"
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use lama_exec::fs::{self, FsError};
use raw::Raw;

use crate::config::FeedConfig;
use crate::hash::Sha256;

pub use crate::lockdiff::Change;

/// The format's version.
const VERSION: i64 = 1;

/// Why a lock cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// The file.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// Its content.
    #[error("{}:{line}: {what}", path.display())]
    #[diagnostic(help(
        "the lock is written by `lamadist lock`: take it back from Git, or remove it and make it anew"
    ))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

/// Result of reading a lock.
pub type Result<T> = std::result::Result<T, Error>;

/// Which package, exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.name, self.version, self.architecture)
    }
}

impl std::str::FromStr for Id {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        let fail = || format!("`{s}` is no `name=version:architecture`");
        let (name, rest) = s.split_once('=').ok_or_else(fail)?;
        // Versions may hold colons (the epoch), architectures may not.
        let (version, architecture) = rest.rsplit_once(':').ok_or_else(fail)?;
        Ok(Self {
            name: name.into(),
            version: version.into(),
            architecture: architecture.into(),
        })
    }
}

/// A pinned package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    /// Which one.
    pub id: Id,
    /// Name of its source package.
    pub source: String,
    /// Version of its source package.
    pub source_version: String,
    /// The feed that listed it.
    pub feed: String,
    /// The archive that has it.
    pub archive: String,
    /// Its path in the archive.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its hash.
    pub sha256: Sha256,
}

impl LockedPackage {
    /// Pins a record of `feed`.
    pub fn new(
        r: &lama_solver::Record,
        feed: &FeedConfig,
    ) -> std::result::Result<Self, crate::hash::NoSha256> {
        Ok(Self {
            id: Id {
                name: r.package().into(),
                version: r.version().into(),
                architecture: r.architecture().into(),
            },
            source: r.source().into(),
            source_version: r.source_version().into(),
            feed: feed.name.clone(),
            archive: feed.archive.clone(),
            path: r.filename().into(),
            size: r.size(),
            sha256: r.sha256().parse()?,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.id.name
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.id.version
    }

    /// Its architecture, or `all`.
    pub fn architecture(&self) -> &str {
        &self.id.architecture
    }

    /// The component it is from (`main`), as its path in the pool tells.
    pub fn component(&self) -> &str {
        let mut parts = self.path.split('/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("pool"), Some("updates"), Some(c)) | (Some("pool"), Some(c), _) => c,
            _ => "",
        }
    }
}

/// The packages of an image or of the tools tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// The architecture.
    pub architecture: String,
    /// Where it was asked, sorted: feed, archive, suite and components of each in a line.
    pub feeds: Vec<String>,
    /// What was asked for, sorted: a lock whose request differs is out of date.
    pub request: Vec<String>,
    packages: BTreeSet<Id>,
}

impl Set {
    /// The packages, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &Id> {
        self.packages.iter()
    }
}

/// Which versions a new resolution may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renew {
    /// None: what is locked stays, where it can.
    Nothing,
    /// All.
    All,
    /// Those of these packages or source packages.
    Named(BTreeSet<String>),
}

/// A lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    sets: BTreeMap<String, Set>,
    packages: BTreeMap<Id, LockedPackage>,
}

impl Lock {
    /// Reads a lock; an empty one where there is no file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let Some(data) = fs::read_optional(path)? else {
            return Ok(Self::default());
        };
        match std::str::from_utf8(&data) {
            Ok(text) => Self::parse(text, path),
            Err(e) => {
                let valid = data.get(..e.valid_up_to()).unwrap_or_default();
                let line = 1 + valid.iter().filter(|b| **b == b'\n').count();
                Err(Error::Syntax {
                    path: path.into(),
                    line,
                    what: "not UTF-8".into(),
                })
            }
        }
    }

    /// Writes it, so that its name never shows half of it.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Ok(fs::write_atomic(path, self.render())?)
    }

    /// The names of the sets: `x86_64/base`, `tools` …
    pub fn set_names(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(String::as_str)
    }

    /// A set.
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.get(name)
    }

    /// Every package, sorted by name, version and architecture.
    pub fn packages(&self) -> impl Iterator<Item = &LockedPackage> {
        self.packages.values()
    }

    /// The packages of a set, sorted; `None` where there is no such set.
    pub fn packages_of(&self, set: &str) -> Option<Vec<&LockedPackage>> {
        let s = self.sets.get(set)?;
        Some(
            s.packages
                .iter()
                .filter_map(|id| self.packages.get(id))
                .collect(),
        )
    }

    /// Replaces a set. Packages that no set uses any more leave the lock.
    pub fn replace_set(
        &mut self,
        name: &str,
        architecture: &str,
        request: &[String],
        packages: impl IntoIterator<Item = LockedPackage>,
    ) {
        let mut set = Set {
            architecture: architecture.into(),
            request: request.to_vec(),
            ..Set::default()
        };
        set.request.sort();
        set.request.dedup();
        for p in packages {
            set.packages.insert(p.id.clone());
            self.packages.insert(p.id.clone(), p);
        }
        self.sets.insert(name.into(), set);
        self.prune();
    }

    /// Records where a set was asked for; see [`Set::feeds`].
    pub fn record_feeds(&mut self, set: &str, feeds: Vec<String>) {
        if let Some(s) = self.sets.get_mut(set) {
            s.feeds = feeds;
        }
    }

    /// Removes the sets that `keep` refuses, and the packages only they used.
    pub fn retain_sets(&mut self, keep: impl Fn(&str) -> bool) {
        self.sets.retain(|name, _| keep(name));
        self.prune();
    }

    fn prune(&mut self) {
        let used: BTreeSet<&Id> = self.sets.values().flat_map(|s| &s.packages).collect();
        self.packages.retain(|id, _| used.contains(id));
    }

    /// The versions of a set that a new resolution shall keep (for `Request::prefer`).
    pub fn prefer(&self, set: &str, renew: &Renew) -> BTreeMap<String, String> {
        let keep = |p: &LockedPackage| match renew {
            Renew::Nothing => true,
            Renew::All => false,
            Renew::Named(n) => !n.contains(p.name()) && !n.contains(&p.source),
        };
        self.packages_of(set)
            .unwrap_or_default()
            .into_iter()
            .filter(|p| keep(p))
            .map(|p| (p.name().to_owned(), p.version().to_owned()))
            .collect()
    }

    /// Which of `names` are neither a package nor a source package here.
    pub fn unknown<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let known: BTreeSet<&str> = self
            .packages
            .values()
            .flat_map(|p| [p.name(), p.source.as_str()])
            .collect();
        names.into_iter().filter(|n| !known.contains(n)).collect()
    }

    /// What differs between two locks, sorted by package.
    pub fn diff(old: &Self, new: &Self) -> Vec<Change> {
        crate::lockdiff::diff(old, new)
    }

    /// The lock as text.
    pub fn render(&self) -> String {
        let mut out = String::from(
            "# SPDX-License-Identifier: Apache-2.0\n\
             # Written by `lamadist lock`; change the description and run that instead of editing.\n",
        );
        out.push_str(&format!("version = {VERSION}\n"));
        for (name, s) in &self.sets {
            out.push_str(&format!(
                "\n[set.{}]\narchitecture = {}\n",
                quote(name),
                quote(&s.architecture)
            ));
            list(&mut out, "feeds", s.feeds.iter().map(String::as_str));
            list(&mut out, "request", s.request.iter().map(String::as_str));
            let ids: Vec<String> = s.packages.iter().map(Id::to_string).collect();
            list(&mut out, "packages", ids.iter().map(String::as_str));
        }
        for p in self.packages.values() {
            out.push_str("\n[[package]]\n");
            for (key, value) in [
                ("name", p.name()),
                ("version", p.version()),
                ("architecture", p.architecture()),
                ("source", &p.source),
                ("source-version", &p.source_version),
                ("feed", &p.feed),
                ("archive", &p.archive),
                ("path", &p.path),
            ] {
                out.push_str(&format!("{key} = {}\n", quote(value)));
            }
            out.push_str(&format!("size = {}\nsha256 = \"{}\"\n", p.size, p.sha256));
        }
        out
    }

    /// Reads a lock's text; `path` names it in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let fail = |at: usize, what: String| Error::Syntax {
            path: path.into(),
            line: 1 + text.bytes().take(at).filter(|b| *b == b'\n').count(),
            what,
        };
        let raw: Raw = toml::from_str(text)
            .map_err(|e| fail(e.span().map_or(0, |s| s.start), e.message().to_owned()))?;
        if *raw.version.get_ref() != VERSION {
            let what = format!(
                "version {} of the format; this program knows version {VERSION}",
                raw.version.get_ref()
            );
            return Err(fail(raw.version.span().start, what));
        }
        let mut lock = Self::default();
        for p in raw.package {
            let at = p.span().start;
            let p = p.into_inner().check().map_err(|what| fail(at, what))?;
            let id = p.id.clone();
            if lock.packages.insert(id.clone(), p).is_some() {
                return Err(fail(at, format!("package {id} stands twice")));
            }
        }
        for (name, s) in raw.set {
            let mut set = Set {
                architecture: s.architecture,
                feeds: s.feeds,
                request: s.request,
                packages: BTreeSet::new(),
            };
            for p in s.packages {
                let at = p.span().start;
                let id: Id = p.get_ref().parse().map_err(|what| fail(at, what))?;
                if !lock.packages.contains_key(&id) {
                    return Err(fail(
                        at,
                        format!("set `{name}`: package {id} is not in the lock"),
                    ));
                }
                if !set.packages.insert(id) {
                    return Err(fail(
                        at,
                        format!("set `{name}`: `{}` stands twice", p.get_ref()),
                    ));
                }
            }
            lock.sets.insert(name, set);
        }
        Ok(lock)
    }
}

fn quote(s: &str) -> String {
    toml::Value::String(s.to_owned()).to_string()
}

fn list<'a>(out: &mut String, key: &str, items: impl Iterator<Item = &'a str>) {
    out.push_str(&format!("{key} = ["));
    let mut any = false;
    for i in items {
        out.push_str(&format!("\n    {},", quote(i)));
        any = true;
    }
    out.push_str(if any { "\n]\n" } else { "]\n" });
}

mod raw;
#[cfg(test)]
mod tests;
