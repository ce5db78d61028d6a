// SPDX-License-Identifier: Apache-2.0
//! Which units are enabled: presets (systemd.preset(5)) turned into the links that
//! `systemctl preset-all` would make.

use crate::dropins;
use crate::glob::matches;
use crate::{Error, Result};
use lama_tree::{Kind, Node, Tree, TreePath};
use std::collections::{BTreeMap, BTreeSet};

const UNITS: &str = "usr/lib/systemd/system";
const ETC: &str = "etc/systemd/system";

/// What a preset says of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Enable(Vec<String>),
    Disable,
}

#[derive(Debug, Default, Clone)]
struct Install {
    wanted_by: Vec<String>,
    required_by: Vec<String>,
    upheld_by: Vec<String>,
    alias: Vec<String>,
    also: Vec<String>,
    default_instance: Option<String>,
}

/// Makes the links of all units that the presets enable, those they name with `Also=` included.
/// Units in `must` have to exist.
///
/// # Errors
/// A unit in `must` that does not exist.
pub fn apply(tree: &mut Tree, must: &[String]) -> Result<()> {
    let units = units(tree);
    for u in must {
        let template = split_instance(u).map(|(template, _)| template);
        let file = template.as_ref().unwrap_or(u);
        if !units.contains_key(file) && !aliased(tree, u) {
            return Err(Error::Effect {
                origin: "enable".to_owned(),
                what: format!("there is no unit {u}"),
            });
        }
    }
    let rules = rules(tree)?;
    let mut todo: Vec<(String, Option<String>)> = Vec::new();
    for name in units.keys() {
        if let Action::Enable(instances) = query(&rules, name) {
            if instances.is_empty() {
                todo.push((name.clone(), None));
            }
            todo.extend(instances.into_iter().map(|i| (name.clone(), Some(i))));
        }
    }
    let mut done = BTreeSet::new();
    while let Some((name, instance)) = todo.pop() {
        if !done.insert((name.clone(), instance.clone())) {
            continue;
        }
        let Some(path) = units.get(&name) else {
            continue;
        };
        let install = install(&String::from_utf8_lossy(tree.read(path.as_str())?));
        enable(tree, &name, path, instance.as_deref(), &install)?;
        for also in &install.also {
            // An instance is enabled by its template's file.
            match split_instance(also) {
                Some((template, i)) => todo.push((template, Some(i))),
                None => todo.push((also.clone(), None)),
            }
        }
    }
    Ok(())
}

/// Unit files (no aliases, no masked ones) by name.
fn units(tree: &Tree) -> BTreeMap<String, TreePath> {
    let mut out = BTreeMap::new();
    for dir in [UNITS, ETC] {
        let Ok(dir) = TreePath::new(dir) else {
            continue;
        };
        for (p, n) in tree.children(&dir) {
            let name = p.file_name();
            let unit = matches!(
                name.rsplit_once('.').map(|(_, e)| e),
                Some(
                    "service"
                        | "socket"
                        | "timer"
                        | "target"
                        | "path"
                        | "mount"
                        | "automount"
                        | "swap"
                        | "slice"
                        | "scope"
                        | "device"
                )
            );
            match &n.kind {
                Kind::File(_) if unit => {
                    out.insert(name.to_owned(), p.clone());
                }
                Kind::Symlink(t) if unit && t == "/dev/null" => {
                    out.remove(name);
                }
                _ => {}
            }
        }
    }
    out
}

fn aliased(tree: &Tree, name: &str) -> bool {
    tree.follow(&format!("{UNITS}/{name}")).is_some()
}

/// `foo@bar.service` as `foo@.service` and `bar`; none for a template or plain unit.
pub fn split_instance(name: &str) -> Option<(String, String)> {
    let (stem, suffix) = name.rsplit_once('.')?;
    let (prefix, instance) = stem.split_once('@')?;
    (!instance.is_empty()).then(|| (format!("{prefix}@.{suffix}"), instance.to_owned()))
}

type Rules = Vec<(String, Action)>;

fn rules(tree: &Tree) -> Result<Rules> {
    let mut out = Vec::new();
    for path in dropins::files(tree, "systemd/system-preset", "preset") {
        for line in String::from_utf8_lossy(tree.read(path.as_str())?).lines() {
            let mut w = line.split_whitespace();
            match (w.next(), w.next()) {
                (Some("enable"), Some(p)) => {
                    out.push((p.to_owned(), Action::Enable(w.map(str::to_owned).collect())));
                }
                (Some("disable" | "ignore"), Some(p)) => out.push((p.to_owned(), Action::Disable)),
                _ => {}
            }
        }
    }
    Ok(out)
}

fn query(rules: &Rules, name: &str) -> Action {
    // systemd enables what no preset mentions; ours end in `disable *`.
    rules
        .iter()
        .find(|(p, _)| matches(p, name))
        .map_or_else(|| Action::Enable(Vec::new()), |(_, a)| a.clone())
}

