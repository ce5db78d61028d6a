// SPDX-License-Identifier: Apache-2.0
//! What RAUC knows of the slots.

use crate::Result;
use crate::kernel::Slot;
use crate::run::Run;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What `rauc status --detailed --output-format=json` prints (RAUC 1.13), as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Status {
    /// The machines that it takes bundles for.
    pub compatible: String,
    /// The boot name of the slot that runs.
    pub booted: Option<String>,
    /// The slot that is started next.
    pub boot_primary: Option<String>,
    slots: Vec<BTreeMap<String, RaucSlot>>,
}

/// A slot.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RaucSlot {
    /// `A` or `B`, for the one of a group that is started.
    pub bootname: Option<String>,
    /// `booted`, `inactive` or `active`.
    pub state: String,
    /// The slot whose group it belongs to: the one that has a boot name.
    pub parent: Option<String>,
    /// `good` or `bad`, as the boot loader's entries say.
    pub boot_status: Option<String>,
    /// What was installed.
    pub slot_status: Option<SlotStatus>,
}

/// What was installed in a slot.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SlotStatus {
    /// By which bundle.
    pub bundle: Option<Bundle>,
    /// `ok`, `pending` or `failed`.
    pub status: Option<String>,
    /// Of the image.
    pub checksum: Option<Checksum>,
}

/// What an image was when it was installed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Checksum {
    /// In hexadecimal.
    pub sha256: Option<String>,
}

/// A bundle, by its manifest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Bundle {
    /// Its version.
    pub version: Option<String>,
}

impl Status {
    /// Of this machine.
    ///
    /// # Errors
    /// RAUC's service does not answer.
    pub fn now() -> Result<Self> {
        Run::new("rauc")
            .args(["status", "--detailed", "--output-format=json"])
            .json()
            .map_err(|e| {
                e.hint(
                    "see journalctl -u rauc; while RAUC is at something, it does nothing else (systemctl restart rauc ends that)",
                )
            })
    }

    /// A slot that is started, by its boot name.
    pub fn slot(&self, slot: Slot) -> Option<&RaucSlot> {
        let name = slot.name().to_uppercase();
        let mut all = self.slots.iter().flat_map(BTreeMap::values);
        all.find(|s| s.bootname.as_deref() == Some(&name))
    }

    /// Whether RAUC has begun to write a slot with this name, and not ended.
    pub fn is_pending(&self, name: &str) -> bool {
        let slot = self.slots.iter().find_map(|s| s.get(name));
        let status = slot.and_then(|s| s.slot_status.as_ref());
        status.is_some_and(|s| s.status.as_deref() == Some("pending"))
    }

    /// The SHA-256 of what RAUC installed in a slot with this name (`rootfs.0`), in hexadecimal.
    pub fn digest(&self, name: &str) -> Option<&str> {
        let slot = self.slots.iter().find_map(|s| s.get(name))?;
        let digest = slot.slot_status.as_ref()?.checksum.as_ref()?;
        digest.sha256.as_deref()
    }

    /// The version that RAUC installed in a slot; none where an installer did, or where anything of its
    /// group is damaged or half written.
    pub fn version(&self, slot: Slot) -> Option<&str> {
        let whole = |s: &SlotStatus| s.status.as_deref().is_none_or(|s| s == "ok");
        let group = self.group(slot);
        let mut all = group.iter().filter_map(|s| s.slot_status.as_ref());
        if !all.all(whole) {
            return None;
        }
        let status = self.slot(slot)?.slot_status.as_ref()?;
        status.bundle.as_ref()?.version.as_deref()
    }

    /// Whether RAUC has never written to a slot.
    pub fn is_empty(&self, slot: Slot) -> bool {
        let status = self.slot(slot).and_then(|s| s.slot_status.as_ref());
        status.is_none_or(|s| s.bundle.is_none() && s.status.is_none())
    }

    /// A slot that is started, and what belongs to it.
    fn group(&self, slot: Slot) -> Vec<&RaucSlot> {
        let boot = slot.name().to_uppercase();
        let named = self.slots.iter().flatten();
        let first = named
            .clone()
            .find(|(_, s)| s.bootname.as_deref() == Some(&boot));
        let Some((first, _)) = first else {
            return Vec::new();
        };
        let of = |(name, s): &(&String, &RaucSlot)| {
            *name == first || s.parent.as_deref() == Some(first.as_str())
        };
        named.filter(of).map(|(_, s)| s).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_by_their_boot_name() {
        let status: Status = serde_json::from_str(
            r#"{"compatible":"c","variant":"","booted":"A","boot_primary":"rootfs.0","slots":[
            {"rootfs.1":{"class":"rootfs","device":"/dev/mapper/rootfs_b","type":"raw",
             "bootname":"B","state":"inactive","parent":null,"mountpoint":null,"boot_status":"bad",
             "slot_status":{"bundle":{"compatible":"c","version":"1.1.0"},"status":"ok",
               "checksum":{"sha256":"ab","size":1}}}},
            {"uki.1":{"class":"uki","state":"inactive","bootname":null,"slot_status":{}}},
            {"rootfs.0":{"class":"rootfs","bootname":"A","state":"booted","boot_status":"good"}}]}"#,
        )
        .unwrap();
        assert_eq!(status.slot(Slot::A).unwrap().state, "booted");
        assert_eq!(status.version(Slot::B), Some("1.1.0"));
        assert_eq!(status.version(Slot::A), None);
        assert!(status.slot(Slot::Live).is_none());
        assert_eq!(status.digest("rootfs.1"), Some("ab"));
        assert!(!status.is_pending("rootfs.1") && !status.is_pending("rootfs.0"));
        assert_eq!(status.digest("rootfs.0").or(status.digest("uki.1")), None);
    }
}
