// SPDX-License-Identifier: Apache-2.0
//! The initramfs: a systemd that finds, verifies and mounts the root, made of the files of that same
//! root tree.
//!
//! No generator of the distribution is involved (dracut, initramfs-tools): what systemd needs in an
//! initrd is a fixed [list](units), its libraries follow from the ELF files ([`elf`]), the kernel
//! modules from a list in the machine's description and `modules.dep` ([`kmod`]). Units of our own
//! and drop-ins come from a directory of the description ([`Options::files`]).
//!
//! The archive is a newc cpio (kernel: driver-api/early-userspace/buffer-format) compressed by zstd.
//! The microcode archive, which the kernel wants uncompressed and in front, is [`microcode`]'s.

pub mod elf;
pub mod kmod;
mod microcode;
pub mod units;

pub use microcode::microcode;

use crate::{Arch, Artifact, Error, FrameCache, Result};
use lama_exec::Tools;
use lama_exec::fs::{self, AtPath};
use lama_tree::{Kind, Node, Tree, TreePath};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How the initrd is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The architecture of the root tree.
    pub arch: Arch,
    /// Kernel modules by name, with `*` and `?` as wildcards. An exact name that the kernel doesn't
    /// have, loadable or built in, is an error.
    pub modules: Vec<String>,
    /// A directory laid over the initrd last: units, drop-ins, links to them. Modes are 0755 for
    /// directories and executables, else 0644, whatever the checkout's umask was.
    pub files: Option<PathBuf>,
    /// More files of the root tree by path, with their libraries.
    pub extra: Vec<String>,
    /// Modification time of all files, seconds since 1970.
    pub epoch: u32,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Where finished ones are kept: most changes of a root tree don't reach the initrd.
    pub cache: Option<FrameCache>,
}

impl Options {
    /// For this architecture, with the modules that every image needs.
    pub fn new(arch: Arch, epoch: u32) -> Self {
        Self {
            arch,
            modules: Vec::new(),
            files: None,
            extra: Vec::new(),
            epoch,
            // Level 10 makes it 3 % smaller, in three times the time.
            level: 6,
            cache: None,
        }
    }
}

/// Assembles the initrd as a tree.
pub fn assemble(tools: &Tools, root: &Tree, options: &Options) -> Result<Tree> {
    let mut b = Builder::new(root, options.arch);
    b.skeleton()?;
    for group in units::REQUIRED {
        for path in group.paths {
            b.take(&b.expand(path), "", group.package)?;
        }
    }
    for path in units::OPTIONAL {
        if root.lookup(&b.expand(path)).is_some() {
            b.take(&b.expand(path), "", None)?;
        }
    }
    for path in &options.extra {
        b.take(
            path.trim_start_matches('/'),
            "the image's description",
            None,
        )?;
    }
    b.units()?;
    b.libraries()?;
    let mut out = b.out;
    let modules = kmod::select(root, &options.modules)?;
    out.overlay(&kmod::install(tools, root, &modules)?)?;
    identity(root, &mut out)?;
    if let Some(dir) = &options.files {
        out.overlay(&checkout(dir)?)?;
    }
    Ok(out)
}

/// Assembles, packs and compresses the initrd to `out`.
pub fn make(tools: &Tools, root: &Tree, out: &Path, options: &Options) -> Result<Artifact> {
    let tree = assemble(tools, root, options)?;
    pack(&tree, out, options)
}

/// Packs and compresses a tree to `out`.
pub fn pack(tree: &Tree, out: &Path, options: &Options) -> Result<Artifact> {
    let mut cpio = Vec::new();
    lama_tree::write_cpio(tree, &mut cpio, options.epoch).at("pack", out)?;
    let make = || Ok(compress(&cpio, options.level).at("compress", out)?);
    let data = match &options.cache {
        Some(c) => c.compressed(&cpio, &format!("{}-initrd", options.level), make)?,
        None => make()?,
    };
    fs::write_atomic(out, &data)?;
    Ok(Artifact::of(out, &data))
}

fn compress(cpio: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    let mut z = zstd::Encoder::new(Vec::new(), level)?;
    // With any number of workers but 0 the result is the same.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    z.multithread(u32::try_from(workers).unwrap_or(1))?;
    z.include_checksum(true)?;
    z.set_pledged_src_size(Some(cpio.len() as u64))?;
    z.include_contentsize(true)?;
    z.write_all(cpio)?;
    z.finish()
}

