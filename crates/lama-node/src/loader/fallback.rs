// SPDX-License-Identifier: Apache-2.0
//! What firmware starts that has forgotten its boot entries: the UKI at the path that it looks for on
//! any disk. It has to be that of a system which is kept, since another one's root is not there any more.

use super::backend::{Access, Esp};
use super::{Loader, boot_path, room, slot_addon, uki};
use crate::attest::pe::Image;
use crate::kernel::Slot;
use crate::machine::Machine;
use crate::{Result, fs};
use std::path::{Path, PathBuf};

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

/// The UKI at this path, after its addon.
fn files(esp: &Path, uki: &str) -> [PathBuf; 2] {
    [esp.join(slot_addon(uki)), esp.join(uki)]
}

fn pairs(esp: &Path, slot: Slot) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let from = files(esp, &uki(slot.name()));
    from.into_iter().zip(files(esp, boot_path()))
}

fn is_current(esp: &Path, slot: Slot) -> Result<bool> {
    for (from, to) in pairs(esp, slot) {
        if !to.exists() || mark(&from)? != mark(&to)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn copy(esp: &Path, slot: Slot) -> Result<()> {
    // What was left behind by a power cut.
    fs::remove(esp.join(format!("{}.new", boot_path())))?;
    let size = fs::size(esp.join(uki(slot.name())));
    room(esp, size.unwrap_or_default())?;
    for (from, to) in pairs(esp, slot) {
        fs::copy(&mut fs::open(from)?, to, 0o644)?;
    }
    Ok(())
}
