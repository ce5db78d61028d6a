// SPDX-License-Identifier: Apache-2.0
//! What starts the UKI of a slot, and how it is told which one: all that touches the firmware's boot
//! variables or systemd-boot's entries goes through [`Loader`]. RAUC does the same, by its backend
//! `efi` or by ours ([`backend`]).

pub mod backend;
pub mod efi;
pub mod entries;
pub mod fallback;
pub mod plan;

use crate::error::Context;
use crate::health::checks::statvfs;
use crate::kernel::Slot;
use crate::machine::Machine;
use crate::{Error, Result, fs, ids};
use backend::{Access, Esp};
use entries::{State, apply};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What starts the UKI of a slot (`boot.loader` of the machine's description).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// The firmware, by its variables `BootOrder` and `BootNext`.
    #[default]
    Firmware,
    /// systemd-boot, by entries on the ESP, for firmware whose variables cannot be set at run time.
    SystemdBoot,
}

/// The UKI of a slot on the ESP.
pub fn uki(slot: &str) -> String {
    format!("EFI/Linux/lamadist-{slot}.efi")
}

/// Where systemd-stub(7) looks for addons of the UKI at this path.
pub fn addons(uki: &str) -> String {
    format!("{uki}.extra.d")
}

/// Where the addon of the UKI at this path says which slot it is.
pub fn slot_addon(uki: &str) -> String {
    format!("{}/slot.addon.efi", addons(uki))
}

/// Free bytes that stay on the ESP.
const RESERVE: u64 = 4 << 20;

/// Whether the ESP has room for one more UKI.
///
/// # Errors
/// It has not.
pub fn room(esp: &Path, uki: u64) -> Result<()> {
    let free = fs::free(esp)?;
    if free >= uki.saturating_add(RESERVE) {
        return Ok(());
    }
    let mib = |n: u64| n / (1 << 20);
    Err(Error::new(format!(
        "the boot partition has {} MiB free, and the new UKI takes {}",
        mib(free),
        mib(uki)
    ))
    .hint("remove what others left on the ESP"))
}

/// The path at which firmware looks on a disk it has no entry for (UEFI specification 2.10, section
/// 3.5.1.1), without the leading slash.
pub fn boot_path() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "EFI/BOOT/BOOTAA64.EFI"
    } else {
        "EFI/BOOT/BOOTX64.EFI"
    }
}

/// The running system's place on its disk.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The disk.
    pub disk: &'a str,
    /// The ESP's number on it.
    pub partition: usize,
    /// The ESP's UUID, where the firmware tells.
    pub esp: Option<&'a str>,
    /// The slot that runs.
    pub slot: Slot,
}

impl Loader {
    /// Whether it can be told which slot comes first.
    ///
    /// # Errors
    /// The firmware has no variables at run time, or they cannot be written.
    pub fn can_choose(self) -> Result<()> {
        match self {
            Self::Firmware => variables(Path::new(ids::EFIVARS)),
            Self::SystemdBoot => Ok(()),
        }
    }

    /// Whether a slot can be tried: started once, and then no more.
    ///
    /// # Errors
    /// As [`Loader::can_choose`]; or the firmware has not been seen to let systemd-boot count, so that
    /// a slot that is not well would be started for ever.
    pub fn can_try(self, machine: &Machine) -> Result<()> {
        self.can_choose()?;
        match self {
            Self::Firmware => Ok(()),
            Self::SystemdBoot => {
                let esp = Esp::open(machine, Access::Read)?;
                State::read(esp.at())?.counting()
            }
        }
    }

    /// Tells the firmware of a disk that was just installed; systemd-boot finds its entries there.
    ///
    /// # Errors
    /// The firmware's variables cannot be written.
    pub fn introduce(self, disk: &str, partition: usize) -> Result<()> {
        match self {
            Self::Firmware => {
                self.can_choose()?;
                efi::entries(disk, partition)
            }
            Self::SystemdBoot => Ok(()),
        }
    }

    /// Mends what the firmware has forgotten or systemd-boot's entries have lost. What is right is left
    /// as it is. Returns what was done.
    ///
    /// # Errors
    /// The firmware's variables or the ESP cannot be read or written.
    pub fn mend(self, machine: &Machine, place: Place<'_>, boot: &str) -> Result<Vec<String>> {
        match self {
            Self::Firmware => {
                self.can_choose()?;
                let esp = place.esp.ok_or_else(|| {
                    Error::new("the firmware does not say which disk was booted")
                        .hint("LamaDist starts by UEFI, without a boot loader between")
                })?;
                efi::mend(place.disk, place.partition, esp, place.slot.name())
            }
            Self::SystemdBoot => {
                let esp = Esp::open(machine, Access::Write)?;
                let m = State::read(esp.at())?.mend(place.slot, boot);
                apply(esp.at(), &m.steps)?;
                esp.close()?;
                Ok(m.said)
            }
        }
    }
}

/// Lets systemd-boot, the signed file `from`, start slot A from this ESP, which holds its UKI. The
/// first start is counted, so that the machine knows whether its firmware can.
///
/// # Errors
/// A file cannot be read or written.
pub fn install_systemd_boot(esp: &Path, from: &Path, boot: &str) -> Result<()> {
    apply(esp, &plan::first(Slot::A, boot))?;
    // Last, since the firmware starts it from here on.
    let to = esp.join(boot_path());
    fs::copy(&mut fs::open(from)?, to, 0o644)
        .map(|_| ())
        .context("systemd-boot")
}

/// Whether the firmware's variables, which the kernel shows in this directory, can be written.
fn variables(dir: &Path) -> Result<()> {
    let hint = "a machine like this is started by systemd-boot: describe it with \
                [boot] loader = \"systemd-boot\", build, and install anew (docs/UPDATE.md)";
    let no = |why: &str| {
        let what = "so that it cannot be told which slot to start";
        Err(Error::new(format!("{why}, {what}")).hint(hint))
    };
    if fs::names(dir)?.is_empty() {
        return no("the firmware has no variables at run time");
    }
    if statvfs(&dir.to_string_lossy())?.f_flag & libc::ST_RDONLY != 0 {
        return no("the firmware's variables cannot be changed at run time");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_variables_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for dir in [dir.path(), Path::new("/nonexistent")] {
            let e = variables(dir).unwrap_err();
            assert!(e.to_string().contains("no variables at run time"), "{e}");
            assert!(e.help().unwrap().contains("systemd-boot"));
        }
        fs::write(dir.path().join("BootOrder-x"), "", 0o644).unwrap();
        variables(dir.path()).unwrap();
        assert_eq!(addons(&uki("a")), "EFI/Linux/lamadist-a.efi.extra.d");
    }

    #[test]
    fn the_first_start_is_counted() {
        let (esp, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = from.path().join("systemd-boot.efi");
        assert!(install_systemd_boot(esp.path(), &from, "boot").is_err());
        assert!(!esp.path().join(boot_path()).exists());
        fs::write(&from, "MZ", 0o644).unwrap();
        fs::write(esp.path().join(uki("a")), "uki", 0o644).unwrap();
        install_systemd_boot(esp.path(), &from, "boot").unwrap();
        assert_eq!(fs::text(esp.path().join(boot_path())).unwrap(), "MZ");
        let state = State::read(esp.path()).unwrap();
        assert_eq!(
            (state.primary(), state.is_good(Slot::A)),
            (Some(Slot::A), true)
        );
        assert!(state.counting().is_err());
        let names = fs::names(esp.path().join(entries::DIR)).unwrap();
        assert_eq!(names, ["lamadist-a.conf", "lamadist-once-a+1.conf"]);
    }
}
