// SPDX-License-Identifier: Apache-2.0
//! The manifests that the program on the node is compiled with: those of the checkout, without
//! everything that is not its own.

use super::source::{CRATE, Source};
use miette::{Result, WrapErr, miette};
use std::collections::BTreeSet;
use toml::{Table, Value};

/// Profiles that the program is compiled with.
const PROFILES: [&str; 2] = ["node", "release"];
/// Tables of a manifest that name dependencies of the program.
const NORMAL: [&str; 2] = ["dependencies", "build-dependencies"];
/// Tables of a manifest that are of no concern here.
const OTHER: [&str; 5] = ["dev-dependencies", "lints", "test", "bench", "example"];

/// The manifests.
#[derive(Debug)]
pub struct Manifests {
    /// The workspace's.
    pub workspace: String,
    /// The crate's.
    pub node: String,
    /// The packages that the crate depends on.
    pub dependencies: BTreeSet<String>,
    /// The version of the workspace's crates.
    pub version: String,
}

impl Manifests {
    /// Takes what is needed from the checkout's.
    pub fn new(source: &Source) -> Result<Self> {
        let workspace = parse(&source.project, "Cargo.toml", &source.workspace)?;
        let mut node = parse(
            &source.project,
            &format!("{CRATE}/Cargo.toml"),
            &source.manifest(),
        )?;
        for name in OTHER {
            node.remove(name);
        }
        for target in tables(node.get_mut("target")) {
            target.remove("dev-dependencies");
        }

        let shared = workspace.get("workspace").and_then(Value::as_table);
        let all = shared.and_then(|s| s.get("dependencies")?.as_table());
        let mut packages = BTreeSet::new();
        let mut inherited = Table::new();
        let targets = node.get("target").and_then(Value::as_table);
        let targets = targets.into_iter().flat_map(Table::values);
        for table in targets.filter_map(Value::as_table).chain([&node]) {
            for kind in NORMAL {
                let of = table.get(kind).and_then(Value::as_table);
                for (name, value) in of.into_iter().flatten() {
                    let own = all.and_then(|a| a.get(name));
                    if let Some(own) = own {
                        inherited.insert(name.clone(), own.clone());
                    }
                    let package = [Some(value), own].into_iter().flatten();
                    let package = package.filter_map(|v| v.get("package")?.as_str()).next();
                    packages.insert(package.unwrap_or(name).to_owned());
                }
            }
        }

        let mut out = Table::new();
        let pick = |name: &str| shared.and_then(|s| s.get(name)).cloned();
        out.insert("members".into(), Value::Array(vec![CRATE.into()]));
        for name in ["resolver", "package"] {
            out.extend(pick(name).map(|v| (name.to_owned(), v)));
        }
        out.insert("dependencies".into(), Value::Table(inherited));
        let version = shared.and_then(|s| s.get("package")?.get("version")?.as_str());
        let version = version.unwrap_or("0.0.0").to_owned();
        let profiles = workspace.get("profile").and_then(Value::as_table);
        let profiles: Table = profiles
            .into_iter()
            .flatten()
            .filter(|(name, _)| PROFILES.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let out = Table::from_iter([
            ("workspace".to_owned(), Value::Table(out)),
            ("profile".to_owned(), Value::Table(profiles)),
        ]);
        Ok(Self {
            workspace: out.to_string(),
            node: node.to_string(),
            dependencies: packages,
            version,
        })
    }
}

fn tables(of: Option<&mut Value>) -> impl Iterator<Item = &mut Table> {
    let of = of.and_then(Value::as_table_mut).into_iter();
    of.flat_map(|t| t.iter_mut())
        .filter_map(|(_, v)| v.as_table_mut())
}

fn parse(project: &std::path::Path, name: &str, text: &str) -> Result<Table> {
    text.parse::<Table>()
        .map_err(|e| miette!(help = "cargo has to be able to read it, too", "{e}"))
        .wrap_err_with(|| format!("{} is no manifest", project.join(name).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifests(node: &str) -> Manifests {
        let workspace = r#"
            [workspace]
            members = ["crates/*"]
            resolver = "3"
            default-members = ["crates/x"]
            [workspace.package]
            version = "1.2.3"
            [workspace.dependencies]
            a = "1"
            b = { package = "bee", version = "2" }
            c = "3"
            [workspace.lints.rust]
            missing_docs = "deny"
            [profile.dev]
            opt-level = 1
            [profile.release]
            strip = "symbols"
            [profile.node]
            inherits = "release"
        "#;
        let source = Source {
            project: "/project".into(),
            files: [("Cargo.toml".into(), node.into())].into(),
            workspace: workspace.into(),
            lock: String::new(),
        };
        Manifests::new(&source).unwrap()
    }

    #[test]
    fn only_what_the_program_is_made_of_stays() {
        let m = manifests(
            r#"
            package = { name = "lama-node", version.workspace = true }
            dependencies = { a.workspace = true }
            dev-dependencies = { c.workspace = true }
            lints.workspace = true
            [target.'cfg(unix)'.dependencies]
            b.workspace = true
            d = { package = "dee", version = "4" }
            [target.'cfg(unix)'.dev-dependencies]
            c.workspace = true
            "#,
        );
        let all: Vec<&str> = m.dependencies.iter().map(String::as_str).collect();
        assert_eq!(all, ["a", "bee", "dee"]);
        for text in [&m.workspace, &m.node] {
            for gone in ["missing_docs", "lints", "dev", "opt-level", "c ="] {
                assert!(!text.contains(gone), "{gone} is still in {text}");
            }
        }
        let w: Table = m.workspace.parse().unwrap();
        let shared = w["workspace"].as_table().unwrap();
        assert_eq!(shared["members"].as_array().unwrap(), &[CRATE.into()]);
        assert_eq!(shared["resolver"].as_str(), Some("3"));
        assert_eq!(shared["package"]["version"].as_str(), Some("1.2.3"));
        assert_eq!(shared["dependencies"].as_table().unwrap().len(), 2);
        assert_eq!(w["profile"].as_table().unwrap().len(), 2);
    }
}
