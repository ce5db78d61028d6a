// SPDX-License-Identifier: Apache-2.0
//! Every package there is, indexed by what it is called and what it provides.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::relation::{Bound, Qualifier, Relation};
use crate::{MultiArch, Record, RelationField, Request, Result, session, version};

/// A record by its place in [`Universe::records`].
pub(crate) type Id = u32;
/// A package name by its place in [`Universe::entries`].
pub(crate) type Name = u32;

/// What goes by one name.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// Packages of that name, highest version first.
    pub real: Vec<Id>,
    /// Packages that provide it.
    pub providers: Vec<Provider>,
}

/// A package that provides a name.
#[derive(Debug)]
pub(crate) struct Provider {
    pub id: Id,
    /// The version it provides, if it says so.
    pub version: Option<Box<str>>,
}

/// Every package of every feed, for one architecture.
#[derive(Debug)]
pub struct Universe {
    arch: Box<str>,
    records: Vec<Record>,
    name_of: Vec<Name>,
    names: HashMap<Box<str>, Name>,
    entries: Vec<Entry>,
}

impl Universe {
    /// Takes the records of all feeds. Those of other architectures than `arch` (Debian's name,
    /// such as `arm64`) and `all` are left out: a root holds one architecture.
    ///
    /// Of two records with the same name and version the first one stays, so the order of the
    /// feeds says which mirror a file that several of them have is taken from.
    pub fn new(records: impl IntoIterator<Item = Record>, arch: &str) -> Self {
        let records = records
            .into_iter()
            .filter(|r| r.architecture() == arch || r.architecture() == "all")
            // Ids are 32 bits wide; no archive comes near.
            .take(Id::MAX as usize)
            .collect();
        let mut u = Self {
            arch: arch.into(),
            records,
            name_of: Vec::new(),
            names: HashMap::new(),
            entries: Vec::new(),
        };
        u.index();
        u
    }

    fn index(&mut self) {
        let (names, entries) = (&mut self.names, &mut self.entries);
        let mut intern = |name: &str, entries: &mut Vec<Entry>| match names.get(name) {
            Some(n) => *n,
            None => {
                let n = entries.len() as Name;
                entries.push(Entry::default());
                names.insert(name.into(), n);
                n
            }
        };
        for (id, r) in (0..).zip(&self.records) {
            let name = intern(r.package(), entries);
            self.name_of.push(name);
            if let Some(e) = entries.get_mut(name as usize) {
                // Equal versions: the first feed's.
                let same = |o: &&Id| self.records.get(**o as usize).map(Record::version);
                if e.real.iter().any(|o| same(&o) == Some(r.version())) {
                    continue;
                }
                e.real.push(id);
            }
            if r.raw(RelationField::Provides).is_empty() {
                continue;
            }
            // An unreadable field makes the package uninstallable later on; here it provides nothing.
            let Ok(provides) = r.relations(RelationField::Provides) else {
                continue;
            };
            for p in provides.each() {
                if matches!(p.qualifier, Some(Qualifier::Arch(a)) if a != &*self.arch) {
                    continue;
                }
                let v = intern(p.name, entries);
                if let Some(e) = entries.get_mut(v as usize) {
                    e.providers.push(Provider {
                        id,
                        version: p.bound.map(|b| b.version.into()),
                    });
                }
            }
        }
        let records = &self.records;
        let version = |id: &Id| records.get(*id as usize).map_or("", Record::version);
        for e in entries.iter_mut().filter(|e| e.real.len() > 1) {
            e.real
                .sort_by(|a, b| version::compare(version(b), version(a)).then_with(|| a.cmp(b)));
        }
    }

    /// The architecture.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records of a name, highest version first.
    pub fn find(&self, name: &str) -> impl Iterator<Item = &Record> {
        let ids = self
            .lookup(name)
            .map(|e| e.real.as_slice())
            .unwrap_or_default();
        ids.iter().filter_map(|i| self.record(*i))
    }

    /// The packages that fulfil the request, sorted by name. The same records in the same order
    /// give the same answer.
    ///
    /// # Errors
    /// Names that no feed has, relations that cannot all hold.
    pub fn resolve(&self, request: &Request) -> Result<Vec<Record>> {
        session::resolve(self, request)
    }

    pub(crate) fn record(&self, id: Id) -> Option<&Record> {
        self.records.get(id as usize)
    }

    /// The name of a record.
    pub(crate) fn name_of(&self, id: Id) -> Name {
        self.name_of.get(id as usize).copied().unwrap_or(Name::MAX)
    }

    pub(crate) fn entry(&self, name: Name) -> Option<&Entry> {
        self.entries.get(name as usize)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn lookup(&self, name: &str) -> Option<&Entry> {
        self.entry(*self.names.get(name)?)
    }

    /// Every package name, real and virtual, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|k| &**k)
    }

    /// The records that a relation means: those of its name (highest version first), then those
    /// that provide it (best first, see [`Universe::compare_providers`]).
    pub(crate) fn targets(&self, rel: &Relation<'_>) -> Vec<Id> {
        let Some(entry) = self.lookup(rel.name) else {
            return Vec::new();
        };
        let admits = |v: Option<&str>| match (rel.bound, v) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(b), Some(v)) => Bound::admits(&b, v),
        };
        let arch = |r: &Record| match rel.qualifier {
            None | Some(Qualifier::Native) => true,
            Some(Qualifier::Any) => r.multi_arch() == MultiArch::Allowed,
            Some(Qualifier::Arch(a)) => a == &*self.arch,
        };
        let mut out = Vec::new();
        for id in &entry.real {
            if self
                .record(*id)
                .is_some_and(|r| admits(Some(r.version())) && arch(r))
            {
                out.push(*id);
            }
        }
        let real = out.len();
        for p in &entry.providers {
            if !out.contains(&p.id)
                && admits(p.version.as_deref())
                && self.record(p.id).is_some_and(arch)
            {
                out.push(p.id);
            }
        }
        if let Some(providers) = out.get_mut(real..) {
            providers.sort_by(|a, b| self.compare_providers(*a, *b));
        }
        out
    }

    /// Which of two providers is the better one, by apt's rules: essential before others, then
    /// by priority, then those later in the index; of one package the highest version.
    fn compare_providers(&self, a: Id, b: Id) -> Ordering {
        let (Some(x), Some(y)) = (self.record(a), self.record(b)) else {
            return a.cmp(&b);
        };
        if self.name_of(a) == self.name_of(b) {
            return version::compare(y.version(), x.version()).then_with(|| a.cmp(&b));
        }
        y.is_essential()
            .cmp(&x.is_essential())
            .then_with(|| x.priority().cmp(&y.priority()))
            .then_with(|| self.name_of(b).cmp(&self.name_of(a)))
    }
}
