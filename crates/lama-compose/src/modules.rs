// SPDX-License-Identifier: Apache-2.0
//! Kernel modules, decompressed once.
//!
//! The kernel's package has each module compressed by itself (`.ko.xz`). In a compressed file system
//! that gains little, and what it costs shows when an image is compared with the next one: a module
//! in which a few bytes change is another file from there on. Decompressed, all that stays the same
//! in a module stays the same in the image.

use crate::tool;
use crate::{Error, Result};
use lama_exec::fs::{self, AtPath};
use lama_tree::{Blob, Content, Kind, Node, Tree, TreePath};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc;

/// Where a package has them.
const DIR: &str = "usr/lib/modules";
/// Decompressed modules that wait to be written, of each worker.
const WAITING: usize = 16;

/// How a module is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Xz,
    Zstd,
    Gzip,
}

impl Format {
    /// Of a file of this name, with the name of what is in it.
    fn of(name: &str) -> Option<(&str, Self)> {
        let all = [(".xz", Self::Xz), (".zst", Self::Zstd), (".gz", Self::Gzip)];
        all.into_iter().find_map(|(end, f)| {
            let plain = name.strip_suffix(end)?;
            plain.ends_with(".ko").then_some((plain, f))
        })
    }

    fn decompress(self, data: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Xz => liblzma::read::XzDecoder::new(data).read_to_end(&mut out)?,
            Self::Zstd => zstd::Decoder::new(data)?.read_to_end(&mut out)?,
            Self::Gzip => flate2::read::MultiGzDecoder::new(data).read_to_end(&mut out)?,
        };
        Ok(out)
    }
}

