// SPDX-License-Identifier: Apache-2.0
//! One resolution: what is asked for, the relations met on the way, and the order in which the
//! solvers are tried.
//!
//! A dependency problem has many answers, and a SAT solver takes any of them. Debian's packages
//! are tested with the one that apt takes, so apt's way of choosing is followed first
//! ([`crate::greedy`]); if that gives a set in which every relation holds, it is the answer.
//! Otherwise the SAT solver ([`crate::sat`]) looks for one, with apt's choices as its favourites.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use crate::relation::{Relation, show_clause};
use crate::universe::{Id, Name, Universe};
use crate::{Dependencies, Error, Essential, Recommends, Record, RelationField, Request, Result};
use crate::{explain, greedy, request, sat};

/// How much a requirement matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// It must hold.
    Hard,
    /// A recommendation: it may fail.
    Soft,
}

/// One requirement: any of its targets fulfils it.
#[derive(Debug)]
pub(crate) struct Clause {
    /// As the field or the request wrote it.
    pub text: String,
    /// In order of preference. Different versions of a package are different targets.
    pub targets: Vec<Id>,
    pub weight: Weight,
}

/// One relation that must not hold.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Conflicts or Breaks.
    pub field: RelationField,
    /// As the field wrote it.
    pub text: String,
    /// What must not be there; never a package of the same name.
    pub targets: Vec<Id>,
}

/// A record's relations, looked up.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    /// Pre-Depends, Depends and, if they count, Recommends, in this order.
    pub clauses: Vec<Clause>,
    pub refusals: Vec<Refusal>,
    /// Why the relations cannot be read; such a package cannot be installed.
    pub broken: Option<String>,
}

/// State of one resolution.
pub(crate) struct Session<'u> {
    pub u: &'u Universe,
    pub recommends: Recommends,
    /// What was asked for, in order; essential packages last.
    pub wanted: Vec<Clause>,
    /// Versions that go before the highest one.
    preferred: HashMap<Name, Id>,
    parsed: RefCell<HashMap<Id, Rc<Parsed>>>,
}

/// Stack of the thread that resolves: apt's way of choosing is recursive, and an index may be
/// made to lead deep. Only touched pages count.
const STACK: usize = 64 << 20;

pub(crate) fn resolve(u: &Universe, request: &Request) -> Result<Vec<Record>> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new()
            .name("solver".into())
            .stack_size(STACK);
        match builder.spawn_scoped(scope, || resolve_here(u, request)) {
            Ok(t) => t
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(e) => {
                tracing::debug!("no thread to be had ({e}); resolving in this one");
                resolve_here(u, request)
            }
        }
    })
}

fn resolve_here(u: &Universe, request: &Request) -> Result<Vec<Record>> {
    let wanted = request::clauses(u, request)?;
    let mut s = Session {
        u,
        recommends: request.recommends,
        wanted,
        preferred: preferred(u, &request.prefer),
        parsed: RefCell::default(),
    };
    // `name=version` decides the candidate for everyone who depends on the package.
    let only: Vec<Id> = s
        .wanted
        .iter()
        .filter_map(|c| match c.targets.as_slice() {
            [one] => Some(*one),
            _ => None,
        })
        .collect();
    for id in only {
        s.preferred.insert(u.name_of(id), id);
    }
    if request.essential == Essential::Include {
        for e in u.entries() {
            if let Some(id) = e.real.first().map(|_| s.candidate_of(e.real.as_slice()))
                && let Some(r) = u.record(id)
                && r.is_essential()
            {
                let targets = e.real.iter().copied().filter(|i| *i == id).collect();
                s.wanted.push(Clause {
                    text: r.package().into(),
                    targets,
                    weight: Weight::Hard,
                });
            }
        }
    }
    if request.dependencies == Dependencies::Leave {
        let asked = s.wanted.iter().map(|c| s.candidate_of(&c.targets));
        return Ok(s.answer(&asked.collect()));
    }
    let favourites = greedy::choose(&s);
    let favourites = s.sweep(&favourites);
    if s.holds(&favourites) {
        return Ok(s.answer(&favourites));
    }
    tracing::debug!("apt's choice does not hold; asking the SAT solver");
    match sat::solve(&s, &s.all(), &favourites) {
        Ok(found) => {
            let found = s.sweep(&found);
            Ok(s.answer(&found))
        }
        Err(()) => {
            let (explanation, hint) = explain::explain(&s);
            Err(Error::Unsatisfiable { explanation, hint })
        }
    }
}

fn preferred(u: &Universe, prefer: &BTreeMap<String, String>) -> HashMap<Name, Id> {
    let mut out = HashMap::new();
    for (name, version) in prefer {
        let real = u
            .lookup(name)
            .map(|e| e.real.as_slice())
            .unwrap_or_default();
        for id in real {
            if u.record(*id).is_some_and(|r| r.version() == version) {
                out.insert(u.name_of(*id), *id);
            }
        }
    }
    out
}

