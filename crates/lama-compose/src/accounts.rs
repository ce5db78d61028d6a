// SPDX-License-Identifier: Apache-2.0
//! passwd, group, shadow and gshadow: base-passwd's masters and sysusers.d(5), with pinned numbers.
//!
//! The numbers are also written into the sysusers.d files themselves, so that systemd-sysusers, when
//! it adds an account to a kept /etc after an update, gives the same number.

use crate::error::syntax;
use crate::{Error, Result};
use lama_model::ids::Ids;
use lama_tree::{Node, Tree, TreePath};
use std::collections::{BTreeMap, BTreeSet};

/// GID of group shadow, static in Debian.
const SHADOW: u32 = 42;
/// Password field of an account nobody can log in to by password, as systemd-sysusers writes it.
const LOCKED: &str = "!*";

#[derive(Debug, Clone)]
struct User {
    uid: u32,
    gid: u32,
    gecos: String,
    home: String,
    shell: String,
    expired: bool,
}

/// The accounts of a system.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: BTreeMap<String, User>,
    groups: BTreeMap<String, (u32, BTreeSet<String>)>,
}

impl Accounts {
    /// The number of a user.
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.users.get(name).map(|u| u.uid)
    }
    /// The number of a group.
    pub fn gid(&self, name: &str) -> Option<u32> {
        self.groups.get(name).map(|g| g.0)
    }

    /// Collects all accounts of the tree and writes the pinned numbers into its sysusers.d files.
    ///
    /// # Errors
    /// An account that is not pinned, or pinned to another number than the tree insists on; a line
    /// that cannot be understood.
    pub fn collect(tree: &mut Tree, ids: &Ids) -> Result<Self> {
        let mut out = Self::default();
        out.masters(tree, ids)?;
        for path in crate::dropins::files(tree, "sysusers.d", "conf") {
            let text = String::from_utf8_lossy(tree.read(path.as_str())?).into_owned();
            let new = out.sysusers(path.as_str(), &text, ids)?;
            if new != text
                && let Some(n) = tree.get(&path)
            {
                let node = Node {
                    kind: lama_tree::Kind::File(new.into()),
                    ..n.clone()
                };
                tree.insert(&path, node)?;
            }
        }
        Ok(out)
    }

    fn masters(&mut self, tree: &Tree, ids: &Ids) -> Result<()> {
        const GROUP: &str = "usr/share/base-passwd/group.master";
        const PASSWD: &str = "usr/share/base-passwd/passwd.master";
        let lines = |path: &str| -> Vec<String> {
            let data = tree.read(path).unwrap_or(b"");
            String::from_utf8_lossy(data)
                .lines()
                .map(str::to_owned)
                .collect()
        };
        for (i, l) in lines(GROUP).iter().enumerate() {
            let f: Vec<&str> = l.split(':').collect();
            let [name, _, gid, members] = f.as_slice() else {
                return Err(syntax(GROUP, i + 1, "not four fields"));
            };
            let gid = number(gid, GROUP, i + 1)?;
            pinned("group", name, GROUP, Some(gid), ids)?;
            let members = members
                .split(',')
                .filter(|m| !m.is_empty())
                .map(str::to_owned)
                .collect();
            self.groups.insert((*name).to_owned(), (gid, members));
        }
        for (i, l) in lines(PASSWD).iter().enumerate() {
            let f: Vec<&str> = l.split(':').collect();
            let [name, _, uid, gid, gecos, home, shell] = f.as_slice() else {
                return Err(syntax(PASSWD, i + 1, "not seven fields"));
            };
            let uid = number(uid, PASSWD, i + 1)?;
            pinned("user", name, PASSWD, Some(uid), ids)?;
            let user = User {
                uid,
                gid: number(gid, PASSWD, i + 1)?,
                gecos: (*gecos).to_owned(),
                home: (*home).to_owned(),
                shell: (*shell).to_owned(),
                expired: false,
            };
            self.users.insert((*name).to_owned(), user);
        }
        Ok(())
    }

    /// Takes one sysusers.d file in; the answer is its text with numbers filled in.
    fn sysusers(&mut self, path: &str, text: &str, ids: &Ids) -> Result<String> {
        let mut out = String::with_capacity(text.len());
        for (i, line) in text.lines().enumerate() {
            let words = words(line).ok_or_else(|| syntax(path, i + 1, "unbalanced quotes"))?;
            let mut new = None;
            if words.first().is_some_and(|w| !w.starts_with('#')) {
                new = self.line(path, i + 1, &words, ids)?;
            }
            out.push_str(new.as_deref().unwrap_or(line));
            out.push('\n');
        }
        Ok(out)
    }

    /// One line; the answer is the line with its number, where that changes it.
    fn line(&mut self, path: &str, n: usize, w: &[String], ids: &Ids) -> Result<Option<String>> {
        let get = |i: usize| {
            w.get(i)
                .map(String::as_str)
                .filter(|s| !s.is_empty() && *s != "-")
        };
        let kind = get(0).unwrap_or("");
        let name = get(1).ok_or_else(|| syntax(path, n, "a line without a name"))?;
        if w.iter().any(|x| x.contains('%')) {
            return Err(syntax(path, n, "specifiers (%) are not supported here"));
        }
        match kind {
            "g" => {
                let asked = get(2).map(|v| number(v, path, n)).transpose()?;
                let gid = pinned("group", name, path, asked, ids)?;
                self.groups
                    .entry(name.to_owned())
                    .or_insert((gid, BTreeSet::new()));
                Ok(asked.is_none().then(|| format!("g {name} {gid}")))
            }
            "u" | "u!" => {
                let (user, group) = match get(2).and_then(|v| v.split_once(':')) {
                    Some((u, g)) => (Some(u).filter(|u| *u != "-"), Some(g)),
                    None => (get(2), None),
                };
                let asked = user.map(|v| number(v, path, n)).transpose()?;
                if asked.is_some() && self.users.contains_key(name) {
                    return Ok(None);
                }
                let uid = pinned("user", name, path, asked, ids)?;
                let gid = match group {
                    Some(g) => match g.parse() {
                        Ok(g) => g,
                        Err(_) => self
                            .gid(g)
                            .or_else(|| ids.groups.get(g).copied())
                            .ok_or_else(|| syntax(path, n, format!("there is no group {g}")))?,
                    },
                    None => {
                        let gid = pinned("group", name, path, asked, ids)?;
                        self.groups
                            .entry(name.to_owned())
                            .or_insert((gid, BTreeSet::new()))
                            .0
                    }
                };
                let shell = if uid == 0 {
                    "/bin/bash"
                } else {
                    "/usr/sbin/nologin"
                };
                let user = User {
                    uid,
                    gid,
                    gecos: get(3).unwrap_or("").to_owned(),
                    home: get(4).unwrap_or("/").to_owned(),
                    shell: get(5).unwrap_or(shell).to_owned(),
                    expired: kind == "u!",
                };
                // What comes first counts, but every line gets its number.
                self.users.entry(name.to_owned()).or_insert(user);
                if asked.is_some() {
                    return Ok(None);
                }
                let id = match group {
                    Some(g) => format!("{uid}:{g}"),
                    None if uid == gid => uid.to_string(),
                    None => format!("{uid}:{gid}"),
                };
                let mut line = format!("{kind} {name} {id}");
                let rest: Vec<String> = w.iter().skip(3).map(|x| quote(x)).collect();
                if !rest.is_empty() {
                    line += &format!(" {}", rest.join(" "));
                }
                Ok(Some(line))
            }
            "m" => {
                let group = get(2).ok_or_else(|| syntax(path, n, "a member of which group?"))?;
                for (kind, name) in [("u", name), ("g", group)] {
                    let known = match kind {
                        "u" => self.users.contains_key(name),
                        _ => self.groups.contains_key(name),
                    };
                    if !known {
                        self.line(path, n, &[kind.to_owned(), name.to_owned()], ids)?;
                    }
                }
                if let Some(g) = self.groups.get_mut(group) {
                    g.1.insert(name.to_owned());
                }
                Ok(None)
            }
            "r" => Ok(None),
            other => Err(syntax(path, n, format!("unknown type {other:?}"))),
        }
    }

    /// Writes the six files into the tree's /etc. `epoch` (seconds since 1970) dates the passwords.
    ///
    /// # Errors
    /// /etc is no directory.
    pub fn write(&self, tree: &mut Tree, epoch: u64) -> Result<()> {
        let day = epoch / 86400;
        let mut users: Vec<(&String, &User)> = self.users.iter().collect();
        users.sort_by_key(|(n, u)| (u.uid, *n));
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(n, (gid, _))| (*gid, *n));
        let (mut passwd, mut shadow) = (String::new(), String::new());
        for (n, u) in users {
            passwd += &format!(
                "{n}:x:{}:{}:{}:{}:{}\n",
                u.uid, u.gid, u.gecos, u.home, u.shell
            );
            let expire = if u.expired && u.uid != 0 { "1" } else { "" };
            shadow += &format!("{n}:{LOCKED}:{day}:::::{expire}:\n");
        }
        let (mut group, mut gshadow) = (String::new(), String::new());
        for (n, (gid, members)) in groups {
            let m = members
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(",");
            group += &format!("{n}:x:{gid}:{m}\n");
            gshadow += &format!("{n}:{LOCKED}::{m}\n");
        }
        tree.add("etc/passwd", Node::file(passwd, 0o644))?;
        tree.add("etc/group", Node::file(group, 0o644))?;
        tree.add("etc/shadow", Node::file(shadow, 0o640).owned(0, SHADOW))?;
        tree.add("etc/gshadow", Node::file(gshadow, 0o640).owned(0, SHADOW))?;
        for f in ["etc/subuid", "etc/subgid"] {
            if tree.lookup(f).is_none() {
                tree.add(f, Node::file("", 0o644))?;
            }
        }
        Ok(())
    }

    /// Checks that every owner in the tree is an account.
    ///
    /// # Errors
    /// A number that is nobody's.
    pub fn check_owners(&self, tree: &Tree) -> Result<()> {
        let uids: BTreeSet<u32> = self.users.values().map(|u| u.uid).collect();
        let gids: BTreeSet<u32> = self.groups.values().map(|g| g.0).collect();
        let odd = |p: &TreePath, what: &str, id: u32| Error::Effect {
            origin: p.to_string(),
            what: format!("it belongs to {what} {id}, which no account has"),
        };
        for (p, n) in tree.iter() {
            if n.uid != 0 && !uids.contains(&n.uid) {
                return Err(odd(p, "user", n.uid));
            }
            if n.gid != 0 && !gids.contains(&n.gid) {
                return Err(odd(p, "group", n.gid));
            }
        }
        Ok(())
    }
}

