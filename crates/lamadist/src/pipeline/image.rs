// SPDX-License-Identifier: Apache-2.0
//! From the root tree to the artefacts in the deploy folder. Which engine made the tree does not
//! matter here.

use lama_compose::Root;
use lama_exec::progress::{Progress, Unit};
use lama_exec::{Tools, fs};
use lama_image::index::{Index, Kind};
use lama_image::{Arch, IdSpace, PartitionType, disk, erofs, fat, initrd, uki, verity};
use lama_keys::KeySet;
use lama_model::layout::{Layout, Role};
use lama_model::{Description, Selection};
use lama_tree::{Node, Tree};
use miette::{Result, miette};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// zstd level of the compressed disk: what is downloaded once and written once.
const DISK_LEVEL: i32 = 11;
/// Bytes of compressed frames kept for the next build.
const FRAME_CACHE: u64 = 2 << 30;

/// Everything a root tree is turned into artefacts with.
pub struct Job<'a> {
    /// The description.
    pub description: &'a Description,
    /// What of it is built.
    pub selection: &'a Selection<'a>,
    /// `debian` or `oe`.
    pub engine: &'a str,
    /// The version that the image carries.
    pub version: &'a str,
    /// The keys that sign it.
    pub keys: &'a KeySet,
    /// External programs.
    pub tools: &'a Tools,
    /// Intermediate results.
    pub cache: &'a Path,
    /// Where artefacts go.
    pub deploy: &'a Path,
    /// Where progress is reported.
    pub progress: &'a dyn Progress,
}

