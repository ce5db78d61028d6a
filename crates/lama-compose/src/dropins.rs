// SPDX-License-Identifier: Apache-2.0
//! Configuration in folders: `/etc/x.d` over `/usr/local/lib/x.d` over `/usr/lib/x.d`, by file name.

use lama_tree::{Kind, Tree, TreePath};
use std::collections::BTreeMap;

/// The files that count, sorted by name: of two of one name, that in /etc. A link to /dev/null
/// masks a name.
pub fn files(tree: &Tree, folder: &str, extension: &str) -> Vec<TreePath> {
    let mut by_name: BTreeMap<String, TreePath> = BTreeMap::new();
    for base in ["usr/lib", "etc"] {
        let Ok(dir) = TreePath::new(&format!("{base}/{folder}")) else {
            continue;
        };
        for (p, n) in tree.children(&dir) {
            let name = p.file_name().to_owned();
            if name.rsplit_once('.').is_none_or(|(_, e)| e != extension) {
                continue;
            }
            match &n.kind {
                Kind::Symlink(t) if t == "/dev/null" => {
                    by_name.remove(&name);
                }
                Kind::Symlink(_) => {
                    if let Some((target, _)) = tree.follow(p.as_str()) {
                        by_name.insert(name, target);
                    }
                }
                Kind::File(_) => {
                    by_name.insert(name, p.clone());
                }
                _ => {}
            }
        }
    }
    by_name.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lama_tree::Node;

    #[test]
    fn etc_wins_and_null_masks() {
        let mut t = Tree::new();
        for p in [
            "usr/lib/a.d/1.conf",
            "usr/lib/a.d/2.conf",
            "usr/lib/a.d/3.conf",
            "etc/a.d/2.conf",
        ] {
            t.add(p, Node::file("", 0o644)).unwrap();
        }
        t.add("usr/lib/a.d/README", Node::file("", 0o644)).unwrap();
        t.add("etc/a.d/3.conf", Node::symlink("/dev/null")).unwrap();
        let got: Vec<String> = files(&t, "a.d", "conf")
            .iter()
            .map(|p| p.to_string())
            .collect();
        assert_eq!(got, ["/usr/lib/a.d/1.conf", "/etc/a.d/2.conf"]);
    }
}
