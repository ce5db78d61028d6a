// SPDX-License-Identifier: Apache-2.0
//! The effects that reviewed scripts are replaced by, and the pure steps on the whole tree.

use crate::accounts::Accounts;
use crate::{Error, PackageInput, Result};
use lama_model::Arch;
use lama_model::files::{FileRules, ModeRule};
use lama_model::scripts::{Package, Scripts, Step};
use lama_tree::{Kind, Node, Tree, TreePath};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The records of packages that are there, by package name.
pub fn records<'a>(
    packages: &'a [PackageInput],
    scripts: &'a Scripts,
    drop: &BTreeMap<String, String>,
) -> BTreeMap<&'a str, &'a Package> {
    packages
        .iter()
        .filter(|p| !drop.contains_key(&p.name))
        .filter_map(|p| scripts.package(&p.name).map(|(r, _)| (p.name.as_str(), r)))
        .collect()
}

/// The steps that the records ask for.
pub fn steps(records: &BTreeMap<&str, &Package>) -> BTreeSet<Step> {
    records
        .values()
        .flat_map(|r| r.steps.iter().copied())
        .collect()
}

pub(crate) fn wrong(package: &str, what: impl Into<String>) -> Error {
    Error::Effect {
        origin: format!("distro/scripts, {package}"),
        what: what.into(),
    }
}

/// Files, directories, copies, alternatives, and lines of sysusers.d and tmpfiles.d.
///
/// # Errors
/// A file to copy or to link to is not there.
pub fn apply(tree: &mut Tree, records: &BTreeMap<&str, &Package>) -> Result<()> {
    for (name, r) in records {
        for d in &r.dirs {
            if tree.lookup(&d.path).is_none() {
                tree.add(&d.path, Node::dir(bits(d, name)?.unwrap_or(0o755)))?;
            }
        }
        for c in &r.copies {
            if tree.lookup(&c.to).is_some() {
                continue;
            }
            let (_, node) = tree
                .follow(&c.from)
                .ok_or_else(|| wrong(name, format!("{} is not there to be copied", c.from)))?;
            let node = node.clone();
            tree.add(&c.to, node)?;
        }
        for f in &r.files {
            if tree.lookup(&f.path).is_none() {
                let mode = u32::from_str_radix(&f.mode, 8)
                    .map_err(|_| wrong(name, format!("{:?} is no octal mode", f.mode)))?;
                tree.add(&f.path, Node::file(f.text.as_str(), mode))?;
            }
        }
        for (lines, dir) in [(&r.sysusers, "sysusers.d"), (&r.tmpfiles, "tmpfiles.d")] {
            if !lines.is_empty() {
                let text = format!("{}\n", lines.join("\n"));
                tree.add(
                    &format!("usr/lib/{dir}/{name}-lamadist.conf"),
                    Node::file(text, 0o644),
                )?;
            }
        }
    }
    alternatives(tree, records)
}

/// The best of each alternative as a relative link.
pub fn alternatives(tree: &mut Tree, records: &BTreeMap<&str, &Package>) -> Result<()> {
    let mut best: BTreeMap<&str, (i32, &str, &str)> = BTreeMap::new();
    for (name, r) in records {
        for a in &r.alternatives {
            let new = (a.priority, a.path.as_str(), *name);
            // Of equal priority, the first package by name.
            if best
                .get(a.link.as_str())
                .is_none_or(|old| old.0 < a.priority)
            {
                best.insert(&a.link, new);
            }
        }
    }
    for (link, (_, path, name)) in best {
        if tree.lookup(path).is_none() {
            return Err(wrong(
                name,
                format!("{path} is not there to be linked to from {link}"),
            ));
        }
        if tree
            .lookup(link)
            .is_none_or(|n| matches!(n.kind, Kind::Symlink(_)))
        {
            tree.add(link, Node::symlink(relative(link, path)))?;
        }
    }
    Ok(())
}

