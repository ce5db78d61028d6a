// SPDX-License-Identifier: Apache-2.0
//! What an installation that was cut off at its very end left, and what a firmware has forgotten.
//!
//! A disk whose installation lacks nothing but its last step starts, and still bears the mark by which
//! a medium knows that it may install anew without asking. And a firmware that lost its variables
//! starts the disk by the path that it looks for on any disk, but RAUC needs its entries `A` and `B`.
//! Both are mended at every boot, and so are systemd-boot's entries where it starts the machine.

use crate::block::{self, UNFINISHED};
use crate::grow::Partition;
use crate::kernel::{Cmdline, Slot};
use crate::loader::{Place, fallback};
use crate::machine::Machine;
use crate::update::book::{Book, DIR};
use crate::update::judge::boot_id;
use crate::{Error, Result, ids};
use serde::Serialize;

/// What was mended, a line each.
#[derive(Debug, Default, Serialize)]
pub struct Repaired {
    /// In the past tense.
    pub did: Vec<String>,
}

impl Repaired {
    /// For people.
    pub fn text(&self) -> String {
        if self.did.is_empty() {
            return "nothing to mend".to_owned();
        }
        self.did.join("\n")
    }
}

/// Mends it.
///
/// # Errors
/// This is not an installed machine; its disk's table, the firmware's variables or the ESP cannot be
/// written.
/// What was mended before that stays.
pub fn repair(machine: &Machine) -> Result<Repaired> {
    let slot = match Cmdline::read()?.slot() {
        Some(s @ (Slot::A | Slot::B)) => s,
        _ => {
            return Err(Error::new("this is not an installed machine")
                .hint("there is nothing to mend on the live system of a medium"));
        }
    };
    let esp = ids::booted_esp();
    let link = match &esp {
        Some(e) => format!("/dev/disk/by-partuuid/{e}"),
        // By its name, then, as all of the machine's partitions (see `generator`).
        None => format!("/dev/lamadist/{}", machine.esp_label()),
    };
    let partition = Partition::find(&link)?;
    let mut out = Repaired::default();
    let number = machine.esp_number();
    if block::name(&partition.disk, number)? == UNFINISHED {
        block::set_name(&partition.disk, number, machine.esp_label())?;
        out.did
            .push("took away the mark of an interrupted installation".to_owned());
    }
    let place = Place {
        disk: &partition.disk,
        partition: number,
        esp: esp.as_deref(),
        slot,
    };
    out.did
        .extend(machine.loader.mend(machine, place, &boot_id())?);
    // A system on trial may be gone after the next start.
    if Book::new(DIR).trial()?.is_none() && fallback::refresh(machine, slot)? {
        out.did.push(format!(
            "a firmware that forgets its entries starts slot {} now",
            slot.name()
        ));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told_in_lines() {
        assert_eq!(Repaired::default().text(), "nothing to mend");
        let did = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(Repaired { did }.text(), "a\nb");
    }
}
