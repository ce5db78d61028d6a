// SPDX-License-Identifier: Apache-2.0
//! From the root tree to the artefacts in the deploy folder. Which engine made the tree does not
//! matter here.

use lama_compose::Root;
use lama_exec::progress::{Progress, Unit};
use lama_exec::{Tools, fs};
use lama_image::index::{Index, Kind};
use lama_image::{
    Arch, Artifact, Compression, FrameCache, IdSpace, baseline, erofs, initrd, uki, verity,
};
use lama_keys::{KeySet, Role};
use lama_model::{Description, Loader, Selection};
use lama_tree::{Node, Tree};
use miette::{Result, miette};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// zstd level of a release's compressed disk, which many download.
const RELEASE_LEVEL: i32 = 11;
/// The same of other builds. The root and the initrd in it are compressed already: level 11 makes it
/// 4 % smaller for sixteen times the work, more than all the rest of a build.
const DEVELOPMENT_LEVEL: i32 = 3;

/// What the initrd takes from the root besides systemd: the program that says what an installed
/// machine opens and mounts, and what it reads.
const NODE: [&str; 2] = ["usr/bin/lama-node", "usr/lib/lamadist/machine.json"];

/// systemd-boot, signed, in the deploy folder and beside the medium's other files for an installed
/// disk.
pub(super) const SYSTEMD_BOOT: &str = "systemd-boot.efi";

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
    /// Whether it is a release.
    pub release: bool,
    /// Where progress is reported.
    pub progress: &'a dyn Progress,
}

