// SPDX-License-Identifier: Apache-2.0
//! Where this machine's updates come from: what the host's description says, in [`PATH`], made anew at
//! every boot from the signed addon (docs/HOSTS.md).

use crate::{Error, Result, fs};
use serde::Serialize;

/// Lines of `KEY=VALUE`.
pub const PATH: &str = "/run/lamadist/update.conf";

/// Where they come from. What the host does not say is not known here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The server's URL, http or https.
    pub url: Option<String>,
    /// The line of releases that is followed.
    pub track: Option<String>,
}

impl Source {
    /// Of the running system; none where the host says nothing of updates.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn read() -> Result<Option<Self>> {
        let Some(data) = fs::read_optional(PATH)? else {
            return Ok(None);
        };
        let this = Self::parse(&String::from_utf8_lossy(&data)).map_err(|e| e.within(PATH))?;
        Ok((this != Self::default()).then_some(this))
    }

    /// Parses the file's content. Keys of a newer description are passed over: an update may be what
    /// brings the program that knows them.
    ///
    /// # Errors
    /// A line is no `KEY=VALUE`, with its number.
    pub fn parse(text: &str) -> Result<Self> {
        let mut s = Self::default();
        for (n, line) in (1u32..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| {
                Error::new(format!("line {n}: {line:?} is not KEY=VALUE"))
                    .hint("it is made from the host's description at every boot; restart")
            })?;
            match key {
                "url" => s.url = Some(value.to_owned()),
                "track" => s.track = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(s)
    }
}

/// In a few words.
impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.url.as_deref().unwrap_or("nowhere yet");
        match &self.track {
            Some(t) => write!(f, "{t}, from {url}"),
            None => write!(f, "from {url}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_taken() {
        let s = Source::parse("# made\nurl=https://a/?x=1\nnew=x\n\ntrack=stable\n").unwrap();
        assert_eq!(s.to_string(), "stable, from https://a/?x=1");
        assert_eq!(Source::parse("").unwrap(), Source::default());
        let e = Source::parse("\nurl").unwrap_err();
        assert!(e.to_string().contains("line 2") && e.help().is_some());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = Source::parse(&text);
        }
    }
}
