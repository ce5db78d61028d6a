// SPDX-License-Identifier: Apache-2.0
//! The SAT solver: finds an answer wherever there is one, and the facts that stand against it
//! where there is none.
//!
//! How Debian's relations become resolvo's: a name is a package name (at most one version of it
//! is installed), a version set is a list of records of one name. Virtual packages are dissolved:
//! a requirement is the union of the version sets that fulfil it, real packages and providers
//! alike, in order of preference. Conflicts and Breaks constrain a name to the other versions.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use resolvo::conflict::{Conflict, ConflictCause, ConflictEdge, ConflictNode};
use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, Dependencies, DependencyProvider,
    HintDependenciesAvailable, Interner, KnownDependencies, NameId, Problem, Requirement,
    SolvableId, Solver, SolverCache, StringId, UnsolvableOrCancelled, VersionSetId,
    VersionSetUnionId,
};

use crate::Recommends;
use crate::session::{Clause, Session, Weight};
use crate::universe::{Id, Name};

/// Something that stands against an answer. `None` for who requires it means the request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    /// `who` requires `text`; these records would fulfil it (none: nothing does).
    Requires {
        who: Option<Id>,
        text: String,
        targets: Vec<Id>,
    },
    /// `who` refuses `other`.
    Refuses { who: Id, other: Id },
    /// Two versions of one package.
    Twice { one: Id, other: Id },
    /// Its relations cannot be read.
    Broken { who: Id },
}

/// Finds a set in which the wanted clauses of these places and all relations hold.
pub(crate) fn solve(
    s: &Session<'_>,
    wanted: &[usize],
    favourites: &HashSet<Id>,
) -> Result<HashSet<Id>, ()> {
    run(s, wanted, favourites, |_, _| ())
}

/// Why there is no such set; empty if there is one.
pub(crate) fn facts(s: &Session<'_>, wanted: &[usize]) -> Vec<Fact> {
    run(s, wanted, &HashSet::new(), collect)
        .err()
        .unwrap_or_default()
}

fn run<E>(
    s: &Session<'_>,
    wanted: &[usize],
    favourites: &HashSet<Id>,
    why: impl Fn(&Solver<Provider<'_, '_>>, &Conflict) -> E,
) -> Result<HashSet<Id>, E>
where
    E: Default,
{
    let provider = Provider {
        s,
        favourites,
        tables: RefCell::default(),
    };
    let requirements: Vec<ConditionalRequirement> = wanted
        .iter()
        .filter_map(|i| s.wanted.get(*i))
        .map(|c| provider.requirement(c).into())
        .collect();
    // Recommendations that could be followed are asked for once the rest is settled.
    let mut soft: Vec<Id> = match s.recommends {
        Recommends::Ignore => Vec::new(),
        Recommends::Install => favourites.iter().copied().collect(),
    };
    soft.sort_unstable();
    let problem = Problem::new()
        .requirements(requirements)
        .soft_requirements(soft.into_iter().map(SolvableId::from_raw));
    let mut solver = Solver::new(provider);
    match solver.solve(problem) {
        Ok(found) => Ok(found.into_iter().map(SolvableId::into_raw).collect()),
        Err(UnsolvableOrCancelled::Unsolvable(conflict)) => Err(why(&solver, &conflict)),
        // The provider never cancels.
        Err(UnsolvableOrCancelled::Cancelled(_)) => Err(E::default()),
    }
}

