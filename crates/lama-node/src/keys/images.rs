// SPDX-License-Identifier: Apache-2.0
//! What lies on the ESP and is started by the firmware or taken up by systemd-stub, and who signed it.

use super::policy;
use crate::attest::eventlog::Entry;
use crate::attest::pe;
use crate::kernel::Slot;
use crate::loader::{addons, boot_path, uki};
use crate::{Context, Result, fs};
use std::collections::BTreeSet;
use std::path::Path;

/// Where systemd-stub(7) looks for addons of every UKI.
const GLOBAL: &str = "loader/addons";

/// By which of several signatures that it knows a firmware lets something through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The first in the file, as EDK II does it.
    Signatures,
    /// The one whose certificate comes first in `db`.
    Database,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its path on the ESP.
    pub path: String,
    /// The keys that have signed its PCR policies, where it is a UKI.
    pub policy: BTreeSet<String>,
    /// The table of its signatures, in which certificates are as they are.
    signatures: Vec<u8>,
}

impl Image {
    /// That of a file.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(path: &Path, name: &str) -> Result<Self> {
        let what = || format!("{name} on the boot partition");
        let image = pe::Image::open(path).context(what())?;
        let policy = image.section(b".pcrsig\0").context(what())?;
        Ok(Self {
            path: name.to_owned(),
            policy: policy
                .map(|p| policy::signers(&p).context(what()))
                .transpose()?
                .unwrap_or_default(),
            signatures: image.signatures().context(what())?,
        })
    }

    /// Whether the key of this certificate has signed it.
    pub fn signed_by(&self, certificate: &[u8]) -> bool {
        self.signed_at(certificate).is_some()
    }

    /// At which byte of the table: signatures are looked at in their order.
    fn signed_at(&self, certificate: &[u8]) -> Option<usize> {
        let mut all = self.signatures.windows(certificate.len().max(1));
        all.position(|w| w == certificate)
    }

    /// The entry by which firmware with this `db` lets it through.
    pub fn authority<'d>(&self, db: &[Entry<'d>], rule: Rule) -> Option<Entry<'d>> {
        let mut known = db.iter().filter_map(|e| {
            let at = self.signed_at(e.certificate()?)?;
            Some((at, *e))
        });
        let one = match rule {
            Rule::Signatures => known.min_by_key(|(at, _)| *at),
            Rule::Database => known.next(),
        };
        one.map(|(_, e)| e)
    }
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images {
    /// Slots that have a UKI, each with what a boot of it loads: the UKI first, its addons after it.
    pub slots: Vec<(Slot, Vec<Image>)>,
    /// What else is started: that which firmware finds without a boot entry.
    pub others: Vec<Image>,
}

impl Images {
    /// Those of an ESP.
    ///
    /// # Errors
    /// One cannot be read, or is none.
    pub fn of(esp: &Path) -> Result<Self> {
        let global = folder(esp, GLOBAL)?;
        let mut this = Self::default();
        for slot in [Slot::A, Slot::B] {
            let path = uki(slot.name());
            if let Some(mut images) = with_addons(esp, &path)? {
                images.extend(global.iter().cloned());
                this.slots.push((slot, images));
            }
        }
        this.others = with_addons(esp, boot_path())?.unwrap_or_default();
        Ok(this)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Image> {
        let of_slots = self.slots.iter().flat_map(|(_, images)| images);
        of_slots.chain(&self.others)
    }

    /// The UKIs of the slots.
    pub fn ukis(&self) -> impl Iterator<Item = (Slot, &Image)> {
        let of = self.slots.iter();
        of.filter_map(|(slot, images)| Some((*slot, images.first()?)))
    }
}

/// A UKI and its own addons; none where it is not there.
fn with_addons(esp: &Path, path: &str) -> Result<Option<Vec<Image>>> {
    let file = esp.join(path);
    if !file.exists() {
        return Ok(None);
    }
    let mut images = vec![Image::read(&file, path)?];
    images.extend(folder(esp, &addons(path))?);
    Ok(Some(images))
}

/// The addons in a folder.
fn folder(esp: &Path, dir: &str) -> Result<Vec<Image>> {
    let names = fs::names(esp.join(dir))?;
    let addons = names.iter().filter(|n| n.ends_with(".addon.efi"));
    addons
        .map(|n| {
            let path = format!("{dir}/{n}");
            Image::read(&esp.join(&path), &path)
        })
        .collect()
}

#[cfg(test)]
pub(crate) fn signed(path: &str, by: &[&[u8]]) -> Image {
    Image {
        path: path.to_owned(),
        policy: BTreeSet::new(),
        signatures: by.join(&b"-----"[..]),
    }
}
