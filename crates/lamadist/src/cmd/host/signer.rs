// SPDX-License-Identifier: Apache-2.0
//! What signs a machine's addons.

use super::load;
use crate::App;
use crate::cli::HostName;
use crate::pipeline::{self, Sources, packages::Policy};
use lama_exec::Tools;
use lama_image::{Arch, uki};
use lama_keys::KeySet;
use lama_model::host::Checked;
use lama_tree::Tree;
use miette::{Result, miette};
use std::path::Path;

/// A host, and all that its addons are made with.
pub struct Signer {
    /// The host.
    pub checked: Checked,
    /// Its architecture.
    pub arch: Arch,
    /// External programs.
    pub tools: Tools,
    keys: KeySet,
    version: String,
    /// The machine's own packages: the stub is of its architecture.
    root: Tree,
}

impl Signer {
    /// For this host, with development keys or those of a release.
    ///
    /// # Errors
    /// There is no such host, or it says what cannot be; no keys; the packages cannot be had.
    pub fn new(app: &App, name: &HostName, release: bool) -> Result<Self> {
        let checked = load(app, name)?;
        let sources = Sources::load(&app.place.distro)?;
        checked.check_track(&sources.description.distro)?;
        let selection = sources.description.select(&checked.host.bsp, "base")?;
        let version = sources.description.distro.version.clone();
        let tools = pipeline::tools(app, &sources, Policy::Extend)?;
        let root = pipeline::root(app, &sources, &selection, &version, &tools, Policy::Extend)?;
        let arch = selection.machine.arch.as_str();
        let arch =
            Arch::from_debian(arch).ok_or_else(|| miette!("no addon can be made for {arch}"))?;
        Ok(Self {
            checked,
            arch,
            keys: keys(app, release)?,
            tools,
            version,
            root: root.tree,
        })
    }

    /// Signs the addon of medium and system to `out`.
    ///
    /// # Errors
    /// The keys', the tools', the file's.
    pub fn host(&self, out: &Path) -> Result<()> {
        self.addon("lamadist.host", &self.checked.cmdline, out)
    }

    /// Signs one with this command line.
    ///
    /// # Errors
    /// As [`Signer::host`].
    pub fn addon(&self, name: &str, cmdline: &str, out: &Path) -> Result<()> {
        let addon = uki::Addon {
            arch: self.arch,
            cmdline,
            name,
            generation: 1,
            version: &self.version,
        };
        let signing = uki::Signing::new(&self.keys, &self.tools)?;
        uki::addon(&self.root, out, &addon, Some(&signing))?;
        Ok(())
    }
}

fn keys(app: &App, release: bool) -> Result<KeySet> {
    if !release {
        return pipeline::development(app);
    }
    let set = KeySet::open(app.place.release_keys())?;
    set.require_release()?;
    Ok(set)
}
