// SPDX-License-Identifier: Apache-2.0
//! Relations between packages, as control fields write them: `a (>= 1) | b:any, c [amd64] <!nodoc>`.
//!
//! Syntax and meaning: Debian Policy 7.1, deb-control(5), and for `:any` and `:native` the
//! multiarch specification. Everything borrows from the text, because an index holds some
//! hundred thousand of them and most are never looked at twice.

use std::fmt;

use crate::version;

/// Why a relation field cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no relation between packages: {what}")]
pub struct RelationError {
    /// The part that is wrong.
    pub text: String,
    /// What is wrong.
    pub what: &'static str,
}

/// How a version is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// `<<`: earlier.
    Earlier,
    /// `<=`: earlier or equal.
    EarlierOrEqual,
    /// `=`: equal.
    Equal,
    /// `>=`: later or equal.
    LaterOrEqual,
    /// `>>`: later.
    Later,
}

impl Op {
    /// As the field writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        }
    }

    /// Whether `order`, that of a candidate to the version named, is what this asks for.
    pub fn admits(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Earlier => order.is_lt(),
            Self::EarlierOrEqual => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::LaterOrEqual => order.is_ge(),
            Self::Later => order.is_gt(),
        }
    }
}

/// A bound on a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bound<'a> {
    /// The comparison.
    pub op: Op,
    /// The version to compare with.
    pub version: &'a str,
}

impl Bound<'_> {
    /// Whether `candidate` is inside the bound.
    pub fn admits(&self, candidate: &str) -> bool {
        self.op.admits(version::compare(candidate, self.version))
    }
}

impl fmt::Display for Bound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} {})", self.op.as_str(), self.version)
    }
}

/// What stands behind the colon of `name:qualifier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Qualifier<'a> {
    /// `:any`: a package of any architecture that is `Multi-Arch: allowed`.
    Any,
    /// `:native`: the package of the native architecture.
    Native,
    /// `:amd64`: the package of that architecture.
    Arch(&'a str),
}

/// One package that is asked for (or refused, or provided).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relation<'a> {
    /// The package, real or virtual.
    pub name: &'a str,
    /// The architecture, if the relation names one.
    pub qualifier: Option<Qualifier<'a>>,
    /// The version, if the relation names one.
    pub bound: Option<Bound<'a>>,
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.qualifier {
            None => {}
            Some(Qualifier::Any) => f.write_str(":any")?,
            Some(Qualifier::Native) => f.write_str(":native")?,
            Some(Qualifier::Arch(a)) => write!(f, ":{a}")?,
        }
        match self.bound {
            Some(b) => write!(f, " {b}"),
            None => Ok(()),
        }
    }
}

impl<'a> Relation<'a> {
    /// Reads one relation. Architecture restrictions (`[…]`) and build profiles (`<…>`) are
    /// passed over: in a binary index they have been applied already.
    pub fn parse(text: &'a str) -> Result<Self, RelationError> {
        let fail = |what| RelationError {
            text: text.trim().chars().take(80).collect(),
            what,
        };
        let text = text.trim();
        let end = text
            .find(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '<'))
            .unwrap_or(text.len());
        let (word, mut rest) = text.split_at(end);
        let (name, qualifier) = match word.split_once(':') {
            None => (word, None),
            Some((n, "any")) => (n, Some(Qualifier::Any)),
            Some((n, "native")) => (n, Some(Qualifier::Native)),
            Some((n, a)) if is_arch(a) => (n, Some(Qualifier::Arch(a))),
            Some(_) => return Err(fail("what stands behind the colon is no architecture")),
        };
        if !is_name(name) {
            return Err(fail("no package name"));
        }
        let mut bound = None;
        loop {
            rest = rest.trim_start();
            let Some(open) = rest.chars().next() else {
                return Ok(Self {
                    name,
                    qualifier,
                    bound,
                });
            };
            let close = match open {
                '(' => ')',
                '[' => ']',
                '<' => '>',
                _ => return Err(fail("unexpected text behind the name")),
            };
            let (inner, after) = rest
                .get(1..)
                .and_then(|r| r.split_once(close))
                .ok_or_else(|| fail("a bracket is not closed"))?;
            rest = after;
            if open == '(' {
                if bound.is_some() {
                    return Err(fail("two versions"));
                }
                bound = Some(parse_bound(inner).ok_or_else(|| fail("no version bound"))?);
            }
        }
    }
}

fn parse_bound(inner: &str) -> Option<Bound<'_>> {
    let inner = inner.trim();
    // The single signs are deprecated and mean what Policy 7.1 says, not what they look like.
    let signs = [
        ("<<", Op::Earlier),
        ("<=", Op::EarlierOrEqual),
        (">=", Op::LaterOrEqual),
        (">>", Op::Later),
        ("=", Op::Equal),
        ("<", Op::EarlierOrEqual),
        (">", Op::LaterOrEqual),
    ];
    let (op, version) = signs
        .iter()
        .find_map(|(s, op)| inner.strip_prefix(s).map(|v| (*op, v.trim())))?;
    version::is_valid(version).then_some(Bound { op, version })
}

/// Whether `name` may be a package's name (Policy 5.6.1; capitals and the underscore, which real
/// archives of others use, are let pass).
pub fn is_name(name: &str) -> bool {
    name.as_bytes()
        .first()
        .is_some_and(u8::is_ascii_alphanumeric)
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_'))
}

/// Whether `arch` may be an architecture's name.
pub fn is_arch(arch: &str) -> bool {
    !arch.is_empty() && arch.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A whole field: clauses that must all hold, each a list of alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relations<'a> {
    /// The clauses, in order; none is empty.
    pub clauses: Vec<Vec<Relation<'a>>>,
}

impl<'a> Relations<'a> {
    /// Reads a field. Empty clauses (`a, , b`), which occur, are passed over.
    pub fn parse(text: &'a str) -> Result<Self, RelationError> {
        let mut clauses = Vec::new();
        for clause in text.split(',').filter(|c| !c.trim().is_empty()) {
            clauses.push(
                clause
                    .split('|')
                    .map(Relation::parse)
                    .collect::<Result<Vec<_>, _>>()?,
            );
        }
        Ok(Self { clauses })
    }

    /// Every relation, whatever clause it stands in: for fields without alternatives.
    pub fn each(&self) -> impl Iterator<Item = &Relation<'a>> {
        self.clauses.iter().flatten()
    }
}

impl fmt::Display for Relations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, clause) in self.clauses.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            f.write_str(&show_clause(clause))?;
        }
        Ok(())
    }
}

/// Alternatives as a field writes them.
pub(crate) fn show_clause(clause: &[Relation<'_>]) -> String {
    clause
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" | ")
}
