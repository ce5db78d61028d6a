// SPDX-License-Identifier: Apache-2.0
//! Whether a bundle may be installed: RAUC judges signature and format, then every byte is compared
//! with what was signed.

use crate::open::With;
use crate::{Bundle, Error, Result};
use lama_exec::fs::{self, AtPath, Scratch};
use lama_exec::progress::{Progress, Unit};
use lama_keys::{KeySet, ToolArgs};
use lama_node::delta::tree::Leaves;
use lama_node::delta::{BLOCK, hex};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;

/// Checks everything; `keyring` is a file of certificates that bundles are trusted by.
///
/// # Errors
/// Why it must not be installed.
pub fn check(
    bundle: &Bundle,
    with: With<'_>,
    keyring: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    bundle.manifest()?;
    let crypt = bundle.crypt()?;
    let dir = Scratch::new_in(with.scratch)?;
    let (conf, args) = judge(bundle, with, keyring, dir.path())?;
    {
        let task = progress.task("Comparing every block", Unit::Bytes, bundle.content);
        let payload = bundle.content.checked_sub(crypt.tree);
        let payload = payload.filter(|p| p % BLOCK as u64 == 0);
        let payload = payload
            .ok_or_else(|| refused(bundle, "its payload and hash tree are not whole", CUT))?;
        let mut file = bundle.file()?;
        let mut leaves = Leaves::new(&crypt.salt);
        let mut buf = vec![0; PIECE];
        let mut left = payload;
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let part = buf.get_mut(..n).unwrap_or_default();
            file.read_exact(part).at("read", &bundle.path)?;
            leaves.update(part);
            left -= n as u64;
            task.advance(n as u64);
        }
        let mut found = Vec::new();
        file.take(crypt.tree)
            .read_to_end(&mut found)
            .at("read", &bundle.path)?;
        let (tree, root) = leaves.tree();
        if hex(&root) != crypt.hash {
            let damaged = damaged_at(&tree, &found);
            return Err(refused(
                bundle,
                &format!("its payload is not what was signed{damaged}"),
                CUT,
            ));
        }
        if tree != found {
            return Err(refused(
                bundle,
                "its hash tree is not that of its payload",
                CUT,
            ));
        }
    }
    let task = progress.task("Comparing the images", Unit::Busy, 0);
    images(bundle, with, &conf, &args, dir.path())?;
    drop(task);
    Ok(())
}

const CUT: &str = "it was damaged on the way: copy it again, and compare its SHA-256";

fn refused(bundle: &Bundle, reason: &str, hint: &str) -> Error {
    Error::Refused {
        path: bundle.path.clone(),
        reason: reason.to_owned(),
        hint: hint.to_owned(),
    }
}

/// Where the lowest levels of two trees differ first, in words.
fn damaged_at(computed: &[u8], found: &[u8]) -> String {
    // The lowest level lies last.
    let same = computed
        .chunks(32)
        .rev()
        .zip(found.chunks(32).rev())
        .position(|(a, b)| a != b);
    match same {
        Some(n) if computed.len() == found.len() => {
            let blocks = computed.len() / 32;
            format!(" (near hash {} of its tree)", blocks - 1 - n)
        }
        _ => String::new(),
    }
}