fn install(text: &str) -> Install {
    let mut out = Install::default();
    let mut inside = false;
    for line in text.replace("\\\n", " ").lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == "[Install]";
        }
        if !inside {
            continue;
        }
        let Some((k, v)) = line.split_once('=') else {
            continue;
        };
        let list = || v.split_whitespace().map(str::to_owned);
        match k.trim() {
            "WantedBy" => out.wanted_by.extend(list()),
            "RequiredBy" => out.required_by.extend(list()),
            "UpheldBy" => out.upheld_by.extend(list()),
            "Alias" => out.alias.extend(list()),
            "Also" => out.also.extend(list()),
            "DefaultInstance" => out.default_instance = Some(v.trim().to_owned()),
            _ => {}
        }
    }
    out
}

fn enable(
    tree: &mut Tree,
    name: &str,
    path: &TreePath,
    instance: Option<&str>,
    install: &Install,
) -> Result<()> {
    let instance = instance.or(install.default_instance.as_deref());
    let target = format!("/{}", path.as_str());
    let full = match (name.split_once("@."), instance) {
        (Some((stem, suffix)), Some(i)) => format!("{stem}@{i}.{suffix}"),
        _ => name.to_owned(),
    };
    let is_template = full.contains("@.");
    let expand = |s: &str| s.replace("%i", instance.unwrap_or("")).replace("%%", "%");
    for (list, suffix) in [
        (&install.wanted_by, "wants"),
        (&install.required_by, "requires"),
        (&install.upheld_by, "upholds"),
    ] {
        for by in list {
            let by = expand(by);
            // A template without an instance can only be wanted by a template.
            if is_template && !by.contains('@') {
                continue;
            }
            tree.add(
                &format!("{ETC}/{by}.{suffix}/{full}"),
                Node::symlink(target.clone()),
            )?;
        }
    }
    for alias in &install.alias {
        let alias = expand(alias);
        if alias != name && alias != full {
            tree.add(&format!("{ETC}/{alias}"), Node::symlink(target.clone()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut t = Tree::new();
        let mut u = |n: &str, x: &str| {
            t.add(&format!("{UNITS}/{n}"), Node::file(x, 0o644))
                .unwrap()
        };
        u(
            "a.service",
            "[Unit]\nAlias=no.service\n[Install]\nWantedBy=multi-user.target x.target\nAlias=b.service\nAlso=c.socket\n",
        );
        u("c.socket", "[Install]\nRequiredBy=sockets.target\n");
        u("d.service", "[Install]\nWantedBy=multi-user.target\n");
        u(
            "getty@.service",
            "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n",
        );
        u("serial@.service", "[Install]\nWantedBy=getty.target\n");
        u("blk@.service", "[Install]\nWantedBy=dev-%i.device\n");
        u("m.service", "[Install]\nWantedBy=multi-user.target\n");
        t.add("etc/systemd/system/m.service", Node::symlink("/dev/null"))
            .unwrap();
        t
    }

    fn links(preset: &str, must: &[&str]) -> Result<Vec<String>> {
        let mut t = tree();
        t.add(
            "usr/lib/systemd/system-preset/00-x.preset",
            Node::file(preset, 0o644),
        )?;
        let must: Vec<String> = must.iter().map(|s| (*s).to_owned()).collect();
        apply(&mut t, &must)?;
        let etc = TreePath::new(ETC)?;
        Ok(t.under(&etc)
            .filter_map(|(p, n)| match &n.kind {
                Kind::Symlink(l) => Some(format!(
                    "{} {l}",
                    p.as_str().trim_start_matches("etc/systemd/system/")
                )),
                _ => None,
            })
            .filter(|l| !l.ends_with("/dev/null"))
            .collect())
    }

    #[test]
    fn what_preset_all_would_link() {
        assert_eq!(
            links("enable a.*\nenable m.service\ndisable *\n", &["a.service"]).unwrap(),
            [
                "b.service /usr/lib/systemd/system/a.service",
                "multi-user.target.wants/a.service /usr/lib/systemd/system/a.service",
                "sockets.target.requires/c.socket /usr/lib/systemd/system/c.socket",
                "x.target.wants/a.service /usr/lib/systemd/system/a.service",
            ]
        );
        assert_eq!(
            links("enable getty@.service\nenable serial@.service\nenable blk@.service sda\ndisable *\n", &[]).unwrap(),
            [
                "dev-sda.device.wants/blk@sda.service /usr/lib/systemd/system/blk@.service",
                "getty.target.wants/getty@tty1.service /usr/lib/systemd/system/getty@.service",
            ]
        );
        // The first rule that matches counts.
        assert!(
            links("disable *\nenable a.service\n", &[])
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_unit_that_is_to_be_enabled_exists() {
        assert!(links("disable *\n", &["getty@tty1.service"]).is_ok());
        let e = links("disable *\n", &["nope.service"]).unwrap_err();
        assert!(
            e.to_string().contains("there is no unit nope.service"),
            "{e}"
        );
    }
}
