// SPDX-License-Identifier: Apache-2.0
//! The tools tree: the folder that external programs come from. It is not shipped, so no script is
//! reviewed for it; it needs files, the links of alternatives, and little else.

use crate::unpack::unpack;
use crate::{Excludes, PackageInput, Result, effects, merge};
use lama_exec::fs::{self, AtPath};
use lama_exec::{Progress, Tools};
use lama_model::scripts::Scripts;
use lama_tree::{Node, Tree, write_dir};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Raised when the tree of the same packages looks different.
const FORMAT: u32 = 1;

const EXCLUDE: [&str; 8] = [
    "usr/share/doc/*",
    "usr/share/man/*",
    "usr/share/locale/*",
    "usr/share/info/*",
    "usr/share/lintian/*",
    "usr/share/icons/*",
    "boot/*",
    "usr/share/bug/*",
];

/// Where the tools tree of these packages is or will be: a folder of `dir` named by their digests.
pub fn tools_tree_path(packages: &[PackageInput], dir: &Path) -> PathBuf {
    dir.join(name(packages, FORMAT))
}

/// A name that follows from packages and how something is made of them: 16 hexadecimal digits.
pub(crate) fn name(packages: &[PackageInput], format: u32) -> String {
    let mut all: Vec<&str> = packages.iter().map(|p| p.sha256.as_str()).collect();
    all.sort_unstable();
    let mut h = Sha256::new();
    h.update(format.to_le_bytes());
    for s in all {
        h.update(s);
    }
    hex::encode(h.finalize()).chars().take(16).collect()
}

/// Makes the tools tree of these packages below `dir`, unless it is there, and returns its path.
/// Builds that run at the same time wait for one another; an interrupted one leaves nothing that
/// looks done.
///
/// # Errors
/// A damaged package, two packages with the same file, a full disk.
pub fn tools_tree(
    packages: &[PackageInput],
    scripts: &Scripts,
    store: &Path,
    dir: &Path,
    progress: &dyn Progress,
) -> Result<PathBuf> {
    let target = tools_tree_path(packages, dir);
    if std::fs::symlink_metadata(&target).is_ok() {
        return Ok(target);
    }
    let _lock = fs::FileLock::exclusive(dir.join(".lock"))?;
    if std::fs::symlink_metadata(&target).is_ok() {
        return Ok(target);
    }
    let tree = merged(packages, scripts, store, progress)?;
    let task = progress.task("Making the tools tree", lama_exec::progress::Unit::Busy, 0);
    // Left by an interrupted run; the lock is ours.
    for e in fs::read_dir(dir)? {
        if e.file_name().to_string_lossy().starts_with(".tmp-") {
            fs::remove_dir_all(e.path())?;
        }
    }
    let tmp = fs::Scratch::new_in(dir)?;
    write_dir(&tree, tmp.path())?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(tmp.path(), std::fs::Permissions::from_mode(0o755))
        .at("set the mode of", tmp.path())?;
    compile_python(tmp.path());
    // A power cut leaves the whole tree or none.
    fs::sync_file_system(tmp.path())?;
    tmp.keep_as(&target)?;
    drop(task);
    Ok(target)
}

/// The packages' files, links of alternatives, and what programs look for in /etc.
pub(crate) fn merged(
    packages: &[PackageInput],
    scripts: &Scripts,
    store: &Path,
    progress: &dyn Progress,
) -> Result<Tree> {
    let unpacked = unpack(store, packages, progress)?;
    let none = BTreeMap::new();
    let mut tree = merge::merge(packages, &unpacked, scripts, &Excludes::new(EXCLUDE), &none)?;
    let records = effects::records(packages, scripts, &none);
    // An alternative of a package whose record names more than the tree has is no reason to stop.
    let _ = effects::alternatives(&mut tree, &records);
    furnish(&mut tree)?;
    Ok(tree)
}

/// The few files of /etc that programs look for.
fn furnish(tree: &mut Tree) -> Result<()> {
    let file = |t: &str| Node::file(t, 0o644);
    for (path, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        ),
        (
            "etc/group",
            "root:x:0:\ntty:x:5:\ndisk:x:6:\nkvm:x:36:\nnogroup:x:65534:\n",
        ),
        (
            "etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
        ),
        ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ] {
        tree.add(path, file(text))?;
    }
    // Where no certificates were asked for, there is no bundle.
    let _ = effects::ca_certificates(tree);
    Ok(())
}

/// Bytecode makes Python programs (ukify, virt-fw-vars) start at once. Without it they work too, so
/// a failure is only logged.
fn compile_python(root: &Path) {
    if std::fs::symlink_metadata(root.join("usr/bin/python3")).is_err() {
        return;
    }
    let r = Tools::tree(root)
        .command("python3")
        .args([
            "-m",
            "compileall",
            "-q",
            "--invalidation-mode",
            "unchecked-hash",
            "-s",
            "/tree",
            "-p",
            "/",
        ])
        .arg("/tree/usr/lib/python3/dist-packages")
        .args([
            "/tree/usr/lib/python3.13",
            "/tree/usr/lib/python3.12",
            "/tree/usr/lib/python3.14",
        ])
        .bind_at(root, "/tree")
        .run_any();
    if let Err(e) = r {
        tracing::debug!("no bytecode for the tools tree: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_follows_the_packages_alone() {
        let p = |s: &str| PackageInput {
            sha256: s.into(),
            ..PackageInput::default()
        };
        let dir = Path::new("/x");
        let a = tools_tree_path(&[p("1"), p("2")], dir);
        assert_eq!(a, tools_tree_path(&[p("2"), p("1")], dir));
        assert_ne!(a, tools_tree_path(&[p("1"), p("3")], dir));
    }
}
