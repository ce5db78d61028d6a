// SPDX-License-Identifier: Apache-2.0
//! The tree and its nodes.

use crate::{Content, TreePath};
use lama_exec::fs::FsError;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What can be wrong with a tree or an archive that becomes one.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// A path that could leave the tree.
    #[error("the path {0:?} has `..` or a NUL byte in it")]
    Path(String),
    /// A slice outside its file.
    #[error("{}: {len} bytes at {offset} lie outside the file of {total} bytes", path.display())]
    #[diagnostic(help("the file was truncated or replaced; remove it and build again"))]
    Range {
        /// The file.
        path: PathBuf,
        /// First byte of the range.
        offset: usize,
        /// Its length in bytes.
        len: usize,
        /// The file's length in bytes.
        total: usize,
    },
    /// Something stands where a directory has to be.
    #[error("{path} cannot be added: {ancestor} is {what}, not a directory")]
    NotADirectory {
        /// The path to be added.
        path: TreePath,
        /// What stands in the way.
        ancestor: TreePath,
        /// Its kind.
        what: &'static str,
    },
    /// A loop of symbolic links.
    #[error("too many symbolic links on the way to {0}")]
    Loop(TreePath),
    /// A path that has to be there is not.
    #[error("{0} is not in the tree")]
    Missing(TreePath),
    /// An archive that cannot be read.
    #[error("{name}: bad archive: {reason}")]
    #[diagnostic(help("the file is damaged; remove it and fetch it again"))]
    Archive {
        /// Which archive.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// Result of a tree operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File(Content),
    /// A symbolic link with its target.
    Symlink(String),
    /// A character device (major, minor).
    CharDev(u32, u32),
    /// A block device (major, minor).
    BlockDev(u32, u32),
    /// A named pipe.
    Fifo,
}

impl Kind {
    /// A word for messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Kind::Dir => "a directory",
            Kind::File(_) => "a file",
            Kind::Symlink(_) => "a symbolic link",
            Kind::CharDev(..) | Kind::BlockDev(..) => "a device",
            Kind::Fifo => "a pipe",
        }
    }
}

/// A file of any kind with its metadata. Times are not kept: a writer gives all nodes one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, including set-UID, set-GID and sticky (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes by full name (`security.capability`).
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Node {
    fn root_owned(kind: Kind, mode: u32) -> Self {
        Self {
            kind,
            mode,
            uid: 0,
            gid: 0,
            xattrs: BTreeMap::new(),
        }
    }
    /// A directory of root's with this mode.
    pub fn dir(mode: u32) -> Self {
        Self::root_owned(Kind::Dir, mode)
    }
    /// A regular file of root's with this mode.
    pub fn file(content: impl Into<Content>, mode: u32) -> Self {
        Self::root_owned(Kind::File(content.into()), mode)
    }
    /// A symbolic link.
    pub fn symlink(target: impl Into<String>) -> Self {
        Self::root_owned(Kind::Symlink(target.into()), 0o777)
    }
    /// With another owner.
    pub fn owned(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }
    /// The content of a regular file.
    pub fn content(&self) -> Option<&Content> {
        match &self.kind {
            Kind::File(c) => Some(c),
            _ => None,
        }
    }
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir)
    }
}