/// Reads resolvo's graph of a conflict, from the requests downwards.
fn collect(solver: &Solver<Provider<'_, '_>>, conflict: &Conflict) -> Vec<Fact> {
    // The graph's builder holds assertions about itself; an explanation isn't worth a crash.
    let Ok(graph) = catch_unwind(AssertUnwindSafe(|| conflict.graph(solver))) else {
        return Vec::new();
    };
    let p = solver.provider();
    let g = &graph.graph;
    let mut out: Vec<Fact> = Vec::new();
    let mut seen = HashSet::from([graph.root_node]);
    let mut todo = std::collections::VecDeque::from([graph.root_node]);
    while let Some(node) = todo.pop_front() {
        let who = match g.node_weight(node) {
            Some(ConflictNode::Solvable(id)) => Some(id.into_raw()),
            _ => None,
        };
        let mut edges: Vec<_> = g
            .edge_indices()
            .filter_map(|e| Some((g.edge_endpoints(e)?, *g.edge_weight(e)?)))
            .filter(|((from, _), _)| *from == node)
            .map(|((_, to), edge)| (edge, to))
            .collect();
        edges.sort();
        for (edge, to) in edges {
            let target = match g.node_weight(to) {
                Some(ConflictNode::Solvable(id)) => Some(id.into_raw()),
                _ => None,
            };
            match (edge, who, target) {
                (ConflictEdge::Requires(req), _, target) => {
                    for text in p.texts(who, req) {
                        let known = out.iter_mut().find_map(|f| match f {
                            Fact::Requires {
                                who: w,
                                text: t,
                                targets,
                            } if *w == who && *t == text => Some(targets),
                            _ => None,
                        });
                        match known {
                            Some(targets) => targets.extend(target),
                            None => out.push(Fact::Requires {
                                who,
                                text,
                                targets: target.into_iter().collect(),
                            }),
                        }
                    }
                }
                (ConflictEdge::Conflict(ConflictCause::Constrains(_)), Some(who), Some(other)) => {
                    out.push(Fact::Refuses { who, other });
                }
                (
                    ConflictEdge::Conflict(ConflictCause::ForbidMultipleInstances),
                    Some(one),
                    Some(other),
                ) => out.push(Fact::Twice { one, other }),
                (ConflictEdge::Conflict(ConflictCause::Excluded), Some(who), _) => {
                    out.push(Fact::Broken { who });
                }
                _ => {}
            }
            if seen.insert(to) {
                todo.push_back(to);
            }
        }
    }
    out
}

#[derive(Default)]
struct Tables {
    sets: Vec<(Name, Vec<Id>)>,
    set_ids: HashMap<(Name, Vec<Id>), VersionSetId>,
    unions: Vec<Vec<VersionSetId>>,
    union_ids: HashMap<Vec<VersionSetId>, VersionSetUnionId>,
    /// Names behind the universe's, without candidates: requirements that nothing fulfils.
    impossible: Vec<String>,
}

struct Provider<'p, 'u> {
    s: &'p Session<'u>,
    favourites: &'p HashSet<Id>,
    tables: RefCell<Tables>,
}

impl Provider<'_, '_> {
    fn first_impossible(&self) -> usize {
        self.s.u.entries().len()
    }

    fn set(&self, name: Name, mut ids: Vec<Id>) -> VersionSetId {
        ids.sort_unstable();
        let t = &mut *self.tables.borrow_mut();
        let next = VersionSetId(t.sets.len() as u32);
        let id = *t.set_ids.entry((name, ids.clone())).or_insert(next);
        if id == next {
            t.sets.push((name, ids));
        }
        id
    }

    fn requirement(&self, c: &Clause) -> Requirement {
        if c.targets.is_empty() {
            let name = {
                let t = &mut *self.tables.borrow_mut();
                let at = t
                    .impossible
                    .iter()
                    .position(|x| *x == c.text)
                    .unwrap_or_else(|| {
                        t.impossible.push(c.text.clone());
                        t.impossible.len() - 1
                    });
                (self.first_impossible() + at) as Name
            };
            return self.set(name, Vec::new()).into();
        }
        let mut groups: Vec<(Name, Vec<Id>)> = Vec::new();
        for t in &c.targets {
            let name = self.s.u.name_of(*t);
            match groups.iter_mut().find(|(n, _)| *n == name) {
                Some((_, ids)) => ids.push(*t),
                None => groups.push((name, vec![*t])),
            }
        }
        // Stable: what is no favourite stays in the field's order.
        groups.sort_by_key(|(_, ids)| !ids.iter().any(|i| self.favourites.contains(i)));
        let sets: Vec<VersionSetId> = groups
            .into_iter()
            .map(|(n, ids)| self.set(n, ids))
            .collect();
        if let [one] = sets[..] {
            return one.into();
        }
        let t = &mut *self.tables.borrow_mut();
        let next = VersionSetUnionId(t.unions.len() as u32);
        let id = *t.union_ids.entry(sets.clone()).or_insert(next);
        if id == next {
            t.unions.push(sets);
        }
        id.into()
    }

    /// How `who` wrote the requirement.
    fn texts(&self, who: Option<Id>, req: Requirement) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        let mut look = |clauses: &[Clause]| {
            for c in clauses {
                if c.weight == Weight::Hard && self.requirement(c) == req && !out.contains(&c.text)
                {
                    out.push(c.text.clone());
                }
            }
        };
        match who {
            None => look(&self.s.wanted),
            Some(id) => look(&self.s.parsed(id).clauses),
        }
        out
    }

    fn record(&self, id: SolvableId) -> String {
        self.s
            .u
            .record(id.into_raw())
            .map(ToString::to_string)
            .unwrap_or_default()
    }
}

