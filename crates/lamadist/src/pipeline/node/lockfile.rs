// SPDX-License-Identifier: Apache-2.0
//! `Cargo.lock`: which crates the program on the node is made of, and what each one has to be.

use super::source::{CRATE, Source};
use miette::{Result, miette};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The registry that crates come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A crate as it is pinned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pinned {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its `.crate` file, in hexadecimal.
    pub checksum: String,
}

/// `NAME-VERSION`, the name of its file and of the folder in it.
impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name, self.version)
    }
}

#[derive(Deserialize)]
struct Lockfile {
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

/// All crates that those of `wanted`, which the program depends on, are or depend on, sorted. The
/// lock was made for the whole workspace, so there may be some that the program does without.
///
/// # Errors
/// The lock lacks one, or pins one that is not from the registry.
pub fn closure(source: &Source, wanted: &BTreeSet<String>) -> Result<Vec<Pinned>> {
    let path = source.project.join("Cargo.lock");
    let stale = |what: String| {
        miette!(
            help = "let `cargo check -p lama-node` bring it up to date, and commit it",
            "{} {what}",
            path.display()
        )
    };
    let lock: Lockfile =
        toml::from_str(&source.lock).map_err(|e| stale(format!("is no lock of cargo's: {e}")))?;
    let mut by_name: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for p in &lock.package {
        by_name.entry(&p.name).or_default().push(p);
    }
    // `name`, or `name version` where there are several, or `name version (source)`.
    let find = |text: &str| {
        let mut words = text.split(' ');
        let all = by_name.get(words.next()?)?;
        match words.next() {
            None => all.first().filter(|_| all.len() == 1).copied(),
            Some(version) => all.iter().find(|p| p.version == version).copied(),
        }
    };
    let own = find("lama-node").filter(|p| p.source.is_none());
    let own = own.ok_or_else(|| stale("does not have lama-node".into()))?;
    let name = |d: &String| d.split(' ').next().unwrap_or_default().to_owned();
    let has: BTreeSet<String> = own.dependencies.iter().map(name).collect();
    if let Some(missing) = wanted.difference(&has).next() {
        return Err(stale(format!("does not pin {missing} for lama-node")));
    }
    let mut open: Vec<&String> = own.dependencies.iter().collect();
    open.retain(|d| wanted.contains(&name(d)));
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    while let Some(text) = open.pop() {
        let p = find(text).ok_or_else(|| stale(format!("does not pin {text}")))?;
        if !seen.insert((&p.name, &p.version)) {
            continue;
        }
        let checksum = match (&p.source, &p.checksum) {
            (Some(s), Some(c)) if s == REGISTRY => c.clone(),
            _ => {
                return Err(miette!(
                    help = "it may depend on crates of crates.io only",
                    "{CRATE} depends on {} {}, which is not from crates.io",
                    p.name,
                    p.version
                ));
            }
        };
        out.push(Pinned {
            name: p.name.clone(),
            version: p.version.clone(),
            checksum,
        });
        open.extend(&p.dependencies);
    }
    out.sort();
    Ok(out)
}

/// The lock with the program and `crates` alone in it, the program depending on `wanted`.
/// # Errors
/// It is no lock of cargo's.
pub fn reduced(source: &Source, wanted: &BTreeSet<String>, crates: &[Pinned]) -> Result<String> {
    let path = source.project.join("Cargo.lock");
    let broken = || {
        miette!(
            help = "let cargo make it anew",
            "{} is no lock of cargo's",
            path.display()
        )
    };
    let lock: toml::Table = source.lock.parse().map_err(|_| broken())?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let text = |p: &toml::Value, key: &str| Some(p.get(key)?.as_str()?.to_owned());
    let mut kept = Vec::new();
    for p in packages.ok_or_else(broken)? {
        let name = text(p, "name").ok_or_else(broken)?;
        let version = text(p, "version").ok_or_else(broken)?;
        let own = name == "lama-node" && p.get("source").is_none();
        if !own
            && !crates
                .iter()
                .any(|c| c.name == name && c.version == version)
        {
            continue;
        }
        let mut p = p.as_table().ok_or_else(broken)?.clone();
        if own && let Some(toml::Value::Array(d)) = p.get_mut("dependencies") {
            let of = |v: &toml::Value| {
                v.as_str()
                    .and_then(|t| t.split(' ').next().map(str::to_owned))
            };
            d.retain(|v| of(v).is_some_and(|n| wanted.contains(&n)));
        }
        kept.push(toml::Value::Table(p));
    }
    let version = lock.get("version").cloned();
    let out = version.map(|v| ("version".to_owned(), v)).into_iter();
    let out = out.chain([("package".to_owned(), toml::Value::Array(kept))]);
    Ok(toml::Table::from_iter(out).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closure_of(lock: &str, wanted: &[&str]) -> Result<Vec<String>, String> {
        let source = Source {
            project: "/project".into(),
            files: BTreeMap::new(),
            workspace: String::new(),
            lock: lock.into(),
        };
        let wanted = wanted.iter().map(ToString::to_string).collect();
        match closure(&source, &wanted) {
            Ok(all) => Ok(all.iter().map(ToString::to_string).collect()),
            Err(e) => Err(e.to_string()),
        }
    }

    fn package(name: &str, version: &str, dependencies: &str) -> String {
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{REGISTRY}\"\n\
             checksum = \"00\"\ndependencies = [{dependencies}]\n"
        )
    }

    fn lock(own: &str, more: &[String]) -> String {
        format!(
            "version = 4\n[[package]]\nname = \"lama-node\"\nversion = \"0.1.0\"\n\
             dependencies = [{own}]\n{}",
            more.concat()
        )
    }

    #[test]
    fn all_that_it_depends_on_and_nothing_else() {
        let text = lock(
            r#""a", "proptest""#,
            &[
                package("a", "1.0.0", r#""b 2.0.0""#),
                package("b", "1.0.0", ""),
                package("b", "2.0.0", r#""a""#),
                package("proptest", "1.0.0", r#""b 1.0.0""#),
            ],
        );
        assert_eq!(closure_of(&text, &["a"]).unwrap(), ["a-1.0.0", "b-2.0.0"]);
    }

    #[test]
    fn a_lock_that_does_not_tell_is_refused() {
        let local = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n".to_owned();
        let a = || package("a", "1.0.0", r#""b""#);
        for (lock, expected) in [
            ("{".to_owned(), "is no lock"),
            (a(), "does not have lama-node"),
            (lock("", &[a()]), "does not pin a for lama-node"),
            (lock(r#""a""#, &[]), "does not pin a"),
            (lock(r#""a""#, &[a()]), "does not pin b"),
            (lock(r#""a""#, &[local]), "not from crates.io"),
            (
                lock(r#""a""#, &[a().replace(REGISTRY, "git+https://x")]),
                "not from crates.io",
            ),
        ] {
            let e = closure_of(&lock, &["a"]).unwrap_err();
            assert!(e.contains(expected), "{e} instead of {expected}");
        }
    }
}
