// SPDX-License-Identifier: Apache-2.0
//! What BitBake would have left is imported, goes the way of every other root, and boots. BitBake
//! itself does not run: a root of the debian engine, laid as it lays one, is in its place, and
//! something that only says yes in that of podman.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::{Bench, Built, PATIENCE, base, cache, lamadist, scratch, turn, well, within};
use lama_image::index::{Index, Kind};
use lama_image::pe;
use lama_tree::{Blob, Tree, read_tar};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

const MACHINE: &str = "lamadist-x86-64";
const IMAGE: &str = "lama-image-base";

fn command(args: &[&str], work: &Path) -> Command {
    let mut c = lamadist(&["--quiet"]);
    c.args(args).env("LAMADIST_DEPLOY", work.join("deploy"));
    c
}

fn succeeds(mut c: Command) {
    let out = within(&mut c, PATIENCE);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{c:?}: {said}");
}

/// A cache of its own for what BitBake makes, with all that the usual one has.
fn own_cache(work: &Path, tools: &Path) -> std::path::PathBuf {
    let own = work.join("cache");
    std::fs::create_dir_all(own.join("tools")).unwrap();
    // What is shown to a sandbox is no link.
    let copied = Command::new("cp")
        .arg("-a")
        .args([tools, &own.join("tools")])
        .status();
    assert!(copied.unwrap().success());
    for e in std::fs::read_dir(cache()).unwrap() {
        let e = e.unwrap();
        let name = e.file_name();
        let own_ones = ["oe", "oe-check", "tmp", "tools"];
        if !own_ones.contains(&&*name.to_string_lossy()) && e.path().is_dir() {
            symlink(e.path(), own.join(name)).unwrap();
        }
    }
    own
}

#[test]
fn a_root_as_bitbake_leaves_it_boots() {
    let _turn = turn();
    let built = base();
    let work = scratch().join("oe-boot");
    let _ = std::fs::remove_dir_all(&work);
    succeeds(command(&["build", "--locked", "--until", "root"], &work));

    // As BitBake lays it.
    let cache = own_cache(&work, built.tools.root().unwrap());
    let images = cache.join("oe/build/tmp/deploy/images").join(MACHINE);
    std::fs::create_dir_all(&images).unwrap();
    let plain = work.join("deploy/x86_64/base/root.tar");
    let mut tree = Tree::new();
    read_tar(&Blob::map(&plain).unwrap(), |path, node| {
        if !path.is_root() {
            tree.insert(&path, node)?;
        }
        Ok(())
    })
    .unwrap();
    let stub = tree
        .read("usr/lib/systemd/boot/efi/linuxx64.efi.stub")
        .unwrap();
    std::fs::write(images.join("linuxx64.efi.stub"), stub).unwrap();
    let uki = std::fs::read(built.deploy.join("lamadist.efi")).unwrap();
    let kernel = pe::section(&uki, ".linux", "the UKI").unwrap().unwrap();
    std::fs::write(images.join("bzImage"), kernel).unwrap();
    let from = std::fs::File::open(&plain).unwrap();
    let to = std::fs::File::create(images.join(format!("{IMAGE}-{MACHINE}.tar.zst"))).unwrap();
    zstd::stream::copy_encode(from, to, 1).unwrap();
    let manifest = images.join(format!("{IMAGE}-{MACHINE}.manifest"));
    std::fs::write(
        manifest,
        "systemd core2_64 259.5\nlama-node core2_64 0.1.0\n",
    )
    .unwrap();

    let bin = work.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("podman"), "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::set_permissions(bin.join("podman"), PermissionsExt::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut c = command(&["build", "--engine", "oe", "--container"], &work);
    c.env("LAMADIST_CACHE", &cache)
        .env("PATH", format!("{}:{path}", bin.display()));
    succeeds(c);

    let deploy = work.join("deploy/x86_64/base");
    let index = Index::read(&deploy).unwrap();
    assert_eq!(index.engine, "oe");
    let manifest = std::fs::read_to_string(deploy.join("manifest.json")).unwrap();
    assert!(manifest.contains("\"259.5\""), "{manifest}");
    // The same files make the same root, whoever made them.
    assert_eq!(index.root_hash, built.index.root_hash);
    let imported = Built {
        keys: built.keys.clone(),
        tools: built.tools.clone(),
        index,
        deploy,
    };
    assert!(imported.file(Kind::Bundle).is_file());
    let bench = Bench::new(&imported);
    let mut vm = bench.boot("imported", &imported.file(Kind::Disk));
    vm.wait_ssh(None).unwrap();
    well(&vm);
    let status = vm.ssh_ok("dmsetup table root").unwrap();
    assert!(status.contains(&imported.index.root_hash), "{status}");
    vm.stop(lama_vm::Stop::Now).unwrap();
    std::fs::remove_dir_all(work).unwrap();
}