/// The way from the directory of `link` to `target`.
fn relative(link: &str, target: &str) -> String {
    let l: Vec<&str> = link.split('/').collect();
    let t: Vec<&str> = target.split('/').collect();
    let dirs = l.len().saturating_sub(1);
    let common = l
        .iter()
        .zip(&t)
        .take(dirs.min(t.len().saturating_sub(1)))
        .take_while(|(a, b)| a == b)
        .count();
    let mut out: Vec<&str> = vec![".."; dirs - common];
    out.extend(t.iter().skip(common));
    out.join("/")
}

fn bits(m: &ModeRule, origin: &str) -> Result<Option<u32>> {
    m.bits()
        .map_err(|t| wrong(origin, format!("{t:?} is no octal mode")))
}

/// Owners and modes of the records.
///
/// # Errors
/// A path that is not there, a name that is no account.
pub fn modes(
    tree: &mut Tree,
    records: &BTreeMap<&str, &Package>,
    accounts: &Accounts,
) -> Result<()> {
    for (name, r) in records {
        for m in r.modes.iter().chain(&r.dirs) {
            set_mode(tree, m, accounts, &format!("distro/scripts, {name}"))?;
        }
    }
    Ok(())
}

fn set_mode(tree: &mut Tree, m: &ModeRule, accounts: &Accounts, origin: &str) -> Result<()> {
    let fail = |what: String| Error::Effect {
        origin: origin.to_owned(),
        what,
    };
    let mode = m
        .bits()
        .map_err(|t| fail(format!("{t:?} is no octal mode")))?;
    let id = |name: &Option<String>, of: &dyn Fn(&str) -> Option<u32>| {
        name.as_deref()
            .map(|n| of(n).ok_or_else(|| fail(format!("{n:?} is no account"))))
            .transpose()
    };
    let uid = id(&m.user, &|n| accounts.uid(n))?;
    let gid = id(&m.group, &|n| accounts.gid(n))?;
    let (path, _) = tree
        .follow(&m.path)
        .ok_or_else(|| fail(format!("{} is not in the tree", m.path)))?;
    if let Some(n) = tree.get_mut(&path) {
        n.mode = mode.unwrap_or(n.mode);
        n.uid = uid.unwrap_or(n.uid);
        n.gid = gid.unwrap_or(n.gid);
    }
    Ok(())
}

/// Lays folders of `distro/files/` into the root, later ones over earlier ones. A symbolic link
/// takes the place of a directory in which there are only directories. Modes do not depend on the
/// builder's umask.
///
/// # Errors
/// A folder cannot be read; a file would take the place of a directory with files.
pub fn lay_in(tree: &mut Tree, folders: &[PathBuf]) -> Result<BTreeSet<TreePath>> {
    let mut laid = BTreeSet::new();
    for folder in folders {
        for (p, n) in lama_tree::read_dir(folder)?.iter().skip(1) {
            let mode = if n.is_dir() || n.mode & 0o100 != 0 {
                0o755
            } else {
                0o644
            };
            let mut node = Node {
                mode,
                uid: 0,
                gid: 0,
                ..n.clone()
            };
            match &n.kind {
                Kind::Symlink(_) => {
                    node.mode = 0o777;
                    let hollow = tree.get(p).is_some_and(Node::is_dir)
                        && tree.under(p).all(|(_, n)| n.is_dir());
                    if hollow {
                        tree.remove(p);
                    }
                }
                // A directory that is there keeps its owner and mode.
                Kind::Dir if tree.follow(p.as_str()).is_some_and(|(_, n)| n.is_dir()) => continue,
                _ => {}
            }
            laid.insert(tree.insert(p, node)?);
        }
    }
    Ok(laid)
}

/// Owners and modes of `distro/files.toml`, for paths that were laid in (a rule may name a path that
/// only another image has).
///
/// # Errors
/// A name that is no account.
pub fn file_modes(
    tree: &mut Tree,
    rules: &FileRules,
    laid: &BTreeSet<TreePath>,
    accounts: &Accounts,
) -> Result<()> {
    for m in &rules.modes {
        if laid.contains(&TreePath::new(&m.path)?) {
            set_mode(tree, m, accounts, "distro/files.toml")?;
        }
    }
    Ok(())
}

