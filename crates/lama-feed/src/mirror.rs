// SPDX-License-Identifier: Apache-2.0
//! Which servers have an archive, and through which proxy they are reached.
//!
//! The administrator's word comes first; without it, the machine's own apt knows a mirror.
//! Whatever suite stands there, its mirror has the others of the same archive, too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lama_exec::fs::{self, FsError};

use crate::aptconf;

/// Why no mirror is known.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A configuration file of apt that cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// A text that is no mirror.
    #[error("`{text}` is no mirror: {what}")]
    #[diagnostic(help(
        "write `--mirror URL`, where URL ends in the archive's name (https://mirror.example/debian), or `--mirror ARCHIVE=URL`; http, https and file URLs are known"
    ))]
    Syntax {
        /// The text.
        text: String,
        /// What is wrong.
        what: String,
    },
    /// Nobody named one.
    #[error("no mirror of the archive `{archive}` is known")]
    #[diagnostic(help(
        "name one: `--mirror {archive}=https://mirror.example/{archive}`, or the environment variable LAMADIST_MIRROR (apt's own configuration on this machine names none)"
    ))]
    Unknown {
        /// The archive.
        archive: String,
    },
}

/// Result of looking for mirrors.
pub type Result<T> = std::result::Result<T, Error>;

/// Base URLs by archive, and proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrors {
    bases: BTreeMap<String, Vec<String>>,
    /// How servers are reached.
    pub proxies: Proxies,
}

impl Mirrors {
    /// Finds mirrors. `named` is what the administrator named (`URL` or `ARCHIVE=URL`), in order
    /// of preference; where it is silent about an archive, apt's configuration below `root` (`/`)
    /// and the environment tell.
    pub fn discover(named: &[String], root: &Path) -> Result<Self> {
        let mut m = Self::named(named)?;
        m.proxies = Proxies::discover(root, |n| std::env::var(n).ok())?;
        let mut of_apt = Self::default();
        for url in apt_urls(root)? {
            // apt knows more kinds (cdrom, mirror+…): theirs are no base URLs.
            if let Ok(url) = base_url(&url)
                && let Some(a) = archive_of(&url)
            {
                of_apt.add(a, url.clone());
            }
        }
        for (archive, urls) in of_apt.bases {
            m.bases.entry(archive).or_insert(urls);
        }
        m.add_siblings();
        Ok(m)
    }

    /// Only the named ones.
    pub fn named(named: &[String]) -> Result<Self> {
        let mut m = Self::default();
        for text in named {
            let (archive, url) = parse(text)?;
            m.add(&archive, url);
        }
        m.add_siblings();
        Ok(m)
    }

    fn add(&mut self, archive: &str, url: String) {
        let v = self.bases.entry(archive.to_owned()).or_default();
        if !v.contains(&url) {
            v.push(url);
        }
    }

    /// A mirror of `debian` has `debian-security` beside it, unless one is named.
    fn add_siblings(&mut self) {
        if self.bases.contains_key("debian-security") {
            return;
        }
        let urls = self.bases.get("debian").cloned().unwrap_or_default();
        for url in urls {
            if let Some(s) = sibling(&url) {
                self.add("debian-security", s);
            }
        }
    }

    /// The base URLs of an archive, best first, without a slash at the end.
    pub fn of(&self, archive: &str) -> Result<&[String]> {
        match self.bases.get(archive) {
            Some(v) if !v.is_empty() => Ok(v),
            _ => Err(Error::Unknown {
                archive: archive.into(),
            }),
        }
    }
}

/// Reads `URL` or `ARCHIVE=URL`.
fn parse(text: &str) -> Result<(String, String)> {
    let fail = |what: &str| Error::Syntax {
        text: text.into(),
        what: what.into(),
    };
    if let Some((archive, url)) = text
        .split_once('=')
        .filter(|(a, _)| !a.contains(['/', ':']))
    {
        if archive.is_empty() {
            return Err(fail("the archive's name is missing"));
        }
        return Ok((archive.into(), base_url(url).map_err(fail)?));
    }
    let url = base_url(text).map_err(fail)?;
    match archive_of(&url) {
        Some(a) => Ok((a.to_owned(), url)),
        None => Err(fail("its last part is not the name of an archive")),
    }
}

fn base_url(url: &str) -> std::result::Result<String, &'static str> {
    let url = url.trim().trim_end_matches('/');
    // apt lets a local folder be written `file:/path`, too.
    if let Some(path) = url.strip_prefix("file:").filter(|p| !p.starts_with("//")) {
        return if path.starts_with('/') {
            Ok(format!("file://{path}"))
        } else {
            Err("no absolute path")
        };
    }
    let rest = ["http://", "https://", "file://"]
        .iter()
        .find_map(|s| url.strip_prefix(s));
    match rest {
        None => Err("neither an http, https nor file URL"),
        Some(r) if r.is_empty() || r.contains(char::is_whitespace) => Err("the URL is incomplete"),
        Some(_) => Ok(url.to_owned()),
    }
}