/// Puts every compressed module's content in its place. What they were decompressed to is kept in
/// the store by the digest of what they were.
///
/// # Errors
/// A damaged module; a full disk.
pub fn decompress(tree: &mut Tree, store: &Path) -> Result<()> {
    let mut found = Vec::new();
    for (p, n) in tree.under(&TreePath::new(DIR)?) {
        if let (Some((plain, format)), Kind::File(c)) = (Format::of(p.as_str()), &n.kind) {
            found.push((p.clone(), TreePath::new(plain)?, format, c.clone()));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let mut input = Tree::new();
    for (p, _, _, c) in &found {
        input.add(p.as_str(), Node::file(c.clone(), 0o644))?;
    }
    let key = tool::digest(&input, store);
    let kept = store.join("modules").join(format!("{key}.tar"));
    if std::fs::symlink_metadata(&kept).is_err() {
        write(&found, &kept)?;
    }
    for (p, plain, ..) in &found {
        if tree.lookup(plain.as_str()).is_some() {
            return Err(Error::Effect {
                origin: p.to_string(),
                what: "the module is there decompressed as well".to_owned(),
            });
        }
    }
    let mut modules = BTreeMap::new();
    lama_tree::read_tar(&Blob::map(&kept)?, |p, n| {
        modules.insert(p, n);
        Ok(())
    })?;
    for (p, plain, ..) in found {
        let mode = tree.get(&p).map_or(0o644, |n| n.mode);
        let node = modules.remove(&plain).ok_or_else(|| Error::Effect {
            origin: kept.display().to_string(),
            what: format!("{plain} is missing in it; remove the file, and it is made anew"),
        })?;
        tree.remove(&p);
        tree.insert(&plain, Node { mode, ..node })?;
    }
    Ok(())
}

/// A module: its path, that of its content, how it is compressed, and its bytes.
type Found = (TreePath, TreePath, Format, Content);

/// Decompresses on all processors into an archive, in the given order; a few at a time are in memory.
fn write(found: &[Found], target: &Path) -> Result<()> {
    let mut staged = fs::Staged::new(target)?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|s| -> Result<()> {
        // Modules go to the workers in turn and come back in turn.
        let mut results = Vec::new();
        for w in 0..workers {
            let (send, receive) = mpsc::sync_channel(WAITING);
            results.push(receive);
            s.spawn(move || {
                for (_, _, format, c) in found.iter().skip(w).step_by(workers) {
                    if send.send(format.decompress(c.bytes())).is_err() {
                        break;
                    }
                }
            });
        }
        let mut w = std::io::BufWriter::with_capacity(1 << 20, staged.file());
        let mut archive = tar::Builder::new(&mut w);
        for (i, (p, plain, ..)) in found.iter().enumerate() {
            let next = results.get(i % workers).and_then(|r| r.recv().ok());
            let lost = || std::io::Error::other("a thread ended unexpectedly");
            let data = next.unwrap_or_else(|| Err(lost()));
            let data = data.map_err(|e| Error::Effect {
                origin: p.to_string(),
                what: format!("the module cannot be decompressed: {e}"),
            })?;
            let mut h = tar::Header::new_gnu();
            h.set_mode(0o644);
            h.set_uid(0);
            h.set_gid(0);
            h.set_mtime(0);
            h.set_size(data.len() as u64);
            let member = archive.append_data(&mut h, plain.as_str(), data.as_slice());
            member.at("write", target)?;
        }
        archive.finish().at("write", target)?;
        drop(archive);
        Ok(w.flush().at("write", target)?)
    })?;
    Ok(staged.commit_synced(0o644)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xz(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut r = liblzma::read::XzEncoder::new(data, 1);
        r.read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn modules_lose_their_compression_and_nothing_else_does() {
        let store = tempfile::tempdir().unwrap();
        let base = "usr/lib/modules/6.1/kernel";
        let mut t = Tree::new();
        for i in 0..50 {
            let data = xz(format!("module {i}").as_bytes());
            let name = format!("{base}/m{i}.ko.xz");
            t.add(&name, Node::file(data, 0o600)).unwrap();
        }
        let zst = zstd::encode_all(&b"Z"[..], 1).unwrap();
        t.add(&format!("{base}/z.ko.zst"), Node::file(zst, 0o644))
            .unwrap();
        t.add(&format!("{base}/p.ko"), Node::file("plain", 0o644))
            .unwrap();
        t.add("usr/lib/firmware/f.ko.xz", Node::file("left", 0o644))
            .unwrap();
        let before = t.clone();
        decompress(&mut t, store.path()).unwrap();
        assert_eq!(t.read(&format!("{base}/m7.ko")).unwrap(), b"module 7");
        assert_eq!(t.lookup(&format!("{base}/m7.ko")).unwrap().mode, 0o600);
        assert_eq!(t.read(&format!("{base}/z.ko")).unwrap(), b"Z");
        assert_eq!(t.read(&format!("{base}/p.ko")).unwrap(), b"plain");
        assert_eq!(t.read("usr/lib/firmware/f.ko.xz").unwrap(), b"left");
        assert!(t.lookup(&format!("{base}/m7.ko.xz")).is_none());
        // The second time from the store, whose file is not written again.
        let kept = fs::read_dir(store.path().join("modules")).unwrap();
        let time = kept[0].metadata().unwrap().modified().unwrap();
        let mut again = before.clone();
        decompress(&mut again, store.path()).unwrap();
        assert!(again.iter().eq(t.iter()));
        let kept = fs::read_dir(store.path().join("modules")).unwrap();
        assert_eq!(
            (kept.len(), kept[0].metadata().unwrap().modified().unwrap()),
            (1, time)
        );
    }

    #[test]
    fn a_damaged_module_stops_the_build() {
        let store = tempfile::tempdir().unwrap();
        let mut t = Tree::new();
        t.add("usr/lib/modules/6.1/a.ko.xz", Node::file("no xz", 0o644))
            .unwrap();
        let e = decompress(&mut t, store.path()).unwrap_err().to_string();
        assert!(e.starts_with("/usr/lib/modules/6.1/a.ko.xz: "), "{e}");
        assert!(
            fs::read_dir(store.path().join("modules"))
                .unwrap()
                .is_empty()
        );
    }
}
