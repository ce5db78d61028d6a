// SPDX-License-Identifier: Apache-2.0
//! Reading a tree: from a tar archive or a directory.

use crate::{Blob, Content, Error, Kind, Node, Result, Tree, TreePath};
use lama_exec::fs::{self, AtPath};
use std::collections::{BTreeMap, HashMap};
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
    let mut files: HashMap<TreePath, Node> = HashMap::new();
    let mut archive = tar::Archive::new(Cursor::new(blob.bytes()));
    let mut long = LongNames::default();
    // Raw: the crate's own pax parser splits records at newlines, which binary attributes may hold.
    for entry in archive.entries_with_seek().map_err(io)?.raw(true) {
        let entry = entry.map_err(io)?;
        let at = usize::try_from(entry.raw_file_position()).unwrap_or(usize::MAX);
        let len = usize::try_from(entry.size()).unwrap_or(usize::MAX);
        let data = Content::slice(blob, at, len);
        let h = entry.header();
        if long
            .take(h.entry_type(), || {
                Ok(data.as_ref().map_err(|e| e.to_string())?.bytes())
            })
            .map_err(bad)?
        {
            continue;
        }
        let LongNames { path, link, xattrs } = std::mem::take(&mut long);
        let text = |bytes: &[u8]| {
            std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
                bad(format!(
                    "a name is not UTF-8: {}",
                    String::from_utf8_lossy(bytes)
                ))
            })
        };
        let path = TreePath::new(&text(path.as_deref().unwrap_or(&h.path_bytes()))?)?;
        let id = |v: std::io::Result<u64>| {
            u32::try_from(v.map_err(io)?).map_err(|_| bad(format!("{path}: owner out of range")))
        };
        let link = || match link
            .clone()
            .or_else(|| h.link_name_bytes().map(|b| b.to_vec()))
        {
            Some(b) => text(&b),
            None => Err(bad(format!("{path}: a link without a target"))),
        };
        let dev = || -> Result<(u32, u32)> {
            let n = |v: std::io::Result<Option<u32>>| v.map_err(io).map(Option::unwrap_or_default);
            Ok((n(h.device_major())?, n(h.device_minor())?))
        };
        let kind = match h.entry_type() {
            tar::EntryType::Directory => Kind::Dir,
            tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File(data?),
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

/// What GNU and pax members say about the member after them.
#[derive(Default)]
struct LongNames {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

impl LongNames {
    /// Takes in a member that only describes the next one; false for any other.
    fn take<'a>(
        &mut self,
        kind: tar::EntryType,
        data: impl FnOnce() -> std::result::Result<&'a [u8], String>,
    ) -> std::result::Result<bool, String> {
        let name = |d: &[u8]| d.split(|b| *b == 0).next().map(<[u8]>::to_vec);
        match kind {
            tar::EntryType::GNULongName => self.path = name(data()?),
            tar::EntryType::GNULongLink => self.link = name(data()?),
            tar::EntryType::XGlobalHeader => {}
            tar::EntryType::XHeader => {
                for (key, value) in pax_records(data()?)? {
                    match key {
                        "path" => self.path = Some(value.to_vec()),
                        "linkpath" => self.link = Some(value.to_vec()),
                        "size" => return Err("a member of over 8 GiB".to_owned()),
                        _ => {
                            if let Some(k) = key.strip_prefix("SCHILY.xattr.") {
                                self.xattrs.insert(k.to_owned(), value.to_vec());
                            }
                        }
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The records of a pax extended header, `LENGTH KEY=VALUE\n` each (POSIX.1-2017, pax, "Extended
/// Header").
fn pax_records(mut data: &[u8]) -> std::result::Result<Vec<(&str, &[u8])>, String> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let record = || -> Option<(&str, &[u8], usize)> {
            let space = data.iter().position(|b| *b == b' ')?;
            let len: usize = std::str::from_utf8(data.get(..space)?).ok()?.parse().ok()?;
            let body = data.get(space + 1..len)?.strip_suffix(b"\n")?;
            let eq = body.iter().position(|b| *b == b'=')?;
            Some((
                std::str::from_utf8(body.get(..eq)?).ok()?,
                body.get(eq + 1..)?,
                len,
            ))
        };
        let (key, value, len) = record().ok_or("a broken pax header")?;
        records.push((key, value));
        data = data.get(len..).unwrap_or(&[]);
    }
    Ok(records)
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
