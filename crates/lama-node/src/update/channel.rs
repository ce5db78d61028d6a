// SPDX-License-Identifier: Apache-2.0
//! The channel file: which version a track is at, and where its bundle is.
//!
//! One file for each image and track, at any web server: JSON in a CMS message (RFC 5652, DER) that
//! the key signs which signs bundles. It is small and fetched whole. What TUF needs four roles for, it
//! has in three fields: `serial` never goes back (rollback), `expires` (freeze), and `compatible` and
//! `track`, so that one file cannot stand for another (mix-and-match). The bundle itself is RAUC's to
//! trust; the file only says which one. There is no delegation and there are no several signers: one
//! administrator signs everything.

use super::version::Version;
use crate::error::Context;
use crate::machine::Machine;
use crate::run::Run;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The format of this file.
pub const FORMAT: u32 = 1;
/// Whom bundles and channels are trusted from: RAUC's keyring.
pub const KEYRING: &str = "/usr/lib/rauc/keyring.pem";
/// Bytes that a channel file has at most.
pub const LIMIT: u64 = 1 << 20;
/// How openssl(1) checks the signature, and prints what was signed; `-CAfile KEYRING -in FILE` follow.
/// The keyring alone is trusted: what the system trusts servers of the web by has no say.
pub const VERIFY: [&str; 9] = [
    "cms",
    "-verify",
    "-binary",
    "-inform",
    "DER",
    "-purpose",
    "any",
    "-no-CApath",
    "-no-CAstore",
];

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Channel {
    /// [`FORMAT`].
    pub format: u32,
    /// The line of releases.
    pub track: String,
    /// RAUC's `compatible` of the machines it is for.
    pub compatible: String,
    /// The image.
    pub image: String,
    /// Rises with each issue.
    pub serial: u64,
    /// When it was issued, RFC 3339 in UTC.
    pub issued: String,
    /// Until when it counts, RFC 3339 in UTC.
    pub expires: String,
    /// The version to be at.
    pub version: String,
    /// Its bundle.
    pub bundle: File,
    /// Versions before this one must not run any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<String>,
    /// Smaller files out of which a node with an earlier version makes the bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deltas: Vec<Delta>,
}

/// A file on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct File {
    /// Where, relative to the channel file or absolute.
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// A delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Delta {
    /// The version that it is made from.
    pub from: String,
    /// Where it is.
    #[serde(flatten)]
    pub file: File,
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// The machine runs that version.
    Current,
    /// There is a newer one.
    Newer,
    /// The machine runs a newer one than the track is at.
    Older,
}

/// What this node knows when it reads one.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The track that it follows.
    pub track: &'a str,
    /// The highest serial number that it has seen of this track.
    pub serial: u64,
    /// Now, RFC 3339 in UTC.
    pub now: &'a str,
}

impl Channel {
    /// Checks a file's signature and parses it.
    ///
    /// # Errors
    /// It is not signed by whom the keyring trusts, or is of another format.
    pub fn open(file: &Path, keyring: &Path) -> Result<Self> {
        let signed = Run::new("openssl")
            .args(VERIFY)
            .arg("-CAfile")
            .arg(keyring)
            .arg("-in")
            .arg(file)
            .any()?;
        if !signed.status.success() {
            let why = String::from_utf8_lossy(&signed.stderr);
            let why = why.lines().last().unwrap_or("openssl does not say why");
            return Err(Error::new(format!(
                "the channel file is not signed by anybody whom this machine trusts: {why}"
            ))
            .hint(
                "check url and track of the update server; a proxy may have answered in its place",
            ));
        }
        Self::parse(&signed.stdout)
    }

    /// Parses what was signed.
    ///
    /// # Errors
    /// It is no channel file of this format.
    pub fn parse(json: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let what = "the channel file cannot be understood";
        let Format { format } = serde_json::from_slice(json).context(what)?;
        if format != FORMAT {
            return Err(Error::new(format!(
                "the channel file has format {format}, this system knows {FORMAT}"
            ))
            .hint("install a bundle by hand: lama-node update install FILE"));
        }
        let this: Self = serde_json::from_slice(json).context(what)?;
        let versions = this.deltas.iter().map(|d| &d.from).chain(&this.minimum);
        for v in versions.chain([&this.version]) {
            Version::parse(v).context(what)?;
        }
        for t in [&this.issued, &this.expires] {
            if !is_time(t) {
                return Err(Error::new(format!("{what}: {t:?} is no time")));
            }
        }
        let files = this.deltas.iter().map(|d| &d.file).chain([&this.bundle]);
        for f in files {
            let hex = f.sha256.len() == 64 && f.sha256.bytes().all(|b| b.is_ascii_hexdigit());
            let url = !f.url.is_empty() && f.url.bytes().all(|b| b.is_ascii_graphic());
            if !hex || !url {
                return Err(Error::new(format!("{what}: the file {:?}", f.url)));
            }
        }
        Ok(this)
    }

    /// Whether it may be believed now, and what follows from it.
    ///
    /// # Errors
    /// It is for others, older than one that was seen before, or has expired.
    pub fn judge(&self, known: &Known<'_>) -> Result<Offer> {
        let expected = [
            (
                "machines",
                &self.compatible,
                known.machine.compatible.as_str(),
            ),
            ("image", &self.image, known.machine.image.as_str()),
            ("track", &self.track, known.track),
        ];
        for (what, has, wants) in expected {
            if has != wants {
                return Err(Error::new(format!(
                    "the channel file is for the {what} {has}, and not for {wants}"
                ))
                .hint("the server has a file under the wrong name"));
            }
        }
        if self.serial < known.serial {
            return Err(Error::new(format!(
                "the server has an older channel file (serial {}) than this machine has seen ({})",
                self.serial, known.serial
            ))
            .hint("an attacker, or a mirror that lags behind; nothing is installed"));
        }
        // Both are RFC 3339 in UTC, of the same form: their order is that of time.
        if self.expires.as_str() <= known.now {
            return Err(
                Error::new(format!("the channel file has expired at {}", self.expires)).hint(
                    "it has to be issued anew; or this machine's clock is wrong (timedatectl)",
                ),
            );
        }
        let (there, here) = (
            Version::parse(&self.version)?,
            Version::parse(&known.machine.version)?,
        );
        Ok(match there.cmp(&here) {
            std::cmp::Ordering::Equal => Offer::Current,
            std::cmp::Ordering::Greater => Offer::Newer,
            std::cmp::Ordering::Less => Offer::Older,
        })
    }

