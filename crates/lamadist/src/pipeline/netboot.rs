// SPDX-License-Identifier: Apache-2.0
//! The artefacts as one signed file that boots and installs over the network.

use super::stamp;
use lama_exec::{Tools, fs};
use lama_image::index::{Entry, Index, Kind};
use lama_image::{hash_file, netboot, uki};
use lama_keys::KeySet;
use lama_model::host::install::Answer;
use lama_tree::{Content, Node, Tree};
use miette::{Result, miette};
use std::path::{Path, PathBuf};

/// The name of the made file, in a folder of its own.
pub const FILE: &str = "installer.efi";

/// What the addon of the medium says, for a root in the initrd: lamadist-netboot.service of the
/// initrd gives the loop devices these names.
const LIVE: &str = "lamadist.slot=live \
    systemd.verity_root_data=/dev/disk/by-loop-ref/lamadist-root \
    systemd.verity_root_hash=/dev/disk/by-loop-ref/lamadist-verity";

/// An image, from which files for the network are made.
pub struct Job<'a> {
    /// The deploy folder.
    pub deploy: &'a Path,
    /// Its index.
    pub index: &'a Index,
    /// The keys that sign it.
    pub keys: &'a KeySet,
    /// External programs.
    pub tools: &'a Tools,
    /// Intermediate results.
    pub cache: &'a Path,
    /// The time that everything built carries.
    pub epoch: u64,
}

/// One machine that it is made for.
pub struct Machine<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its kernel parameters.
    pub cmdline: &'a str,
    /// Signs its addon to a path.
    pub addon: &'a dyn Fn(&Path) -> Result<()>,
}

impl Job<'_> {
    /// Makes the file for this machine, or for any, in `netboot/` of the deploy folder. Nothing is
    /// done where it is there already for the same input.
    pub fn make(&self, machine: Option<&Machine<'_>>, answers: &[Answer]) -> Result<PathBuf> {
        let netboot = self.deploy.join("netboot");
        let dir = match machine {
            None => netboot,
            Some(m) => netboot.join("hosts").join(m.name),
        };
        let out = dir.join(FILE);
        let mut cmdline = vec![LIVE.to_owned()];
        cmdline.extend(machine.map(|m| m.cmdline.to_owned()));
        cmdline.extend(answers.iter().map(Answer::parameter));
        let cmdline = cmdline.join(" ");

        let (root, verity) = (self.entry(Kind::Root)?, self.entry(Kind::Verity)?);
        let uki = self.entry(Kind::Uki)?;
        let addons = self.index.artifacts.iter();
        // The medium's own is of no use on a disk.
        let addons = addons.filter(|e| match e.kind {
            Kind::Addon => e.file != "live.addon.efi",
            kind => kind == Kind::Loader,
        });
        let sources: Vec<&Entry> = std::iter::once(uki).chain(addons).collect();

        let mut inputs = stamp::Inputs::new()?;
        inputs.value("command line", &cmdline);
        inputs.value("host", machine.map_or("", |m| m.name));
        inputs.value("version", &self.index.version);
        inputs.value("epoch", self.epoch.to_string());
        for e in [root, verity].into_iter().chain(sources.iter().copied()) {
            inputs.value(&e.file, &e.sha256);
        }
        inputs.file(&self.keys.dir().join("keyset.toml"))?;
        let inputs = inputs.finish();
        fs::create_dir_all(&dir)?;
        if stamp::fresh(&dir, &inputs) {
            return Ok(out);
        }
        stamp::forget(&dir)?;

        let mut files = Tree::new();
        for folder in ["lamadist", "lamadist/source"] {
            files.add(folder, Node::dir(0o700))?;
        }
        let mut add = |name: &str, path: &Path| -> Result<()> {
            Ok(files.add(name, Node::file(Content::file(path)?, 0o600))?)
        };
        add("lamadist/root.erofs", &self.checked(root)?)?;
        add("lamadist/root.verity", &self.checked(verity)?)?;
        for e in &sources {
            add(&format!("lamadist/source/{}", e.file), &self.checked(e)?)?;
        }
        let scratch = fs::Scratch::new_in(self.cache.join("tmp"))?;
        if let Some(m) = machine {
            let addon = scratch.path().join("host.addon.efi");
            (m.addon)(&addon)?;
            add("lamadist/source/host.addon.efi", &addon)?;
        }
        let options = netboot::Options {
            uki: &self.deploy.join(&uki.file),
            cmdline: &cmdline,
            files: &files,
            epoch: u32::try_from(self.epoch).unwrap_or(u32::MAX),
            scratch: scratch.path(),
        };
        let signing = uki::Signing::new(self.keys, self.tools)?;
        netboot::make(self.tools, &out, &options, Some(&signing))?;
        stamp::record(&dir, inputs, std::slice::from_ref(&out))?;
        Ok(out)
    }

    fn entry(&self, kind: Kind) -> Result<&Entry> {
        self.index.find(kind).ok_or_else(|| {
            miette!(
                help = "build it again",
                "{} lists no {kind:?}",
                self.deploy.join(lama_image::index::FILE).display()
            )
        })
    }

    /// The path of an artefact that is what the index says.
    fn checked(&self, e: &Entry) -> Result<PathBuf> {
        let path = self.deploy.join(&e.file);
        if hash_file(&path)?.sha256 != e.sha256 {
            return Err(miette!(
                help = "build it again with `lamadist build`",
                "{} is not what the index beside it lists",
                path.display()
            ));
        }
        Ok(path)
    }
}