fn number(text: &str, path: &str, line: usize) -> Result<u32> {
    text.parse()
        .map_err(|_| syntax(path, line, format!("{text:?} is no number")))
}

fn pinned(
    what: &'static str,
    name: &str,
    origin: &str,
    asked: Option<u32>,
    ids: &Ids,
) -> Result<u32> {
    let table = if what == "user" {
        &ids.users
    } else {
        &ids.groups
    };
    match (table.get(name), asked) {
        (None, _) => Err(Error::NotPinned {
            what,
            name: name.to_owned(),
            origin: origin.to_owned(),
            next: asked.unwrap_or_else(|| ids.next_free()),
        }),
        (Some(p), Some(a)) if *p != a => Err(Error::PinDiffers {
            what,
            name: name.to_owned(),
            origin: origin.to_owned(),
            asked: a,
            pinned: *p,
        }),
        (Some(p), _) => Ok(*p),
    }
}

/// The words of a line, quotes taken off; none where a quote is not closed.
pub(crate) fn words(line: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (q, '\\') if q != Some('\'') => word.get_or_insert_default().extend(chars.next()),
            (None, _) if c.is_whitespace() => out.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    quote.is_none().then_some(out)
}

fn quote(word: &str) -> String {
    let plain =
        !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "\"'\\".contains(c));
    if plain {
        word.to_owned()
    } else {
        format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids() -> Ids {
        let t = |v: &[(&str, u32)]| v.iter().map(|(n, i)| ((*n).to_owned(), *i)).collect();
        Ids {
            users: t(&[("root", 0), ("dbus", 200), ("tss", 201)]),
            groups: t(&[
                ("root", 0),
                ("shadow", 42),
                ("dbus", 200),
                ("tss", 205),
                ("tty", 5),
            ]),
        }
    }

    fn tree(conf: &str) -> Tree {
        let mut t = Tree::new();
        let f = |x: &str| Node::file(x, 0o644);
        t.add(
            "usr/share/base-passwd/passwd.master",
            f("root:*:0:0:root:/root:/bin/bash\n"),
        )
        .unwrap();
        t.add(
            "usr/share/base-passwd/group.master",
            f("root:*:0:\nshadow:*:42:\n"),
        )
        .unwrap();
        t.add("usr/lib/sysusers.d/x.conf", f(conf)).unwrap();
        t
    }

    #[test]
    fn accounts_and_their_files() {
        let mut t =
            tree("# c\nu! dbus - \"A bus\"\nu tss - 'x y' /var/lib/tpm\ng tty 5\nm dbus tty\n");
        let a = Accounts::collect(&mut t, &ids()).unwrap();
        a.write(&mut t, 86400 * 10).unwrap();
        let text = |p: &str| String::from_utf8(t.read(p).unwrap().to_vec()).unwrap();
        assert_eq!(
            text("etc/passwd"),
            "root:x:0:0:root:/root:/bin/bash\ndbus:x:200:200:A bus:/:/usr/sbin/nologin\n\
             tss:x:201:205:x y:/var/lib/tpm:/usr/sbin/nologin\n"
        );
        assert!(text("etc/shadow").contains("root:!*:10::::::\ndbus:!*:10:::::1:\n"));
        assert!(text("etc/group").contains("tty:x:5:dbus\n"));
        assert_eq!(
            text("usr/lib/sysusers.d/x.conf"),
            "# c\nu! dbus 200 \"A bus\"\nu tss 201:205 \"x y\" /var/lib/tpm\ng tty 5\nm dbus tty\n"
        );
        let shadow = t.lookup("etc/shadow").unwrap();
        assert_eq!((shadow.mode, shadow.gid), (0o640, 42));
        // What was written reads back as the same.
        let again = Accounts::collect(&mut t, &ids()).unwrap();
        assert_eq!(again.uid("tss"), Some(201));
    }

    #[test]
    fn every_account_has_a_number() {
        let e = Accounts::collect(&mut tree("u new -\n"), &ids()).unwrap_err();
        assert!(
            matches!(&e, Error::NotPinned { name, next: 202, .. } if name == "new"),
            "{e}"
        );
        let e = Accounts::collect(&mut tree("u dbus 300\n"), &ids()).unwrap_err();
        assert!(
            matches!(
                e,
                Error::PinDiffers {
                    asked: 300,
                    pinned: 200,
                    ..
                }
            ),
            "{e}"
        );
        let e = Accounts::collect(&mut tree("x\ny dbus\n"), &ids()).unwrap_err();
        assert!(e.to_string().contains("x.conf:1"), "{e}");
    }

    #[test]
    fn owners_are_accounts() {
        let mut t = tree("");
        let a = Accounts::collect(&mut t, &ids()).unwrap();
        a.check_owners(&t).unwrap();
        t.add("x", Node::file("", 0o644).owned(0, 77)).unwrap();
        assert!(
            a.check_owners(&t)
                .unwrap_err()
                .to_string()
                .contains("group 77")
        );
    }

    proptest! {
        #[test]
        fn words_never_panic_and_quoting_round_trips(v in proptest::collection::vec("[a-z \"'\\\\]{0,6}", 0..5)) {
            let line = v.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(words(&line), Some(v.clone()));
            let _ = words(&v.concat());
        }
    }
}
