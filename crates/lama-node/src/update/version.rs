// SPDX-License-Identifier: Apache-2.0
//! Versions of the distribution (Semantic Versioning 2.0.0), compared by precedence.

use crate::{Error, Result};
use std::cmp::Ordering;
use std::fmt;

/// A version: `1.4.0`, `1.5.0-rc.1`, `0.1.0-dev+20251101`. What follows `+` does not count.
#[derive(Debug, Clone)]
pub struct Version {
    text: String,
    numbers: Vec<u64>,
    pre: Vec<Part>,
}

/// A part of what follows `-`: numbers come before words, and count as numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl Version {
    /// Parses one.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(format!("{text:?} is no version"))
                .hint("a version is such as 1.4.0 or 1.5.0-rc.1")
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.+".contains(c);
        if text.len() > 100 || !text.chars().all(plain) {
            return Err(wrong());
        }
        let counted = text.split('+').next().unwrap_or("");
        let (core, pre) = counted
            .split_once('-')
            .map_or((counted, None), |(c, p)| (c, Some(p)));
        let numbers: Option<Vec<u64>> = core.split('.').map(|n| n.parse().ok()).collect();
        let numbers = numbers.ok_or_else(wrong)?;
        let part = |p: &str| match p.parse() {
            _ if p.is_empty() => None,
            Ok(n) => Some(Part::Number(n)),
            Err(_) => Some(Part::Word(p.to_owned())),
        };
        let pre: Option<Vec<Part>> =
            pre.map_or(Some(Vec::new()), |p| p.split('.').map(part).collect());
        Ok(Self {
            text: text.to_owned(),
            numbers,
            pre: pre.ok_or_else(wrong)?,
        })
    }
}

impl Version {
    /// The release that a candidate or development version leads to.
    #[must_use]
    pub fn release(mut self) -> Self {
        self.pre.clear();
        self
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let len = self.numbers.len().max(other.numbers.len());
        let number = |v: &Self, n| v.numbers.get(n).copied().unwrap_or(0);
        let core = (0..len).map(|n| number(self, n).cmp(&number(other, n)));
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            // A version comes after its candidates.
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        };
        core.fold(Ordering::Equal, Ordering::then).then(pre)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_ordered_as_the_specification_says() {
        // Section 11 of Semantic Versioning 2.0.0, and ours.
        let order = [
            "0.1.0-dev",
            "0.1.0",
            "1.0.0-1",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2",
            "1.10.0",
            "2.0.0",
        ];
        for (n, a) in order.iter().enumerate() {
            for (m, b) in order.iter().enumerate() {
                let (a, b) = (Version::parse(a).unwrap(), Version::parse(b).unwrap());
                assert_eq!(a.cmp(&b), n.cmp(&m), "{a} {b}");
            }
        }
        let same = |a, b| Version::parse(a).unwrap() == Version::parse(b).unwrap();
        assert!(same("1.0.0+a", "1.0.0+b") && same("1", "1.0.0"));
        for wrong in [
            "",
            "a",
            "1..0",
            "1.0-",
            "1.0-a..b",
            "-1",
            "1.0 ",
            "99999999999999999999",
        ] {
            assert!(Version::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = Version::parse(&text);
        }
    }
}
