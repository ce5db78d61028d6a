// SPDX-License-Identifier: Apache-2.0
//! Errors of the description: one at a time, with file, line and a hint.

use lama_exec::fs::FsError;
use miette::{NamedSource, SourceSpan};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is wrong with the description.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// A mistake at a place in a file.
    #[error("{}:{line}: {message}", path.display())]
    At {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
        /// How to mend it.
        #[help]
        hint: Option<String>,
        /// The file's text, for the excerpt.
        #[source_code]
        source_code: Arc<NamedSource<String>>,
        /// Where in it.
        #[label("here")]
        span: SourceSpan,
    },
    /// A name that was asked for is not described.
    #[error("there is no {kind} {name:?}")]
    Unknown {
        /// `machine`, `image` …
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// What there is instead.
        #[help]
        hint: Option<String>,
    },
}

/// Result of reading the description.
pub type Result<T> = std::result::Result<T, Error>;

/// A parsed file's origin: enough to point into it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    pub path: PathBuf,
    pub text: String,
}

impl Origin {
    pub(crate) fn error(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) -> Error {
        let start = span.start.min(self.text.len());
        let before = self.text.as_bytes().get(..start).unwrap_or(&[]);
        Error::At {
            path: self.path.clone(),
            line: before.iter().filter(|b| **b == b'\n').count() + 1,
            message: message.into(),
            hint: hint.into(),
            source_code: Arc::new(
                NamedSource::new(self.path.display().to_string(), self.text.clone())
                    .with_language("TOML"),
            ),
            span: (start..span.end.clamp(start, self.text.len())).into(),
        }
    }

    /// The span of the first place outside comments where `needle` stands, or the file's start.
    pub(crate) fn find(&self, needle: &str) -> Range<usize> {
        let mut at = 0;
        for line in self.text.split_inclusive('\n') {
            if !line.trim_start().starts_with('#')
                && let Some(i) = line.find(needle)
            {
                return at + i..at + i + needle.len();
            }
            at += line.len();
        }
        0..0
    }

    /// The span of a string's value, quotes included.
    pub(crate) fn find_value(&self, value: &str) -> Range<usize> {
        self.find(&format!("\"{value}\""))
    }
}

/// Parses one file of the description, relative to the folder of all.
///
/// # Errors
/// [`Error::At`] with the line of an unknown key, a wrong type or broken syntax.
pub fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    parse_origin(&Origin {
        path: path.to_owned(),
        text: text.to_owned(),
    })
}

pub(crate) fn parse_origin<T: serde::de::DeserializeOwned>(origin: &Origin) -> Result<T> {
    toml::from_str(&origin.text).map_err(|e| {
        let message = e.message().to_owned();
        let hint = near_expected(&message).unwrap_or_else(|| {
            if message.starts_with("unknown field") {
                "remove the key or correct its spelling; `lamadist schema` prints what each file may hold"
            } else if message.starts_with("missing field") {
                "add the key; `lamadist schema` prints what each file may hold"
            } else {
                "see docs/ARCHITECTURE.md, \"The description\""
            }
            .to_owned()
        });
        origin.error(e.span().unwrap_or(0..0), message, hint)
    })
}

/// "did you mean …" from serde's "unknown field `a`, expected one of `b`, `c`".
fn near_expected(message: &str) -> Option<String> {
    let (unknown, expected) = message
        .strip_prefix("unknown ")?
        .split_once(", expected ")?;
    let quoted = |s| str::split(s, '`').skip(1).step_by(2);
    let hint = suggest(quoted(unknown).next()?, quoted(expected))?;
    hint.starts_with("did you mean").then_some(hint)
}

/// "did you mean …" or the list of what there is.
pub(crate) fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let near = known.iter().map(|k| (distance(name, k), *k)).min();
    match near {
        Some((d, k)) if d <= 2 && d < name.len() => Some(format!("did you mean {k:?}?")),
        Some(_) => Some(format!("there are: {}", known.join(", "))),
        None => Some("none is described yet".to_owned()),
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let up = row.get(j + 1).copied().unwrap_or(usize::MAX - 1);
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = up;
            let cell = cost.min(up + 1).min(left + 1);
            if let Some(r) = row.get_mut(j) {
                *r = left;
            }
            left = cell;
        }
        if let Some(r) = row.last_mut() {
            *r = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in [
            ("", "", 0),
            ("a", "", 1),
            ("kitten", "sitting", 3),
            ("base", "bose", 1),
        ] {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
    }

    #[test]
    fn the_line_is_counted_from_one() {
        let o = Origin {
            path: "x.toml".into(),
            text: "a = 1\nb = 2\n".into(),
        };
        assert!(
            o.error(6..7, "wrong", None)
                .to_string()
                .starts_with("x.toml:2: ")
        );
        assert!(
            o.error(0..900, "wrong", None)
                .to_string()
                .starts_with("x.toml:1: ")
        );
    }
}
