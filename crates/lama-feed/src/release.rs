// SPDX-License-Identifier: Apache-2.0
//! `InRelease`: the signed list of a suite's indexes (DebianRepository/Format on the Debian wiki,
//! sources of apt).

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::deb822::{self, Stanza};
use crate::hash::Sha256;
use crate::openpgp::{CLOCK_SKEW, Certificates, SignatureError, Signed, ValidAt, date};

/// Whether the age of a feed matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Freshness {
    /// Date, Valid-Until and the keys' expiry are measured against the clock.
    #[default]
    Enforce,
    /// They are not: for snapshots. Keys must have been valid when they signed.
    Ignore,
}

/// Why an InRelease is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The text.
    #[error(transparent)]
    Syntax(#[from] deb822::Error),
    /// A field that cannot be read.
    #[error("line {line}: {what}")]
    Field {
        /// The line of the signed text.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Another suite's.
    #[error("it is for suite `{suite}` (codename `{codename}`), not for `{wanted}`")]
    OtherSuite {
        /// Its suite.
        suite: String,
        /// Its codename.
        codename: String,
        /// The suite asked for.
        wanted: String,
    },
    /// Its time is over.
    #[error("it expired on {until}")]
    Expired {
        /// Valid-Until.
        until: String,
    },
    /// It is from the future.
    #[error("it is dated {date}, which is in the future")]
    Future {
        /// Date.
        date: String,
    },
}

impl ReleaseError {
    /// How to mend it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Expired { .. } => {
                "the mirror no longer follows its archive, or the clock is wrong; use another mirror (`--mirror URL`). Snapshots are expired by nature and need the freshness check off"
            }
            Self::Future { .. } => "set the clock of this machine",
            Self::Signature(SignatureError::NoMessage(_) | SignatureError::Unsigned) => {
                "the mirror, or a proxy or captive portal before it, answers with something else than the signed file"
            }
            Self::Signature(SignatureError::Bad(_)) => {
                "if the archive changed its keys, add the new ones to distro/keys and to the feed's `keys`, from a source you trust; otherwise somebody has tampered with the file"
            }
            _ => "check the feed's archive and suite, or use another mirror (`--mirror URL`)",
        }
    }
}

/// A file that the release lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its SHA-256.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
}

/// Whether indexes can be fetched by their hash, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByHash {
    /// `Acquire-By-Hash: yes`: no race with an update of the mirror.
    Yes,
    /// No.
    No,
}

/// Where packages of architecture `all` are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchAll {
    /// In every architecture's index.
    WithOthers,
    /// In an index of their own, `binary-all`.
    Apart,
}

/// An accepted release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// When it was made, in seconds since 1970.
    pub date: i64,
    /// Until when it may be used, in seconds since 1970.
    pub valid_until: Option<i64>,
    /// By which key it is signed.
    pub signed_by: String,
    /// Whether there are files by hash.
    pub by_hash: ByHash,
    /// Where packages for all architectures stand.
    pub arch_all: ArchAll,
    /// Its architectures.
    pub architectures: Vec<String>,
    /// Its components.
    pub components: Vec<String>,
    /// The files, by their path below `dists/SUITE/`.
    pub files: BTreeMap<String, Listed>,
}

impl Release {
    /// Checks signature, suite and dates of an `InRelease` and reads it. `now` is in seconds
    /// since 1970.
    pub fn verify(
        inrelease: &[u8],
        keys: &Certificates,
        suite: &str,
        freshness: Freshness,
        now: i64,
    ) -> Result<Self, ReleaseError> {
        let at = match freshness {
            Freshness::Enforce => ValidAt::Time(now),
            Freshness::Ignore => ValidAt::Signing,
        };
        let signed = keys.verify(inrelease, at)?;
        let release = Self::parse(&signed, suite)?;
        if freshness == Freshness::Enforce {
            if release.date > now + CLOCK_SKEW {
                return Err(ReleaseError::Future {
                    date: date(release.date),
                });
            }
            if let Some(until) = release.valid_until.filter(|u| *u < now) {
                return Err(ReleaseError::Expired { until: date(until) });
            }
        }
        Ok(release)
    }

    fn parse(signed: &Signed, wanted: &str) -> Result<Self, ReleaseError> {
        let all = deb822::parse(&signed.text)?;
        let [s] = all.as_slice() else {
            let what = format!("{} stanzas in place of one", all.len());
            return Err(ReleaseError::Field {
                line: all.get(1).map_or(1, |s| s.line),
                what,
            });
        };
        let (suite, codename) = (
            s.get("Suite").unwrap_or_default(),
            s.get("Codename").unwrap_or_default(),
        );
        // A mirror may not pass one suite off as another: both are signed by the same key.
        if suite != wanted && codename != wanted {
            return Err(ReleaseError::OtherSuite {
                suite: suite.into(),
                codename: codename.into(),
                wanted: wanted.into(),
            });
        }
        let words = |f: &str| -> Vec<String> {
            s.get(f)
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let architectures = words("Architectures");
        let apart = architectures.iter().any(|a| a == "all")
            && !words("No-Support-for-Architecture-all")
                .iter()
                .any(|w| w == "Packages");
        let date = time(s, "Date")?.ok_or(deb822::Error::Missing {
            line: s.line,
            name: "Date",
        })?;
        Ok(Self {
            date,
            valid_until: time(s, "Valid-Until")?,
            signed_by: signed.fingerprint.clone(),
            by_hash: match s.get("Acquire-By-Hash") {
                Some("yes") => ByHash::Yes,
                _ => ByHash::No,
            },
            arch_all: if apart {
                ArchAll::Apart
            } else {
                ArchAll::WithOthers
            },
            architectures,
            components: words("Components"),
            files: files(s)?,
        })
    }
}

fn time(s: &Stanza<'_>, name: &str) -> Result<Option<i64>, ReleaseError> {
    let Some(f) = s.field(name) else {
        return Ok(None);
    };
    // Debian writes `UTC` for what RFC 2822 writes `GMT` or `+0000`.
    let text = f.value.strip_suffix("UTC").map(|t| format!("{t}+0000"));
    let text = text.as_deref().unwrap_or(f.value);
    let t: Timestamp = rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .map_err(|e| ReleaseError::Field {
            line: f.line,
            what: format!("{name}: `{}` is no date: {e}", f.value),
        })?;
    Ok(Some(t.as_second()))
}

fn files(s: &Stanza<'_>) -> Result<BTreeMap<String, Listed>, ReleaseError> {
    s.need("SHA256")?;
    let mut out = BTreeMap::new();
    let Some(f) = s.field("SHA256") else {
        return Ok(out);
    };
    for l in f.value.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let fail = |what: &str| ReleaseError::Field {
            line: f.line,
            what: format!("SHA256: `{l}`: {what}"),
        };
        let mut w = l.split_whitespace();
        let (Some(hash), Some(size), Some(path), None) = (w.next(), w.next(), w.next(), w.next())
        else {
            return Err(fail("not `hash size path`"));
        };
        let sha256 = hash.parse().map_err(|_| fail("no SHA-256 sum"))?;
        let size = size.parse().map_err(|_| fail("no size"))?;
        if path.starts_with('/') || path.split('/').any(|c| matches!(c, "" | "." | "..")) {
            return Err(fail("the path leads out of the suite"));
        }
        if out
            .insert(path.to_owned(), Listed { sha256, size })
            .is_some()
        {
            return Err(fail("listed twice"));
        }
    }
    Ok(out)
}
