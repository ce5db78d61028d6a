// SPDX-License-Identifier: Apache-2.0
//! The root tree as an EROFS image, by `mkfs.erofs` (erofs-utils).

use crate::{Error, Result};
use lama_exec::Tools;
use lama_exec::fs::Staged;
use lama_tree::Tree;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How the image is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// `-z` of mkfs.erofs (`lz4hc,9`, `zstd,level=5` …), or `none`.
    pub compression: String,
    /// Physical cluster size in bytes: a power of two from 4096 to 1048576. Larger ones pack
    /// better and cost more to read at random.
    pub cluster: u32,
    /// UUID in the superblock.
    pub uuid: Uuid,
    /// Modification time of every file and of the image, seconds since 1970.
    pub epoch: u64,
    /// Volume label, at most 15 bytes.
    pub label: Option<String>,
}

impl Options {
    /// lz4hc, level 9, in clusters of 64 KiB.
    pub fn new(uuid: Uuid, epoch: u64) -> Self {
        Self {
            compression: "lz4hc,9".into(),
            cluster: 65536,
            uuid,
            epoch,
            label: None,
        }
    }

    fn check(&self) -> Result<()> {
        let bad = |what: &str, reason: &str| Error::Option {
            what: what.into(),
            reason: reason.into(),
        };
        if !self.cluster.is_power_of_two() || !(4096..=1 << 20).contains(&self.cluster) {
            return Err(bad(
                &format!("the cluster size {}", self.cluster),
                "it must be a power of two from 4096 to 1048576",
            ));
        }
        let known = [
            "lz4",
            "lz4hc",
            "lzma",
            "deflate",
            "libdeflate",
            "zstd",
            "none",
        ];
        let algorithm = self.compression.split(',').next().unwrap_or("");
        if !known.contains(&algorithm) {
            return Err(bad(
                &format!("the compression `{}`", self.compression),
                "EROFS has lz4, lz4hc, lzma, deflate, libdeflate, zstd and none",
            ));
        }
        if self.label.as_ref().is_some_and(|l| l.len() > 15) {
            return Err(bad("the EROFS label", "it is longer than 15 bytes"));
        }
        Ok(())
    }
}

/// How long the making of an image may take: a hundred times what it does.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Writes the tree as an EROFS image to `out`. Owners, modes, devices and extended attributes are
/// those of the tree.
pub fn make(tools: &Tools, tree: &Arc<Tree>, out: &Path, options: &Options) -> Result<()> {
    options.check()?;
    let staged = Staged::new(out)?;
    let dir = staged.path().parent().unwrap_or(Path::new("/"));
    let mut cmd = tools
        .command("mkfs.erofs")
        .args(["--quiet", "--tar=f", "--all-time", "-b4096"])
        .arg(format!("-T{}", options.epoch))
        .arg(format!("-U{}", options.uuid));
    if options.compression != "none" {
        cmd = cmd
            .arg(format!("-z{}", options.compression))
            .arg(format!("-C{}", options.cluster));
    }
    if let Some(l) = &options.label {
        cmd = cmd.arg(format!("-L{l}"));
    }
    // It keeps the content beside the image until it is done.
    let content = |n: &lama_tree::Node| match &n.kind {
        lama_tree::Kind::File(c) => c.len() as u64,
        _ => 0,
    };
    let need: u64 = tree.iter().map(|(_, n)| content(n)).sum();
    // Before, and not only to explain a failure: a thread of it that cannot write ends, and the others
    // wait for that thread for ever (erofs-utils 1.8.6, with more than one worker).
    lama_exec::fs::check_room(out, need)?;
    let (tree, epoch) = (Arc::clone(tree), options.epoch);
    let made = cmd
        .arg(staged.path())
        .bind(dir)
        .within(LIMIT)
        .stdin_with(move |w| lama_tree::write_tar(&tree, w, epoch))
        .run();
    if let Err(e) = made {
        drop(staged);
        lama_exec::fs::check_room(out, need + need / 8)?;
        return Err(e.into());
    }
    staged.commit(0o644)?;
    Ok(())
}
