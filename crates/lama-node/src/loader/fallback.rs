// SPDX-License-Identifier: Apache-2.0
//! What firmware starts that has forgotten its boot entries: the UKI at the path that it looks for on
//! any disk. It has to be that of a system which is kept, since another one's root is not there any more.

use super::backend::{Access, Esp};
use super::{Loader, addons, boot_path, uki};
use crate::attest::pe::Image;
use crate::kernel::Slot;
use crate::machine::Machine;
use crate::{Error, Result, fs};
use std::path::Path;

/// Free bytes that stay on the ESP.
const RESERVE: u64 = 4 << 20;

/// Puts this slot's UKI and addon there, where they are not yet. Returns whether it did.
///
/// # Errors
/// The ESP has no room, or cannot be read or written.
pub fn refresh(machine: &Machine, slot: Slot) -> Result<bool> {
    if machine.loader != Loader::Firmware {
        return Ok(false);
    }
    let esp = Esp::open(machine, Access::Read)?;
    let current = is_current(esp.at(), slot)?;
    esp.close()?;
    if current {
        return Ok(false);
    }
    let esp = Esp::open(machine, Access::Write)?;
    copy(esp.at(), slot)?;
    esp.close()?;
    Ok(true)
}

/// What tells one UKI from another without reading all of it: the root's hash is in its command line,
/// and its signatures are over the whole.
fn mark(path: &Path) -> Result<(Option<Vec<u8>>, Vec<u8>)> {
    let image = Image::open(path)?;
    Ok((image.section(b".cmdline")?, image.signatures()?))
}

fn is_current(esp: &Path, slot: Slot) -> Result<bool> {
    let from = uki(slot.name());
    for dir in ["", "/slot.addon.efi"] {
        let path = |uki: &str| match dir {
            "" => esp.join(uki),
            file => esp.join(addons(uki) + file),
        };
        let to = path(boot_path());
        if !to.exists() || mark(&path(&from))? != mark(&to)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn copy(esp: &Path, slot: Slot) -> Result<()> {
    let from = uki(slot.name());
    // What was left behind by a power cut.
    fs::remove(esp.join(format!("{}.new", boot_path())))?;
    let size = fs::size(esp.join(&from)).unwrap_or_default();
    let free = fs::free(esp)?;
    if free < size.saturating_add(RESERVE) {
        return Err(Error::new(format!(
            "the boot partition has {} MiB free, and the UKI takes {}",
            free >> 20,
            size >> 20
        ))
        .hint("remove what others left on the ESP"));
    }
    let addon = |uki: &str| esp.join(addons(uki) + "/slot.addon.efi");
    for (from, to) in [
        (addon(&from), addon(boot_path())),
        (esp.join(&from), esp.join(boot_path())),
    ] {
        fs::copy(&mut fs::open(from)?, to, 0o644)?;
    }
    Ok(())
}
