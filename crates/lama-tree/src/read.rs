// SPDX-License-Identifier: Apache-2.0
//! Reading a tree: from a tar archive or a directory.

use crate::{Blob, Content, Error, Kind, Node, Result, Tree, TreePath};
use lama_exec::fs::{self, AtPath};
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// Reads an uncompressed tar archive (POSIX, GNU or pax). Contents stay in `blob`.
///
/// Members are handed to `member` in the archive's order, with a hard link resolved to the content
/// of its target; `member` decides what becomes of them.
///
/// # Errors
/// A damaged archive, a path with `..`, a hard link to a member that has not come before it.
pub fn read_tar(
    blob: &Arc<Blob>,
    mut member: impl FnMut(TreePath, Node) -> Result<()>,
) -> Result<()> {
    let name = blob.path().display().to_string();
    let bad = |reason: String| Error::Archive {
        name: name.clone(),
        reason,
    };
    let io = |e: std::io::Error| bad(e.to_string());
    let mut files: std::collections::HashMap<TreePath, Node> = std::collections::HashMap::new();
    let mut archive = tar::Archive::new(Cursor::new(blob.bytes()));
    for entry in archive.entries_with_seek().map_err(io)? {
        let mut entry = entry.map_err(io)?;
        let text = |bytes: &[u8]| {
            std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
                bad(format!(
                    "a name is not UTF-8: {}",
                    String::from_utf8_lossy(bytes)
                ))
            })
        };
        let path = TreePath::new(&text(&entry.path_bytes())?)?;
        let mut xattrs = std::collections::BTreeMap::new();
        if let Some(ext) = entry.pax_extensions().map_err(io)? {
            for e in ext {
                let e = e.map_err(io)?;
                if let Some(k) = e.key().ok().and_then(|k| k.strip_prefix("SCHILY.xattr.")) {
                    xattrs.insert(k.to_owned(), e.value_bytes().to_vec());
                }
            }
        }
        let h = entry.header();
        let id = |v: std::io::Result<u64>| {
            u32::try_from(v.map_err(io)?).map_err(|_| bad(format!("{path}: owner out of range")))
        };
        let link = || match entry.link_name_bytes() {
            Some(b) => text(&b),
            None => Err(bad(format!("{path}: a link without a target"))),
        };
        let dev = || -> Result<(u32, u32)> {
            let n = |v: std::io::Result<Option<u32>>| v.map_err(io).map(Option::unwrap_or_default);
            Ok((n(h.device_major())?, n(h.device_minor())?))
        };
        let kind = match h.entry_type() {
            tar::EntryType::Directory => Kind::Dir,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let at = usize::try_from(entry.raw_file_position()).unwrap_or(usize::MAX);
                let len = usize::try_from(entry.size()).unwrap_or(usize::MAX);
                Kind::File(Content::slice(blob, at, len)?)
            }
            tar::EntryType::Symlink => Kind::Symlink(link()?),
            tar::EntryType::Link => {
                let target = TreePath::new(&link()?)?;
                let node = files
                    .get(&target)
                    .ok_or_else(|| {
                        bad(format!("{path}: hard link to {target}, which is not there"))
                    })?
                    .clone();
                member(path, node)?;
                continue;
            }
            tar::EntryType::Char => dev().map(|(a, b)| Kind::CharDev(a, b))?,
            tar::EntryType::Block => dev().map(|(a, b)| Kind::BlockDev(a, b))?,
            tar::EntryType::Fifo => Kind::Fifo,
            tar::EntryType::XGlobalHeader => continue,
            other => return Err(bad(format!("{path}: member of unknown type {other:?}"))),
        };
        let node = Node {
            mode: h.mode().map_err(io)? & 0o7777,
            uid: id(h.uid())?,
            gid: id(h.gid())?,
            xattrs,
            kind,
        };
        if node.content().is_some() {
            files.insert(path.clone(), node.clone());
        }
        member(path, node)?;
    }
    Ok(())
}

/// Reads a directory as a tree, all of it owned by root; files are mapped, not copied, so the
/// directory has to outlive the tree unchanged. Devices, pipes and sockets are left out.
pub fn read_dir(dir: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    walk(dir, &TreePath::ROOT, &mut tree)?;
    Ok(tree)
}

fn walk(dir: &Path, at: &TreePath, tree: &mut Tree) -> Result<()> {
    for e in fs::read_dir(dir)? {
        let host = e.path();
        let name = e.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| Error::Path(format!("{} (not UTF-8)", host.display())))?;
        let path = at.join(name)?;
        let meta = e.metadata().at("look at", &host)?;
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_dir() {
            tree.insert(&path, Node::dir(mode))?;
            walk(&host, &path, tree)?;
        } else if meta.is_symlink() {
            let target = fs::read_link(&host)?;
            let target = target
                .to_str()
                .ok_or_else(|| Error::Path(format!("{} (not UTF-8)", host.display())))?;
            tree.insert(&path, Node::symlink(target))?;
        } else if meta.is_file() {
            tree.insert(&path, Node::file(Content::file(&host)?, mode))?;
        }
    }
    Ok(())
}
