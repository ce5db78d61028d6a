// SPDX-License-Identifier: Apache-2.0
//! `index.json`: what lies in a deploy directory.

use crate::{Artifact, Error, Result};
use lama_exec::fs;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The name of the file.
pub const FILE: &str = "index.json";

/// The kind of an artefact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The disk image.
    Disk,
    /// The disk image, compressed by zstd.
    DiskZst,
    /// The root file system (EROFS).
    Root,
    /// Its verity tree.
    Verity,
    /// The initramfs.
    Initrd,
    /// The unified kernel image.
    Uki,
    /// A UKI's addon.
    Addon,
    /// systemd-boot, on machines that it starts.
    Loader,
    /// The list of packages.
    Manifest,
    /// What a machine that boots it measures into its TPM.
    Baseline,
    /// A RAUC bundle.
    Bundle,
    /// A bill of materials.
    Sbom,
}

/// One artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its path relative to the index.
    pub file: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

/// The index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The version of the distribution.
    pub version: String,
    /// The machine.
    pub bsp: String,
    /// The image.
    pub image: String,
    /// `debian` or `oe`.
    pub engine: String,
    /// The verity root hash of the root file system.
    pub root_hash: String,
    /// The artefacts, sorted by kind and file.
    pub artifacts: Vec<Entry>,
}

impl Index {
    /// Adds an artefact that lies in `deploy` or below it.
    ///
    /// # Errors
    /// It lies elsewhere, or its name is not UTF-8.
    pub fn add(&mut self, kind: Kind, artifact: &Artifact, deploy: &Path) -> Result<()> {
        let file = artifact.path.strip_prefix(deploy).ok();
        let file = file.and_then(Path::to_str).ok_or_else(|| Error::Format {
            path: artifact.path.display().to_string(),
            reason: format!(
                "an artefact must lie in {} and have a UTF-8 name",
                deploy.display()
            ),
        })?;
        self.artifacts.retain(|e| e.file != file);
        self.artifacts.push(Entry {
            kind,
            file: file.to_owned(),
            size: artifact.size,
            sha256: artifact.sha256.clone(),
        });
        self.artifacts
            .sort_by(|a, b| (a.kind, &a.file).cmp(&(b.kind, &b.file)));
        Ok(())
    }

    /// The first artefact of this kind.
    pub fn find(&self, kind: Kind) -> Option<&Entry> {
        self.artifacts.iter().find(|e| e.kind == kind)
    }

    /// Writes `index.json` into the directory.
    pub fn write(&self, deploy: &Path) -> Result<()> {
        let path = deploy.join(FILE);
        let mut text = serde_json::to_string_pretty(self).map_err(|e| Error::Format {
            path: path.display().to_string(),
            reason: e.to_string(),
        })?;
        text.push('\n');
        Ok(fs::write_atomic(path, text)?)
    }

    /// Reads `index.json` of a directory.
    pub fn read(deploy: &Path) -> Result<Self> {
        let path = deploy.join(FILE);
        serde_json::from_slice(&fs::read(&path)?).map_err(|e| Error::Format {
            path: path.display().to_string(),
            reason: format!("not an index of artefacts: {e}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_survives_writing_and_reading() {
        let dir = tempfile::tempdir().unwrap();
        let mut i = Index {
            version: "0.1.0".into(),
            bsp: "x86_64".into(),
            image: "base".into(),
            engine: "debian".into(),
            root_hash: "00".into(),
            artifacts: vec![],
        };
        let a = |n: &str| Artifact::of(dir.path().join(n), n.as_bytes());
        i.add(Kind::Addon, &a("addons/b.efi"), dir.path()).unwrap();
        i.add(Kind::DiskZst, &a("d.zst"), dir.path()).unwrap();
        i.add(Kind::DiskZst, &a("d.zst"), dir.path()).unwrap();
        i.write(dir.path()).unwrap();
        assert_eq!(Index::read(dir.path()).unwrap(), i);
        assert_eq!(i.artifacts.len(), 2);
        assert_eq!(i.find(Kind::Addon).unwrap().file, "addons/b.efi");
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(text.contains("\"kind\": \"disk-zst\""), "{text}");
        assert!(
            i.add(Kind::Disk, &Artifact::of("/elsewhere", b""), dir.path())
                .is_err()
        );
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(
            Index::read(dir.path())
                .unwrap_err()
                .to_string()
                .contains("index.json")
        );
    }
}
