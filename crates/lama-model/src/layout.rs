// SPDX-License-Identifier: Apache-2.0
//! `distro/layouts/*.toml`: how a disk is divided, and the arithmetic of it.
//!
//! GPT (UEFI specification 2.10, section 5.3) with the partition types of the Discoverable
//! Partitions Specification (<https://uapi-group.org/specifications/specs/discoverable_partitions_specification/>).

use crate::Arch;
use crate::error::{Origin, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use uuid::{Uuid, uuid};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Alignment of partitions in bytes.
pub const ALIGNMENT: u64 = 1 << 20;
/// Bytes of the backup partition table at the end of a disk: 32 sectors of entries and a header.
const BACKUP: u64 = 33 * SECTOR;
/// The first byte after the primary table: protective MBR, header, 32 sectors of entries.
const PRIMARY: u64 = 34 * SECTOR;

/// A disk layout.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Layout {
    /// What it is for, in a line.
    pub description: String,
    /// Boot loader images written outside any partition.
    #[serde(default)]
    pub raw: Vec<Raw>,
    /// The partitions in their order on the disk.
    #[serde(rename = "partition")]
    pub partitions: Vec<Partition>,
}

/// A blob at a fixed place, such as Rockchip's loaders.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Raw {
    /// Its file name.
    pub file: String,
    /// The sector (512 bytes) at which it begins.
    #[schemars(with = "u64")]
    pub sector: Spanned<u64>,
    /// The most it may take, in bytes.
    pub max_size: Size,
}

/// What a partition holds; decides its type UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The EFI system partition.
    Esp,
    /// A root file system for the machine's architecture.
    Root,
    /// The verity hash tree of a root.
    Verity,
    /// Variable data, mounted at /var.
    Var,
}

impl Role {
    /// The partition type UUID of the Discoverable Partitions Specification.
    pub fn type_uuid(self, arch: Arch) -> Uuid {
        match (self, arch) {
            (Role::Esp, _) => uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
            (Role::Root, Arch::Amd64) => uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
            (Role::Root, Arch::Arm64) => uuid!("b921b045-1df0-41c3-af44-4c6f280d3fae"),
            (Role::Verity, Arch::Amd64) => uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"),
            (Role::Verity, Arch::Arm64) => uuid!("df3300ce-d69f-4c92-978c-9bfb0f38d820"),
            (Role::Var, _) => uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d"),
        }
    }
}

/// How a partition is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// Not at all.
    #[default]
    None,
    /// LUKS2, its key sealed to the machine's TPM.
    Luks2,
}

/// One partition.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Partition {
    /// The GPT name, at most 36 UTF-16 code units, unique in the layout.
    #[schemars(with = "String")]
    pub label: Spanned<String>,
    /// What it holds.
    pub role: Role,
    /// The slot it belongs to: `a` or `b`.
    pub slot: Option<Slot>,
    /// Its size; where it is missing, as large as its content (a medium), or with `grow` the rest.
    pub size: Option<Size>,
    /// Where it begins; where it is missing, after the partition before it.
    #[schemars(with = "Option<Size>")]
    pub start: Option<Spanned<Size>>,
    /// Whether it takes what is left of the disk; only the last one may.
    #[serde(default)]
    pub grow: bool,
    /// Its encryption once installed.
    #[serde(default)]
    pub encryption: Encryption,
    /// The file system of a `var` partition: `ext4` or `xfs`.
    pub filesystem: Option<FileSystem>,
}

/// A file system that is made at installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

/// One of the two system slots.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// Slot A.
    A,
    /// Slot B.
    B,
}

/// The largest [`Size`], 1 PiB: sums of sizes don't overflow.
const LARGEST: u64 = 1 << 50;

/// A size in bytes, written as a number with a binary suffix: `512M`, `8G`, `64K`; at most `1024T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[schemars(with = "String")]
pub struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for Size {
    type Err = String;
    fn from_str(s: &str) -> std::result::Result<Self, String> {
        let bad =
            || format!("{s:?} is not a size: write a number and K, M, G or T, such as \"512M\"");
        let (digits, shift) = match s.as_bytes().last() {
            Some(b'K') => (s.get(..s.len() - 1), 10),
            Some(b'M') => (s.get(..s.len() - 1), 20),
            Some(b'G') => (s.get(..s.len() - 1), 30),
            Some(b'T') => (s.get(..s.len() - 1), 40),
            _ => (Some(s), 0),
        };
        // u64's parser takes a sign.
        let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
        let n: u64 = digits.unwrap_or("").parse().map_err(|_| bad())?;
        n.checked_mul(1 << shift)
            .filter(|v| (1..=LARGEST).contains(v))
            .map(Size)
            .ok_or_else(bad)
    }
}

/// A partition with its place, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// First byte.
    pub start: u64,
    /// Length; 0 where it depends on content or disk.
    pub size: u64,
}

impl Placed {
    /// The first byte after it.
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// Rounds up to the alignment of partitions.
pub fn align(bytes: u64) -> u64 {
    bytes.div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT)
}

