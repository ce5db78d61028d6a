// SPDX-License-Identifier: Apache-2.0
//! EROFS, verity, FAT and GPT, judged by the tools of others, for both architectures.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use common::{content, tools, tree};
use lama_exec::fs;
use lama_image::{Arch, Compression, FrameCache, IdSpace, PartitionType, disk, erofs, fat, verity};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const EPOCH: u64 = 1_700_000_000;

fn esp(arch: Arch, dir: &Path) -> fat::Image {
    let big = dir.join("big");
    fs::write(&big, vec![9; 5_000_001]).unwrap();
    let boot = arch.boot_path();
    let mut files = BTreeMap::new();
    files.insert(boot.to_owned(), fat::Source::File(big));
    files.insert(
        format!("{boot}.extra.d/live.addon.efi"),
        fat::Source::Bytes(vec![1; 513]),
    );
    files.insert(
        "loader/keys/auto/PK.auth".into(),
        fat::Source::Bytes(vec![2; 10]),
    );
    files.insert("empty".into(), fat::Source::Bytes(vec![]));
    // A directory of more than one cluster.
    for i in 0..40 {
        files.insert(
            format!("many/a rather long name {i}"),
            fat::Source::Bytes(vec![3; i]),
        );
    }
    let options = fat::Options {
        label: "ESP".into(),
        serial: 0x1234_abcd,
        size: None,
        epoch: EPOCH,
    };
    fat::layout(&files, &options).unwrap()
}

fn partitions(arch: Arch, ids: &IdSpace, dir: &Path) -> Vec<disk::Partition> {
    let part = |label: &str, t, content| disk::Partition {
        label: label.into(),
        kind: arch.partition_type(t),
        guid: ids.uuid(label),
        size: None,
        attributes: if t == PartitionType::Esp {
            0
        } else {
            disk::READ_ONLY
        },
        content,
    };
    vec![
        part(
            "esp",
            PartitionType::Esp,
            disk::Content::Fat(esp(arch, dir)),
        ),
        part(
            "root",
            PartitionType::Root,
            disk::Content::File(dir.join("root")),
        ),
        part(
            "verity",
            PartitionType::RootVerity,
            disk::Content::File(dir.join("verity")),
        ),
    ]
}