impl Job<'_> {
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.deploy.join(name)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.description.distro.source_date_epoch
    }

    pub(super) fn step(&self, title: &str) -> Arc<dyn lama_exec::progress::Task> {
        self.progress.task(title, Unit::Busy, 0)
    }

    /// Makes every artefact. The index that lists them is not written yet: it comes last.
    pub fn run(&self, root: Root) -> Result<Index> {
        let arch = Arch::from_debian(self.selection.machine.arch.as_str())
            .ok_or_else(|| miette!("no image can be made for {}", self.selection.machine.arch))?;
        let epoch32 = u32::try_from(self.epoch()).unwrap_or(u32::MAX);
        let ids = IdSpace::new(format!(
            "{} {} {} {}",
            self.description.distro.id, self.version, self.selection.bsp, self.selection.image
        ));
        let salts = IdSpace::new(format!(
            "{} {} {}",
            self.description.distro.id, self.selection.bsp, self.selection.image
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
        let frames = FrameCache::new(self.cache.join("frames"));
        let initrd_options = initrd::Options {
            cache: Some(frames.clone()),
            modules: self.selection.machine.initrd_modules.clone(),
            files: Some(self.description.root.join("initrd")),
            extra: NODE.map(str::to_owned).to_vec(),
            ..initrd::Options::new(arch, epoch32)
        };
        let root_file = self.file("root.erofs");
        let initrd_file = self.file("initrd.cpio.zst");

        let signing = uki::Signing::new(self.keys, self.tools)?;
        let scratch = fs::Scratch::new_in(self.cache.join("tmp"))?;

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
                    // The same in every version, so that hashes of unchanged blocks stay the same.
                    salt: salts.bytes("verity salt"),
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

        // The UKI is work for one processor; the others compress the root meanwhile.
        let compression = Compression {
            level: if self.release {
                RELEASE_LEVEL
            } else {
                DEVELOPMENT_LEVEL
            },
            starts: Vec::new(),
            cache: Some(frames),
        };
        let (root_artifact, uki) = std::thread::scope(|s| {
            let root = s.spawn(|| {
                let _t = self.step("Compressing the root file system");
                compression.prepare(&root_file)
            });
            let uki = || -> Result<Artifact> {
                let _t = self.step("Making and signing the UKI");
                let microcode = initrd::microcode(&tree, arch, epoch32)?;
                Ok(uki::make(
                    self.tools,
                    &with_kernel,
                    &self.file("lamadist.efi"),
                    &uki::Options {
                        arch,
                        initrd: &initrd_file,
                        cmdline: &self.selection.cmdline(&verity.root_hash),
                        microcode: microcode.as_deref(),
                        scratch: scratch.path(),
                    },
                    Some(&signing),
                )?)
            };
            let uki = uki();
            let root = root.join().map_err(|_| miette!("compressing panicked"))?;
            Ok::<_, miette::Report>((root?, uki?))
        })?;
        index.add(Kind::Root, &root_artifact, self.deploy)?;
        index.add(Kind::Uki, &uki, self.deploy)?;
        for addon in self.addons(&tree, arch, &ids, &signing)? {
            index.add(Kind::Addon, &addon, self.deploy)?;
        }
        if self.selection.machine.boot.loader == Loader::SystemdBoot {
            let out = self.file(SYSTEMD_BOOT);
            let loader = uki::systemd_boot(&tree, &out, arch, Some(&signing))?;
            index.add(Kind::Loader, &loader, self.deploy)?;
        }
        let manifest = serde_json::to_vec_pretty(&root.manifest).unwrap_or_default();
        let manifest_file = self.file("manifest.json");
        fs::write_atomic(&manifest_file, &manifest)?;
        index.add(
            Kind::Manifest,
            &Artifact::of(manifest_file, &manifest),
            self.deploy,
        )?;
        self.baseline(&mut index)?;
        self.disk(arch, &ids, compression, &mut index)?;
        Ok(index)
    }

    /// Writes down what a machine that boots these artefacts measures.
    fn baseline(&self, index: &mut Index) -> Result<()> {
        let mut addons = Vec::new();
        for a in index.artifacts.iter().filter(|a| a.kind == Kind::Addon) {
            addons.push(baseline::Addon::of(&self.file(&a.file))?);
        }
        let loader = index.find(Kind::Loader);
        let loader = loader.map(|l| baseline::Loader::of(&self.file(&l.file)));
        let certificates = self.keys.certificates(Role::Db);
        let data = baseline::Baseline {
            format: baseline::FORMAT,
            version: index.version.clone(),
            bsp: index.bsp.clone(),
            image: index.image.clone(),
            root_hash: index.root_hash.clone(),
            uki: baseline::Uki::of(&self.file("lamadist.efi"))?,
            addons,
            loader: loader.transpose()?,
            db: certificates.into_iter().map(|c| c.fingerprint).collect(),
        }
        .to_json();
        let file = self.file(baseline::FILE);
        fs::write_atomic(&file, &data)?;
        Ok(index.add(Kind::Baseline, &Artifact::of(file, &data), self.deploy)?)
    }

    /// Makes the addons, each of which says which devices are the root.
    fn addons(
        &self,
        tree: &Tree,
        arch: Arch,
        ids: &IdSpace,
        signing: &uki::Signing<'_>,
    ) -> Result<Vec<Artifact>> {
        let make = |name: &str, cmdline: &str| -> Result<Artifact> {
            let addon = uki::Addon {
                arch,
                cmdline,
                name: &format!("lamadist.{name}"),
                generation: 1,
                version: self.version,
            };
            let out = self.file(&format!("{name}.addon.efi"));
            Ok(uki::addon(tree, &out, &addon, Some(signing))?)
        };
        let slot = |slot: &str, bootname: &str| {
            make(
                &format!("slot-{slot}"),
                &format!(
                    "lamadist.slot={slot} rauc.slot={bootname} \
                     systemd.verity_root_data=/dev/mapper/rootfs_{slot} \
                     systemd.verity_root_hash=/dev/lamadist/verity-{slot}"
                ),
            )
        };
        let live = format!(
            "lamadist.slot=live systemd.verity_root_data=PARTUUID={} \
             systemd.verity_root_hash=PARTUUID={}",
            ids.uuid("partition root"),
            ids.uuid("partition verity")
        );
        Ok(vec![make("live", &live)?, slot("a", "A")?, slot("b", "B")?])
    }
}