struct Builder<'a> {
    root: &'a Tree,
    out: Tree,
    arch: Arch,
    /// ELF files whose libraries have not been looked for yet.
    elf: Vec<TreePath>,
}

impl<'a> Builder<'a> {
    fn new(root: &'a Tree, arch: Arch) -> Self {
        Self {
            root,
            out: Tree::new(),
            arch,
            elf: Vec::new(),
        }
    }

    fn expand(&self, path: &str) -> String {
        path.replace("{triplet}", elf::triplet(self.arch))
    }

    fn skeleton(&mut self) -> Result<()> {
        for d in ["dev", "etc", "proc", "run", "sys", "sysroot", "usr", "var"] {
            self.out.add(d, Node::dir(0o755))?;
        }
        self.out.add("root", Node::dir(0o700))?;
        self.out.add("tmp", Node::dir(0o1777))?;
        for l in ["bin", "sbin", "lib", "lib64"] {
            if let Some(n) = self.root.lookup(l) {
                let n = if n.is_dir() {
                    Node::dir(0o755)
                } else {
                    n.clone()
                };
                self.out.add(l, n)?;
            }
        }
        self.out
            .add("init", Node::symlink("usr/lib/systemd/systemd"))?;
        Ok(())
    }

    /// Takes a file of the root tree over; of a symbolic link, also what it points to.
    fn take(&mut self, path: &str, by: &str, package: Option<&'static str>) -> Result<()> {
        let missing = || Error::InitrdNeeds {
            path: path.to_owned(),
            by: by.to_owned(),
            package,
        };
        let mut at = TreePath::new(path)?;
        // A chain of links is at most as long as the kernel follows.
        for _ in 0..40 {
            if let Some(dir) = at.parent() {
                at = self.root.resolve(&dir)?.join(at.file_name())?;
            }
            let node = self.root.get(&at).ok_or_else(missing)?;
            if self.out.get(&at).is_some() && !node.is_dir() {
                return Ok(());
            }
            self.out.insert(&at, node.clone())?;
            match &node.kind {
                Kind::Symlink(target) => at = follow(&at, target)?,
                Kind::Dir => {
                    let below: Vec<String> = self
                        .root
                        .children(&at)
                        .map(|(p, _)| p.as_str().to_owned())
                        .collect();
                    return below.iter().try_for_each(|p| self.take(p, by, package));
                }
                Kind::File(c) => {
                    if c.bytes().starts_with(b"\x7fELF") {
                        self.elf.push(at);
                    }
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
        Err(lama_tree::Error::Loop(at).into())
    }

    /// Copies the links of `X.wants`, `X.requires` directories between units that are in the initrd.
    fn units(&mut self) -> Result<()> {
        let dir = TreePath::new(units::DIR)?;
        let have: BTreeSet<String> = self
            .out
            .children(&dir)
            .map(|(p, _)| p.file_name().to_owned())
            .collect();
        let mut links = Vec::new();
        for (p, n) in self.root.under(&dir) {
            let Some(parent) = p.parent() else { continue };
            let Some((owner, kind)) = parent.file_name().rsplit_once('.') else {
                continue;
            };
            if matches!(kind, "wants" | "requires" | "upholds")
                && matches!(n.kind, Kind::Symlink(_))
                && have.contains(owner)
                && have.contains(p.file_name())
            {
                links.push((p.clone(), n.clone()));
            }
        }
        for (p, n) in links {
            self.out.insert(&p, n)?;
        }
        Ok(())
    }

    /// Takes the libraries of all ELF files, and theirs, and so on.
    fn libraries(&mut self) -> Result<()> {
        for name in units::LIBRARIES {
            let found = elf::find(self.root, self.arch, name.0, &[]);
            let path =
                found.unwrap_or_else(|| format!("usr/lib/{}/{}", elf::triplet(self.arch), name.0));
            self.take(&path, name.1, name.2)?;
        }
        while let Some(p) = self.elf.pop() {
            let Some(content) = self.root.get(&p).and_then(Node::content) else {
                continue;
            };
            let info = elf::inspect(content.bytes()).map_err(|reason| Error::Format {
                path: p.to_string(),
                reason,
            })?;
            let by = p.to_string();
            if let Some(i) = &info.interpreter {
                self.take(i.trim_start_matches('/'), &by, Some("libc6"))?;
            }
            for n in &info.needed {
                match elf::find(self.root, self.arch, n, &info.runpath) {
                    Some(path) => self.take(&path, &by, None)?,
                    None => {
                        return Err(Error::InitrdNeeds {
                            path: format!("the library {n}"),
                            by,
                            package: None,
                        });
                    }
                }
            }
            for d in &info.dlopen {
                if !units::DLOPEN_FEATURES.contains(&d.feature.as_str()) && d.priority != "required"
                {
                    continue;
                }
                let found = d
                    .soname
                    .iter()
                    .find_map(|s| elf::find(self.root, self.arch, s, &info.runpath));
                match found {
                    Some(path) => self.take(&path, &by, None)?,
                    None if units::DLOPEN_REQUIRED.contains(&d.feature.as_str()) => {
                        return Err(Error::InitrdNeeds {
                            path: format!("the library {}", d.soname.join(" or ")),
                            by: format!("{by}, opened for `{}`", d.feature),
                            package: None,
                        });
                    }
                    None => tracing::debug!("initrd: no {:?} for {by}", d.soname),
                }
            }
        }
        Ok(())
    }
}

/// Where a link at `at` points to, in the tree.
fn follow(at: &TreePath, target: &str) -> Result<TreePath> {
    let mut dir = if target.starts_with('/') {
        TreePath::ROOT
    } else {
        at.parent().unwrap_or(TreePath::ROOT)
    };
    for part in target.split('/') {
        dir = match part {
            "" | "." => dir,
            ".." => dir.parent().unwrap_or(TreePath::ROOT),
            p => dir.join(p)?,
        };
    }
    Ok(dir)
}

/// Users, groups (with the root's numbers, since udev rules name them), names of the release.
fn identity(root: &Tree, out: &mut Tree) -> Result<()> {
    let lines = |file: &str, keep: &[&str]| -> Result<String> {
        let data = String::from_utf8_lossy(root.read(file)?).into_owned();
        Ok(data
            .lines()
            .filter(|l| keep.is_empty() || keep.contains(&l.split(':').next().unwrap_or("")))
            .map(|l| format!("{l}\n"))
            .collect())
    };
    let users = lines("etc/passwd", &["root", "nobody", "tss"])?;
    // No shell: there is none in the initrd, and nobody logs in there.
    let users: String = users
        .lines()
        .map(|l| match l.rsplit_once(':') {
            Some((head, _)) => format!("{head}:/usr/sbin/nologin\n"),
            None => format!("{l}\n"),
        })
        .collect();
    out.add("etc/passwd", Node::file(users, 0o644))?;
    let groups: String = lines("etc/group", &[])?
        .lines()
        .map(|l| match l.rsplit_once(':') {
            // Members would be users that do not exist here.
            Some((head, _)) => format!("{head}:\n"),
            None => format!("{l}\n"),
        })
        .collect();
    out.add("etc/group", Node::file(groups, 0o644))?;
    out.add("etc/shadow", Node::file("root:!*:::::::\n", 0o600))?;
    out.add(
        "etc/nsswitch.conf",
        Node::file("passwd: files\ngroup: files\nshadow: files\n", 0o644),
    )?;
    let release = root
        .read("usr/lib/os-release")
        .or_else(|_| root.read("etc/os-release"))?;
    out.add(
        "usr/lib/initrd-release",
        Node::file(release.to_vec(), 0o644),
    )?;
    out.add(
        "etc/initrd-release",
        Node::symlink("../usr/lib/initrd-release"),
    )?;
    out.add("etc/os-release", Node::symlink("../usr/lib/initrd-release"))?;
    // Empty: a machine ID that systemd makes up for this boot, and hands on.
    out.add("etc/machine-id", Node::file("", 0o444))?;
    out.add("etc/fstab", Node::file("", 0o644))?;
    Ok(())
}

/// A directory of the project with modes that do not depend on the checkout.
fn checkout(dir: &Path) -> Result<Tree> {
    fs::metadata(dir)?;
    let mut tree = lama_tree::read_dir(dir)?;
    let paths: Vec<TreePath> = tree.iter().map(|(p, _)| p.clone()).collect();
    for p in paths {
        if let Some(n) = tree.get_mut(&p) {
            n.mode = match n.kind {
                Kind::Symlink(_) => 0o777,
                Kind::File(_) if n.mode & 0o111 == 0 => 0o644,
                _ => 0o755,
            };
        }
    }
    Ok(tree)
}