#[test]
fn others_accept_every_part_of_the_medium() {
    let Some(t) = tools(&[
        "mkfs.erofs",
        "fsck.erofs",
        "veritysetup",
        "fsck.vfat",
        "mdir",
        "mtype",
        "sfdisk",
        "systemd-dissect",
        "zstd",
    ]) else {
        return;
    };
    for arch in [Arch::Amd64, Arch::Arm64] {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let ids = IdSpace::new(format!("test {arch:?}"));
        let root = dir.join("root");
        let o = erofs::Options::new(ids.uuid("fs"), EPOCH);
        erofs::make(&t, &Arc::new(tree()), &root, &o).unwrap();
        content(&t, dir, "fsck.erofs", &["--extract=out", "root"]);
        assert_eq!(fs::read(dir.join("out/usr/bin/su")).unwrap(), vec![7; 5000]);
        let dump = content(&t, dir, "dump.erofs", &["-s", "root"]);
        assert!(dump.contains(&ids.uuid("fs").to_string()), "{dump}");
        let dump = content(&t, dir, "dump.erofs", &["--path=/etc/shadow", "root"]);
        assert!(dump.contains("Gid: 42") && dump.contains("0640"), "{dump}");

        let v = verity::Options {
            uuid: ids.uuid("verity"),
            salt: ids.bytes("salt"),
        };
        let made = verity::format(&root, &dir.join("verity"), &v).unwrap();
        assert_eq!(
            made.image.size,
            verity::size_for(fs::metadata(&root).unwrap().len())
        );
        content(
            &t,
            dir,
            "veritysetup",
            &["verify", "root", "verity", &made.root_hash],
        );
        // The tool's own tree has to be the same, byte by byte.
        let salt = format!("--salt={}", hex::encode(v.salt));
        content(
            &t,
            dir,
            "veritysetup",
            &[
                "format",
                "root",
                "theirs",
                &salt,
                "--uuid",
                &v.uuid.to_string(),
            ],
        );
        assert!(fs::read(dir.join("theirs")).unwrap() == fs::read(dir.join("verity")).unwrap());

        let options = disk::Options {
            guid: ids.uuid("disk"),
            size: None,
            first: disk::ALIGN,
            blobs: vec![],
        };
        let image = dir.join("disk");
        let placed = disk::write(&image, &partitions(arch, &ids, dir), &options).unwrap();
        let said = content(&t, dir, "sfdisk", &["--verify", "disk"]);
        assert!(said.contains("No errors detected"), "{said}");
        // It looks for partitions of the running architecture only.
        if arch.efi()
            == if cfg!(target_arch = "x86_64") {
                "x64"
            } else {
                "aa64"
            }
        {
            let policy = "--image-policy=root=verity:esp=unprotected:=unused+absent";
            content(&t, dir, "systemd-dissect", &["--validate", policy, "disk"]);
        }
        let json = content(&t, dir, "sfdisk", &["--json", "disk"]).to_lowercase();
        for p in [
            PartitionType::Esp,
            PartitionType::Root,
            PartitionType::RootVerity,
        ] {
            assert!(json.contains(&arch.partition_type(p).to_string()), "{json}");
        }
        let esp = placed.first().unwrap();
        let at = format!("disk@@{}", esp.offset);
        let from = usize::try_from(esp.offset).unwrap();
        let bytes = fs::read(&image).unwrap();
        fs::write(
            dir.join("fat"),
            &bytes[from..from + usize::try_from(esp.size).unwrap()],
        )
        .unwrap();
        content(&t, dir, "fsck.vfat", &["-n", "-V", "fat"]);
        let listed = content(&t, dir, "mdir", &["-/", "-b", "-i", &at, "::"]);
        assert!(
            listed.contains(&format!("{}.extra.d/live.addon.efi", arch.boot_path())),
            "{listed}"
        );
        assert_eq!(listed.matches("rather long name").count(), 40, "{listed}");
        let big = t
            .command("mtype")
            .args(["-i", &at, &format!("::{}", arch.boot_path())])
            .bind(dir)
            .cwd(dir)
            .run()
            .unwrap();
        assert!(big.stdout == vec![9; 5_000_001]);

        let cache = FrameCache::new(dir.join("frames"));
        let z = dir.join("disk.zst");
        let how = Compression {
            level: 11,
            starts: placed.iter().map(|p| p.offset).collect(),
            cache: Some(cache.clone()),
        };
        let root = how.prepare(&dir.join("root")).unwrap();
        assert_eq!(root, lama_image::hash_file(&dir.join("root")).unwrap());
        let prepared = fs::read_dir(dir.join("frames")).unwrap().len();
        assert!(prepared > 0);
        let first = how.compress(&image, &z).unwrap();
        assert_eq!(first.0, lama_image::hash_file(&image).unwrap());
        assert_eq!(first.1, lama_image::hash_file(&z).unwrap());
        content(&t, dir, "zstd", &["-t", "disk.zst"]);
        assert!(zstd::decode_all(&*fs::read(&z).unwrap()).unwrap() == bytes);
        // From the cache, and without one: the same.
        assert_eq!(how.compress(&image, &z).unwrap(), first);
        let bare = Compression {
            cache: None,
            ..how.clone()
        };
        assert_eq!(bare.compress(&image, &z).unwrap(), first);
        cache.prune(0).unwrap();
        assert!(fs::read_dir(dir.join("frames")).unwrap().is_empty());

        // Once more, elsewhere: the same bytes.
        let tmp2 = tempfile::tempdir().unwrap();
        let dir2 = tmp2.path();
        erofs::make(&t, &Arc::new(tree()), &dir2.join("root"), &o).unwrap();
        verity::format(&dir2.join("root"), &dir2.join("verity"), &v).unwrap();
        disk::write(&dir2.join("disk"), &partitions(arch, &ids, dir2), &options).unwrap();
        assert!(fs::read(dir2.join("disk")).unwrap() == bytes);
    }
}

