// SPDX-License-Identifier: Apache-2.0
//! The files behind a machine's disks: images, overlays over them, and blank ones.

use crate::config::{Access, Disk, Format, Source, VmConfig};
use crate::error::{Error, Result};
use lama_exec::{Tools, fs};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A disk as QEMU opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// The file; relative to the machine's directory, or absolute.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// Whether the guest may write.
    pub read_only: bool,
    /// Whether it is lost with the machine, so that the guest's flushes need not reach the disk.
    pub disposable: bool,
}

/// Paths outside the machine's directory that QEMU needs.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    pub read: Vec<PathBuf>,
    pub write: Vec<PathBuf>,
}

/// What an overlay was made over. An overlay over another image would be garbage.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Base {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// Makes the missing files in `dir` and tells what QEMU opens.
pub(crate) fn prepare(
    tools: &Tools,
    config: &VmConfig,
    dir: &Path,
) -> Result<(Vec<Drive>, Outside)> {
    let mut drives = Vec::new();
    let mut outside = Outside::default();
    for (n, disk) in config.disks.iter().enumerate() {
        drives.push(one(tools, config, dir, n, disk, &mut outside)?);
    }
    Ok((drives, outside))
}

fn one(
    tools: &Tools,
    config: &VmConfig,
    dir: &Path,
    n: usize,
    disk: &Disk,
    outside: &mut Outside,
) -> Result<Drive> {
    let (path, format, access) = match &disk.source {
        Source::Blank { bytes } => {
            let name = PathBuf::from(format!("disk-{n}.raw"));
            let file = dir.join(&name);
            if fs::symlink_metadata(&file).is_err() {
                let mut new = fs::Staged::new(&file)?;
                new.file().set_len(*bytes).map_err(|source| fs::FsError {
                    action: "make room in",
                    path: file.clone(),
                    source,
                })?;
                new.commit(0o600)?;
            }
            let drive = Drive {
                file: name,
                format: Format::Raw,
                read_only: false,
                disposable: true,
            };
            return Ok(drive);
        }
        Source::Image {
            path,
            format,
            access,
        } => (absolute(path), *format, *access),
    };
    if fs::metadata(&path).is_err() {
        return Err(Error::NoImage {
            name: config.name.clone(),
            path,
        });
    }
    // A qcow2 file may name a backing file beside it.
    let seen = match (format, path.parent()) {
        (Format::Qcow2, Some(d)) => d.to_owned(),
        _ => path.clone(),
    };
    match access {
        Access::Direct => {
            outside.write.push(seen);
            Ok(Drive {
                file: path,
                format,
                read_only: false,
                disposable: false,
            })
        }
        Access::ReadOnly => {
            outside.read.push(seen);
            Ok(Drive {
                file: path,
                format,
                read_only: true,
                disposable: false,
            })
        }
        Access::Overlay => {
            let name = PathBuf::from(format!("disk-{n}.qcow2"));
            overlay(tools, dir, &name, &path, format, &seen)?;
            outside.read.push(seen);
            Ok(Drive {
                file: name,
                format: Format::Qcow2,
                read_only: false,
                disposable: true,
            })
        }
    }
}

fn overlay(
    tools: &Tools,
    dir: &Path,
    name: &Path,
    base: &Path,
    format: Format,
    seen: &Path,
) -> Result<()> {
    let file = dir.join(name);
    let stamp = file.with_extension("base.json");
    let m = fs::metadata(base)?;
    let now = Base {
        path: base.to_owned(),
        device: m.dev(),
        inode: m.ino(),
        size: m.size(),
        modified: (m.mtime(), m.mtime_nsec()),
    };
    let made_over =
        fs::read_optional(&stamp)?.and_then(|b| serde_json::from_slice::<Base>(&b).ok());
    if made_over.as_ref() == Some(&now) && fs::symlink_metadata(&file).is_ok() {
        return Ok(());
    }
    if made_over.is_some() {
        tracing::info!("{} has changed: a new overlay", base.display());
    }
    fs::remove_file(&stamp)?;
    let new = fs::Staged::new(&file)?;
    tools
        .command("qemu-img")
        .bind_ro(seen)
        .bind(dir)
        .args(["create", "-q", "-f", "qcow2", "-F", format.name(), "-b"])
        .arg(base)
        .arg(new.path())
        .run()?;
    new.commit(0o600)?;
    fs::write_atomic(&stamp, serde_json::to_vec(&now).unwrap_or_default())?;
    Ok(())
}

/// An absolute path, without following links.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_disks_and_missing_images() {
        let d = tempfile::tempdir().unwrap();
        let c = VmConfig::new("x").disk(Disk::blank(1 << 20));
        let (drives, outside) = prepare(&Tools::host(), &c, d.path()).unwrap();
        assert_eq!(drives[0].file, Path::new("disk-0.raw"));
        assert_eq!(
            fs::metadata(d.path().join("disk-0.raw")).unwrap().len(),
            1 << 20
        );
        assert!(outside.read.is_empty() && outside.write.is_empty());
        let c = VmConfig::new("x").disk(Disk::image("/nonexistent/disk.raw"));
        let e = prepare(&Tools::host(), &c, d.path()).unwrap_err();
        assert!(matches!(e, Error::NoImage { .. }), "{e}");
    }
}