impl Session<'_> {
    /// Every request, by its place.
    pub fn all(&self) -> Vec<usize> {
        (0..self.wanted.len()).collect()
    }

    /// The version of a package that is tried first: the preferred one, or the highest.
    pub fn candidate(&self, name: Name) -> Option<Id> {
        let real = &self.u.entry(name)?.real;
        (!real.is_empty()).then(|| self.candidate_of(real))
    }

    fn candidate_of(&self, real: &[Id]) -> Id {
        let first = real.first().copied().unwrap_or(Id::MAX);
        self.preferred
            .get(&self.u.name_of(first))
            .copied()
            .unwrap_or(first)
    }

    pub fn is_candidate(&self, id: Id) -> bool {
        self.candidate(self.u.name_of(id)) == Some(id)
    }

    /// The relations of a record.
    pub fn parsed(&self, id: Id) -> Rc<Parsed> {
        if let Some(p) = self.parsed.borrow().get(&id) {
            return Rc::clone(p);
        }
        let p = Rc::new(self.parse(id));
        self.parsed.borrow_mut().insert(id, Rc::clone(&p));
        p
    }

    fn parse(&self, id: Id) -> Parsed {
        let mut out = Parsed::default();
        let Some(r) = self.u.record(id) else {
            return out;
        };
        let mut read = |field: RelationField| match r.relations(field) {
            Ok(rel) => rel.clauses,
            Err(e) => {
                out.broken.get_or_insert(format!("{}: {e}", field.name()));
                Vec::new()
            }
        };
        let mut requires = Vec::new();
        for (field, weight) in [
            (RelationField::PreDepends, Weight::Hard),
            (RelationField::Depends, Weight::Hard),
            (RelationField::Recommends, Weight::Soft),
        ] {
            if weight == Weight::Hard || self.recommends == Recommends::Install {
                requires.extend(read(field).into_iter().map(|c| (c, weight)));
            }
        }
        let mut refuses = Vec::new();
        for field in [RelationField::Conflicts, RelationField::Breaks] {
            refuses.extend(read(field).into_iter().flatten().map(|rel| (field, rel)));
        }
        drop(read(RelationField::Provides));
        out.clauses = requires.iter().map(|(c, w)| self.clause(c, *w)).collect();
        let name = self.u.name_of(id);
        for (field, rel) in refuses {
            let mut targets = self.u.targets(&rel);
            // A package may conflict with what it provides: it means the others.
            targets.retain(|t| self.u.name_of(*t) != name);
            if !targets.is_empty() {
                out.refusals.push(Refusal {
                    field,
                    text: rel.to_string(),
                    targets,
                });
            }
        }
        out
    }

    fn clause(&self, alternatives: &[Relation<'_>], weight: Weight) -> Clause {
        let mut targets = Vec::new();
        for rel in alternatives {
            for t in self.u.targets(rel) {
                if !targets.contains(&t) {
                    targets.push(t);
                }
            }
        }
        Clause {
            text: show_clause(alternatives),
            targets,
            weight,
        }
    }

    /// What of `set` is reached from the requests: choices that were made on the way and turned
    /// out to be for nothing fall away.
    pub fn sweep(&self, set: &HashSet<Id>) -> HashSet<Id> {
        let mut kept = HashSet::new();
        let mut todo: Vec<Id> = Vec::new();
        let follow = |c: &Clause, kept: &mut HashSet<Id>, todo: &mut Vec<Id>| {
            for t in c.targets.iter().filter(|t| set.contains(t)) {
                if kept.insert(*t) {
                    todo.push(*t);
                }
            }
        };
        for c in &self.wanted {
            follow(c, &mut kept, &mut todo);
        }
        while let Some(id) = todo.pop() {
            for c in &self.parsed(id).clauses {
                follow(c, &mut kept, &mut todo);
            }
        }
        kept
    }

    /// Whether every request and every relation holds in `set`.
    pub fn holds(&self, set: &HashSet<Id>) -> bool {
        let holds =
            |c: &Clause| c.weight == Weight::Soft || c.targets.iter().any(|t| set.contains(t));
        let mut names = HashSet::new();
        self.wanted.iter().all(holds)
            && set.iter().all(|id| {
                let p = self.parsed(*id);
                names.insert(self.u.name_of(*id))
                    && p.broken.is_none()
                    && p.clauses.iter().all(holds)
                    && p.refusals
                        .iter()
                        .all(|f| !f.targets.iter().any(|t| set.contains(t)))
            })
    }

    fn answer(&self, set: &HashSet<Id>) -> Vec<Record> {
        let mut out: Vec<Record> = set
            .iter()
            .filter_map(|id| self.u.record(*id).cloned())
            .collect();
        out.sort_by(|a, b| a.package().cmp(b.package()));
        out
    }
}
