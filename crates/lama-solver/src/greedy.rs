// SPDX-License-Identifier: Apache-2.0
//! Choosing as apt chooses: package by package, each with its dependencies before the next one,
//! the first alternative that works, and no way back. What comes out need not hold together.
//!
//! The rules are those of apt 2.6 to 3.0 with the classic solver and nothing installed. A package
//! is *marked* when it is to be installed, *protected* when a request leaves no choice about it
//! (it, and along dependencies with one possible target), and *out* when it was tried in vain.

use std::collections::HashSet;

use crate::session::{Clause, Session, Weight};
use crate::universe::{Id, Name};

/// Deeper chains than this are given up (apt's limit, too): real ones are below 200.
const MAX_DEPTH: usize = 3000;

/// The choice.
pub(crate) fn choose(s: &Session<'_>) -> HashSet<Id> {
    let mut g = Greedy {
        s,
        marked: HashSet::new(),
        protected: HashSet::new(),
        out: HashSet::new(),
    };
    g.run();
    g.marked
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// A request.
    User,
    /// A dependency.
    Dependency,
}

struct Greedy<'s, 'u> {
    s: &'s Session<'u>,
    marked: HashSet<Id>,
    protected: HashSet<Name>,
    out: HashSet<Name>,
}

impl Greedy<'_, '_> {
    fn run(&mut self) {
        let s = self.s;
        let mut virtuals = Vec::new();
        let mut direct = Vec::new();
        for c in &s.wanted {
            let mut names: Vec<Name> = c.targets.iter().map(|t| s.u.name_of(*t)).collect();
            names.dedup();
            let first = c.targets.iter().copied().find(|t| s.is_candidate(*t));
            match first {
                Some(id) if names.len() == 1 => {
                    self.marked.insert(id);
                    self.protected.insert(s.u.name_of(id));
                    direct.push(id);
                }
                _ => virtuals.push(c),
            }
        }
        for id in direct {
            self.mark(id, By::User, 0);
        }
        for c in virtuals {
            if !self.satisfied(c) {
                self.first_that_works(c, false, 0);
            }
        }
    }

    fn satisfied(&self, c: &Clause) -> bool {
        c.targets.iter().any(|t| self.marked.contains(t))
    }

    fn possible(&self, id: Id) -> bool {
        self.s.is_candidate(id) && !self.out.contains(&self.s.u.name_of(id))
    }

    /// Candidates of a clause, in order; protected ones first among the providers of one name is
    /// what apt does, and no more than a detail.
    fn solutions(&self, c: &Clause) -> Vec<Id> {
        c.targets
            .iter()
            .copied()
            .filter(|t| self.possible(*t))
            .collect()
    }

    fn mark(&mut self, id: Id, by: By, depth: usize) -> bool {
        let s = self.s;
        let name = s.u.name_of(id);
        let protected = self.protected.contains(&name);
        if depth > MAX_DEPTH || self.out.contains(&name) {
            return false;
        }
        if self.marked.contains(&id) && !protected {
            return true;
        }
        let parsed = s.parsed(id);
        let hopeless = |c: &Clause| {
            c.weight == Weight::Hard
                && !c
                    .targets
                    .iter()
                    .any(|t| self.possible(*t) || self.marked.contains(t))
        };
        if parsed.broken.is_some() || parsed.clauses.iter().any(hopeless) {
            if !protected {
                self.discard(id);
            }
            return false;
        }
        let give_up = !protected && by == By::Dependency;
        let mut failed = false;
        for r in &parsed.refusals {
            if !protected && !r.targets.iter().any(|t| self.marked.contains(t)) {
                continue;
            }
            for t in &r.targets {
                let other = s.u.name_of(*t);
                if self.marked.contains(t) {
                    if self.protected.contains(&other) {
                        failed = true;
                        if give_up {
                            return false;
                        }
                    } else {
                        self.marked.remove(t);
                    }
                } else if protected && s.is_candidate(*t) {
                    self.out.insert(other);
                }
            }
        }
        // What holds already when the package is come to needs no look later.
        let todo: Vec<&Clause> = parsed
            .clauses
            .iter()
            .filter(|c| protected || !self.satisfied(c))
            .collect();
        self.marked.insert(id);
        self.protected.insert(name);
        for c in todo {
            let fine = if self.satisfied(c) {
                !protected || self.protect_only(c, depth)
            } else {
                self.first_that_works(c, protected, depth) || c.weight == Weight::Soft
            };
            if !fine {
                failed = true;
                if give_up {
                    break;
                }
            }
        }
        if !protected {
            self.protected.remove(&name);
        }
        if failed && give_up {
            self.discard(id);
            return false;
        }
        !failed
    }

    /// A protected package's requirement holds: if only one package can fulfil it, that one is
    /// protected, too.
    fn protect_only(&mut self, c: &Clause, depth: usize) -> bool {
        if c.weight == Weight::Soft {
            return true;
        }
        let [one] = self.solutions(c)[..] else {
            return true;
        };
        if !self.protected.insert(self.s.u.name_of(one)) {
            return true;
        }
        self.mark(one, By::Dependency, depth + 1)
    }

    fn first_that_works(&mut self, c: &Clause, protected: bool, depth: usize) -> bool {
        let solutions = self.solutions(c);
        let forced = protected && c.weight == Weight::Hard && solutions.len() == 1;
        for id in solutions {
            if !self.possible(id) {
                continue;
            }
            if forced {
                self.marked.insert(id);
                self.protected.insert(self.s.u.name_of(id));
            }
            if self.mark(id, By::Dependency, depth + 1) {
                return true;
            }
        }
        false
    }

    fn discard(&mut self, id: Id) {
        self.marked.remove(&id);
        self.out.insert(self.s.u.name_of(id));
    }
}
