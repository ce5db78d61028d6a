// SPDX-License-Identifier: Apache-2.0
//! Makes a live medium of a directory with a root file system, and tells what each stage costs:
//! `medium TOOLS ROOT INITRD-FILES KEYS OUT [COMPRESSION]`.
use lama_exec::Tools;
use lama_image::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

type Any = Box<dyn std::error::Error>;

/// CPU seconds of this process and its children so far.
fn cpu() -> f64 {
    let text = lama_exec::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = text
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .filter_map(|f| f.parse().ok())
        .collect();
    // After the state: utime, stime, cutime, cstime are fields 14 to 17.
    fields.iter().skip(10).take(4).sum::<f64>() / 100.0
}

fn stage<T>(name: &str, f: impl FnOnce() -> Result<T>) -> std::result::Result<T, Any> {
    let (t, c) = (Instant::now(), cpu());
    let r = f()?;
    println!(
        "{name:12} {:6.2} s wall {:6.2} s CPU",
        t.elapsed().as_secs_f64(),
        cpu() - c
    );
    Ok(r)
}

fn main() -> std::result::Result<(), Any> {
    let a: Vec<String> = std::env::args().collect();
    let [_, tools, root, files, keys, out, rest @ ..] = a.as_slice() else {
        return Err("usage: medium TOOLS ROOT INITRD-FILES KEYS OUT [COMPRESSION]".into());
    };
    let tools = Tools::tree(tools);
    let out = Path::new(out);
    lama_exec::fs::create_dir_all(out)?;
    let keys = lama_keys::KeySet::open_or_create_development(keys, &lama_exec::Quiet)?;
    let ids = IdSpace::new("lamadist 0.1.0 x86_64 trial");
    let epoch = 1_700_000_000u64;
    let tree = Arc::new(stage("tree", || {
        let mut t = lama_tree::read_dir(Path::new(root))?;
        t.retain(|p, _| {
            let p = p.as_str();
            !["proc/", "sys/", "dev/", "run/", "tmp/", "boot/initrd"]
                .iter()
                .any(|d| p.starts_with(d))
        });
        Ok(t)
    })?);
    let mut modules: Vec<String> = "virtio_blk virtio_scsi virtio_pci nvme ahci ata_piix sd_mod \
        sr_mod usb_storage uas xhci_pci ehci_pci sdhci_pci sdhci_acpi mmc_block megaraid_sas \
        mpt3sas erofs overlay ext4 xfs vfat nls_ascii nls_cp437 dm_verity dm_crypt tpm_crb tpm_tis \
        iTCO_wdt sp5100_tco i6300esb hid_generic usbhid atkbd i8042"
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    modules.push("aesni_intel".into());

    let root_img = out.join("root.erofs");
    let mut o = erofs::Options::new(ids.uuid("root-fs"), epoch);
    if let Some(c) = rest.first() {
        o.compression.clone_from(c);
    }
    stage("erofs", || erofs::make(&tools, &tree, &root_img, &o))?;
    let verity = stage("verity", || {
        verity::format(
            &root_img,
            &out.join("root.verity"),
            &verity::Options {
                uuid: ids.uuid("verity"),
                salt: ids.bytes("verity-salt"),
            },
        )
    })?;
    println!("root hash {}", verity.root_hash);
    let mut io = initrd::Options::new(Arch::Amd64, epoch as u32);
    io.modules = modules;
    io.files = Some(files.into());
    let it = stage("initrd tree", || initrd::assemble(&tools, &tree, &io))?;
    println!("initrd: {} nodes, {} KiB", it.len(), it.size() / 1024);
    let initrd = stage("initrd zstd", || {
        initrd::pack(&it, &out.join("initrd.cpio.zst"), &io)
    })?;
    println!("initrd: {} KiB", initrd.size / 1024);
    let signing = uki::Signing::new(&keys, &tools)?;
    let cmdline = format!(
        "root=/dev/mapper/root rootfstype=erofs ro roothash={} systemd.verity_root_options=panic-on-corruption \
         systemd.gpt_auto=no panic=10 console=tty0 console=ttyS0,115200",
        verity.root_hash
    );
    let uki = stage("uki", || {
        let microcode = initrd::microcode(&tree, Arch::Amd64, epoch as u32)?;
        uki::make(
            &tools,
            &tree,
            &out.join("uki.efi"),
            &uki::Options {
                arch: Arch::Amd64,
                initrd: &initrd.path,
                cmdline: &cmdline,
                microcode: microcode.as_deref(),
                scratch: out,
            },
            Some(&signing),
        )
    })?;
    println!("uki: {} KiB", uki.size / 1024);
    let live = format!(
        "lamadist.slot=live systemd.verity_root_data=PARTUUID={} systemd.verity_root_hash=PARTUUID={}",
        ids.uuid("part-root"),
        ids.uuid("part-verity")
    );
    let addon = stage("addon", || {
        uki::addon(
            &tree,
            &out.join("live.addon.efi"),
            &uki::Addon {
                arch: Arch::Amd64,
                cmdline: &live,
                name: "lamadist.slot-live",
                generation: 1,
                version: "0.1.0",
            },
            Some(&signing),
        )
    })?;
    let boot = Arch::Amd64.boot_path();
    let mut files = BTreeMap::new();
    files.insert(boot.to_owned(), fat::Source::File(uki.path));
    files.insert(
        format!("{boot}.extra.d/live.addon.efi"),
        fat::Source::File(addon.path),
    );
    let disk = out.join("disk.img");
    stage("disk", || {
        let esp = fat::layout(
            &files,
            &fat::Options {
                label: "ESP".into(),
                serial: ids.serial("esp"),
                size: None,
                epoch,
            },
        )?;
        let part = |label: &str, t, content, attributes| disk::Partition {
            label: label.into(),
            kind: Arch::Amd64.partition_type(t),
            guid: ids.uuid(&format!("part-{label}")),
            size: None,
            attributes,
            content,
        };
        disk::write(
            &disk,
            &[
                part("esp", PartitionType::Esp, disk::Content::Fat(esp), 0),
                part(
                    "root",
                    PartitionType::Root,
                    disk::Content::File(root_img.clone()),
                    disk::READ_ONLY,
                ),
                part(
                    "verity",
                    PartitionType::RootVerity,
                    disk::Content::File(verity.image.path.clone()),
                    disk::READ_ONLY,
                ),
            ],
            &disk::Options {
                guid: ids.uuid("disk"),
                size: None,
                first: disk::ALIGN,
                blobs: vec![],
            },
        )
    })?;
    let how = Compression {
        level: 11,
        starts: placed.iter().map(|p| p.offset).collect(),
        cache: Some(FrameCache::new(out.join("frames"))),
    };
    let zst = out.join("disk.img.zst");
    let (d, z) = stage("disk.zst", || how.compress(&disk, &zst))?;
    println!(
        "disk {} MiB {}, zst {} MiB",
        d.size >> 20,
        &d.sha256[..12],
        z.size >> 20
    );
    stage("again, cached", || how.compress(&disk, &zst))?;
    Ok(())
}
