// SPDX-License-Identifier: Apache-2.0
//! Why there is no answer, in plain words.

use std::collections::HashSet;

use crate::relation::{Relation, Relations};
use crate::sat::{self, Fact};
use crate::session::Session;
use crate::universe::Id;

/// More lines than this are no explanation.
const MAX_LINES: usize = 24;

/// The explanation, one fact a line, and a hint.
pub(crate) fn explain(s: &Session<'_>) -> (String, String) {
    let core = core(s);
    let facts = sat::facts(s, &core);
    let mut lines: Vec<String> = Vec::new();
    for f in &facts {
        if let Some(line) = show(s, f)
            && !lines.contains(&line)
        {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        let asked: Vec<&str> = core
            .iter()
            .filter_map(|i| s.wanted.get(*i))
            .map(|c| c.text.as_str())
            .collect();
        lines.push(format!(
            "no way was found to install {}",
            list(&asked, "and")
        ));
    }
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("… and {more} more such facts"));
    }
    (
        lines
            .iter()
            .map(|l| format!("  {l}"))
            .collect::<Vec<_>>()
            .join("\n"),
        hint(s, &facts, &core),
    )
}

/// A smallest set of requests that cannot be fulfilled together (QuickXplain: Junker 2004).
fn core(s: &Session<'_>) -> Vec<usize> {
    let fails = |set: &[usize]| sat::solve(s, set, &HashSet::new()).is_err();
    let all = s.all();
    // The frequent case first: one request that cannot be fulfilled at all.
    if let Some(one) = all.iter().copied().find(|i| fails(&[*i])) {
        return vec![one];
    }
    let mut out = split(&fails, &[], false, &all);
    out.sort_unstable();
    out
}

fn split(
    fails: &impl Fn(&[usize]) -> bool,
    base: &[usize],
    grown: bool,
    rest: &[usize],
) -> Vec<usize> {
    if grown && fails(base) {
        return Vec::new();
    }
    if rest.len() <= 1 {
        return rest.to_vec();
    }
    let (left, right) = rest.split_at(rest.len() / 2);
    let with = |more: &[usize]| base.iter().chain(more).copied().collect::<Vec<_>>();
    let second = split(fails, &with(left), true, right);
    let mut first = split(fails, &with(&second), !second.is_empty(), left);
    first.extend(second);
    first
}

fn list(items: &[&str], word: &str) -> String {
    match items {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} {word} {last}", most.join(", ")),
    }
}

fn show(s: &Session<'_>, fact: &Fact) -> Option<String> {
    let full = |id: &Id| s.u.record(*id).map(ToString::to_string).unwrap_or_default();
    Some(match fact {
        Fact::Requires { who, text, targets } => {
            let head = match who {
                Some(id) => format!("{} needs {text}", full(id)),
                None => format!("{text} is asked for"),
            };
            if targets.is_empty() {
                return Some(format!("{head}, but {}", available(s, text)));
            }
            // Whoever asks for `b` and gets b needs no telling.
            let mut names: Vec<&str> = targets
                .iter()
                .filter_map(|t| s.u.record(*t))
                .map(crate::Record::package)
                .collect();
            names.dedup();
            let parsed = Relation::parse(text);
            let plain = parsed.as_ref().is_ok_and(|r| names == [r.name]);
            let bound = parsed.is_ok_and(|r| r.bound.is_some());
            let shown: Vec<String> = targets.iter().take(6).map(full).collect();
            let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
            match (plain, who) {
                (true, None) if !bound => return None,
                (true, _) => head,
                (false, _) => format!("{head}, which is {}", list(&shown, "or")),
            }
        }
        Fact::Refuses { who, other } => {
            let parsed = s.parsed(*who);
            let relation = parsed.refusals.iter().find(|r| r.targets.contains(other));
            let verb = match relation.map(|r| r.field) {
                Some(crate::RelationField::Breaks) => "breaks",
                _ => "conflicts with",
            };
            let text = relation.map(|r| r.text.as_str()).unwrap_or_default();
            let name =
                s.u.record(*other)
                    .map(crate::Record::package)
                    .unwrap_or_default();
            if text == name {
                format!("{} {verb} {}", full(who), full(other))
            } else {
                format!("{} {verb} {text}, and so with {}", full(who), full(other))
            }
        }
        Fact::Twice { one, other } => {
            let (a, b) = (s.u.record(*one)?, s.u.record(*other)?);
            format!(
                "only one version of {} can be installed, {} or {}",
                a.package(),
                a.version(),
                b.version()
            )
        }
        Fact::Broken { who } => {
            format!(
                "{} cannot be used: {}",
                full(who),
                s.parsed(*who).broken.clone()?
            )
        }
    })
}

/// What there is in place of what is missing.
fn available(s: &Session<'_>, text: &str) -> String {
    let relations = Relations::parse(text).unwrap_or_default();
    let mut parts = Vec::new();
    let mut missing = Vec::new();
    for r in relations.each() {
        let entry = s.u.lookup(r.name);
        let real = entry.map(|e| e.real.as_slice()).unwrap_or_default();
        let mut have: Vec<String> = real
            .iter()
            .filter_map(|id| s.u.record(*id))
            .map(|r| format!("{r} ({})", r.feed()))
            .collect();
        for p in entry
            .map(|e| e.providers.as_slice())
            .unwrap_or_default()
            .iter()
            .take(3)
        {
            if let Some(by) = s.u.record(p.id) {
                let version = p.version.as_deref().unwrap_or("of no version");
                have.push(format!(
                    "{} {version}, provided by {by} ({})",
                    r.name,
                    by.feed()
                ));
            }
        }
        if have.is_empty() {
            missing.push(r.name);
        }
        parts.extend(have);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    if parts.is_empty() {
        format!("no feed has {}", list(&missing, "or"))
    } else {
        let verb = if parts.len() == 1 { "is" } else { "are" };
        format!("only {} {verb} available", list(&parts, "and"))
    }
}

fn hint(s: &Session<'_>, facts: &[Fact], core: &[usize]) -> String {
    let asked: Vec<&str> = core
        .iter()
        .filter_map(|i| s.wanted.get(*i))
        .map(|c| c.text.as_str())
        .collect();
    let missing = facts
        .iter()
        .any(|f| matches!(f, Fact::Requires { targets, .. } if targets.is_empty()));
    if asked.iter().any(|a| a.contains(" (= ")) {
        "a version is asked for by name; ask for the package without it, or for matching versions \
         of the others"
            .into()
    } else if missing {
        "a feed or component may be missing from the description (updates, security, \
         non-free-firmware), or the indexes are older than the package: refresh them"
            .into()
    } else if asked.len() > 1 {
        format!("leave out one of {}", list(&asked, "and"))
    } else {
        format!("leave out {}", list(&asked, "and"))
    }
}
