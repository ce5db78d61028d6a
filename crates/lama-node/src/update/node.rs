// SPDX-License-Identifier: Apache-2.0
//! What the making of a bundle needs of the machine.

use super::channel::KEYRING;
use crate::install::mount::Mounted;
use crate::kernel::Slot;
use crate::loader::{self, backend::Turn};
use crate::machine::{Machine, Partition, Role};
use crate::secret::{self, seal};
use crate::{Error, Result, fs, generator, node_key};
use std::fs::File;
use std::path::Path;

/// Where the ESP is mounted meanwhile.
const MOUNT: &str = "/run/lamadist/delta-esp";

/// The machine, or what stands for it in a test.
pub trait Node {
    /// Its `compatible`.
    fn compatible(&self) -> &str;
    /// The version that runs.
    fn version(&self) -> &str;
    /// Files or devices that begin with the images of these slot classes, of the slot that runs.
    ///
    /// # Errors
    /// There is no such class, or it cannot be read.
    fn images(&self, classes: &[&str]) -> Result<Vec<File>>;
    /// The machine's private key, PEM.
    ///
    /// # Errors
    /// There is none, or it does not open.
    fn key(&self) -> Result<Vec<u8>>;
    /// The certificate of that key, a file.
    fn certificate(&self) -> &Path;
    /// Whom bundles are trusted from, a file.
    fn keyring(&self) -> &Path;
}

/// The machine that this program runs on.
pub struct Here {
    /// What the build says of it.
    pub machine: Machine,
    /// The slot that runs.
    pub slot: Slot,
}

impl Here {
    /// Where the root lies of the slot that runs, decrypted.
    fn root(&self) -> Result<String> {
        let of = |p: &&Partition| {
            p.role == Role::Root && p.slot.as_deref().is_none_or(|s| s == self.slot.name())
        };
        let root = self.machine.layout.iter().find(of);
        let root = root.ok_or_else(|| Error::new("the machine's layout has no root"))?;
        Ok(if root.encrypted {
            format!("/dev/mapper/{}", generator::mapper(&root.label))
        } else {
            format!("/dev/lamadist/{}", root.label)
        })
    }

    /// The UKI of the slot that runs. Whatever becomes of this process, the ESP does not stay mounted.
    fn uki(&self) -> Result<File> {
        let device = format!("/dev/lamadist/{}", self.machine.esp_label());
        let _turn = Turn::wait()?;
        let esp = Mounted::new(&device, "vfat", MOUNT, "ro")?;
        let file = fs::open(esp.at().join(loader::uki(self.slot.name())))?;
        esp.detach()?;
        Ok(file)
    }
}

impl Node for Here {
    fn compatible(&self) -> &str {
        &self.machine.compatible
    }

    fn version(&self) -> &str {
        &self.machine.version
    }

    fn images(&self, classes: &[&str]) -> Result<Vec<File>> {
        let one = |class: &&str| match *class {
            "rootfs" => fs::open(self.root()?),
            "uki" => self.uki(),
            other => Err(Error::new(format!(
                "the delta bundle needs an image {other:?}, which this system does not know"
            ))),
        };
        classes.iter().map(one).collect()
    }

    fn key(&self) -> Result<Vec<u8>> {
        let sealed = Path::new(secret::DIR).join(node_key::NAME);
        if !sealed.is_file() {
            return Err(Error::new("this machine has no key yet").hint("lama-node key --make"));
        }
        seal::open(Path::new("/var"), node_key::NAME, &sealed)
    }

    fn certificate(&self) -> &Path {
        Path::new(node_key::CERTIFICATE)
    }

    fn keyring(&self) -> &Path {
        Path::new(KEYRING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_that_of_the_slot_that_runs() {
        let here = |slot, encrypted| {
            Here {
            machine: Machine::parse(
                format!(
                    r#"{{"bsp":"x","image":"base","version":"1","compatible":"c","layout":[
                    {{"label":"rootfs-a","type":"r","role":"root","slot":"a","encrypted":{encrypted}}},
                    {{"label":"rootfs-b","type":"r","role":"root","slot":"b","encrypted":{encrypted}}}]}}"#
                )
                .as_bytes(),
            )
            .unwrap(),
            slot,
        }
        };
        assert_eq!(here(Slot::A, true).root().unwrap(), "/dev/mapper/rootfs_a");
        assert_eq!(here(Slot::B, true).root().unwrap(), "/dev/mapper/rootfs_b");
        assert_eq!(
            here(Slot::B, false).root().unwrap(),
            "/dev/lamadist/rootfs-b"
        );
        let e = here(Slot::A, true).images(&["dtb"]).err().unwrap();
        assert!(e.to_string().contains("\"dtb\""), "{e}");
    }
}
