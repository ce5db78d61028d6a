// SPDX-License-Identifier: Apache-2.0
//! The kernel command line (kernel-command-line(7)).

use crate::{Result, fs};
use serde::{Deserialize, Serialize};

/// Words of a kernel command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline(Vec<String>);

impl Cmdline {
    /// That of the running kernel.
    ///
    /// # Errors
    /// `/proc/cmdline` cannot be read.
    pub fn read() -> Result<Self> {
        Ok(Self::parse(&fs::text("/proc/cmdline")?))
    }

    /// Words are separated by white space; double quotes keep it.
    pub fn parse(text: &str) -> Self {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in text.chars() {
            match c {
                '"' => quoted = !quoted,
                c if c.is_whitespace() && !quoted => words.push(String::new()),
                c => {
                    if let Some(w) = words.last_mut() {
                        w.push(c);
                    }
                }
            }
        }
        words.retain(|w| !w.is_empty());
        Self(words)
    }

    /// The value of the last `key=value`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|w| {
            let (k, v) = w.split_once('=')?;
            (k == key).then_some(v)
        })
    }

    /// All `key=value` whose key begins with `prefix`; the keys come without it.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |w| {
            let (k, v) = w.split_once('=')?;
            Some((k.strip_prefix(prefix)?, v))
        })
    }

    /// Which system this is: a slot, the live medium, or something else.
    pub fn slot(&self) -> Option<Slot> {
        match self.get("lamadist.slot")? {
            "a" => Some(Slot::A),
            "b" => Some(Slot::B),
            "live" => Some(Slot::Live),
            _ => None,
        }
    }
}

/// What was booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// Slot A of an installed machine.
    A,
    /// Slot B.
    B,
    /// The medium.
    Live,
}

impl Slot {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::Live => "live",
        }
    }

    /// The other slot of an installed machine; none on a medium.
    pub fn other(self) -> Option<Self> {
        match self {
            Self::A => Some(Self::B),
            Self::B => Some(Self::A),
            Self::Live => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_and_the_last_one_wins() {
        let c = Cmdline::parse("a=1 x \"b=2 3\" a=4 lamadist.slot=b\n");
        assert_eq!((c.get("a"), c.get("b")), (Some("4"), Some("2 3")));
        assert_eq!(c.get("x"), None);
        assert_eq!(c.slot(), Some(Slot::B));
        let found: Vec<_> = c.with_prefix("lamadist.").collect();
        assert_eq!(found, [("slot", "b")]);
    }
}
