// SPDX-License-Identifier: Apache-2.0
//! A container image of a tree, as an archive that podman and others load (OCI Image Format
//! Specification 1.1: image layout, manifest, configuration; one layer, `tar+zstd`).

use crate::{Arch, Artifact, Compression, Error, Result};
use lama_exec::fs::{self, AtPath, Staged};
use lama_tree::{Content, Node, Tree, write_tar};
use serde_json::{Value, json};
use std::path::Path;

/// zstd level of the layer.
const LEVEL: i32 = 3;

/// What an image says of itself.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// The name it is loaded under: `localhost/NAME:TAG`.
    pub name: &'a str,
    /// The architecture.
    pub arch: Arch,
    /// The time of everything in it, in seconds since 1970.
    pub epoch: u64,
    /// Environment variables, `NAME=VALUE`.
    pub env: &'a [String],
    /// What runs where nothing else is named.
    pub command: &'a [&'a str],
    /// A folder for intermediate files.
    pub scratch: &'a Path,
}

/// A part of the archive, by its digest.
struct Blob {
    media: &'static str,
    digest: String,
    size: u64,
}

impl Blob {
    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media,
            "digest": format!("sha256:{}", self.digest),
            "size": self.size,
        })
    }
}

/// Writes the image of a tree to `out`.
///
/// # Errors
/// A full disk; a time that is none.
pub fn archive(tree: &Tree, options: &Options<'_>, out: &Path) -> Result<Artifact> {
    let dir = fs::Scratch::new_in(options.scratch)?;
    let (tar, layer) = (
        dir.path().join("layer.tar"),
        dir.path().join("layer.tar.zst"),
    );
    {
        let mut file = std::io::BufWriter::new(fs::create(&tar)?);
        write_tar(tree, &mut file, options.epoch).at("write", &tar)?;
        std::io::Write::flush(&mut file).at("write", &tar)?;
    }
    let compression = Compression {
        level: LEVEL,
        starts: Vec::new(),
        cache: None,
    };
    let (plain, packed) = compression.compress(&tar, &layer)?;
    fs::remove_file(&tar)?;

    let mut all = Tree::new();
    let mut add = |media, data: Content, digest: String| -> Result<Blob> {
        let size = data.len() as u64;
        all.add(&format!("blobs/sha256/{digest}"), Node::file(data, 0o644))?;
        Ok(Blob {
            media,
            digest,
            size,
        })
    };
    let layer = add(
        "application/vnd.oci.image.layer.v1.tar+zstd",
        Content::file(&layer)?,
        packed.sha256,
    )?;
    let seconds = i64::try_from(options.epoch).unwrap_or(i64::MAX);
    let created = jiff::Timestamp::from_second(seconds).map_err(|e| Error::Option {
        what: "the time of a container image".to_owned(),
        reason: e.to_string(),
    })?;
    let config = json!({
        "created": created.to_string(),
        "architecture": options.arch.oci(),
        "os": "linux",
        "config": { "Env": options.env, "Cmd": options.command, "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", plain.sha256)] },
        "history": [{ "created": created.to_string(), "created_by": "lamadist" }],
    });
    let mut add_json = |media, value: &Value| {
        let data = serde_json::to_vec(value).unwrap_or_default();
        let digest = Artifact::of("", &data).sha256;
        add(media, data.into(), digest)
    };
    let config = add_json("application/vnd.oci.image.config.v1+json", &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    });
    let manifest = add_json("application/vnd.oci.image.manifest.v1+json", &manifest)?;
    let mut descriptor = manifest.descriptor();
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": options.name });
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    for (name, value) in [
        ("index.json", index),
        ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" })),
    ] {
        let data = serde_json::to_vec(&value).unwrap_or_default();
        all.add(name, Node::file(data, 0o644))?;
    }
    let mut staged = Staged::new(out)?;
    write_tar(&all, &mut staged, options.epoch).at("write", out)?;
    staged.commit(0o644)?;
    crate::hash_file(out)
}
