// SPDX-License-Identifier: Apache-2.0
//! The image's /var is empty: at run time it is a file system of its own (volatile, or the data
//! partition of an installed system). What packages ship there is made at boot by systemd-tmpfiles:
//! directories and links as lines, files as copies of /usr/share/factory/var.

use crate::Result;
use crate::accounts::words;
use crate::dropins;
use lama_tree::{Kind, Node, Tree, TreePath};
use std::collections::BTreeSet;

const CONF: &str = "usr/lib/tmpfiles.d/lamadist-var.conf";

/// Empties /var into tmpfiles.d lines and the factory. Paths that another tmpfiles.d file makes are
/// left to it.
///
/// # Errors
/// The tree is at fault.
pub fn empty(tree: &mut Tree) -> Result<()> {
    let var = TreePath::new("var")?;
    let made = made(tree);
    let mut lines =
        String::from("# What packages ship in /var; made when the image was composed.\n");
    let mut factory = Vec::new();
    for (p, n) in tree.under(&var).skip(1) {
        let owner = || format!("{:04o} {} {}", n.mode, n.uid, n.gid);
        let path = escape(&format!("/{}", p.as_str()));
        if made.contains(p.as_str()) {
            continue;
        }
        match &n.kind {
            Kind::Dir => lines += &format!("d {path} {} -\n", owner()),
            Kind::Symlink(t) => lines += &format!("L {path} - - - - {}\n", escape(t)),
            Kind::File(_) => {
                lines += &format!("C {path} {} -\n", owner());
                factory.push((format!("usr/share/factory/{}", p.as_str()), n.clone()));
            }
            Kind::Fifo => lines += &format!("p {path} {} -\n", owner()),
            Kind::CharDev(a, b) => lines += &format!("c {path} {} - {a}:{b}\n", owner()),
            Kind::BlockDev(a, b) => lines += &format!("b {path} {} - {a}:{b}\n", owner()),
        }
    }
    tree.remove(&var);
    tree.add("var", Node::dir(0o755))?;
    for (p, n) in factory {
        tree.add(&p, n)?;
    }
    tree.add(CONF, Node::file(lines, 0o644))?;
    Ok(())
}

/// Paths below /var that tmpfiles.d makes, without leading slash.
fn made(tree: &Tree) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for path in dropins::files(tree, "tmpfiles.d", "conf") {
        let text = String::from_utf8_lossy(tree.read(path.as_str()).unwrap_or(b"")).into_owned();
        for l in text.lines() {
            let w = words(l).unwrap_or_default();
            if let [kind, path, ..] = w.as_slice()
                && matches!(
                    kind.chars().next(),
                    Some('d' | 'D' | 'v' | 'q' | 'Q' | 'f' | 'F' | 'L' | 'C' | 'p')
                )
                && let Some(p) = path.strip_prefix('/')
                && p.starts_with("var/")
            {
                out.insert(p.trim_end_matches('/').to_owned());
            }
        }
    }
    out
}

/// A path for tmpfiles.d(5): `%` begins a specifier there, blanks part fields.
fn escape(path: &str) -> String {
    let p = path
        .replace('\\', "\\\\")
        .replace('%', "%%")
        .replace('"', "\\\"");
    if p.contains(char::is_whitespace) {
        format!("\"{p}\"")
    } else {
        p
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn var_becomes_lines_and_factory_files() {
        let mut t = Tree::new();
        t.add("var/lib/x", Node::dir(0o2770).owned(3, 4)).unwrap();
        t.add("var/lib/x/f", Node::file("1", 0o640)).unwrap();
        t.add("var/run", Node::symlink("/run")).unwrap();
        t.add("var/log", Node::dir(0o755)).unwrap();
        t.add(
            "usr/lib/tmpfiles.d/v.conf",
            Node::file("d /var/log 0755 - - -\nL /var/run - - - - ../run\n", 0o644),
        )
        .unwrap();
        empty(&mut t).unwrap();
        let text = String::from_utf8(t.read(CONF).unwrap().to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "d /var/lib 0755 0 0 -",
                "d /var/lib/x 2770 3 4 -",
                "C /var/lib/x/f 0640 0 0 -"
            ]
        );
        assert_eq!(t.read("usr/share/factory/var/lib/x/f").unwrap(), b"1");
        assert_eq!(t.children(&TreePath::new("var").unwrap()).count(), 0);
        assert_eq!(escape("/var/a b%"), "\"/var/a b%%\"");
    }
}
