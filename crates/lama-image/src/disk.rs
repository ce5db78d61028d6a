// SPDX-License-Identifier: Apache-2.0
//! A disk image with a GPT (UEFI specification 5.3).
//!
//! The image is sparse: what no partition fills is a hole. Contents are copied by the kernel
//! (`copy_file_range`), which shares the blocks where the file system can.

use crate::{Error, Result, fat};
use gptman::{GPT, GPTPartitionEntry};
use lama_exec::fs::{self, AtPath, Staged};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Sector size in bytes.
pub const SECTOR: u64 = 512;
/// Alignment of partitions in bytes.
pub const ALIGN: u64 = 1 << 20;
/// Sectors of the backup table at the end.
const BACKUP: u64 = 33;

/// Attribute: not to be mounted automatically (Discoverable Partitions Specification).
pub const NO_AUTO: u64 = 1 << 63;
/// Attribute: read-only.
pub const READ_ONLY: u64 = 1 << 60;
/// Attribute: the file system is to be grown when first mounted.
pub const GROW_FS: u64 = 1 << 59;

/// What fills a partition.
#[derive(Debug, Clone)]
pub enum Content {
    /// Nothing: zeros.
    Empty,
    /// A file.
    File(PathBuf),
    /// A FAT file system, written in place.
    Fat(fat::Image),
}

impl Content {
    fn len(&self) -> Result<u64> {
        Ok(match self {
            Content::Empty => 0,
            Content::File(p) => fs::metadata(p)?.len(),
            Content::Fat(i) => i.size(),
        })
    }
}

/// A partition.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Its name in the table, at most 35 UTF-16 units: `/dev/disk/by-partlabel/…`.
    pub label: String,
    /// Type GUID, see [`crate::Arch::partition_type`].
    pub kind: Uuid,
    /// Unique GUID.
    pub guid: Uuid,
    /// Size in bytes; without one, that of the content. Rounded up to [`ALIGN`].
    pub size: Option<u64>,
    /// Attribute bits.
    pub attributes: u64,
    /// What is in it.
    pub content: Content,
}

/// Data at a fixed place outside all partitions, as the boot loaders of some boards are.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The first sector (of 512 bytes).
    pub sector: u64,
    /// The file.
    pub file: PathBuf,
}

/// The disk apart from its partitions.
#[derive(Debug, Clone)]
pub struct Options {
    /// Disk GUID.
    pub guid: Uuid,
    /// Size in bytes; without one, as large as the partitions need.
    pub size: Option<u64>,
    /// Where the first partition begins at the earliest, in bytes; at least [`ALIGN`]. Blobs lie
    /// before it.
    pub first: u64,
    /// Data outside the partitions.
    pub blobs: Vec<Blob>,
}

/// Where a partition has come to lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its label.
    pub label: String,
    /// First byte.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

/// Computes where the partitions lie, and the size of the disk.
pub fn place(partitions: &[Partition], options: &Options) -> Result<(Vec<Placed>, u64)> {
    let mut at = options.first.max(ALIGN).next_multiple_of(ALIGN);
    let start = at;
    let mut placed = Vec::new();
    for p in partitions {
        let content = p.content.len()?;
        let size = p.size.unwrap_or(content);
        if content > size {
            return Err(Error::TooSmall {
                what: format!("the partition `{}`", p.label),
                need: content,
                have: size,
            });
        }
        if p.label.encode_utf16().count() > 35 {
            return Err(Error::Option {
                what: format!("the partition `{}`", p.label),
                reason: "its label is longer than 35 characters".into(),
            });
        }
        let size = size.max(1).next_multiple_of(ALIGN);
        placed.push(Placed {
            label: p.label.clone(),
            offset: at,
            size,
        });
        at += size;
    }
    let need = (at + BACKUP * SECTOR).next_multiple_of(ALIGN);
    let total = options.size.unwrap_or(need) / SECTOR * SECTOR;
    if total < at + BACKUP * SECTOR {
        return Err(Error::TooSmall {
            what: "the disk".into(),
            need,
            have: total,
        });
    }
    // After the table (34 sectors) and before the first partition.
    let mut free = 34 * SECTOR;
    let mut blobs: Vec<&Blob> = options.blobs.iter().collect();
    blobs.sort_by_key(|b| b.sector);
    for b in blobs {
        let (from, len) = (b.sector * SECTOR, fs::metadata(&b.file)?.len());
        if from < free || from + len > start {
            return Err(Error::Option {
                what: format!("{} at sector {}", b.file.display(), b.sector),
                reason: format!(
                    "it does not fit there: bytes {free} to {start} are free, it takes {from} to {}",
                    from + len
                ),
            });
        }
        free = from + len;
    }
    Ok((placed, total))
}

/// Writes the disk image to `out`.
pub fn write(out: &Path, partitions: &[Partition], options: &Options) -> Result<Vec<Placed>> {
    let (placed, total) = place(partitions, options)?;
    let mut staged = Staged::new(out)?;
    let file = staged.file();
    file.set_len(total).at("enlarge", out)?;
    table(file, partitions, &placed, options).map_err(|source| Error::Gpt {
        path: out.to_owned(),
        source,
    })?;
    for b in &options.blobs {
        copy_file(&b.file, file, out, b.sector * SECTOR)?;
    }
    for (p, at) in partitions.iter().zip(&placed) {
        match &p.content {
            Content::Empty => {}
            Content::File(path) => copy_file(path, file, out, at.offset)?,
            Content::Fat(image) => image.write_at(file, out, at.offset)?,
        }
    }
    staged.commit(0o644)?;
    Ok(placed)
}

fn table(
    file: &mut File,
    partitions: &[Partition],
    placed: &[Placed],
    options: &Options,
) -> std::result::Result<(), gptman::Error> {
    let mut gpt = GPT::new_from(file, SECTOR, options.guid.to_bytes_le())?;
    gpt.align = ALIGN / SECTOR;
    for (i, (p, at)) in partitions.iter().zip(placed).enumerate() {
        gpt[i as u32 + 1] = GPTPartitionEntry {
            partition_type_guid: p.kind.to_bytes_le(),
            unique_partition_guid: p.guid.to_bytes_le(),
            starting_lba: at.offset / SECTOR,
            ending_lba: (at.offset + at.size) / SECTOR - 1,
            attribute_bits: p.attributes,
            partition_name: p.label.as_str().into(),
        };
    }
    gpt.write_into(file)?;
    GPT::write_protective_mbr_into(file, SECTOR)?;
    Ok(())
}

/// Copies a file into `out` (named `path` in messages) at an offset.
pub(crate) fn copy_file(from: &Path, out: &File, path: &Path, offset: u64) -> Result<()> {
    let mut source = fs::open(from)?;
    let mut out = out;
    out.seek(SeekFrom::Start(offset)).at("write", path)?;
    // Between files this is copy_file_range(2).
    std::io::copy(&mut source, &mut out).at("write", path)?;
    Ok(())
}
