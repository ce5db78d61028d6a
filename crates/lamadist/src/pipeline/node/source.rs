// SPDX-License-Identifier: Apache-2.0
//! The source of the program on the node, read once: what is compiled is what was hashed.

use crate::pipeline::stamp::Inputs;
use crate::place::Place;
use lama_exec::fs::{self, AtPath};
use miette::{Result, miette};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The crate's folder in the checkout.
pub const CRATE: &str = "crates/lama-node";

/// Folders of a crate that the program is not made of.
const WITHOUT: [&str; 4] = ["benches", "examples", "target", "tests"];

/// The source of the program on the node.
pub struct Source {
    /// The checkout it is from.
    pub project: PathBuf,
    /// The crate's files by path in its folder, without its tests.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The workspace's manifest.
    pub workspace: String,
    /// The workspace's lock.
    pub lock: String,
}

impl Source {
    /// That of the checkout; where only a description is there, that of the checkout that this
    /// program was compiled in.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn read(place: &Place) -> Result<Self> {
        let own = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let has = |p: &&Path| p.join(CRATE).join("Cargo.toml").is_file();
        let project = [place.project.as_path(), own].into_iter().find(has);
        let project = project.ok_or_else(|| {
            miette!(
                help = "run it in a checkout of the project",
                "the source of the program on the node is neither in {} nor in {}",
                place.project.join(CRATE).display(),
                own.join(CRATE).display()
            )
        })?;
        let mut files = BTreeMap::new();
        collect(&project.join(CRATE), Path::new(""), &mut files)?;
        Ok(Self {
            project: project.to_owned(),
            files,
            workspace: fs::read_to_string(project.join("Cargo.toml"))?,
            lock: fs::read_to_string(project.join("Cargo.lock"))?,
        })
    }

    /// The crate's own manifest.
    pub fn manifest(&self) -> String {
        let bytes = self.files.get(Path::new("Cargo.toml"));
        String::from_utf8_lossy(bytes.map_or(&[][..], Vec::as_slice)).into_owned()
    }

    /// A digest of all of it.
    pub fn digest(&self) -> String {
        let mut i = Inputs::default();
        i.value("workspace", &self.workspace);
        i.value("lock", &self.lock);
        for (path, content) in &self.files {
            i.value(&path.to_string_lossy(), content);
        }
        i.finish()
    }
}

fn collect(dir: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for e in fs::read_dir(dir)? {
        let name = e.file_name();
        let text = name.to_string_lossy();
        let top = below == Path::new("");
        // Hidden ones are an editor's.
        if text.starts_with('.') || top && WITHOUT.contains(&&*text) {
            continue;
        }
        let path = below.join(&name);
        if e.file_type().at("look at", &e.path())?.is_dir() {
            collect(&e.path(), &path, files)?;
        } else {
            files.insert(path, fs::read(e.path())?);
        }
    }
    Ok(())
}