impl Interner for Provider<'_, '_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl Display + '_ {
        self.record(solvable)
    }

    fn display_name(&self, name: NameId) -> impl Display + '_ {
        let id = self
            .s
            .u
            .entry(name.into_raw())
            .and_then(|e| e.real.first().copied());
        match id.and_then(|i| self.s.u.record(i)) {
            Some(r) => r.package().to_owned(),
            None => "(nothing)".to_owned(),
        }
    }

    fn display_version_set(&self, set: VersionSetId) -> impl Display + '_ {
        let ids = self
            .tables
            .borrow()
            .sets
            .get(set.0 as usize)
            .map(|(_, ids)| ids.clone());
        let show = |i: &Id| self.record(SolvableId::from_raw(*i));
        ids.unwrap_or_default()
            .iter()
            .map(show)
            .collect::<Vec<_>>()
            .join(" | ")
    }

    fn display_string(&self, string: StringId) -> impl Display + '_ {
        self.s.parsed(string.0).broken.clone().unwrap_or_default()
    }

    fn version_set_name(&self, set: VersionSetId) -> NameId {
        let name = self
            .tables
            .borrow()
            .sets
            .get(set.0 as usize)
            .map(|(n, _)| *n);
        NameId::from_raw(name.unwrap_or_default())
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        NameId::from_raw(self.s.u.name_of(solvable.into_raw()))
    }

    fn version_sets_in_union(
        &self,
        union: VersionSetUnionId,
    ) -> impl Iterator<Item = VersionSetId> {
        let sets = self.tables.borrow().unions.get(union.0 as usize).cloned();
        sets.unwrap_or_default().into_iter()
    }

    fn resolve_condition(&self, _: ConditionId) -> Condition {
        // Never called: no requirement here has a condition.
        Condition::Requirement(VersionSetId(0))
    }
}

impl DependencyProvider for Provider<'_, '_> {
    async fn filter_candidates(
        &self,
        candidates: &[SolvableId],
        set: VersionSetId,
        inverse: bool,
    ) -> Vec<SolvableId> {
        let t = self.tables.borrow();
        let ids = t
            .sets
            .get(set.0 as usize)
            .map(|(_, ids)| ids.as_slice())
            .unwrap_or_default();
        let inside = |c: &SolvableId| ids.binary_search(&c.into_raw()).is_ok();
        candidates
            .iter()
            .copied()
            .filter(|c| inside(c) != inverse)
            .collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates<SolvableId>> {
        let entry = self.s.u.entry(name.into_raw())?;
        Some(Candidates {
            candidates: entry
                .real
                .iter()
                .map(|i| SolvableId::from_raw(*i))
                .collect(),
            // Asked for when a candidate is taken: most never are.
            hint_dependencies_available: HintDependenciesAvailable::None,
            ..Candidates::default()
        })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        solvables.sort_by_key(|v| {
            let id = v.into_raw();
            let real = self
                .s
                .u
                .entry(self.s.u.name_of(id))
                .map(|e| e.real.as_slice());
            (
                !self.favourites.contains(&id),
                !self.s.is_candidate(id),
                real.and_then(|r| r.iter().position(|i| *i == id)),
            )
        });
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        let id = solvable.into_raw();
        let parsed = self.s.parsed(id);
        if parsed.broken.is_some() {
            return Dependencies::Unknown(StringId(id));
        }
        let requirements = parsed
            .clauses
            .iter()
            .filter(|c| c.weight == Weight::Hard)
            .map(|c| self.requirement(c).into())
            .collect();
        let mut refused: Vec<(Name, Vec<Id>)> = Vec::new();
        for t in parsed.refusals.iter().flat_map(|r| &r.targets) {
            let name = self.s.u.name_of(*t);
            match refused.iter_mut().find(|(n, _)| *n == name) {
                Some((_, ids)) => ids.push(*t),
                None => refused.push((name, vec![*t])),
            }
        }
        let constrains = refused
            .into_iter()
            .map(|(name, ids)| {
                let real = self
                    .s
                    .u
                    .entry(name)
                    .map(|e| e.real.as_slice())
                    .unwrap_or_default();
                self.set(
                    name,
                    real.iter().copied().filter(|i| !ids.contains(i)).collect(),
                )
            })
            .collect();
        Dependencies::Known(KnownDependencies {
            requirements,
            constrains,
        })
    }
}