impl Job<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.deploy.join(name)
    }

    fn epoch(&self) -> u64 {
        self.description.distro.source_date_epoch
    }

    fn step(&self, title: &str) -> Arc<dyn lama_exec::progress::Task> {
        self.progress.task(title, Unit::Busy, 0)
    }

    /// The kernel command line inside the UKI, the same for every slot and medium.
    fn cmdline(&self, root_hash: &str) -> String {
        let mut words = vec![
            "root=/dev/mapper/root".to_owned(),
            "rootfstype=erofs".to_owned(),
            "ro".to_owned(),
            format!("roothash={root_hash}"),
            "systemd.verity_root_options=panic-on-corruption".to_owned(),
            "systemd.gpt_auto=no".to_owned(),
            "panic=10".to_owned(),
        ];
        words.extend(
            self.selection
                .machine
                .consoles
                .iter()
                .map(|c| format!("console={c}")),
        );
        words.extend(self.selection.machine.cmdline.iter().cloned());
        words.join(" ")
    }

    /// Makes every artefact and the index.
    pub fn run(&self, root: Root) -> Result<Index> {
        let arch = Arch::from_debian(self.selection.machine.arch.as_str())
            .ok_or_else(|| miette!("no image can be made for {}", self.selection.machine.arch))?;
        let epoch32 = u32::try_from(self.epoch()).unwrap_or(u32::MAX);
        let ids = IdSpace::new(format!(
            "{} {} {} {}",
            self.description.distro.id, self.version, self.selection.bsp, self.selection.image
        ));
        let kernel = root.kernel.ok_or_else(|| {
            miette!(
                help = "name a kernel package under `packages` of the machine",
                "machine {} has no kernel",
                self.selection.bsp
            )
        })?;
        let tree = Arc::new(root.tree);
        // The UKI holds the kernel; the root file system does without it.
        let mut with_kernel: Tree = (*tree).clone();
        with_kernel.add(
            &format!("usr/lib/modules/{}/vmlinuz", kernel.version),
            Node::file(kernel.image.bytes(), 0o644),
        )?;

        let mut index = Index {
            version: self.version.to_owned(),
            bsp: self.selection.bsp.clone(),
            image: self.selection.image.clone(),
            engine: self.engine.to_owned(),
            root_hash: String::new(),
            artifacts: Vec::new(),
        };
        let initrd_options = initrd::Options {
            modules: self.selection.machine.initrd_modules.clone(),
            files: Some(self.description.root.join("initrd")),
            ..initrd::Options::new(arch, epoch32)
        };
        let root_file = self.file("root.erofs");
        let initrd_file = self.file("initrd.cpio.zst");

        // The initrd does not depend on the file system, so both are made at once.
        let (verity, initrd) = std::thread::scope(|s| {
            let initrd = s.spawn(|| {
                let _t = self.step("Assembling the initrd");
                initrd::make(self.tools, &tree, &initrd_file, &initrd_options)
            });
            let root = || -> Result<verity::Verity> {
                let t = self.step("Making the root file system");
                let c = &self.selection.compression;
                let options = erofs::Options {
                    compression: c.algorithm.clone(),
                    cluster: c.cluster,
                    ..erofs::Options::new(ids.uuid("root"), self.epoch())
                };
                erofs::make(self.tools, &tree, &root_file, &options)?;
                drop(t);
                let _t = self.step("Making the verity tree");
                let options = verity::Options {
                    uuid: ids.uuid("verity"),
                    salt: ids.bytes("verity salt"),
                };
                Ok(verity::format(
                    &root_file,
                    &self.file("root.verity"),
                    &options,
                )?)
            };
            let root = root();
            let initrd = initrd
                .join()
                .map_err(|_| miette!("assembling the initrd panicked"))?;
            Ok::<_, miette::Report>((root?, initrd?))
        })?;
        index.root_hash.clone_from(&verity.root_hash);
        index.add(Kind::Verity, &verity.image, self.deploy)?;
        index.add(Kind::Initrd, &initrd, self.deploy)?;

        let signing = uki::Signing::new(self.keys, self.tools)?;
        let scratch = fs::Scratch::new_in(self.cache.join("tmp"))?;
        let t = self.step("Making and signing the UKI");
        let microcode = initrd::microcode(&tree, arch, epoch32)?;
        let uki = uki::make(
            self.tools,
            &with_kernel,
            &self.file("lamadist.efi"),
            &uki::Options {
                arch,
                initrd: &initrd_file,
                cmdline: &self.cmdline(&verity.root_hash),
                microcode: microcode.as_deref(),
                scratch: scratch.path(),
            },
            Some(&signing),
        )?;
        drop(t);
        index.add(Kind::Uki, &uki, self.deploy)?;
        for (name, cmdline) in self.addons(&ids)? {
            let addon = uki::Addon {
                arch,
                cmdline: &cmdline,
                name: &format!("lamadist.{name}"),
                generation: 1,
                version: self.version,
            };
            let out = self.file(&format!("{name}.addon.efi"));
            let made = uki::addon(
                self.tools,
                &tree,
                &out,
                &addon,
                scratch.path(),
                Some(&signing),
            )?;
            index.add(Kind::Addon, &made, self.deploy)?;
        }
        let manifest = serde_json::to_vec_pretty(&root.manifest).unwrap_or_default();
        let manifest_file = self.file("manifest.json");
        fs::write_atomic(&manifest_file, &manifest)?;
        index.add(
            Kind::Manifest,
            &lama_image::Artifact::of(manifest_file, &manifest),
            self.deploy,
        )?;
        self.disk(arch, &ids, &mut index)?;
        index.write(self.deploy)?;
        Ok(index)
    }

    /// The addons' names and what each adds to the command line: which devices are the root.
    fn addons(&self, ids: &IdSpace) -> Result<Vec<(String, String)>> {
        let mut out = vec![(
            "live".to_owned(),
            format!(
                "lamadist.slot=live systemd.verity_root_data=PARTUUID={} systemd.verity_root_hash=PARTUUID={}",
                ids.uuid("partition root"),
                ids.uuid("partition verity")
            ),
        )];
        for (slot, upper) in [("a", "A"), ("b", "B")] {
            out.push((
                format!("slot-{slot}"),
                format!(
                    "lamadist.slot={slot} rauc.slot={upper} systemd.verity_root_data=/dev/mapper/rootfs_{slot} systemd.verity_root_hash=/dev/disk/by-partlabel/verity-{slot}"
                ),
            ));
        }
        Ok(out)
    }

    /// The medium: ESP, root and verity tree, and the same compressed.
    fn disk(&self, arch: Arch, ids: &IdSpace, index: &mut Index) -> Result<()> {
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
        disk::write(&raw, &partitions, &options)?;
        drop(t);
        let _t = self.step("Compressing the disk");
        let frames = lama_image::FrameCache::new(self.cache.join("frames"));
        let (root, (raw, packed)) = std::thread::scope(|s| {
            let root = s.spawn(|| lama_image::hash_file(&self.file("root.erofs")));
            let packed = lama_image::compress_zst(
                &raw,
                &self.file("disk.raw.zst"),
                DISK_LEVEL,
                Some(&frames),
            )?;
            let root = root.join().map_err(|_| miette!("hashing panicked"))??;
            Ok::<_, miette::Report>((root, packed))
        })?;
        frames.prune(FRAME_CACHE)?;
        index.add(Kind::Root, &root, self.deploy)?;
        index.add(Kind::Disk, &raw, self.deploy)?;
        Ok(index.add(Kind::DiskZst, &packed, self.deploy)?)
    }
}
