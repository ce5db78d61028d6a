// SPDX-License-Identifier: Apache-2.0
//! Steps done by external tools: each sees a scratch directory with just what it declares to read,
//! and its answer is kept in the store by the digest of that and of the tool, so that a change
//! reruns only what depends on it.

use crate::{Error, Result};
use lama_exec::fs::{self, AtPath};
use lama_exec::{Cmd, Tools};
use lama_tree::{Blob, Content, Kind, Node, Tree, TreePath, write_dir, write_tar};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Raised when a step does something else than before with the same inputs.
const FORMAT: u32 = 3;

/// Where a sandboxed tool sees its scratch directory: always the same, since tools write paths into
/// what they make (systemd-hwdb does).
const INSIDE: &str = "/tree";

/// A step.
pub struct ToolStep<'a> {
    /// Its name, for messages and the cache.
    pub name: &'a str,
    /// Subtrees it reads.
    pub reads: &'a [&'a str],
    /// Paths it may write; anything else it leaves behind is ignored.
    pub writes: &'a [&'a str],
    /// The command for a scratch directory, at the path where the tool sees it.
    pub command: &'a dyn Fn(&Tools, &Path) -> Cmd,
}

/// The files that a step makes, to be laid over the tree; see [`lay`].
pub type Answer = Vec<(TreePath, Node)>;

/// Runs a step, or takes its kept answer.
///
/// # Errors
/// The tool fails or writes nothing.
pub fn run(tree: &Tree, store: &Path, tools: &Tools, step: &ToolStep<'_>) -> Result<Answer> {
    let input = tree.subset(step.reads)?;
    // A tools tree of the same cache is named by the hash of its packages. Others, and the machine's
    // own tools, have no such identity, so what they make is not kept.
    let cache = store.parent();
    let tool = tools
        .root()
        .filter(|r| cache.is_some() && r.parent().and_then(Path::parent) == cache)
        .and_then(Path::file_name)
        .map(|n| n.to_string_lossy().into_owned());
    let key = tool.map(|t| key(&input, step, &t, store));
    let kept = key
        .as_ref()
        .map(|k| store.join("effects").join(format!("{}-{k}.tar", step.name)));
    if let Some(path) = kept
        .as_deref()
        .filter(|p| std::fs::symlink_metadata(p).is_ok())
    {
        return read(path);
    }
    let scratch = scratch(store, &input)?;
    let root = scratch
        .path()
        .canonicalize()
        .at("resolve", scratch.path())?;
    let mut input = input;
    input.add("lib", Node::symlink("usr/lib"))?;
    write_dir(&input, &root)?;
    match tools.root() {
        Some(_) => (step.command)(tools, Path::new(INSIDE))
            .bind_at(&root, INSIDE)
            .run()?,
        None => (step.command)(tools, &root).run()?,
    };
    let after = lama_tree::read_dir(&root)?;
    let mut out = Tree::new();
    for w in step.writes {
        for (p, n) in after.under(&TreePath::new(w)?) {
            if let Kind::File(c) = &n.kind {
                // The scratch directory goes away: the bytes are taken along.
                out.insert(p, Node::file(c.bytes(), 0o644))?;
            }
        }
    }
    if out.is_empty() {
        return Err(Error::Effect {
            origin: format!("step {}", step.name),
            what: "the tool has written nothing".to_owned(),
        });
    }
    match kept {
        Some(path) => {
            let mut staged = fs::Staged::new(&path)?;
            {
                let mut w = std::io::BufWriter::new(staged.file());
                write_tar(&out, &mut w, 0)
                    .and_then(|()| std::io::Write::flush(&mut w))
                    .at("write", &path)?;
            }
            staged.commit_synced(0o644)?;
            read(&path)
        }
        None => Ok(files(out.iter().map(|(p, n)| (p.clone(), n.clone())))),
    }
}

/// A directory for a tool to work in: in memory where there is room, since ext4 is slow to make
/// thousands of files where as many have just been removed.
fn scratch(store: &Path, input: &Tree) -> Result<fs::Scratch> {
    let memory = Path::new("/dev/shm");
    let content = |n: &Node| n.content().map_or(0, Content::len) as u64;
    let need: u64 = input.iter().map(|(_, n)| content(n) + 4096).sum();
    if fs::check_room(memory.join("x"), 2 * need).is_ok()
        && let Ok(s) = fs::Scratch::new_in(memory)
    {
        return Ok(s);
    }
    Ok(fs::Scratch::new_in(store.join("scratch"))?)
}

fn read(path: &Path) -> Result<Answer> {
    let mut all = Vec::new();
    lama_tree::read_tar(&Blob::map(path)?, |p, n| {
        all.push((p, n));
        Ok(())
    })?;
    Ok(files(all.into_iter()))
}

fn files(all: impl Iterator<Item = (TreePath, Node)>) -> Answer {
    all.filter(|(_, n)| !n.is_dir()).collect()
}

/// Lays a step's answer over the tree.
///
/// # Errors
/// The tree has something else than a directory in the way.
pub fn lay(tree: &mut Tree, answer: Answer) -> Result<()> {
    for (p, n) in answer {
        tree.insert(&p, n)?;
    }
    Ok(())
}

/// The digest of what a step depends on.
fn key(input: &Tree, step: &ToolStep<'_>, tool: &str, store: &Path) -> String {
    let mut h = Sha256::new();
    let mut field = |d: &[u8]| {
        h.update((d.len() as u64).to_le_bytes());
        h.update(d);
    };
    field(&FORMAT.to_le_bytes());
    field(step.name.as_bytes());
    field(tool.as_bytes());
    field(format!("{:?}", step.writes).as_bytes());
    field(digest(input, store).as_bytes());
    hex::encode(h.finalize())
}

