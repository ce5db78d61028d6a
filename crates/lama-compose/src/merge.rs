// SPDX-License-Identifier: Apache-2.0
//! All packages' files as one tree: merged /usr, path filters, diversions, conflicts.

use crate::glob::Excludes;
use crate::unpack::Unpacked;
use crate::{Error, PackageInput, Result};
use lama_model::scripts::Scripts;
use lama_tree::{Kind, Node, Tree, TreePath};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Lays the packages over one another, in the order of their names with base-files (which brings
/// the merged /usr) first, whatever order they were given in.
///
/// # Errors
/// A file in two packages, different in content, of which neither declares that it replaces the
/// other.
pub fn merge(
    packages: &[PackageInput],
    unpacked: &[Unpacked],
    scripts: &Scripts,
    excludes: &Excludes,
    drop: &BTreeMap<String, String>,
) -> Result<Tree> {
    let mut all: Vec<(&PackageInput, &Unpacked)> = packages
        .iter()
        .zip(unpacked)
        .filter(|(p, _)| !drop.contains_key(&p.name))
        .collect();
    all.sort_by_key(|(p, _)| (p.name != "base-files", &p.name, &p.arch));
    let diversions = diversions(&all, scripts)?;
    let mut tree = Tree::new();
    for dir in ["bin", "sbin", "lib", "lib64"] {
        tree.add(&format!("usr/{dir}"), Node::dir(0o755))?;
        tree.add(dir, Node::symlink(format!("usr/{dir}")))?;
    }
    let mut owners: HashMap<TreePath, usize> = HashMap::new();
    let mut dirs: BTreeSet<TreePath> = BTreeSet::new();
    for (i, (p, u)) in all.iter().enumerate() {
        for (path, node) in &u.members {
            let path = merged_usr(path)?;
            if path.is_root() || excludes.excluded(path.as_str()) {
                continue;
            }
            let path = match diversions.get(&path) {
                Some((by, to)) if *by != p.name => to.clone(),
                _ => path,
            };
            if node.is_dir() {
                // The first package to ship a directory has the say over its owner and mode.
                if !dirs.contains(&path) && !is_link(&tree, &path) {
                    let place = tree.insert(&path, node.clone())?;
                    dirs.insert(place);
                }
                continue;
            }
            if path.parent().is_some_and(|d| d.is_root()) && is_link(&tree, &path) {
                // base-files ships the links of the merged /usr, which are there already.
                continue;
            }
            let first = tree_place(&tree, &path)?;
            match owners.get(&first).and_then(|o| all.get(*o)) {
                None => {}
                Some(_) if tree.get(&first) == Some(node) => continue,
                Some((other, ou)) => {
                    if replaces(u, p, other) {
                    } else if replaces(ou, other, p) {
                        continue;
                    } else {
                        return Err(Error::Conflict {
                            path,
                            first: other.name.clone(),
                            second: p.name.clone(),
                        });
                    }
                }
            }
            owners.insert(tree.insert(&path, node.clone())?, i);
        }
    }
    Ok(tree)
}

/// `/lib/x` as shipped by packages from before the merge is `/usr/lib/x`.
fn merged_usr(path: &TreePath) -> Result<TreePath> {
    let text = path.as_str();
    let first = text.split('/').next().unwrap_or("");
    let aliased = matches!(first, "bin" | "sbin" | "lib" | "lib64") && first.len() < text.len();
    Ok(if aliased {
        TreePath::new(&format!("usr/{text}"))?
    } else {
        path.clone()
    })
}

fn is_link(tree: &Tree, path: &TreePath) -> bool {
    tree.get(path)
        .is_some_and(|n| matches!(n.kind, Kind::Symlink(_)))
}

fn tree_place(tree: &Tree, path: &TreePath) -> Result<TreePath> {
    Ok(match path.parent() {
        Some(d) => tree.resolve(&d)?.join(path.file_name())?,
        None => TreePath::ROOT,
    })
}

/// Whether package `p` declares that it may overwrite files of `other` (Policy 7.6.1).
fn replaces(u: &Unpacked, p: &PackageInput, other: &PackageInput) -> bool {
    // Two architectures of one package share what is equal, and only that.
    p.name != other.name
        && u.control.field("Replaces").is_some_and(|r| {
            r.split(',')
                .filter_map(|d| d.split_whitespace().next())
                .any(|d| d.split(':').next() == Some(other.name.as_str()))
        })
}

type Diversions = BTreeMap<TreePath, (String, TreePath)>;

fn diversions(all: &[(&PackageInput, &Unpacked)], scripts: &Scripts) -> Result<Diversions> {
    let mut out = BTreeMap::new();
    for (p, _) in all {
        if let Some((record, _)) = scripts.package(&p.name) {
            for d in &record.diversions {
                out.insert(
                    TreePath::new(&d.from)?,
                    (p.name.clone(), TreePath::new(&d.to)?),
                );
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::Control;
    use lama_model::scripts::{FromTo, Package};

    fn package(
        name: &str,
        fields: &[(&str, &str)],
        files: &[(&str, &str)],
    ) -> (PackageInput, Unpacked) {
        let input = PackageInput {
            name: name.into(),
            version: "1".into(),
            arch: "amd64".into(),
            ..PackageInput::default()
        };
        let fields = fields
            .iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect();
        let members = files
            .iter()
            .map(|(p, t)| (TreePath::new(p).unwrap(), Node::file(*t, 0o644)))
            .collect();
        (
            input,
            Unpacked {
                control: Control::new(fields, &BTreeMap::new()),
                members,
            },
        )
    }

    fn run(all: Vec<(PackageInput, Unpacked)>, scripts: &Scripts) -> Result<Tree> {
        let (p, u): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        merge(
            &p,
            &u,
            scripts,
            &Excludes::new(["usr/share/man/*"]),
            &BTreeMap::new(),
        )
    }

    #[test]
    fn usr_is_merged_and_filters_apply() {
        let t = run(
            vec![package(
                "a",
                &[],
                &[("lib/x", "1"), ("bin/y", "2"), ("usr/share/man/z", "3")],
            )],
            &Scripts::default(),
        )
        .unwrap();
        assert_eq!(t.read("usr/lib/x").unwrap(), b"1");
        assert_eq!(t.read("bin/y").unwrap(), b"2");
        assert!(t.lookup("usr/share/man").is_none());
    }

    #[test]
    fn conflicts_need_a_declaration() {
        let none = Scripts::default();
        let a = || package("a", &[], &[("usr/bin/x", "a")]);
        let e = run(vec![a(), package("b", &[], &[("bin/x", "b")])], &none).unwrap_err();
        assert_eq!(e.to_string(), "a and b both ship /usr/bin/x");
        run(vec![a(), package("b", &[], &[("bin/x", "a")])], &none).unwrap();
        for order in [false, true] {
            let mut all = vec![
                a(),
                package("b", &[("Replaces", "z, a (<< 2)")], &[("usr/bin/x", "b")]),
            ];
            if order {
                all.reverse();
            }
            assert_eq!(run(all, &none).unwrap().read("usr/bin/x").unwrap(), b"b");
        }
    }

    #[test]
    fn a_diversion_moves_the_others_file() {
        let mut s = Scripts::default();
        let d = FromTo {
            from: "usr/bin/x".into(),
            to: "usr/bin/x.real".into(),
        };
        s.packages.insert(
            "b".into(),
            Package {
                diversions: vec![d],
                ..Package::default()
            },
        );
        let all = vec![
            package("a", &[], &[("bin/x", "a")]),
            package("b", &[], &[("usr/bin/x", "b")]),
        ];
        let t = run(all, &s).unwrap();
        assert_eq!(t.read("usr/bin/x").unwrap(), b"b");
        assert_eq!(t.read("usr/bin/x.real").unwrap(), b"a");
    }
}
