// SPDX-License-Identifier: Apache-2.0
//! Writing a tree: tar, cpio, directory.

use crate::{Kind, Node, Result, Tree, TreePath};
use lama_exec::fs::{self, AtPath};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Writes the tree as a POSIX tar stream (GNU long names, pax `SCHILY.xattr.*` records), every node
/// with the modification time `mtime` (seconds since 1970).
pub fn write_tar(tree: &Tree, out: &mut dyn Write, mtime: u64) -> io::Result<()> {
    let mut b = tar::Builder::new(out);
    for (path, node) in tree.iter() {
        if !node.xattrs.is_empty() {
            b.append_pax_extensions(
                node.xattrs
                    .iter()
                    .map(|(k, v)| (format!("SCHILY.xattr.{k}"), v))
                    .collect::<Vec<_>>()
                    .iter()
                    .map(|(k, v)| (k.as_str(), v.as_slice())),
            )?;
        }
        let mut h = tar::Header::new_gnu();
        h.set_mode(node.mode);
        h.set_uid(u64::from(node.uid));
        h.set_gid(u64::from(node.gid));
        h.set_mtime(mtime);
        h.set_size(0);
        let name = if path.is_root() { "./" } else { path.as_str() };
        let empty: &[u8] = &[];
        match &node.kind {
            Kind::Dir => {
                h.set_entry_type(tar::EntryType::Directory);
                let slash = format!("{}/", path.as_str());
                b.append_data(&mut h, if path.is_root() { name } else { &slash }, empty)?;
            }
            Kind::File(c) => {
                h.set_entry_type(tar::EntryType::Regular);
                h.set_size(c.len() as u64);
                b.append_data(&mut h, name, c.bytes())?;
            }
            Kind::Symlink(t) => {
                h.set_entry_type(tar::EntryType::Symlink);
                b.append_link(&mut h, name, t)?;
            }
            Kind::CharDev(a, m) | Kind::BlockDev(a, m) => {
                h.set_entry_type(match node.kind {
                    Kind::CharDev(..) => tar::EntryType::Char,
                    _ => tar::EntryType::Block,
                });
                h.set_device_major(*a)?;
                h.set_device_minor(*m)?;
                b.append_data(&mut h, name, empty)?;
            }
            Kind::Fifo => {
                h.set_entry_type(tar::EntryType::Fifo);
                b.append_data(&mut h, name, empty)?;
            }
        }
    }
    b.finish()
}

/// Writes the tree as a newc cpio archive, the kernel's initramfs format
/// (Documentation/driver-api/early-userspace/buffer-format.rst). Inode numbers count from 1.
pub fn write_cpio(tree: &Tree, out: &mut dyn Write, mtime: u32) -> io::Result<()> {
    let mut ino = 0u32;
    let mut entry = |out: &mut dyn Write,
                     name: &str,
                     mode: u32,
                     n: &Node,
                     rdev: (u32, u32),
                     data: &[u8]| {
        ino += 1;
        let nlink = if n.is_dir() { 2 } else { 1 };
        let size = u32::try_from(data.len())
            .map_err(|_| io::Error::other(format!("{name}: over 4 GiB, too large for cpio")))?;
        write!(
            out,
            "070701{ino:08x}{mode:08x}{:08x}{:08x}{nlink:08x}{mtime:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
            n.uid,
            n.gid,
            0,
            0,
            rdev.0,
            rdev.1,
            name.len() + 1,
            0
        )?;
        out.write_all(name.as_bytes())?;
        out.write_all(&[0u8; 4][..1 + (4 - (110 + name.len() + 1) % 4) % 4])?;
        out.write_all(data)?;
        out.write_all(&[0u8; 4][..(4 - data.len() % 4) % 4])
    };
    for (path, n) in tree.iter() {
        let name = if path.is_root() { "." } else { path.as_str() };
        let (fmt, rdev, data): (u32, (u32, u32), &[u8]) = match &n.kind {
            Kind::Dir => (0o040_000, (0, 0), &[]),
            Kind::File(c) => (0o100_000, (0, 0), c.bytes()),
            Kind::Symlink(t) => (0o120_000, (0, 0), t.as_bytes()),
            Kind::CharDev(a, b) => (0o020_000, (*a, *b), &[]),
            Kind::BlockDev(a, b) => (0o060_000, (*a, *b), &[]),
            Kind::Fifo => (0o010_000, (0, 0), &[]),
        };
        entry(out, name, fmt | n.mode, n, rdev, data)?;
    }
    let end = Node {
        mode: 0,
        ..Node::file(Vec::new(), 0)
    };
    entry(out, "TRAILER!!!", 0, &end, (0, 0), &[])
}

/// Writes the tree into the directory `dest` (made where missing; meant to be empty), for tools to
/// work on. Files are 0644 or, where executable by anybody, 0755, so that an ordinary user can change
/// and remove them; owners, devices, pipes and extended attributes are left out.
pub fn write_dir(tree: &Tree, dest: &Path) -> Result<()> {
    fs::create_dir_all(dest)?;
    for (path, n) in tree.iter() {
        let at = place(dest, path);
        match &n.kind {
            Kind::Dir => fs::create_dir_all(&at)?,
            Kind::File(c) => {
                fs::write(&at, c.bytes())?;
                if n.mode & 0o111 != 0 {
                    std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o755))
                        .at("set the mode of", &at)?;
                }
            }
            Kind::Symlink(t) => symlink(t, &at).at("create link", &at)?,
            Kind::CharDev(..) | Kind::BlockDev(..) | Kind::Fifo => {}
        }
    }
    Ok(())
}

fn place(dest: &Path, path: &TreePath) -> std::path::PathBuf {
    if path.is_root() {
        dest.to_owned()
    } else {
        dest.join(path.as_str())
    }
}
