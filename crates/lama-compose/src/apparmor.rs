// SPDX-License-Identifier: Apache-2.0
//! AppArmor's profiles: only those of programs that are there, each with the stub that dh_apparmor
//! makes for local additions.
//!
//! Debian's package has a hundred profiles of desktop programs. Each is compiled at the first boot,
//! and at every boot of a live medium: a minute of an emulated processor.

use crate::Result;
use crate::glob::matches;
use lama_tree::{Node, Tree, TreePath};

const DIR: &str = "etc/apparmor.d";

/// Removes profiles whose programs are not in the tree and makes the stubs of the others.
///
/// # Errors
/// The tree is at fault.
pub fn apply(tree: &mut Tree) -> Result<()> {
    let dir = TreePath::new(DIR)?;
    let mut gone = Vec::new();
    let mut stubs = Vec::new();
    for (p, n) in tree.children(&dir) {
        let Some(c) = n.content() else { continue };
        let attachments = attachments(&String::from_utf8_lossy(c.bytes()));
        let used = attachments.is_empty()
            || attachments.iter().any(|a| match a {
                None => true,
                Some(pattern) => expand(pattern).iter().any(|e| exists(tree, e)),
            });
        if used {
            stubs.push(format!("{DIR}/local/{}", p.file_name()));
        } else {
            gone.push(p.clone());
        }
    }
    for p in gone {
        tree.remove(&p);
    }
    for s in stubs {
        if tree.lookup(&s).is_none() {
            tree.add(&s, Node::file("", 0o644))?;
        }
    }
    Ok(())
}

/// What the outermost profiles of a file attach to (apparmor.d(5)); none for one that has only a
/// name, which others refer to.
fn attachments(text: &str) -> Vec<Option<String>> {
    let mut out = Vec::new();
    for line in text.lines() {
        let head = line.trim_end();
        if !head.ends_with('{') || line.starts_with(char::is_whitespace) || line.starts_with('#') {
            continue;
        }
        let mut words = split(head);
        let named = words.first().is_some_and(|w| w == "profile");
        if named {
            words.drain(..1);
        }
        let is_path = |w: &&String| w.starts_with('/') || w.starts_with("@{");
        out.push(match words.first() {
            Some(w) if is_path(&w) => Some(w.clone()),
            Some(_) if named => words.get(1).filter(is_path).cloned(),
            _ => None,
        });
    }
    out
}

/// Words of a line; quotes hold blanks together.
fn split(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => out.push(String::new()),
            c => out.last_mut().into_iter().for_each(|w| w.push(c)),
        }
    }
    out.retain(|w| !w.is_empty());
    out
}

/// A pattern without its alternatives in braces; a variable may be anything.
fn expand(pattern: &str) -> Vec<String> {
    let mut todo = vec![variables(pattern)];
    let mut out = Vec::new();
    // Patterns come from packages: a bound keeps a silly one from growing without end.
    while let Some(p) = todo.pop().filter(|_| out.len() + todo.len() < 1000) {
        match innermost(&p) {
            Some((start, end)) => {
                let (head, rest) = p.split_at_checked(start).unwrap_or((&p, ""));
                let (body, tail) = rest.split_at_checked(end - start + 1).unwrap_or((rest, ""));
                let inner = body.trim_start_matches('{').trim_end_matches('}');
                todo.extend(inner.split(',').map(|a| format!("{head}{a}{tail}")));
            }
            None => out.push(p),
        }
    }
    out
}

fn variables(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("@{") {
        out.push_str(before);
        out.push('*');
        rest = after.split_once('}').map_or("", |(_, r)| r);
    }
    out + rest
}

/// The first closing brace and the opening one that belongs to it.
fn innermost(p: &str) -> Option<(usize, usize)> {
    let end = p.find('}')?;
    let start = p.get(..end)?.rfind('{')?;
    Some((start, end))
}

fn exists(tree: &Tree, pattern: &str) -> bool {
    let path = pattern.trim_start_matches('/');
    if path.contains(['*', '?', '[']) {
        return tree.iter().any(|(p, _)| matches(path, p.as_str()));
    }
    tree.follow(path).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn profiles_of_missing_programs_go_and_the_others_get_stubs() {
        let mut t = Tree::new();
        let mut profile = |name: &str, text: &str| {
            t.add(&format!("{DIR}/{name}"), Node::file(text, 0o644))
                .unwrap();
        };
        profile(
            "chrome",
            "abi <abi/4.0>,\nprofile chrome /opt/google/chrome/chrome flags=(unconfined) {\n}\n",
        );
        profile(
            "tcpdump",
            "profile tcpdump /usr/bin/tcpdump {\n  profile inner /x {\n  }\n}\n",
        );
        profile(
            "chkpwd",
            "profile unix-chkpwd /{,usr/}{,s}bin/unix_chkpwd {\n}\n",
        );
        profile("lsb", "profile lsb_release {\n}\n");
        profile("qt", "profile qt /usr/lib/@{multiarch}/qt{5,6}/x {\n}\n");
        profile("mongo", "profile \"Mongo X\" \"/usr/lib/Mongo X\" {\n}\n");
        t.add("usr/bin/tcpdump", Node::file("", 0o755)).unwrap();
        t.add("usr/sbin/unix_chkpwd", Node::file("", 0o755))
            .unwrap();
        t.add("usr/lib/x86_64-linux-gnu/qt6/x", Node::file("", 0o755))
            .unwrap();
        apply(&mut t).unwrap();
        let dir = TreePath::new(DIR).unwrap();
        let left: Vec<&str> = t.under(&dir).skip(1).map(|(p, _)| p.file_name()).collect();
        assert_eq!(
            left,
            [
                "chkpwd", "local", "chkpwd", "lsb", "qt", "tcpdump", "lsb", "qt", "tcpdump"
            ]
        );
    }

    #[test]
    fn braces_may_be_nested() {
        let mut e = expand("/{{usr/bin,etc}/a,b{,-x}}");
        e.sort();
        e.dedup();
        assert_eq!(e, ["/b", "/b-x", "/etc/a", "/usr/bin/a"]);
    }

    proptest! {
        #[test]
        fn never_panics(s in "[{}@,/a*\" ]{0,24}") {
            let _ = expand(&s);
            let _ = attachments(&format!("profile {s} {{"));
        }
    }
}