/// /etc/shells: debianutils' list and what packages register in shells.d, each also by its path
/// without the merged-/usr alias (update-shells(8)).
pub fn shells(tree: &mut Tree) -> Result<()> {
    let mut lines: Vec<String> = Vec::new();
    let head = tree
        .read("usr/share/debianutils/shells")
        .unwrap_or(b"# /etc/shells: valid login shells\n/bin/sh\n");
    lines.extend(String::from_utf8_lossy(head).lines().map(str::to_owned));
    let dir = TreePath::new("usr/share/debianutils/shells.d")?;
    let mut found: BTreeSet<String> = BTreeSet::new();
    for (_, n) in tree.children(&dir) {
        if let Some(c) = n.content() {
            for l in String::from_utf8_lossy(c.bytes()).lines() {
                let l = l.trim();
                if l.starts_with('/') {
                    found.insert(l.to_owned());
                }
            }
        }
    }
    for s in ["/usr/bin/sh".to_owned()].into_iter().chain(found) {
        let twin = match s.strip_prefix("/usr/bin/") {
            Some(n) => format!("/bin/{n}"),
            None => format!("/usr{s}"),
        };
        for s in [s, twin] {
            if !lines.contains(&s) {
                lines.push(s);
            }
        }
    }
    tree.add("etc/shells", Node::file(lines.join("\n") + "\n", 0o644))?;
    Ok(())
}

/// /etc/ssl/certs/ca-certificates.crt from all certificates that ca-certificates ships, by name, and
/// the file OpenSSL looks for. The folder of links by hash is left out: whoever asks OpenSSL's
/// defaults finds the bundle as cert.pem.
pub fn ca_certificates(tree: &mut Tree) -> Result<()> {
    let dir = TreePath::new("usr/share/ca-certificates")?;
    let mut bundle = Vec::new();
    for (p, n) in tree.under(&dir) {
        if let (Some(c), true) = (n.content(), p.as_str().ends_with(".crt")) {
            bundle.extend_from_slice(c.bytes());
            if !bundle.ends_with(b"\n") {
                bundle.push(b'\n');
            }
        }
    }
    if bundle.is_empty() {
        return Err(wrong(
            "ca-certificates",
            "there are no certificates in usr/share/ca-certificates",
        ));
    }
    tree.add(
        "etc/ssl/certs/ca-certificates.crt",
        Node::file(bundle, 0o644),
    )?;
    tree.add(
        "usr/lib/ssl/cert.pem",
        Node::symlink("/etc/ssl/certs/ca-certificates.crt"),
    )?;
    Ok(())
}

