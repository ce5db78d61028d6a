// SPDX-License-Identifier: Apache-2.0
//! What is asked of the solver.

use std::collections::BTreeMap;

use crate::relation::{Bound, Op, Qualifier, Relation, is_arch, is_name};
use crate::session::{Clause, Weight};
use crate::universe::Universe;
use crate::{Error, Result, version};

/// Whether essential packages are part of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Essential {
    /// Every package marked essential is, as on any Debian system.
    #[default]
    Include,
    /// Only those that something depends on.
    Leave,
}

/// What recommendations count for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recommends {
    /// Nothing.
    #[default]
    Ignore,
    /// They are installed where possible, like apt's default.
    Install,
}

/// Whether what packages depend on is part of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dependencies {
    /// It is.
    #[default]
    Follow,
    /// It is not: the answer is the packages asked for and nothing else.
    Leave,
}

/// What is asked of the solver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The packages: `name`, `name=version`, `name:arch` (the root's architecture, `all`, `any`
    /// or `native`), or the name of a virtual package. Their order can decide between equals, as
    /// on apt's command line.
    pub packages: Vec<String>,
    /// Dependencies.
    pub dependencies: Dependencies,
    /// Essential packages.
    pub essential: Essential,
    /// Recommendations.
    pub recommends: Recommends,
    /// Versions that are kept where possible, by package: those of a lock.
    pub prefer: BTreeMap<String, String>,
}

/// The request as clauses, duplicates left out.
pub(crate) fn clauses(u: &Universe, request: &Request) -> Result<Vec<Clause>> {
    let mut out: Vec<Clause> = Vec::new();
    let mut unknown = Vec::new();
    for text in &request.packages {
        let rel = parse(text)?;
        let mut targets = u.targets(&rel);
        // A real package is meant where there is one.
        let real = u
            .lookup(rel.name)
            .map(|e| e.real.as_slice())
            .unwrap_or_default();
        if targets.iter().any(|t| real.contains(t)) {
            targets.retain(|t| real.contains(t));
        }
        let text = match rel.bound {
            // As a relation, so that explanations can read it.
            Some(b) => format!("{} {b}", rel.name),
            None => rel.name.to_owned(),
        };
        if targets.is_empty() {
            unknown.push((text, rel.name));
        } else if !out.iter().any(|c| c.text == text) {
            out.push(Clause {
                text,
                targets,
                weight: Weight::Hard,
            });
        }
    }
    if unknown.is_empty() {
        return Ok(out);
    }
    let hints: Vec<String> = unknown.iter().map(|(_, name)| similar(u, name)).collect();
    let names = unknown.into_iter().map(|(text, _)| text).collect();
    Err(Error::Unknown {
        names,
        hint: hints.join("; "),
    })
}

fn parse(text: &str) -> Result<Relation<'_>> {
    let fail = |what: &str| Error::Request {
        text: text.to_owned(),
        what: what.to_owned(),
    };
    let (head, v) = match text.split_once('=') {
        Some((h, v)) => (h, Some(v)),
        None => (text, None),
    };
    let (name, arch) = match head.split_once(':') {
        Some((n, a)) => (n, Some(a)),
        None => (head, None),
    };
    if !is_name(name) {
        return Err(fail("the name has characters that no package name has"));
    }
    let qualifier = match arch {
        // `all` is native everywhere; of `any` there is only the one here.
        None | Some("all" | "any" | "native") => None,
        Some(a) if is_arch(a) => Some(Qualifier::Arch(a)),
        Some(_) => return Err(fail("what stands behind the colon is no architecture")),
    };
    let bound = match v {
        None => None,
        Some(v) if version::is_valid(v) => Some(Bound {
            op: Op::Equal,
            version: v,
        }),
        Some(_) => return Err(fail("what stands behind the equals sign is no version")),
    };
    Ok(Relation {
        name,
        qualifier,
        bound,
    })
}

/// What may have been meant.
fn similar(u: &Universe, name: &str) -> String {
    let versions: Vec<&str> = u.find(name).map(crate::Record::version).collect();
    if !versions.is_empty() {
        return format!(
            "of {name} there is {} for {}",
            versions.join(", "),
            u.arch()
        );
    }
    let mut near: Vec<(usize, &str)> = u
        .names()
        .filter(|n| n.len().abs_diff(name.len()) <= 2)
        .map(|n| (distance(n, name), n))
        .filter(|(d, _)| *d <= 2)
        .collect();
    near.sort_unstable();
    let near: Vec<&str> = near.into_iter().take(3).map(|(_, n)| n).collect();
    if near.is_empty() {
        format!("{name}: check the name, and whether its component and feed are described")
    } else {
        format!("instead of {name}, maybe {}?", near.join(", "))
    }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let up = row.get(j + 1).copied().unwrap_or_default();
            let best = (left + 1).min(up + 1).min(corner + usize::from(x != y));
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            corner = up;
            left = best;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}
