// SPDX-License-Identifier: Apache-2.0
//! Two builds of the same lock and keys are the same to the byte, wherever and however they run.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use lama_image::index::Index;
use std::path::Path;
use std::process::Command;

/// Copies a folder with its links as a checkout of somebody else's has it: what runs can be run by its
/// owner, and nobody else may read any of it.
fn checkout(from: &Path, to: &Path) {
    let status = Command::new("sh")
        .args(["-c", "umask 077; exec cp -R \"$@\"", "sh"])
        .arg(from)
        .arg(to)
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn folder_cache_umask_zone_and_locale_leave_no_trace() {
    let first = &common::base().index;
    let dir = tempfile::tempdir().unwrap();
    let distro = dir.path().join("elsewhere/distro");
    std::fs::create_dir_all(distro.parent().unwrap()).unwrap();
    checkout(&common::project().join("distro"), &distro);
    let deploy = dir.path().join("deploy");
    // A cache that has the packages, but nothing that was ever made of them, nor the tools.
    let cache = dir.path().join("cache");
    let packages = common::cache().join("store/objects");
    std::fs::create_dir_all(cache.join("store")).unwrap();
    let linked = Command::new("cp")
        .args(["-R", "--link"])
        .arg(&packages)
        .arg(cache.join("store/objects"))
        .status()
        .is_ok_and(|s| s.success());
    if !linked {
        // Another file system: downloaded once more.
        std::fs::remove_dir_all(cache.join("store")).unwrap();
    }
    let out = Command::new("sh")
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_lamadist"))
        .args(["--quiet", "build", "--locked"])
        .env("LAMADIST_DISTRO", &distro)
        .env("LAMADIST_DEPLOY", &deploy)
        .env("LAMADIST_CACHE", &cache)
        .env_remove("LAMADIST_TOOLS")
        .env("LAMADIST_KEYS", common::scratch().join("keys"))
        .env("TZ", "Asia/Tokyo")
        .env("LC_ALL", "C")
        .current_dir("/")
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let second = Index::read(&deploy.join("x86_64/base")).unwrap();
    assert_eq!(first.artifacts.len(), 12);
    // Of a bundle, key and signatures are made by chance (docs/UPDATE.md); its images are those here.
    assert_eq!(
        common::without_bundle(first),
        common::without_bundle(&second)
    );
}
