// SPDX-License-Identifier: Apache-2.0
//! What one build needs of the description: a machine, an image, and all that they name.

use crate::load::named;
use crate::{Compression, Description, Image, Layout, Machine, Migration, Result};
use std::collections::BTreeSet;

/// A machine and an image with everything they refer to.
#[derive(Debug, Clone)]
pub struct Selection<'a> {
    /// The machine's name, the BSP.
    pub bsp: String,
    /// The image's name.
    pub image: String,
    /// The machine.
    pub machine: &'a Machine,
    /// The layout of the medium.
    pub medium: &'a Layout,
    /// The layout of an installed disk.
    pub layout: &'a Layout,
    /// Packages asked for, sorted.
    pub packages: Vec<String>,
    /// systemd units that the preset enables, sorted.
    pub enable: Vec<String>,
    /// Folders of `distro/files/`, later ones over earlier ones.
    pub files: Vec<String>,
    /// Compression of the root file system.
    pub compression: Compression,
    /// What the version does to data that earlier ones left.
    pub migration: Option<&'a Migration>,
}

impl Description {
    /// What building `image` for machine `bsp` needs.
    ///
    /// # Errors
    /// An unknown machine or image.
    pub fn select(&self, bsp: &str, image: &str) -> Result<Selection<'_>> {
        let machine = named("machine", bsp, &self.machines)?;
        let mut s = Selection {
            bsp: bsp.to_owned(),
            image: image.to_owned(),
            machine,
            medium: self.layout(machine.medium.get_ref())?,
            layout: self.layout(machine.layout.get_ref())?,
            packages: machine.packages.clone(),
            enable: Vec::new(),
            files: Vec::new(),
            compression: Compression::default(),
            migration: self.distro.migration.as_ref(),
        };
        // The check on loading has refused cycles.
        let mut chain: Vec<&Image> = Vec::new();
        let mut at = Some(image);
        while let Some(name) = at {
            let i = named("image", name, &self.images)?;
            chain.push(i);
            at = i.extends.as_ref().map(|e| e.get_ref().as_str());
        }
        for i in chain.into_iter().rev() {
            s.packages.extend_from_slice(&i.packages);
            s.enable.extend_from_slice(&i.enable);
            for f in &i.files {
                if !s.files.contains(f.get_ref()) {
                    s.files.push(f.get_ref().clone());
                }
            }
            if let Some(c) = &i.compression {
                s.compression = c.clone();
            }
            let mut seen = BTreeSet::new();
            for g in &i.groups {
                self.group(g.get_ref(), &mut s, &mut seen)?;
            }
        }
        for list in [&mut s.packages, &mut s.enable] {
            list.sort();
            list.dedup();
        }
        Ok(s)
    }

    fn group<'a>(
        &'a self,
        name: &'a str,
        s: &mut Selection<'_>,
        seen: &mut BTreeSet<&'a str>,
    ) -> Result<()> {
        if !seen.insert(name) {
            return Ok(());
        }
        let g = named("package group", name, &self.groups)?;
        for inner in &g.groups {
            self.group(inner.get_ref(), s, seen)?;
        }
        s.packages.extend_from_slice(&g.packages);
        s.packages.extend(
            g.arch_packages
                .get(&s.machine.arch)
                .into_iter()
                .flatten()
                .cloned(),
        );
        s.enable.extend_from_slice(&g.enable);
        Ok(())
    }
}

impl Selection<'_> {
    /// The kernel command line inside the UKI, the same for every slot and medium.
    pub fn cmdline(&self, root_hash: &str) -> String {
        let fixed = [
            "root=/dev/mapper/root",
            "rootfstype=erofs",
            "ro",
            &format!("roothash={root_hash}"),
            "systemd.verity_root_options=panic-on-corruption",
            "systemd.gpt_auto=no",
            "panic=10",
            // What IMA writes down (distro/initrd/etc/ima/ima-policy), the same with every kernel.
            "ima_hash=sha256",
            "ima_template=ima-ng",
        ]
        .map(str::to_owned);
        let consoles = self.machine.consoles.iter().map(|c| format!("console={c}"));
        let words: Vec<String> = fixed
            .into_iter()
            .chain(consoles)
            .chain(self.machine.cmdline.iter().cloned())
            .collect();
        words.join(" ")
    }
}