/// The archive that a base URL names: its last component, before a snapshot's time if one stands
/// there (`…/archive/debian/20261124T000000Z`).
fn archive_of(url: &str) -> Option<&str> {
    let path = url.split_once("://")?.1.split_once('/')?.1;
    let mut parts = path.rsplit('/').filter(|p| !p.is_empty());
    let last = parts.next()?;
    if is_snapshot(last) {
        parts.next()
    } else {
        Some(last)
    }
}

fn is_snapshot(part: &str) -> bool {
    part.len() == 16
        && part.ends_with('Z')
        && part.bytes().enumerate().all(|(i, b)| match i {
            8 => b == b'T',
            15 => b == b'Z',
            _ => b.is_ascii_digit(),
        })
}

fn sibling(url: &str) -> Option<String> {
    let (base, time) = match url.rsplit_once('/') {
        Some((b, t)) if is_snapshot(t) => (b, Some(t)),
        _ => (url, None),
    };
    let up = base.strip_suffix("/debian")?;
    Some(match time {
        Some(t) => format!("{up}/debian-security/{t}"),
        None => format!("{up}/debian-security"),
    })
}

/// Base URLs in apt's configuration, in apt's order.
fn apt_urls(root: &Path) -> Result<Vec<String>> {
    let etc = root.join("etc/apt");
    let mut out = Vec::new();
    if let Some(text) = text_of(&etc.join("sources.list"))? {
        out.extend(aptconf::urls_of_list(&text));
    }
    for path in parts(&etc.join("sources.list.d"), &["list", "sources"])? {
        let Some(text) = text_of(&path)? else {
            continue;
        };
        if path.extension().is_some_and(|e| e == "list") {
            out.extend(aptconf::urls_of_list(&text));
        } else {
            out.extend(aptconf::urls_of_sources(&text));
        }
    }
    Ok(out)
}