/// A file tree. The root directory always exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<TreePath, Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// A tree with a root directory alone (0755).
    pub fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(TreePath::ROOT, Node::dir(0o755))]),
        }
    }

    /// Adds or replaces a node. Missing parents are made (0755, root's); symbolic links among the
    /// parents are followed, so `lib/x` lands in `usr/lib/x` where `lib` is a link to `usr/lib`. A
    /// directory over a directory takes the new metadata and keeps its entries; any other node over
    /// a directory with entries is refused.
    pub fn insert(&mut self, path: &TreePath, node: Node) -> Result<TreePath> {
        let place = self.place(path)?;
        if let Some(old) = self.nodes.get(&place) {
            if old.is_dir() && !node.is_dir() && self.children(&place).next().is_some() {
                return Err(Error::NotADirectory {
                    path: place.clone(),
                    ancestor: place,
                    what: node.kind.describe(),
                });
            }
            // A package may ship /lib as a directory where the system has a link (merged /usr).
            if node.is_dir()
                && matches!(old.kind, Kind::Symlink(_))
                && let Ok(target) = self.resolve(&place)
                && self.nodes.get(&target).is_some_and(Node::is_dir)
            {
                return Ok(target);
            }
        }
        self.make_parents(&place)?;
        self.nodes.insert(place.clone(), node);
        Ok(place)
    }

    /// [`Tree::insert`] with the path as text.
    pub fn add(&mut self, path: &str, node: Node) -> Result<()> {
        self.insert(&TreePath::new(path)?, node).map(|_| ())
    }

    fn make_parents(&mut self, place: &TreePath) -> Result<()> {
        let mut missing = Vec::new();
        let mut at = place.parent();
        while let Some(p) = at {
            match self.nodes.get(&p) {
                Some(n) if n.is_dir() => break,
                Some(n) => {
                    return Err(Error::NotADirectory {
                        path: place.clone(),
                        ancestor: p,
                        what: n.kind.describe(),
                    });
                }
                None => {
                    at = p.parent();
                    missing.push(p);
                }
            }
        }
        for p in missing {
            self.nodes.insert(p, Node::dir(0o755));
        }
        Ok(())
    }

    /// The path with symbolic links among its *parents* resolved.
    fn place(&self, path: &TreePath) -> Result<TreePath> {
        match path.parent() {
            None => Ok(TreePath::ROOT),
            Some(p) => self.resolve(&p)?.join(path.file_name()),
        }
    }

    /// The path with every symbolic link in it resolved inside the tree; components that do not
    /// exist stay as they are.
    pub fn resolve(&self, path: &TreePath) -> Result<TreePath> {
        let mut budget = 40;
        let mut todo: Vec<String> = path.as_str().split('/').rev().map(str::to_owned).collect();
        let mut done = TreePath::ROOT;
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done = done.parent().unwrap_or(TreePath::ROOT);
                    continue;
                }
                _ => {}
            }
            let next = done.join(&part)?;
            if let Some(Node {
                kind: Kind::Symlink(target),
                ..
            }) = self.nodes.get(&next)
            {
                budget -= 1;
                if budget == 0 {
                    return Err(Error::Loop(path.clone()));
                }
                if target.starts_with('/') {
                    done = TreePath::ROOT;
                }
                todo.extend(target.split('/').rev().map(str::to_owned));
            } else {
                done = next;
            }
        }
        Ok(done)
    }

    /// The node at exactly this path (no link is followed).
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The node at this path as text, parents resolved, the last component not followed.
    pub fn lookup(&self, path: &str) -> Option<&Node> {
        let p = TreePath::new(path).ok()?;
        self.nodes.get(&self.place(&p).ok()?)
    }

    /// The node at this path, with all links followed.
    pub fn follow(&self, path: &str) -> Option<(TreePath, &Node)> {
        let p = self.resolve(&TreePath::new(path).ok()?).ok()?;
        let n = self.nodes.get(&p)?;
        Some((p, n))
    }

    /// The content of the regular file at this path, links followed.
    pub fn read(&self, path: &str) -> Result<&[u8]> {
        let p = TreePath::new(path)?;
        match self.follow(path) {
            Some((
                _,
                Node {
                    kind: Kind::File(c),
                    ..
                },
            )) => Ok(c.bytes()),
            _ => Err(Error::Missing(p)),
        }
    }

    /// The node at this path, to change it.
    pub fn get_mut(&mut self, path: &TreePath) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// Removes a node and, of a directory, all below it. Returns how many nodes went.
    pub fn remove(&mut self, path: &TreePath) -> usize {
        if path.is_root() {
            let n = self.nodes.len();
            *self = Self::new();
            return n;
        }
        let gone: Vec<TreePath> = self.under(path).map(|(p, _)| p.clone()).collect();
        for p in &gone {
            self.nodes.remove(p);
        }
        gone.len()
    }

    /// Keeps the nodes that `keep` says yes to; parents of kept nodes stay too.
    pub fn retain(&mut self, mut keep: impl FnMut(&TreePath, &Node) -> bool) {
        let mut parents = std::collections::HashSet::new();
        let mut kept = BTreeMap::new();
        for (p, n) in std::mem::take(&mut self.nodes).into_iter().rev() {
            if p.is_root() || parents.contains(&p) || keep(&p, &n) {
                if let Some(d) = p.parent() {
                    parents.insert(d);
                }
                kept.insert(p, n);
            }
        }
        self.nodes = kept;
    }

    /// All nodes, sorted: a directory before what is in it. The first is the root.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.nodes.iter()
    }

    /// The node at `dir` and all below it, sorted.
    pub fn under<'a>(
        &'a self,
        dir: &'a TreePath,
    ) -> impl Iterator<Item = (&'a TreePath, &'a Node)> {
        self.nodes
            .range(dir.clone()..)
            .take_while(move |(p, _)| p.is_under(dir))
    }

    /// The direct entries of a directory, sorted.
    pub fn children<'a>(
        &'a self,
        dir: &'a TreePath,
    ) -> impl Iterator<Item = (&'a TreePath, &'a Node)> {
        self.under(dir)
            .filter(move |(p, _)| p.parent().as_ref() == Some(dir))
    }

    /// The nodes at or below any of `roots` (links among parents resolved) with their parents, as a
    /// new tree: what a tool needs to see.
    pub fn subset(&self, roots: &[&str]) -> Result<Tree> {
        let mut out = Tree::new();
        for r in roots {
            let at = self.resolve(&TreePath::new(r)?)?;
            let mut dir = at.parent();
            while let Some(d) = dir {
                if let Some(n) = self.nodes.get(&d) {
                    out.nodes.insert(d.clone(), n.clone());
                }
                dir = d.parent();
            }
            out.nodes
                .extend(self.under(&at).map(|(p, n)| (p.clone(), n.clone())));
        }
        Ok(out)
    }

    /// Lays another tree over this one.
    pub fn overlay(&mut self, other: &Tree) -> Result<()> {
        for (p, n) in other.iter().skip(1) {
            self.insert(p, n.clone())?;
        }
        Ok(())
    }

    /// How many nodes there are, the root included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether only the root is there.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// The sum of the sizes of all regular files, in bytes.
    pub fn size(&self) -> u64 {
        self.nodes
            .values()
            .filter_map(Node::content)
            .map(|c| c.len() as u64)
            .sum()
    }
}