/// Lets `rauc info` judge. Returns the configuration with which it could decrypt the bundle.
fn judge(
    bundle: &Bundle,
    with: With<'_>,
    keyring: &Path,
    dir: &Path,
) -> Result<(PathBuf, ToolArgs)> {
    let ring = dir.join("keyring.pem");
    fs::write(&ring, fs::read(keyring)?)?;
    let confs = match with.keys {
        Some(k) if !bundle.recipients.is_empty() => k.rauc_decrypt_confs(&ring)?,
        _ => vec![(KeySet::rauc_conf(&ring), ToolArgs::default())],
    };
    let mut said = String::new();
    for (n, (text, args)) in confs.into_iter().enumerate() {
        // As on the nodes.
        let text = text.replacen("[system]\n", "[system]\nbundle-formats=-plain\n", 1);
        let conf = dir.join(format!("system{n}.conf"));
        fs::write(&conf, text)?;
        let mut option = std::ffi::OsString::from("--conf=");
        option.push(&conf);
        let cmd = with.tools.command("rauc").arg(option).arg("info");
        let cmd = args.apply(cmd).arg(&bundle.path);
        let cmd = cmd.bind_ro(&bundle.path).bind_ro(dir);
        let (status, out) = cmd.run_any()?;
        if status.success() {
            return Ok((conf, args));
        }
        said = String::from_utf8_lossy(&out.stderr).into_owned();
    }
    let last = said.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("");
    let reason = format!("RAUC says: {}", last.trim());
    let hint = if last.contains("signature") {
        "it is signed by somebody who is not trusted here, or was changed after it was signed; --keyring names other certificates"
    } else {
        "make it anew with `lamadist bundle`"
    };
    Err(refused(bundle, &reason, hint))
}

/// Extracts the images by RAUC, and compares them and their indexes with the manifest.
fn images(bundle: &Bundle, with: With<'_>, conf: &Path, args: &ToolArgs, dir: &Path) -> Result<()> {
    let out = dir.join("content");
    extract(bundle, with, conf, args, dir, &out)?;
    for image in bundle.manifest()?.images() {
        let plain = !image.file.is_empty() && !image.file.contains('/');
        let path = out.join(&image.file);
        if !plain || !path.is_file() {
            return Err(refused(
                bundle,
                &format!("the image {} is missing in it", image.class),
                "make it anew",
            ));
        }
        let mut leaves = Leaves::new(&[]);
        let mut whole = Sha256::new();
        let mut file = fs::open(&path)?;
        let mut buf = vec![0; PIECE];
        loop {
            let n = file.read(&mut buf).at("read", &path)?;
            let part = buf.get(..n).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            whole.update(part);
            leaves.update(part);
        }
        if hex(&whole.finalize()) != image.sha256 {
            return Err(refused(
                bundle,
                &format!("the image {} is not the one that was signed", image.class),
                "make it anew",
            ));
        }
        if image.adaptive.iter().any(|a| a == "block-hash-index") {
            let index = fs::read(out.join(format!("{}.block-hash-index", image.file)))?;
            if index != leaves.digests() {
                return Err(refused(
                    bundle,
                    &format!("the hash index of {} is wrong", image.class),
                    "make it anew",
                ));
            }
        }
    }
    Ok(())
}

/// `rauc extract`, into `out`, which must not be there yet.
fn extract(
    bundle: &Bundle,
    with: With<'_>,
    conf: &Path,
    args: &ToolArgs,
    dir: &Path,
    out: &Path,
) -> Result<()> {
    let mut option = std::ffi::OsString::from("--conf=");
    option.push(conf);
    // RAUC wants to know that no other user can change the bundle meanwhile, and looks at the disk's
    // device for that, whose owner nobody sees in the user namespace of who is not root. What comes out
    // is compared with the signed manifest afterwards.
    let cmd = with.tools.command("rauc").arg(option).arg("extract");
    let cmd = args.apply(cmd).arg("--trust-environment");
    let cmd = cmd.arg(&bundle.path).arg(out);
    cmd.bind_ro(&bundle.path).bind(dir).run()?;
    Ok(())
}

/// Extracts the content of a bundle that is trusted by `keyring` to `out`, a folder that must not be
/// there yet.
///
/// # Errors
/// It is not trusted, cannot be decrypted, or is damaged.
pub fn unpack(bundle: &Bundle, with: With<'_>, keyring: &Path, out: &Path) -> Result<()> {
    let dir = Scratch::new_in(with.scratch)?;
    let (conf, args) = judge(bundle, with, keyring, dir.path())?;
    let content = dir.path().join("content");
    extract(bundle, with, &conf, &args, dir.path(), &content)?;
    Ok(fs::rename(content, out)?)
}