/// A digest of a tree's names, modes and contents. Files of packages count by their place in the
/// store's archive, whose name is a digest, so that hundreds of megabytes need no hashing.
pub fn digest(input: &Tree, store: &Path) -> String {
    let mut h = Sha256::new();
    let mut field = |d: &[u8]| {
        h.update((d.len() as u64).to_le_bytes());
        h.update(d);
    };
    let named = [store.join("unpacked"), store.join("modules")];
    for (p, n) in input.iter() {
        field(p.as_str().as_bytes());
        field(&n.mode.to_le_bytes());
        match &n.kind {
            Kind::File(Content::Slice(b, at, len))
                if named.iter().any(|d| b.path().starts_with(d)) =>
            {
                field(
                    b.path()
                        .file_name()
                        .map_or(&[][..], std::os::unix::ffi::OsStrExt::as_bytes),
                );
                field(format!("{at} {len}").as_bytes());
            }
            Kind::File(c) => field(&Sha256::digest(c.bytes())),
            Kind::Symlink(t) => field(t.as_bytes()),
            other => field(other.describe().as_bytes()),
        }
    }
    hex::encode(h.finalize())
}

/// Indexes of the modules of one kernel (depmod(8)).
///
/// # Errors
/// depmod fails.
pub fn depmod(tree: &Tree, store: &Path, tools: &Tools, version: &str) -> Result<Answer> {
    let dir = format!("usr/lib/modules/{version}");
    let names = [
        "modules.alias",
        "modules.alias.bin",
        "modules.builtin.alias.bin",
        "modules.builtin.bin",
        "modules.dep",
        "modules.dep.bin",
        "modules.devname",
        "modules.softdep",
        "modules.symbols",
        "modules.symbols.bin",
        "modules.weakdep",
    ];
    let writes: Vec<String> = names.iter().map(|n| format!("{dir}/{n}")).collect();
    let writes: Vec<&str> = writes.iter().map(String::as_str).collect();
    let command = |t: &Tools, root: &Path| t.command("depmod").arg("-b").arg(root).arg(version);
    let step = ToolStep {
        name: "depmod",
        reads: &[&dir, "usr/lib/depmod.d", "etc/depmod.d"],
        writes: &writes,
        command: &command,
    };
    run(tree, store, tools, &step)
}

/// The hardware database, in /usr (systemd-hwdb(8)).
///
/// # Errors
/// systemd-hwdb fails.
pub fn hwdb(tree: &Tree, store: &Path, tools: &Tools) -> Result<Answer> {
    let command = |t: &Tools, root: &Path| {
        let root = format!("--root={}", root.display());
        t.command("systemd-hwdb")
            .arg("update")
            .arg("--usr")
            .arg("--strict")
            .arg(root)
    };
    let step = ToolStep {
        name: "hwdb",
        reads: &["usr/lib/udev/hwdb.d"],
        writes: &["usr/lib/udev/hwdb.bin"],
        command: &command,
    };
    run(tree, store, tools, &step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step<'a>(command: &'a dyn Fn(&Tools, &Path) -> Cmd) -> ToolStep<'a> {
        ToolStep {
            name: "t",
            reads: &["in"],
            writes: &["out"],
            command,
        }
    }

    #[test]
    fn a_tool_sees_what_is_declared_and_its_answer_is_laid_over() {
        let store = tempfile::tempdir().unwrap();
        let mut t = Tree::new();
        t.add("in/a", Node::file("A", 0o644)).unwrap();
        t.add("other", Node::file("B", 0o644)).unwrap();
        let place = std::cell::RefCell::new(std::path::PathBuf::new());
        let command = |t: &Tools, root: &Path| {
            place.replace(root.to_owned());
            t.command("sh")
                .arg("-c")
                .arg("ls > out; echo x > more; cat in/a >> out")
                .cwd(root)
        };
        let answer = run(&t, store.path(), &Tools::host(), &step(&command)).unwrap();
        lay(&mut t, answer).unwrap();
        assert_eq!(t.read("out").unwrap(), b"in\nlib\nout\nA");
        assert!(t.lookup("more").is_none());
        assert!(place.borrow().is_absolute() && !place.borrow().exists());
    }

    #[test]
    fn the_key_follows_the_declared_input_alone() {
        let command = |t: &Tools, _: &Path| t.command("x");
        let s = step(&command);
        let of = |content: &str, tool: &str| {
            let mut t = Tree::new();
            t.add("in/a", Node::file(content, 0o644)).unwrap();
            t.add("other", Node::file(format!("{content}!"), 0o644))
                .unwrap();
            key(&t.subset(s.reads).unwrap(), &s, tool, Path::new("/s"))
        };
        assert_eq!(of("1", "x"), of("1", "x"));
        assert_ne!(of("1", "x"), of("2", "x"));
        assert_ne!(of("1", "x"), of("1", "y"));
    }

    #[test]
    fn a_tool_that_writes_nothing_is_an_error() {
        let store = tempfile::tempdir().unwrap();
        let mut t = Tree::new();
        t.add("in/a", Node::file("A", 0o644)).unwrap();
        let command = |t: &Tools, _: &Path| t.command("true");
        let e = run(&t, store.path(), &Tools::host(), &step(&command)).unwrap_err();
        assert!(e.to_string().contains("written nothing"), "{e}");
    }
}
