// SPDX-License-Identifier: Apache-2.0
//! The artefacts as a disk to boot and install from.

use super::image::{Job, SYSTEMD_BOOT};
use lama_exec::fs;
use lama_image::index::{Index, Kind};
use lama_image::{Arch, Compression, IdSpace, PartitionType, disk, fat};
use lama_model::layout::{Layout, Role};
use miette::{Result, miette};
use std::collections::BTreeMap;

/// Bytes of compressed data kept for the next build.
const FRAME_CACHE: u64 = 2 << 30;

impl Job<'_> {
    /// The medium: ESP, root and verity tree, and the same compressed.
    pub(super) fn disk(
        &self,
        arch: Arch,
        ids: &IdSpace,
        compression: Compression,
        index: &mut Index,
    ) -> Result<()> {
        let t = self.step("Writing the disk");
        let boot = arch.boot_path();
        let mut files = BTreeMap::from([
            (
                boot.to_owned(),
                fat::Source::File(self.file("lamadist.efi")),
            ),
            (
                format!("{boot}.extra.d/live.addon.efi"),
                fat::Source::File(self.file("live.addon.efi")),
            ),
        ]);
        // The installer's: with one of these beside it a UKI is that slot's.
        for slot in ["slot-a", "slot-b"] {
            files.insert(
                format!("lamadist/{slot}.addon.efi"),
                fat::Source::File(self.file(&format!("{slot}.addon.efi"))),
            );
        }
        if index.find(Kind::Loader).is_some() {
            let to = format!("lamadist/{SYSTEMD_BOOT}");
            files.insert(to, fat::Source::File(self.file(SYSTEMD_BOOT)));
        }
        // A firmware in setup mode can enroll the keys from here by hand.
        for e in fs::read_dir(self.keys.enroll_dir())? {
            if let Some(name) = e.file_name().to_str().filter(|n| n.ends_with(".auth")) {
                files.insert(
                    format!("loader/keys/lamadist/{name}"),
                    fat::Source::File(e.path()),
                );
            }
        }
        let esp = fat::Options {
            label: "LAMADIST".to_owned(),
            serial: ids.serial("esp"),
            size: None,
            epoch: self.epoch(),
        };
        let layout: &Layout = self.selection.medium;
        let mut partitions = Vec::new();
        for p in &layout.partitions {
            let (kind, role, attributes, content) = match p.role {
                Role::Esp => (
                    PartitionType::Esp,
                    "esp",
                    disk::NO_AUTO,
                    disk::Content::Fat(fat::layout(&files, &esp)?),
                ),
                Role::Root => (
                    PartitionType::Root,
                    "root",
                    disk::READ_ONLY,
                    disk::Content::File(self.file("root.erofs")),
                ),
                Role::Verity => (
                    PartitionType::RootVerity,
                    "verity",
                    disk::READ_ONLY,
                    disk::Content::File(self.file("root.verity")),
                ),
                Role::Var => {
                    return Err(miette!(
                        help = "remove it from the layout",
                        "the medium's layout has a data partition, but a medium is never written"
                    ));
                }
            };
            partitions.push(disk::Partition {
                label: p.label.get_ref().clone(),
                kind: arch.partition_type(kind),
                guid: ids.uuid(&format!("partition {role}")),
                size: p.size.map(|s| s.0),
                attributes,
                content,
            });
        }
        if !layout.raw.is_empty() {
            return Err(miette!(
                "the medium of {} needs boot loader images, which this engine does not make",
                self.selection.bsp
            ));
        }
        let options = disk::Options {
            guid: ids.uuid("disk"),
            size: None,
            first: lama_model::layout::ALIGNMENT,
            blobs: Vec::new(),
        };
        let raw = self.file("disk.raw");
        let placed = disk::write(&raw, &partitions, &options)?;
        drop(t);
        let _t = self.step("Compressing the disk");
        let compression = Compression {
            starts: placed.iter().map(|p| p.offset).collect(),
            ..compression
        };
        let (raw, packed) = compression.compress(&raw, &self.file("disk.raw.zst"))?;
        if let Some(c) = &compression.cache {
            c.prune(FRAME_CACHE)?;
        }
        index.add(Kind::Disk, &raw, self.deploy)?;
        Ok(index.add(Kind::DiskZst, &packed, self.deploy)?)
    }
}