/// Images have no ld.so.cache: it would only repeat the loader's default directories, and it could
/// not be made for a foreign architecture. So no library may lie elsewhere.
///
/// # Errors
/// A file of /etc/ld.so.conf.d names a directory with libraries that is no default.
pub fn library_dirs(tree: &Tree, arch: Arch) -> Result<()> {
    let triplet = format!("usr/lib/{}", arch.multiarch());
    for (p, n) in tree.children(&TreePath::new("etc/ld.so.conf.d")?) {
        let Some(c) = n.content() else { continue };
        for l in String::from_utf8_lossy(c.bytes()).lines() {
            let l = l.split('#').next().unwrap_or("").trim();
            if !l.starts_with('/') {
                continue;
            }
            if let Some((dir, _)) = tree.follow(l.trim_start_matches('/'))
                && dir.as_str() != triplet
                && dir.as_str() != "usr/lib"
                && tree
                    .children(&dir)
                    .any(|(p, _)| p.file_name().contains(".so"))
            {
                return Err(Error::LibraryDir {
                    file: p.to_string(),
                    dir: l.to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// os-release(5) from its fields.
pub fn os_release(tree: &mut Tree, fields: &[(String, String)]) -> Result<()> {
    let mut text = String::new();
    for (k, v) in fields {
        let plain = !v.is_empty()
            && v.chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c));
        if plain {
            text += &format!("{k}={v}\n");
        } else {
            let v = v
                .replace(['\\'], "\\\\")
                .replace('"', "\\\"")
                .replace('$', "\\$")
                .replace('`', "\\`");
            text += &format!("{k}=\"{v}\"\n");
        }
    }
    tree.add("usr/lib/os-release", Node::file(text, 0o644))?;
    tree.add("etc/os-release", Node::symlink("../usr/lib/os-release"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lama_model::scripts::{Alternative, FromTo};

    #[test]
    fn the_best_alternative_becomes_a_link() {
        let mut t = Tree::new();
        for p in ["usr/bin/less", "usr/bin/more", "usr/share/x"] {
            t.add(p, Node::file(p, 0o755)).unwrap();
        }
        let alt = |path: &str, priority| Package {
            alternatives: vec![Alternative {
                link: "usr/bin/pager".into(),
                path: path.into(),
                priority,
            }],
            copies: vec![FromTo {
                from: "usr/share/x".into(),
                to: "etc/x".into(),
            }],
            ..Package::default()
        };
        let (a, b) = (alt("usr/bin/more", 50), alt("usr/bin/less", 77));
        apply(&mut t, &BTreeMap::from([("b", &b), ("a", &a)])).unwrap();
        assert_eq!(
            t.lookup("usr/bin/pager").unwrap().kind,
            Kind::Symlink("less".into())
        );
        assert_eq!(t.read("etc/x").unwrap(), b"usr/share/x");
        let c = alt("usr/bin/most", 99);
        let e = apply(&mut t, &BTreeMap::from([("c", &c)])).unwrap_err();
        assert!(e.to_string().contains("usr/bin/most is not there"), "{e}");
    }

    #[test]
    fn relative_links() {
        for (l, t, want) in [
            ("usr/bin/a", "usr/bin/b", "b"),
            ("usr/bin/a", "usr/lib/b", "../lib/b"),
            ("etc/a", "usr/lib/b", "../usr/lib/b"),
            ("a", "b/c", "b/c"),
        ] {
            assert_eq!(relative(l, t), want);
        }
    }

    #[test]
    fn os_release_is_quoted() {
        let mut t = Tree::new();
        let f = [
            ("ID".to_owned(), "lamadist".to_owned()),
            ("NAME".to_owned(), "a \"b\" $c".to_owned()),
        ];
        os_release(&mut t, &f).unwrap();
        assert_eq!(
            t.read("usr/lib/os-release").unwrap(),
            b"ID=lamadist\nNAME=\"a \\\"b\\\" \\$c\"\n"
        );
    }

    #[test]
    fn a_link_takes_a_hollow_directory_s_place_only() {
        let d = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("var/home", d.path().join("home")).unwrap();
        let mut t = Tree::new();
        t.add("home/x", Node::dir(0o755)).unwrap();
        lay_in(&mut t, &[d.path().to_owned()]).unwrap();
        assert_eq!(
            t.lookup("home").unwrap().kind,
            Kind::Symlink("var/home".into())
        );
        let mut t = Tree::new();
        t.add("home/x", Node::file("", 0o644)).unwrap();
        assert!(lay_in(&mut t, &[d.path().to_owned()]).is_err());
    }

    #[test]
    fn libraries_elsewhere_are_refused() {
        let mut t = Tree::new();
        t.add(
            "etc/ld.so.conf.d/x.conf",
            Node::file("# c\n/usr/lib/x86_64-linux-gnu\n/opt/x\n", 0o644),
        )
        .unwrap();
        t.add("usr/lib/x86_64-linux-gnu/a.so", Node::file("", 0o644))
            .unwrap();
        library_dirs(&t, Arch::Amd64).unwrap();
        t.add("opt/x/a.so", Node::file("", 0o644)).unwrap();
        assert!(library_dirs(&t, Arch::Amd64).is_err());
    }
}
