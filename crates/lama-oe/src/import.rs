// SPDX-License-Identifier: Apache-2.0
//! What BitBake made of an image, as a root tree: its `.tar.zst`, its kernel, its manifest, and
//! systemd's stub, all of `tmp/deploy/images/MACHINE/`.

use lama_exec::fs::{self, FsError};
use lama_tree::{Blob, Content, Node, Tree, TreePath};
use std::io;
use std::path::{Path, PathBuf};

/// What was imported.
#[derive(Debug)]
pub struct Imported {
    /// The root, without kernel.
    pub tree: Tree,
    /// The kernel's release, the name of its folder in /usr/lib/modules.
    pub kernel_version: String,
    /// The kernel, a PE file.
    pub kernel: Content,
    /// The packages in the root, sorted.
    pub packages: Vec<Package>,
}

/// A package of the image's manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Its version.
    pub version: String,
}

/// Why nothing could be imported.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// The archive is damaged.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tree(#[from] lama_tree::Error),
    /// An artefact is not there.
    #[error("BitBake left no {what} in {}", dir.display())]
    #[diagnostic(help("it is built by `kas build`; look for {names}"))]
    Missing {
        /// What.
        what: &'static str,
        /// Where it was looked for.
        dir: PathBuf,
        /// The names it may have.
        names: String,
    },
    /// The archive could not be decompressed.
    #[error("cannot decompress {}: {source}", path.display())]
    #[diagnostic(help("remove it and build again; the disk may have been full"))]
    Zstd {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The root is not one of ours.
    #[error("{}: {why}", path.display())]
    #[diagnostic(help("was it made by lama-image-NAME of meta-lamadist?"))]
    Root {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

type Result<T> = std::result::Result<T, Error>;

/// Names that kernels have, by what systemd-stub can start.
const KERNELS: [&str; 2] = ["bzImage", "Image"];
/// Where systemd's stubs belong in a root.
const STUBS: &str = "usr/lib/systemd/boot/efi";

/// Imports the image `recipe` of `machine` from `deploy`; `scratch` takes the decompressed archive,
/// which has to outlive the tree. `efi` is the architecture as the UEFI specification calls it.
///
/// # Errors
/// Something is missing or damaged, or the root has no or several kernels' modules.
pub fn import(
    deploy: &Path,
    machine: &str,
    recipe: &str,
    efi: &str,
    scratch: &Path,
) -> Result<Imported> {
    let find = |what: &'static str, names: &[String]| -> Result<PathBuf> {
        let found = names.iter().map(|n| deploy.join(n)).find(|p| p.is_file());
        found.ok_or_else(|| Error::Missing {
            what,
            dir: deploy.to_owned(),
            names: names.join(" or "),
        })
    };
    let archive = find("root", &[format!("{recipe}-{machine}.tar.zst")])?;
    let names = KERNELS.map(|k| format!("{k}-{machine}.bin"));
    let kernel = find(
        "kernel",
        &[&names[..], &KERNELS.map(str::to_owned)[..]].concat(),
    )?;
    let stub_name = format!("linux{efi}.efi.stub");
    let stub = find("stub of systemd", std::slice::from_ref(&stub_name))?;
    // Where the machine has a boot loader at all; whoever needs it says that it is missing.
    let loader_name = format!("systemd-boot{efi}.efi");
    let loader = Some(deploy.join(&loader_name)).filter(|p| p.is_file());
    let manifest = find("manifest", &[format!("{recipe}-{machine}.manifest")])?;

    let mut tree = unpack(&archive, scratch)?;
    let bad = |why: String| Error::Root {
        path: archive.clone(),
        why,
    };
    let modules = TreePath::new("usr/lib/modules")?;
    let releases: Vec<String> = tree
        .children(&modules)
        .filter(|(_, n)| n.is_dir())
        .map(|(p, _)| p.file_name().to_owned())
        .collect();
    let kernel_version = match releases.as_slice() {
        [one] => one.clone(),
        [] => return Err(bad("the root has no kernel modules".to_owned())),
        more => {
            return Err(bad(format!(
                "the root has the modules of {}",
                more.join(", ")
            )));
        }
    };
    for needed in ["usr/lib/os-release", "usr/bin/lama-node"] {
        if tree.follow(needed).is_none() {
            return Err(bad(format!("the root has no /{needed}")));
        }
    }
    // The kernel travels in the unified kernel image, as does what is in /boot beside it.
    let boot = TreePath::new("boot")?;
    tree.remove(&boot);
    tree.add("boot", Node::dir(0o755))?;
    tree.add(
        &format!("{STUBS}/{stub_name}"),
        Node::file(Content::file(&stub)?, 0o644),
    )?;
    if let Some(loader) = loader {
        let node = Node::file(Content::file(&loader)?, 0o644);
        tree.add(&format!("{STUBS}/{loader_name}"), node)?;
    }
    Ok(Imported {
        tree,
        kernel_version,
        kernel: Content::file(&kernel)?,
        packages: packages(&fs::read_to_string(&manifest)?),
    })
}

fn unpack(archive: &Path, scratch: &Path) -> Result<Tree> {
    let zstd = |source| Error::Zstd {
        path: archive.to_owned(),
        source,
    };
    let plain = scratch.join("root.tar");
    let mut from = zstd::Decoder::new(fs::open(archive)?).map_err(zstd)?;
    let mut to = fs::create(&plain)?;
    io::copy(&mut from, &mut to).map_err(zstd)?;
    drop(to);
    let mut tree = Tree::new();
    lama_tree::read_tar(&Blob::map(&plain)?, |path, node| {
        // The root itself has its own mode in a tree.
        if !path.is_root() {
            tree.insert(&path, node)?;
        }
        Ok(())
    })?;
    Ok(tree)
}

/// The image's manifest: `name architecture version`, a package a line.
fn packages(manifest: &str) -> Vec<Package> {
    let one = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some(Package {
            name: words.next()?,
            arch: words.next()?,
            version: words.next()?,
        })
    };
    let mut out: Vec<Package> = manifest.lines().filter_map(one).collect();
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deploy folder as BitBake leaves one, with a root that has these files.
    fn deploy(files: &[&str]) -> tempfile::TempDir {
        let d = tempfile::tempdir().unwrap();
        let mut tree = Tree::new();
        for f in files {
            tree.add(f, Node::file(f.as_bytes(), 0o644)).unwrap();
        }
        let mut tar = Vec::new();
        lama_tree::write_tar(&tree, &mut tar, 1).unwrap();
        let z = zstd::encode_all(&tar[..], 1).unwrap();
        for (name, data) in [
            ("lama-image-x-m.tar.zst", &z[..]),
            ("bzImage-m.bin", b"MZkernel"),
            ("linuxx64.efi.stub", b"MZstub"),
            (
                "lama-image-x-m.manifest",
                b"b core2_64 2.0\na noarch 1.0\n\nbroken\n",
            ),
        ] {
            fs::write(d.path().join(name), data).unwrap();
        }
        d
    }

    const GOOD: [&str; 4] = [
        "usr/lib/modules/6.18.1/modules.dep",
        "usr/lib/os-release",
        "usr/bin/lama-node",
        "boot/bzImage",
    ];

    fn run(d: &Path) -> Result<Imported> {
        import(d, "m", "lama-image-x", "x64", d)
    }

    #[test]
    fn a_root_with_its_kernel() {
        let d = deploy(&GOOD);
        let i = run(d.path()).unwrap();
        assert_eq!(i.kernel_version, "6.18.1");
        assert_eq!(i.kernel.bytes(), b"MZkernel");
        let names: Vec<&str> = i.packages.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(i.tree.lookup("boot/bzImage").is_none() && i.tree.lookup("boot").is_some());
        let stub = i.tree.read("usr/lib/systemd/boot/efi/linuxx64.efi.stub");
        assert_eq!(stub.unwrap(), b"MZstub");
        let loader = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";
        assert!(i.tree.lookup(loader).is_none());
        fs::write(d.path().join("systemd-bootx64.efi"), "MZboot").unwrap();
        let i = run(d.path()).unwrap();
        assert_eq!(i.tree.read(loader).unwrap(), b"MZboot");
    }

    #[test]
    fn what_cannot_be_imported_says_why() {
        let two = [&GOOD[..], &["usr/lib/modules/6.1/modules.dep"]].concat();
        for (files, expected) in [
            (&GOOD[1..], "the root has no kernel modules"),
            (&two[..], "the modules of 6.1, 6.18.1"),
            (&GOOD[..1], "the root has no /usr/lib/os-release"),
            (&GOOD[..2], "the root has no /usr/bin/lama-node"),
        ] {
            let e = run(deploy(files).path()).unwrap_err().to_string();
            assert!(e.ends_with(expected), "{e}");
        }
        for gone in [
            "bzImage-m.bin",
            "linuxx64.efi.stub",
            "lama-image-x-m.tar.zst",
        ] {
            let d = deploy(&GOOD);
            fs::remove_file(d.path().join(gone)).unwrap();
            let e = run(d.path()).unwrap_err().to_string();
            assert!(e.starts_with("BitBake left no "), "{e}");
        }
        let d = deploy(&GOOD);
        fs::write(d.path().join("lama-image-x-m.tar.zst"), "no").unwrap();
        assert!(
            run(d.path())
                .unwrap_err()
                .to_string()
                .starts_with("cannot decompress")
        );
    }
}
