// SPDX-License-Identifier: Apache-2.0
//! Where what is installed comes from: the medium that was booted, or what a network boot left in
//! memory.

use crate::block::Device;
use crate::error::Context;
use crate::install::mount::Mounted;
use crate::install::plan::Content;
use crate::kernel::Cmdline;
use crate::loader::{Loader, boot_path};
use crate::run::Run;
use crate::{Error, Result, fs, ids};
use std::path::{Path, PathBuf};

/// Where a network boot leaves UKI and addons.
pub const FROM_NETWORK: &str = "/run/lamadist/source";
/// The root, verified block by block while it is read: a medium that is damaged is noticed here and
/// not after the installation.
const ROOT: &str = "/dev/mapper/root";

/// The type of an ESP (UEFI specification 2.10, section 5.3.3).
const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// What is installed.
pub struct Source {
    /// The root's block device.
    pub root: PathBuf,
    /// That of its hash tree.
    pub verity: PathBuf,
    /// The folder with UKI and addons.
    files: PathBuf,
    /// The UKI in it.
    uki: &'static str,
    /// The host's addon in it, where there is one.
    host: &'static str,
    /// The medium's ESP, as long as this lives.
    medium: Option<Mounted>,
}

impl Source {
    /// Finds it.
    ///
    /// # Errors
    /// This is no live system, or its medium cannot be read.
    pub fn find(cmdline: &Cmdline, devices: &[Device]) -> Result<Self> {
        let verity = device(cmdline, "systemd.verity_root_hash")?;
        if Path::new(FROM_NETWORK).is_dir() {
            return Ok(Self {
                root: ROOT.into(),
                verity,
                files: FROM_NETWORK.into(),
                uki: "lamadist.efi",
                host: "host.addon.efi",
                medium: None,
            });
        }
        let esp = match ids::booted_esp() {
            Some(e) => e,
            None => beside_root(cmdline, devices)?,
        };
        let mut found = devices.iter().filter_map(|d| d.partition(&esp));
        let (Some(part), None) = (found.next(), found.next()) else {
            return Err(Error::new(format!(
                "the partition {esp} that was booted is not there, or there twice"
            ))
            .hint("leave one medium in the machine, the one it was booted from"));
        };
        let medium = Mounted::new(&part.path, "vfat", "/run/lamadist/medium", "ro")?;
        let path = |p: &'static str| p;
        Ok(Self {
            root: ROOT.into(),
            verity,
            files: medium.at().to_owned(),
            uki: path(boot_path()),
            host: "loader/addons/host.addon.efi",
            medium: Some(medium),
        })
    }

    /// The medium's ESP, where there is one.
    pub fn medium(&self) -> Option<&Mounted> {
        self.medium.as_ref()
    }

    /// The UKI.
    pub fn uki(&self) -> PathBuf {
        self.files.join(self.uki)
    }

    /// The addon that makes the UKI slot `a`'s or `b`'s.
    pub fn slot_addon(&self, slot: &str) -> PathBuf {
        self.beside(&format!("slot-{slot}.addon.efi"))
    }

    /// systemd-boot, which the media of machines have that it starts.
    pub fn systemd_boot(&self) -> PathBuf {
        self.beside("systemd-boot.efi")
    }

    fn beside(&self, name: &str) -> PathBuf {
        match self.medium {
            Some(_) => self.files.join("lamadist").join(name),
            None => self.files.join(name),
        }
    }

    /// The host's addon, where there is one.
    pub fn host_addon(&self) -> Option<PathBuf> {
        let p = self.files.join(self.host);
        p.is_file().then_some(p)
    }

    /// How much of it there is, for a machine that this starts.
    ///
    /// # Errors
    /// A part is missing.
    pub fn content(&self, loader: Loader) -> Result<Content> {
        let len = |p: &Path| -> Result<u64> {
            let m = std::fs::metadata(p).context(format_args!("cannot find {}", p.display()))?;
            Ok(m.len())
        };
        let loader = match loader {
            Loader::Firmware => 0,
            Loader::SystemdBoot => len(&self.systemd_boot())?,
        };
        Ok(Content {
            root: bytes(&self.root)?,
            verity: bytes(&self.verity)?,
            boot: len(&self.uki())?
                .saturating_add(len(&self.slot_addon("a"))?)
                .saturating_add(len(&self.slot_addon("b"))?)
                .saturating_add(loader),
        })
    }
}

/// The ESP of the disk that the root lies on, where the firmware has no variables to tell: the medium's
/// signed addon names the root's partition.
fn beside_root(cmdline: &Cmdline, devices: &[Device]) -> Result<String> {
    let root = cmdline.get("systemd.verity_root_data");
    let root = root.and_then(|v| v.strip_prefix("PARTUUID="));
    let mut disks = devices
        .iter()
        .filter(|d| root.is_some_and(|r| d.partition(r).is_some()));
    let none = || {
        Error::new("the firmware does not say which medium was booted").hint(
            "boot the medium that `lamadist build` made, and leave no second one in the machine",
        )
    };
    let (Some(disk), None) = (disks.next(), disks.next()) else {
        return Err(none());
    };
    let mut parts = disk.children.iter();
    let esp = parts.find(|p| {
        p.parttype
            .as_deref()
            .is_some_and(|t| t.eq_ignore_ascii_case(ESP))
    });
    esp.and_then(|p| p.partuuid.clone()).ok_or_else(none)
}

/// The device that a kernel parameter names, `/dev/…` or `PARTUUID=…`.
fn device(cmdline: &Cmdline, key: &str) -> Result<PathBuf> {
    let value = cmdline.get(key).ok_or_else(|| {
        Error::new(format!("the kernel command line has no {key}="))
            .hint("boot the medium that `lamadist build` made")
    })?;
    Ok(match value.strip_prefix("PARTUUID=") {
        Some(u) => Path::new("/dev/disk/by-partuuid").join(u.to_ascii_lowercase()),
        None => value.into(),
    })
}

/// Bytes of a block device.
///
/// # Errors
/// There is no such device.
pub fn bytes(device: &Path) -> Result<u64> {
    let text = Run::new("blockdev").arg("--getsize64").arg(device).text()?;
    text.parse()
        .map_err(|_| Error::new(format!("blockdev says {text:?} of {}", device.display())))
}

/// Copies a file onto the ESP.
///
/// # Errors
/// It cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(&mut fs::open(from)?, to, 0o644).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_variables_the_medium_is_where_the_root_lies() {
        let disk = |name: &str, root: &str| -> Device {
            serde_json::from_str(&format!(
                r#"{{"name":"{name}","type":"disk","children":[
                {{"name":"{name}1","partuuid":"E-{name}","parttype":"{}"}},
                {{"name":"{name}2","partuuid":"{root}","parttype":"x"}}]}}"#,
                ESP.to_uppercase()
            ))
            .unwrap()
        };
        let cmdline = Cmdline::parse("systemd.verity_root_data=PARTUUID=ab-1");
        let (medium, other) = (disk("sda", "AB-1"), disk("sdb", "cd-2"));
        let found = beside_root(&cmdline, &[other.clone(), medium.clone()]);
        assert_eq!(found.unwrap(), "E-sda");
        assert!(beside_root(&cmdline, &[other]).is_err());
        assert!(beside_root(&cmdline, &[medium.clone(), medium.clone()]).is_err());
        assert!(beside_root(&Cmdline::parse("quiet"), &[medium]).is_err());
    }
}