#[test]
fn a_flipped_byte_is_found() {
    let Some(t) = tools(&["veritysetup"]) else {
        return;
    };
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let mut data = vec![5u8; 600 * verity::BLOCK];
    fs::write(dir.join("d"), &data).unwrap();
    let v = verity::Options {
        uuid: IdSpace::new("x").uuid("v"),
        salt: [1; 32],
    };
    let made = verity::format(&dir.join("d"), &dir.join("h"), &v).unwrap();
    content(
        &t,
        dir,
        "veritysetup",
        &["verify", "d", "h", &made.root_hash],
    );
    data[300 * verity::BLOCK + 17] ^= 1;
    fs::write(dir.join("d"), &data).unwrap();
    let (status, _) = t
        .command("veritysetup")
        .args(["verify", "d", "h", &made.root_hash])
        .bind(dir)
        .cwd(dir)
        .run_any()
        .unwrap();
    assert!(!status.success());
}

#[test]
fn wrong_sizes_and_options_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let v = verity::Options {
        uuid: IdSpace::new("x").uuid("v"),
        salt: [1; 32],
    };
    for len in [0, 4095] {
        fs::write(dir.join("d"), vec![0; len]).unwrap();
        assert!(verity::format(&dir.join("d"), &dir.join("h"), &v).is_err());
    }
    assert!(!dir.join("h").exists());
    // One block: its hash is the root hash, and there is no level.
    fs::write(dir.join("d"), vec![0; 4096]).unwrap();
    assert_eq!(
        verity::format(&dir.join("d"), &dir.join("h"), &v)
            .unwrap()
            .image
            .size,
        4096
    );

    let o = |size| fat::Options {
        label: "X".into(),
        serial: 1,
        size,
        epoch: 0,
    };
    let files = |names: &[&str]| -> BTreeMap<String, fat::Source> {
        names
            .iter()
            .map(|n| ((*n).to_owned(), fat::Source::Bytes(vec![0; 1 << 20])))
            .collect()
    };
    assert!(
        fat::layout(&files(&["a"]), &o(Some(10 << 20)))
            .unwrap_err()
            .to_string()
            .contains("EFI system partition")
    );
    assert!(fat::layout(&files(&["a/b", "A/B"]), &o(None)).is_err());
    assert!(fat::layout(&files(&["a", "a/b"]), &o(None)).is_err());
    assert!(fat::layout(&files(&["a:b"]), &o(None)).is_err());
    assert!(fat::layout(&files(&["EFI/x", "efi/y"]), &o(Some(300 << 20))).is_ok());

    let part = |size, label: &str| disk::Partition {
        label: label.into(),
        kind: Arch::Amd64.partition_type(PartitionType::Root),
        guid: v.uuid,
        size,
        attributes: 0,
        content: disk::Content::File(dir.join("d")),
    };
    let mut options = disk::Options {
        guid: v.uuid,
        size: None,
        first: 16 << 20,
        blobs: vec![],
    };
    assert!(
        disk::place(&[part(Some(4095), "r")], &options)
            .unwrap_err()
            .to_string()
            .contains("`r`")
    );
    assert!(disk::place(&[part(None, &"x".repeat(36))], &options).is_err());
    let (placed, total) = disk::place(&[part(None, "r")], &options).unwrap();
    assert_eq!(
        (placed[0].offset, placed[0].size, total),
        (16 << 20, 1 << 20, 18 << 20)
    );
    options.size = Some(17 << 20);
    assert!(disk::place(&[part(None, "r")], &options).is_err());
    options.size = None;
    // Rockchip's places; one that overlaps the table, two that overlap each other.
    let blob = |sector| disk::Blob {
        sector,
        file: dir.join("d"),
    };
    options.blobs = vec![blob(16384), blob(64)];
    disk::write(&dir.join("disk"), &[part(None, "r")], &options).unwrap();
    for bad in [vec![blob(33)], vec![blob(64), blob(71)], vec![blob(32768)]] {
        options.blobs = bad;
        assert!(disk::place(&[part(None, "r")], &options).is_err());
    }
}
