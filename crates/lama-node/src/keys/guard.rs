// SPDX-License-Identifier: Apache-2.0
//! What keeps a system away that this machine could not start, or that could not open its disk.

use super::firmware;
use super::images::{Image, Rule};
use crate::attest::eventlog::lists;
use crate::kernel::Slot;
use crate::loader::uki as uki_of;
use crate::luks::Header;
use crate::machine::Machine;
use crate::secret::Store;
use crate::{Error, Result, ids, volumes};
use std::path::Path;

/// Whether a new system, whose UKI this is, could be started here and would open the disk: refused
/// otherwise, before anything of it is in its place.
///
/// # Errors
/// It could not.
pub fn guard(uki: &Path, esp: &Path, running: Slot) -> Result<()> {
    let new = Image::read(uki, "the new UKI")?;
    let way = "update by way of a version that is signed by both keys";
    let machine = Machine::read()?;
    for (name, device) in volumes::devices(&machine)? {
        let seals = Header::read(&device)?.seals();
        // systemd tries no further than the first seal whose key has signed nothing.
        let mut keys = seals.iter().filter_map(|s| s.key.as_ref());
        if keys.any(|k| !new.policy.contains(k)) {
            return Err(Error::new(format!(
                "the new system could not open {name}: its PCR policy is signed by another key than the one that it is sealed to"
            ))
            .hint(way));
        }
    }
    let store = Store::here()?;
    for s in store.seals()? {
        // One that does not open as it is cannot be lost.
        if s.key.as_ref().is_some_and(|k| !new.policy.contains(k)) && store.opens(&s.name) {
            return Err(Error::new(format!(
                "the new system could not open the secret {}: its PCR policy is signed by another key than the one that it is sealed to",
                s.name
            ))
            .hint(way));
        }
    }
    let Some(db) = ids::variable("db", firmware::VENDOR).filter(|_| ids::secure_boot()) else {
        return Ok(());
    };
    let lists = lists(&db)?;
    let entries = firmware::entries(&lists);
    let path = uki_of(running.name());
    let through = |i: &Image| i.authority(&entries, Rule::Signatures).is_some();
    // Where a CA is in db, this cannot tell; neither where the running system's UKI is not to be had.
    let tells = Image::read(&esp.join(&path), &path).is_ok_and(|old| through(&old));
    if tells && !through(&new) {
        return Err(Error::new(
            "the firmware would not start the new system: it is signed by a key that is not in db",
        )
        .hint(way));
    }
    Ok(())
}
