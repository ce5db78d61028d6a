// SPDX-License-Identifier: Apache-2.0
//! What a new lock changes.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lama_solver::version;

use crate::lock::{Lock, LockedPackage};

/// One package's change. Shown as one line: `bash amd64: 5.2.37-2 -> 5.2.37-3 (debian-security)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The package.
    pub name: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// Its versions before, lowest first; usually one, none if it is new.
    pub old: Vec<String>,
    /// Its versions now; none if it is gone.
    pub new: Vec<String>,
    /// Feeds of the new versions.
    pub feeds: BTreeSet<String>,
    /// Sets that have it now, or had it before.
    pub sets: BTreeSet<String>,
}

/// Which way a package went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// New in the lock.
    Added,
    /// No longer in the lock.
    Removed,
    /// To a higher version.
    Up,
    /// To a lower version.
    Down,
    /// The same version with other content or from elsewhere, or in other sets.
    Same,
}

impl Change {
    /// Which way it went.
    pub fn direction(&self) -> Direction {
        match (self.old.last(), self.new.last()) {
            (None, _) => Direction::Added,
            (_, None) => Direction::Removed,
            (Some(o), Some(n)) => match version::compare(o, n) {
                Ordering::Less => Direction::Up,
                Ordering::Greater => Direction::Down,
                Ordering::Equal => Direction::Same,
            },
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = (self.old.join(", "), self.new.join(", "));
        let sets = self
            .sets
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let feeds = self
            .feeds
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        write!(f, "{} {}: ", self.name, self.architecture)?;
        match self.direction() {
            Direction::Added => write!(f, "added {new} ({feeds}; {sets})"),
            Direction::Removed => write!(f, "removed {old} ({sets})"),
            Direction::Up => write!(f, "{old} -> {new} ({feeds})"),
            Direction::Down => write!(f, "{old} -> {new}, a lower version ({feeds})"),
            Direction::Same if old == new => write!(f, "{new}, other content or sets ({sets})"),
            Direction::Same => write!(f, "{old} -> {new} ({feeds})"),
        }
    }
}

type Key<'a> = (&'a str, &'a str);

fn by_name(lock: &Lock) -> BTreeMap<Key<'_>, Vec<&LockedPackage>> {
    let mut out: BTreeMap<Key<'_>, Vec<&LockedPackage>> = BTreeMap::new();
    for p in lock.packages() {
        out.entry((p.name(), p.architecture())).or_default().push(p);
    }
    for v in out.values_mut() {
        v.sort_by(|a, b| version::compare(a.version(), b.version()));
    }
    out
}

fn sets_of<'a>(lock: &'a Lock) -> BTreeMap<Key<'a>, BTreeSet<&'a str>> {
    let mut out: BTreeMap<Key<'a>, BTreeSet<&'a str>> = BTreeMap::new();
    for name in lock.set_names() {
        for id in lock.set(name).iter().flat_map(|s| s.ids()) {
            out.entry((&id.name, &id.architecture))
                .or_default()
                .insert(name);
        }
    }
    out
}

pub(crate) fn diff(old: &Lock, new: &Lock) -> Vec<Change> {
    let (o, n) = (by_name(old), by_name(new));
    let (so, sn) = (sets_of(old), sets_of(new));
    let keys: BTreeSet<Key<'_>> = o.keys().chain(n.keys()).copied().collect();
    let versions = |v: &[&LockedPackage]| v.iter().map(|p| p.version().to_owned()).collect();
    let mut out = Vec::new();
    for key in keys {
        let before = o.get(&key).map(Vec::as_slice).unwrap_or_default();
        let now = n.get(&key).map(Vec::as_slice).unwrap_or_default();
        if before == now && so.get(&key) == sn.get(&key) {
            continue;
        }
        let sets = sn.get(&key).or_else(|| so.get(&key)).into_iter().flatten();
        out.push(Change {
            name: key.0.into(),
            architecture: key.1.into(),
            old: versions(before),
            new: versions(now),
            feeds: now.iter().map(|p| p.feed.clone()).collect(),
            sets: sets.map(|s| (*s).to_owned()).collect(),
        });
    }
    out
}
