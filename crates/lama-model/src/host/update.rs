// SPDX-License-Identifier: Apache-2.0
//! `[update]`: where the machine's updates come from.
//!
//! The node finds it in [`PATH`], written anew at every boot as the host's other settings are: there it
//! is read by `lama_node::update`, which a test compares.

use super::rules::{Rule, is_domain};
use super::{Check, Checked};
use crate::Result;
use crate::distro::Distro;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use toml::Spanned;

/// Where the node finds it: lines of `KEY=VALUE`.
pub const PATH: &str = "/run/lamadist/update.conf";

const URL: Rule = (
    "is no address of an update server",
    "write it such as \"https://updates.example/lamadist\": http or https, a name or IP address, perhaps a port and a path",
);
const USER: Rule = (
    "holds a user's name or password, which everybody on the machine could read",
    "leave it out; updates are signed and encrypted, so a server may give them to anybody",
);
const TRACK: Rule = (
    "is no name of a track",
    "name one of `tracks` in distro/lamadist.toml",
);

/// `[update]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Update {
    /// The server's URL, below which the tracks are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Spanned<String>>,
    /// The line of releases that it follows (`tracks` in `distro/lamadist.toml`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<Spanned<String>>,
}

impl Update {
    /// The file's content.
    pub(super) fn file(&self, check: &Check<'_>) -> Result<String> {
        let mut o = String::new();
        if let Some(url) = &self.url {
            if has_user(url.get_ref()) {
                return Err(check.wrong(url, USER));
            }
            let _ = writeln!(o, "url={}", check.value(url, is_url, URL)?);
        }
        if let Some(track) = &self.track {
            let _ = writeln!(o, "track={}", check.value(track, is_track, TRACK)?);
        }
        Ok(o)
    }
}

impl Checked {
    /// Whether its track is one of the distribution's.
    ///
    /// # Errors
    /// It is none of them: which there are.
    pub fn check_track(&self, distro: &Distro) -> Result<()> {
        let update = self.host.update.as_ref();
        let track = update.and_then(|u| u.track.as_ref());
        track.map_or(Ok(()), |t| distro.check_track(t.get_ref()))
    }
}

/// Whether a track may be called so.
fn is_track(s: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    (1..=32).contains(&s.len()) && s.bytes().all(ok) && !s.starts_with(['-', '.'])
}

fn authority(url: &str) -> Option<(&str, &str)> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    Some(rest.split_at(rest.find('/').unwrap_or(rest.len())))
}

fn has_user(url: &str) -> bool {
    authority(url).is_some_and(|(a, _)| a.contains('@'))
}

/// As RFC 3986 writes it, without what an update server has no use for: users, queries, fragments.
fn is_url(s: &str) -> bool {
    let Some((authority, path)) = authority(s) else {
        return false;
    };
    let (host, port) = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => ("", port),
        Some(_) => return false,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    // What looks like an address is to be one.
    let numbers = host
        .split('.')
        .next_back()
        .is_some_and(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_digit()));
    let host = if numbers {
        host.parse::<Ipv4Addr>().is_ok()
    } else {
        host.is_empty() && authority.starts_with('[') || is_domain(host)
    };
    let port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|p| {
            p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|p| p > 0)
        });
    // unreserved, pct-encoded, sub-delims, ":" and "@" (section 3.3), without quotes.
    let pchar = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&()*+,;=:@/".contains(&b);
    host && port && path.bytes().all(pchar) && s.len() <= 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for good in [
            "https://updates.example",
            "https://updates.example/",
            "http://nas:8080/lamadist/x86_64",
            "https://192.168.1.2/a%20b",
            "https://[fd00::1]:8443/x",
        ] {
            assert!(is_url(good), "{good}");
        }
        for bad in [
            "",
            "updates.example",
            "ftp://updates.example",
            "https://",
            "https:///x",
            "https://a b/",
            "https://a/b c",
            "https://a/?x",
            "https://a/#x",
            "https://a:0/",
            "https://a:65536/",
            "https://a:+1/",
            "https://a:/\n",
            "https://[fd00::1",
            "https://[::g]/",
            "https://[]/",
            "https://192.168.1/",
            "https://192.168.1.256/",
            "https://-a/",
            "https://a/'",
            "https://ü/",
        ] {
            assert!(!is_url(bad), "{bad}");
        }
        assert!(has_user("https://me:secret@a/") && !has_user("https://a/@"));
        assert!(is_track("stable") && is_track("1.4-lts"));
        for bad in ["", "-x", ".", "a b", "A", "a/b", &"a".repeat(33)] {
            assert!(!is_track(bad), "{bad}");
        }
    }
}