    /// Its delta from this version, where there is one that is worth it.
    pub fn delta(&self, from: &str) -> Option<&Delta> {
        let d = self.deltas.iter().find(|d| d.from == from);
        d.filter(|d| d.file.size < self.bundle.size)
    }
}

/// `2025-01-31T12:00:00Z`, to the second and in UTC.
fn is_time(t: &str) -> bool {
    t.len() == 20
        && t.bytes().enumerate().all(|(n, b)| match n {
            4 | 7 => b == b'-',
            10 => b == b'T',
            13 | 16 => b == b':',
            19 => b == b'Z',
            _ => b.is_ascii_digit(),
        })
}

/// A file's URL as the channel file's is a base of it (RFC 3986, section 5.2, as far as servers of
/// plain files need it).
pub fn resolve(base: &str, url: &str) -> String {
    if url.starts_with("https://") || url.starts_with("http://") {
        return url.to_owned();
    }
    let host = base.find("://").map_or(0, |n| n + 3);
    let root = base
        .get(host..)
        .and_then(|r| r.find('/'))
        .map_or(base.len(), |n| host + n);
    if url.starts_with('/') {
        return format!("{}{url}", base.get(..root).unwrap_or(base));
    }
    let folder = base.rfind('/').filter(|n| *n >= root).unwrap_or(root);
    format!("{}/{url}", base.get(..folder).unwrap_or(base))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine::parse(
            br#"{"bsp":"x86_64","image":"base","version":"1.2.0","compatible":"c","layout":[]}"#,
        )
        .unwrap()
    }

    pub(crate) fn channel() -> Channel {
        Channel {
            format: FORMAT,
            track: "stable".into(),
            compatible: "c".into(),
            image: "base".into(),
            serial: 7,
            issued: "2025-01-01T00:00:00Z".into(),
            expires: "2025-02-01T00:00:00Z".into(),
            version: "1.3.0".into(),
            bundle: File {
                url: "b.raucb".into(),
                size: 100,
                sha256: "0".repeat(64),
            },
            minimum: None,
            deltas: Vec::new(),
        }
    }

    fn judge(c: &Channel) -> Result<Offer> {
        c.judge(&Known {
            machine: &machine(),
            track: "stable",
            serial: 7,
            now: "2025-01-15T00:00:00Z",
        })
    }

    #[test]
    fn only_what_is_meant_for_now_and_here_counts() {
        assert_eq!(judge(&channel()).unwrap(), Offer::Newer);
        let with = |change: fn(&mut Channel)| {
            let mut c = channel();
            change(&mut c);
            judge(&c)
        };
        assert_eq!(
            with(|c| c.version = "1.2.0".into()).unwrap(),
            Offer::Current
        );
        assert_eq!(with(|c| c.version = "1.1.9".into()).unwrap(), Offer::Older);
        for (change, says) in [
            ((|c| c.serial = 6) as fn(&mut Channel), "older channel file"),
            (|c| c.expires = "2025-01-15T00:00:00Z".into(), "expired"),
            (|c| c.compatible = "d".into(), "machines d"),
            (|c| c.image = "dev".into(), "image dev"),
            (|c| c.track = "beta".into(), "track beta"),
        ] {
            let e = with(change).unwrap_err();
            assert!(e.to_string().contains(says) && e.help().is_some(), "{e}");
        }
    }

    #[test]
    fn it_is_read_strictly() {
        let json = serde_json::to_string(&channel()).unwrap();
        assert_eq!(Channel::parse(json.as_bytes()).unwrap(), channel());
        let e = Channel::parse(json.replace("\"format\":1", "\"format\":2").as_bytes());
        assert!(e.unwrap_err().to_string().contains("format 2"));
        for (from, to) in [
            ("1.3.0", "x"),
            ("2025-02-01T00:00:00Z", "tomorrow"),
            ("b.raucb", "b raucb"),
            ("0000", "zzzz"),
        ] {
            assert!(
                Channel::parse(json.replace(from, to).as_bytes()).is_err(),
                "{to}"
            );
        }
        let mut c = channel();
        c.minimum = Some("old".into());
        let e = Channel::parse(&serde_json::to_vec(&c).unwrap()).unwrap_err();
        assert!(e.to_string().contains("\"old\" is no version"), "{e}");
    }

    #[test]
    fn addresses_are_relative_to_the_channel() {
        let base = "https://h/a/stable/c.channel";
        for (url, want) in [
            ("b.raucb", "https://h/a/stable/b.raucb"),
            ("/x/b", "https://h/x/b"),
            ("http://o/b", "http://o/b"),
        ] {
            assert_eq!(resolve(base, url), want);
        }
        assert_eq!(resolve("https://h", "b"), "https://h/b");
    }

    proptest::proptest! {
        #[test]
        fn no_input_makes_it_panic(text in "\\PC*", url in "\\PC*") {
            let _ = Channel::parse(text.as_bytes());
            let _ = resolve(&text, &url);
        }
    }
}
