// SPDX-License-Identifier: Apache-2.0
//! The artefacts as an update bundle.

use crate::App;
use lama_bundle::make::{self, Content, Seal};
use lama_bundle::manifest::{About, How};
use lama_bundle::open::With;
use lama_exec::{Progress, Tools};
use lama_image::hash_file;
use lama_image::index::{Index, Kind};
use lama_keys::KeySet;
use lama_model::Selection;
use lama_model::rauc::class;
use miette::Result;
use std::path::{Path, PathBuf};

/// The bundle's name in the deploy folder.
pub const FILE: &str = "lamadist.raucb";

/// Makes the bundle of what lies in a deploy folder, and enters it into the index. False for a
/// machine that RAUC is not configured for yet.
pub fn bundle(
    selection: &Selection<'_>,
    keys: &KeySet,
    tools: &Tools,
    epoch: u64,
    recipients: &[PathBuf],
    (deploy, index): (&Path, &mut Index),
    progress: &dyn Progress,
) -> Result<bool> {
    if selection.rauc_conf().is_none() {
        return Ok(false);
    }
    let file = |name: &str| deploy.join(name);
    let (root, verity, uki) = (
        file("root.erofs"),
        file("root.verity"),
        file("lamadist.efi"),
    );
    let addons: Vec<(String, PathBuf)> = ["slot-a.addon.efi", "slot-b.addon.efi"]
        .map(|n| (n.to_owned(), file(n)))
        .into();
    let content = Content {
        about: About {
            compatible: selection.machine.compatible.clone(),
            version: index.version.clone(),
            bsp: index.bsp.clone(),
            image: index.image.clone(),
            root_hash: index.root_hash.clone(),
            min_version: selection
                .machine
                .min_version
                .as_ref()
                .map(ToString::to_string),
            migration: selection
                .migration
                .map(|m| (m.since.to_string(), m.note.clone())),
            development: keys.is_development(),
        },
        images: vec![
            (class::ROOT, &root, How::Adaptive),
            (class::VERITY, &verity, How::Adaptive),
            (class::UKI, &uki, How::Hook),
        ],
        files: addons
            .iter()
            .map(|(n, p)| (n.clone(), p.as_path()))
            .collect(),
        epoch,
    };
    let out = file(FILE);
    make::make(tools, &content, Seal { keys, recipients }, &out, progress)?;
    index.add(Kind::Bundle, &hash_file(&out)?, deploy)?;
    Ok(true)
}

/// With what bundles are opened here.
pub fn with<'a>(tools: &'a Tools, keys: Option<&'a KeySet>, scratch: &'a Path) -> With<'a> {
    With {
        tools,
        keys,
        scratch,
    }
}

/// The folder for short-lived files of bundles.
pub fn scratch(app: &App) -> PathBuf {
    app.place.cache.join("tmp")
}
