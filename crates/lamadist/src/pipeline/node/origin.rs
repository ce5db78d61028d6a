// SPDX-License-Identifier: Apache-2.0
//! What the program on the node was made from, for the manifest: the crates that its compiler says it
//! compiled, which are fewer than the workspace's lock has for it.

use super::lockfile::Pinned;
use super::manifest::Manifests;
use super::source::CRATE;
use lama_compose::manifest::{Crate, Entry, Kind, Part};
use lama_model::Arch;
use miette::{IntoDiagnostic, Result, miette};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use toml::Value;

/// The name of the program.
const NAME: &str = "lama-node";

/// Where a program comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its version.
    version: String,
    /// SPDX expression of its licence.
    license: Option<String>,
    /// What was compiled for it.
    crates: Vec<Crate>,
}

/// What cargo says of one target that it has built
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>).
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    manifest_path: String,
    #[serde(default)]
    filenames: Vec<String>,
}

impl Origin {
    /// Of what cargo compiled, by its messages. `unpacked` has each crate's files, in a folder
    /// `NAME-VERSION`; what is part of the program lies below a folder `target`.
    ///
    /// # Errors
    /// A message is none of cargo's, or a crate's manifest cannot be read.
    pub fn of(
        messages: &[u8],
        pinned: &[Pinned],
        manifests: &Manifests,
        unpacked: &Path,
        target: &str,
    ) -> Result<Self> {
        let pinned: BTreeMap<String, &Pinned> = pinned.iter().map(|p| (p.to_string(), p)).collect();
        let inside = format!("/{target}/");
        let mut linked: BTreeSet<&str> = BTreeSet::new();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for line in messages.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let m: Message = serde_json::from_slice(line).into_diagnostic()?;
            let folder = Path::new(&m.manifest_path).parent();
            let folder = folder.and_then(|p| p.file_name()?.to_str());
            let Some((name, _)) = folder.and_then(|f| pinned.get_key_value(f)) else {
                continue;
            };
            seen.insert(name);
            if m.filenames.iter().any(|f| f.contains(&inside)) {
                linked.insert(name);
            }
        }
        let mut crates = Vec::new();
        for name in seen {
            let Some(p) = pinned.get(name) else { continue };
            let manifest = unpacked.join(name).join("Cargo.toml");
            let text = lama_exec::fs::read_to_string(&manifest)?;
            crates.push(Crate {
                name: p.name.clone(),
                version: p.version.clone(),
                sha256: p.checksum.clone(),
                license: field(&text, &[&["package", "license"]]),
                part: if linked.contains(name) {
                    Part::Linked
                } else {
                    Part::Build
                },
            });
        }
        let own = |name: &str| {
            field(&manifests.node, &[&["package", name]])
                .or_else(|| field(&manifests.workspace, &[&["workspace", "package", name]]))
        };
        Ok(Self {
            version: own("version").ok_or_else(|| {
                miette!(
                    help = "cargo wants one, too",
                    "{CRATE}/Cargo.toml has no version"
                )
            })?,
            license: own("license"),
            crates,
        })
    }

    /// The program's entry in the manifest.
    pub fn entry(&self, program: &[u8], arch: Arch) -> Entry {
        // Older crates write `MIT/Apache-2.0`, which cargo still takes for a choice of both.
        let spdx = |l: &String| l.replace('/', " OR ");
        let mut crates = self.crates.clone();
        for c in &mut crates {
            c.license = c.license.as_ref().map(spdx);
        }
        Entry {
            name: NAME.to_owned(),
            version: self.version.clone(),
            arch: arch.as_str().to_owned(),
            source: CRATE.to_owned(),
            sha256: hex::encode(Sha256::digest(program)),
            installed_size: Some(program.len().div_ceil(1024) as u64),
            kind: Kind::Program,
            license: self.license.clone(),
            crates,
        }
    }
}

/// The string at the first of these paths that has one.
fn field(text: &str, paths: &[&[&str]]) -> Option<String> {
    let all: Value = text.parse::<toml::Table>().ok()?.into();
    let at = |path: &&[&str]| {
        let value = path.iter().try_fold(&all, |v, key| v.get(key));
        value.and_then(Value::as_str).map(str::to_owned)
    };
    paths.iter().find_map(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lama_exec::fs;

    #[test]
    fn what_cargo_compiled_is_what_it_is_made_of() {
        let dir = tempfile::tempdir().unwrap();
        let pinned = |name: &str| {
            let folder = dir.path().join(format!("{name}-1.0.0"));
            fs::create_dir_all(&folder).unwrap();
            let manifest = format!("[package]\nname = \"{name}\"\nlicense = \"MIT/Apache-2.0\"\n");
            fs::write(folder.join("Cargo.toml"), manifest).unwrap();
            Pinned {
                name: name.into(),
                version: "1.0.0".into(),
                checksum: format!("sum of {name}"),
            }
        };
        let all = ["both", "derive", "linked", "unused"].map(pinned);
        let line = |folder: &str, file: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/build/vendor/{folder}/Cargo.toml","filenames":["{file}"]}}"#
            )
        };
        let messages = [
            line("both-1.0.0", "/build/target/node/libboth.rlib"),
            line("both-1.0.0", "/build/target/x-y-z/node/libboth.rlib"),
            line("derive-1.0.0", "/build/target/node/libderive.so"),
            line("linked-1.0.0", "/build/target/x-y-z/node/liblinked.rlib"),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            String::new(),
        ]
        .join("\n");
        let manifests = Manifests {
            workspace: "[workspace.package]\nversion = \"1.2.3\"\nlicense = \"Apache-2.0\"\n"
                .into(),
            node: "[package]\nname = \"lama-node\"\nversion.workspace = true\n".into(),
            dependencies: BTreeSet::new(),
            version: "1.2.3".into(),
        };
        let origin =
            |messages: &str| Origin::of(messages.as_bytes(), &all, &manifests, dir.path(), "x-y-z");
        let entry = origin(&messages).unwrap().entry(b"program", Arch::Amd64);
        assert_eq!(
            (&*entry.version, entry.license.as_deref(), &*entry.source),
            ("1.2.3", Some("Apache-2.0"), CRATE)
        );
        let found: Vec<_> = entry
            .crates
            .iter()
            .map(|c| (c.name.as_str(), c.part, c.license.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                ("both", Part::Linked, Some("MIT OR Apache-2.0")),
                ("derive", Part::Build, Some("MIT OR Apache-2.0")),
                ("linked", Part::Linked, Some("MIT OR Apache-2.0"))
            ]
        );
        assert_eq!(entry.crates[0].sha256, "sum of both");
        assert!(origin("no JSON").is_err());
    }
}