impl Layout {
    /// Places every partition, `content[i]` being the bytes that partition i has to hold (0: none).
    /// A partition without a size is as large as its content, aligned.
    pub fn place(&self, content: &[u64]) -> Vec<Placed> {
        let mut at = align(PRIMARY);
        for r in &self.raw {
            at = at.max(align(
                r.sector
                    .get_ref()
                    .saturating_mul(SECTOR)
                    .saturating_add(r.max_size.0),
            ));
        }
        let place = |(i, p): (usize, &Partition)| {
            let start = p.start.as_ref().map_or(at, |s| s.get_ref().0);
            let size = p
                .size
                .map_or_else(|| align(content.get(i).copied().unwrap_or(0)), |s| s.0);
            at = align(start.saturating_add(size));
            Placed { start, size }
        };
        self.partitions.iter().enumerate().map(place).collect()
    }

    /// The smallest disk, in bytes, that holds it, with `grow_min` bytes for a growing partition.
    pub fn disk_size(&self, content: &[u64], grow_min: u64) -> u64 {
        let end = self.place(content).last().map_or(PRIMARY, |p| p.end());
        let grow = if self.partitions.iter().any(|p| p.grow) {
            grow_min
        } else {
            0
        };
        align(end.saturating_add(grow).saturating_add(BACKUP))
    }

    /// Checks names, sizes, order, and that nothing overlaps.
    pub(crate) fn check(&self, origin: &Origin) -> Result<()> {
        let mut seen = std::collections::BTreeSet::new();
        let mut end = PRIMARY;
        let mut what = "the partition table".to_owned();
        for r in &self.raw {
            if r.file.is_empty() || r.file.contains('/') {
                let m = format!("{:?} is not a file name", r.file);
                let h = "name a file of the boot loader, without a folder".to_owned();
                return Err(origin.error(origin.find_value(&r.file), m, h));
            }
            let start = r.sector.get_ref().saturating_mul(SECTOR);
            if start > LARGEST {
                let m = format!("no disk has a sector {}", r.sector.get_ref());
                let h = "sectors have 512 bytes; check the number".to_owned();
                return Err(origin.error(r.sector.span(), m, h));
            }
            if start < end {
                let m = format!(
                    "{} at sector {} overlaps {what}",
                    r.file,
                    r.sector.get_ref()
                );
                let h = format!("begin at sector {} or later", end.div_ceil(SECTOR));
                return Err(origin.error(r.sector.span(), m, h));
            }
            end = start.saturating_add(r.max_size.0);
            what.clone_from(&r.file);
        }
        let last = self.partitions.len().saturating_sub(1);
        for (i, (p, at)) in self.partitions.iter().zip(self.place(&[])).enumerate() {
            let label = p.label.get_ref();
            let err = |m: String, h: &str| Err(origin.error(p.label.span(), m, h.to_owned()));
            if label.is_empty() || label.encode_utf16().count() > 36 {
                return err(
                    format!("the label {label:?} has not 1 to 36 characters"),
                    "write 1 to 36 characters (UTF-16 units)",
                );
            }
            if !seen.insert(label.as_str()) {
                return err(
                    format!("the label {label:?} is used twice"),
                    "give each partition its own",
                );
            }
            if p.grow && (i != last || p.size.is_some()) {
                return err(
                    format!("{label:?} cannot grow"),
                    "only the last partition may, and without a size",
                );
            }
            if at.start % ALIGNMENT != 0 || at.size % 4096 != 0 {
                return err(
                    format!("{label:?} is not aligned"),
                    "begin at a multiple of 1M, and make the size a multiple of 4K",
                );
            }
            if at.start < end {
                let m = format!(
                    "the partition {label:?} at byte {} overlaps {what}",
                    at.start
                );
                let span = p
                    .start
                    .as_ref()
                    .map_or_else(|| p.label.span(), Spanned::span);
                return Err(origin.error(
                    span,
                    m,
                    format!("begin at byte {} or later", align(end)),
                ));
            }
            if (p.role == Role::Var) != p.filesystem.is_some() {
                return err(
                    format!("{label:?}: a var partition, and no other, names its filesystem"),
                    "add or remove `filesystem`",
                );
            }
            end = at.end();
            what = format!("the partition {label:?}");
        }
        self.check_pairs(origin)
    }

    /// Checks that there is one ESP, and to every root its verity tree.
    fn check_pairs(&self, origin: &Origin) -> Result<()> {
        let of = |role| self.partitions.iter().filter(move |p| p.role == role);
        if of(Role::Esp).count() != 1 {
            let at = of(Role::Esp).nth(1).map_or(0..0, |p| p.label.span());
            let m = format!("{} partitions with role \"esp\"", of(Role::Esp).count());
            return Err(origin.error(at, m, "there is exactly one".to_owned()));
        }
        for (role, other, name) in [
            (Role::Root, Role::Verity, "verity"),
            (Role::Verity, Role::Root, "root"),
        ] {
            for p in of(role) {
                let twins = of(role).filter(|q| q.slot == p.slot).count();
                if twins != 1 || of(other).filter(|q| q.slot == p.slot).count() != 1 {
                    let m = format!(
                        "{:?} has no {name} partition of its own slot to itself",
                        p.label.get_ref()
                    );
                    let h = "each slot has one root and one verity partition".to_owned();
                    return Err(origin.error(p.label.span(), m, h));
                }
            }
        }
        Ok(())
    }
}