/// A file's text, or nothing where it is missing or kept from us: apt's files may hold passwords.
fn text_of(path: &Path) -> Result<Option<String>> {
    match fs::read_optional(path) {
        Ok(d) => Ok(d.map(|d| String::from_utf8_lossy(&d).into_owned())),
        Err(e) if e.source.kind() == std::io::ErrorKind::PermissionDenied => {
            tracing::warn!("passed over: {e}");
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

/// Files of a configuration folder with one of the extensions, by name.
fn parts(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(v) => Ok(v
            .into_iter()
            .map(|e| e.path())
            .filter(|p| match p.extension().and_then(|e| e.to_str()) {
                Some(e) => extensions.contains(&e),
                None => extensions.contains(&""),
            })
            .collect()),
        Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

/// Proxies by scheme and host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// By `scheme` or `scheme::host`; `None`: directly.
    rules: BTreeMap<String, Option<String>>,
    /// Hosts reached directly when the proxy comes from the environment.
    except: Vec<String>,
}

impl Proxies {
    /// Reads apt's configuration below `root`; for schemes it is silent about, `env`'s
    /// `http_proxy`, `https_proxy` and `no_proxy`.
    pub fn discover(root: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut files = parts(&root.join("etc/apt/apt.conf.d"), &["conf", ""])?;
        files.push(root.join("etc/apt/apt.conf"));
        let mut p = Self::default();
        for f in files {
            for (name, value) in text_of(&f)?
                .map(|t| aptconf::settings(&t))
                .unwrap_or_default()
            {
                p.apt_setting(&name, &value);
            }
        }
        for scheme in ["http", "https"] {
            if p.rules.contains_key(scheme) {
                continue;
            }
            let name = format!("{scheme}_proxy");
            let value = env(&name)
                .or_else(|| env(&name.to_uppercase()))
                .filter(|v| !v.is_empty());
            if let Some(v) = value {
                p.rules.insert(scheme.into(), Some(v));
                let no = env("no_proxy")
                    .or_else(|| env("NO_PROXY"))
                    .unwrap_or_default();
                p.except = no
                    .split(',')
                    .map(|s| s.trim().to_owned())
                    .filter(|s| !s.is_empty())
                    .collect();
            }
        }
        Ok(p)
    }

    fn apt_setting(&mut self, name: &str, value: &str) {
        let mut parts = name.splitn(4, "::").map(str::to_ascii_lowercase);
        let (Some(a), Some(scheme), Some(p)) = (parts.next(), parts.next(), parts.next()) else {
            return;
        };
        if a != "acquire" || p != "proxy" || !matches!(scheme.as_str(), "http" | "https") {
            return;
        }
        let key = match parts.next() {
            Some(host) => format!("{scheme}::{host}"),
            None => scheme,
        };
        let direct = value.is_empty() || value.eq_ignore_ascii_case("direct");
        self.rules.insert(
            key,
            (!direct).then(|| value.trim_end_matches('/').to_owned()),
        );
    }

    /// The proxy for a URL.
    pub fn of(&self, url: &str) -> Option<&str> {
        let (scheme, rest) = url.split_once("://")?;
        let host = rest.split('/').next()?.rsplit('@').next()?;
        let host = host
            .rsplit_once(':')
            .filter(|(h, _)| !h.ends_with(':'))
            .map_or(host, |(h, _)| h);
        if let Some(rule) = self
            .rules
            .get(&format!("{scheme}::{}", host.to_ascii_lowercase()))
        {
            return rule.as_deref();
        }
        let excepted = self.except.iter().any(|e| {
            let e = e.trim_start_matches('.');
            e == "*" || host == e || host.strip_suffix(e).is_some_and(|h| h.ends_with('.'))
        });
        if excepted {
            None
        } else {
            self.rules.get(scheme)?.as_deref()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let d = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let p = d.path().join(name);
            fs::create_dir_all(p.parent().unwrap()).unwrap();
            fs::write(p, text).unwrap();
        }
        d
    }

    fn named(v: &[&str]) -> Vec<String> {
        v.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn named_mirrors_and_siblings() {
        for (given, archive, want) in [
            (
                &["http://m/debian/"][..],
                "debian",
                &["http://m/debian"][..],
            ),
            (
                &["http://m/debian"],
                "debian-security",
                &["http://m/debian-security"],
            ),
            (
                &["http://m/debian", "http://s/debian-security"],
                "debian-security",
                &["http://s/debian-security"],
            ),
            (
                &["http://s/archive/debian/20261124T000000Z"],
                "debian-security",
                &["http://s/archive/debian-security/20261124T000000Z"],
            ),
            (&["debian=https://m/other/"], "debian", &["https://m/other"]),
            (&["file:/srv/debian"], "debian", &["file:///srv/debian"]),
            (
                &["http://a/debian", "http://b/debian", "http://a/debian/"],
                "debian",
                &["http://a/debian", "http://b/debian"],
            ),
        ] {
            let m = Mirrors::named(&named(given)).unwrap();
            assert_eq!(m.of(archive).unwrap(), want, "{given:?}");
        }
        for bad in [
            "",
            "debian",
            "ftp://m/debian",
            "http://",
            "=http://m/debian",
            "http://m",
            "x=y",
        ] {
            assert!(Mirrors::named(&named(&[bad])).is_err(), "{bad}");
        }
    }

    #[test]
    fn apts_configuration_is_the_second_choice() {
        let d = root(&[
            (
                "etc/apt/sources.list",
                "deb http://a/debian bookworm main\ndeb cdrom:[x]/ y main\n",
            ),
            (
                "etc/apt/sources.list.d/b.sources",
                "Types: deb\nURIs: http://b/debian http://b/debian-security\n",
            ),
            (
                "etc/apt/sources.list.d/b.save",
                "deb http://no/debian x main\n",
            ),
        ]);
        let m = Mirrors::discover(&[], d.path()).unwrap();
        assert_eq!(
            m.of("debian").unwrap(),
            ["http://a/debian", "http://b/debian"]
        );
        assert_eq!(
            m.of("debian-security").unwrap(),
            ["http://b/debian-security"]
        );
        let m = Mirrors::discover(&named(&["http://n/debian"]), d.path()).unwrap();
        assert_eq!(m.of("debian").unwrap(), ["http://n/debian"]);
        let e = Mirrors::discover(&[], Path::new("/nonexistent"))
            .unwrap()
            .of("debian")
            .unwrap_err();
        assert!(e.to_string().contains("`debian`"), "{e}");
    }

    #[test]
    fn proxies() {
        let d = root(&[(
            "etc/apt/apt.conf.d/90p",
            "Acquire::http::Proxy \"http://p:3128/\"; Acquire { http::Proxy::near \"DIRECT\"; };",
        )]);
        let env = |n: &str| match n {
            "http_proxy" => Some("http://unused:1".to_owned()),
            "HTTPS_PROXY" => Some("http://e:1".to_owned()),
            "no_proxy" => Some("in.example, .intra".to_owned()),
            _ => None,
        };
        let p = Proxies::discover(d.path(), env).unwrap();
        for (url, want) in [
            ("http://far/debian", Some("http://p:3128")),
            ("http://near/debian", None),
            ("http://near:80/debian", None),
            ("https://far/debian", Some("http://e:1")),
            ("https://x.in.example:443/debian", None),
            ("https://xin.example/debian", Some("http://e:1")),
            ("https://a.intra/", None),
            ("file:///srv", None),
        ] {
            assert_eq!(p.of(url), want, "{url}");
        }
    }
}
