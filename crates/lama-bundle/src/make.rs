// SPDX-License-Identifier: Apache-2.0
//! Images to a signed and encrypted bundle, by `rauc bundle` and `rauc encrypt`.
//!
//! The squashfs in it is not compressed. What is large in it is compressed already (the root is a
//! compressed EROFS, the UKI holds a compressed kernel and initrd), a machine that streams the bundle
//! reads the blocks it needs and no more, and one that makes the bundle out of a delta bundle needs
//! no compressor that would have to give the same bytes.

use crate::manifest::{About, How, Image};
use crate::{Error, Result};
use lama_exec::Tools;
use lama_exec::fs::{self, AtPath, Scratch, Staged};
use lama_exec::progress::{Progress, Unit};
use lama_keys::KeySet;
use std::path::{Path, PathBuf};

/// What makes mksquashfs(1) store everything as it is: no compression of any part, no two files in
/// one block, no holes. A machine that streams a bundle asks the server for each block by itself
/// (squashfs reads a block at a time): small blocks cost a round trip each, large ones bring bytes that
/// the machine has. 64 KiB is between (docs/BENCHMARKS.md).
const SQUASHFS: &str = "-noI -noD -noF -noX -no-fragments -no-sparse -no-duplicates -no-exports \
                        -no-hardlinks -b 64K";
/// Bytes of the file that comes first: with the superblock of 96 bytes before it, the root begins at a
/// block of its own.
const ALIGN: usize = 4000;
/// Its name, the first in the order of names.
const ALIGN_FILE: &str = "0";
/// The hook's name in the bundle.
pub const HOOK: &str = "hook";
/// The hook: all of it. What it starts is part of the running, verified root, so that a bundle brings
/// no program that runs before the machine has booted it.
const HOOK_TEXT: &str = "#!/bin/sh\nexec /usr/bin/lama-node slot-hook \"$@\"\n";

/// What goes into a bundle.
#[derive(Debug, Clone)]
pub struct Content<'a> {
    /// What it says of itself.
    pub about: About,
    /// Images by slot class: the file, and how it gets there.
    pub images: Vec<(&'static str, &'a Path, How)>,
    /// Other files by name, for the hook.
    pub files: Vec<(String, &'a Path)>,
    /// The time that its files carry, in seconds since 1970.
    pub epoch: u64,
}

/// Whom it is signed by and encrypted to.
#[derive(Clone, Copy)]
pub struct Seal<'a> {
    /// The key set that signs, and of which the encryption key is always a recipient.
    pub keys: &'a KeySet,
    /// More recipients: files of certificates, PEM.
    pub recipients: &'a [PathBuf],
}

/// Makes the bundle `out`.
///
/// # Errors
/// RAUC's; a value that no manifest can hold.
pub fn make(
    tools: &Tools,
    content: &Content<'_>,
    seal: Seal<'_>,
    out: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let parent = out.parent().unwrap_or(Path::new("."));
    // Beside the result, so that images can be linked into it.
    let dir = Scratch::new_in(parent)?;
    let folder = dir.path().join("content");
    let images: Vec<Image> = content
        .images
        .iter()
        .map(|(class, _, how)| Image {
            class,
            file: format!("{class}.img"),
            how: *how,
        })
        .collect();
    fs::create_dir_all(&folder)?;
    for ((_, from, _), image) in content.images.iter().zip(&images) {
        lay(from, &folder.join(&image.file))?;
    }
    for (name, from) in &content.files {
        lay(from, &folder.join(name))?;
    }
    let manifest = content.about.render(&images, HOOK)?;
    fs::write(folder.join("manifest.raucm"), manifest)?;
    fs::write(folder.join(ALIGN_FILE), [0; ALIGN])?;
    fs::write_atomic_mode(folder.join(HOOK), HOOK_TEXT, 0o755)?;

    let keyring = dir.path().join("keyring.pem");
    fs::write(&keyring, seal.keys.rauc_keyring_pem()?)?;
    let conf = dir.path().join("system.conf");
    fs::write(&conf, KeySet::rauc_conf(&keyring))?;
    let signed = dir.path().join("signed.raucb");
    {
        let _t = progress.task("Making and signing the bundle", Unit::Busy, 0);
        let cmd = tools.command("rauc").arg("bundle");
        let cmd = seal.keys.rauc_sign_args(&conf)?.apply(cmd);
        let time = format!("{SQUASHFS} -mkfs-time {0} -all-time {0}", content.epoch);
        cmd.arg(format!("--mksquashfs-args={time}"))
            .arg(&folder)
            .arg(&signed)
            .bind(dir.path())
            .run()?;
    }
    let sealed = dir.path().join("sealed.raucb");
    {
        let _t = progress.task("Encrypting the bundle", Unit::Busy, 0);
        let cmd = tools.command("rauc").arg("encrypt");
        let mut cmd = seal.keys.rauc_encrypt_args(&conf).apply(cmd);
        for (n, r) in seal.recipients.iter().enumerate() {
            recipient(r)?;
            let copy = dir.path().join(format!("recipient{n}.pem"));
            fs::write(&copy, fs::read(r)?)?;
            let mut to = std::ffi::OsString::from("--to=");
            to.push(copy);
            cmd = cmd.arg(to);
        }
        cmd.arg(&signed).arg(&sealed).bind(dir.path()).run()?;
    }
    // A finished file takes the place of an older one, whole.
    let staged = Staged::new(out)?;
    fs::rename(&sealed, staged.path())?;
    Ok(staged.commit(0o644)?)
}

/// Refuses what is no certificate, before RAUC does in its own words.
fn recipient(path: &Path) -> Result<()> {
    let known = crate::cms::Certificate::parse_pem(&fs::read(path)?);
    known.map(drop).ok_or_else(|| {
        crate::error::format(
            path,
            "this is no certificate in PEM form",
            "take the one that `lama-node key` prints on the machine",
        )
    })
}

/// Links a file, or copies it where it lies on another file system.
fn lay(from: &Path, to: &Path) -> Result<()> {
    let from = std::path::absolute(from).at("find", from)?;
    fs::metadata(&from)?;
    if std::fs::hard_link(&from, to).is_ok() {
        return Ok(());
    }
    let mut source = fs::open(&from)?;
    let mut target = fs::create(to)?;
    std::io::copy(&mut source, &mut target).at("copy", &from)?;
    Ok(())
}

impl From<(PathBuf, lama_node::Error)> for Error {
    fn from((path, source): (PathBuf, lama_node::Error)) -> Self {
        Self::Delta { path, source }
    }
}
