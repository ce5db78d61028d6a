// SPDX-License-Identifier: Apache-2.0
//! Where what is installed comes from: the medium that was booted, or what a network boot left in
//! memory.

use crate::block::Device;
use crate::error::Context;
use crate::install::mount::Mounted;
use crate::install::plan::Content;
use crate::kernel::Cmdline;
use crate::run::Run;
use crate::{Error, Result, fs, ids};
use std::path::{Path, PathBuf};

/// Where a network boot leaves UKI and addons.
pub const FROM_NETWORK: &str = "/run/lamadist/source";
/// The root, verified block by block while it is read: a medium that is damaged is noticed here and
/// not after the installation.
const ROOT: &str = "/dev/mapper/root";

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
        let hint = "boot the medium that `lamadist build` made";
        let esp = ids::booted_esp().ok_or_else(|| {
            Error::new("the firmware does not say which medium was booted").hint(hint)
        })?;
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
        let name = format!("slot-{slot}.addon.efi");
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

    /// How much of it there is.
    ///
    /// # Errors
    /// A part is missing.
    pub fn content(&self) -> Result<Content> {
        let len = |p: &Path| -> Result<u64> {
            let m = std::fs::metadata(p).context(format_args!("cannot find {}", p.display()))?;
            Ok(m.len())
        };
        Ok(Content {
            root: bytes(&self.root)?,
            verity: bytes(&self.verity)?,
            boot: len(&self.uki())?
                .saturating_add(len(&self.slot_addon("a"))?)
                .saturating_add(len(&self.slot_addon("b"))?),
        })
    }
}

/// The path at which firmware looks for a UKI on a disk it has no entry for (UEFI specification 2.10,
/// section 3.5.1.1), without the leading slash.
pub fn boot_path() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "EFI/BOOT/BOOTAA64.EFI"
    } else {
        "EFI/BOOT/BOOTX64.EFI"
    }
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

fn bytes(device: &Path) -> Result<u64> {
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
