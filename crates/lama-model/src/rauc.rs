// SPDX-License-Identifier: Apache-2.0
//! RAUC's configuration on the node, `system.conf`, rendered from the layout of the machine's disk.
//!
//! Format: RAUC 1.13, "System Configuration File"
//! (<https://rauc.readthedocs.io/en/v1.13/reference.html>).

use crate::Selection;
use crate::layout::{Encryption, Partition, Role, Slot};
use crate::machine::Loader;
use std::fmt::Write as _;

/// Where the configuration lies in the root. RAUC looks here last: a `/etc/rauc/system.conf` would
/// take its place, on a machine whose administrator wants that.
pub const CONF: &str = "usr/lib/rauc/system.conf";
/// Where the certificates lie that bundles are trusted by.
pub const KEYRING: &str = "usr/lib/rauc/keyring.pem";
/// The credential that holds the node's private key, sealed to the machine.
pub const KEY: &str = "lamadist.node.key";
/// Where the node's certificate lies: what bundles are encrypted to.
pub const CERTIFICATE: &str = "/var/lib/lamadist/node.crt";
/// What RAUC asks and tells of the slots where systemd-boot starts them (`distro/files/core`).
pub const BACKEND: &str = "/usr/lib/rauc/boot-backend";
/// Where RAUC keeps what it knows of the slots.
pub const DATA: &str = "/var/lib/lamadist/rauc";

/// RAUC's slot classes, which are the names of a bundle's images.
pub mod class {
    /// The root file system, bootable.
    pub const ROOT: &str = "rootfs";
    /// Its hash tree.
    pub const VERITY: &str = "verity";
    /// The unified kernel image on the ESP.
    pub const UKI: &str = "uki";
}

/// The name under which RAUC and the firmware know a slot: `rauc.slot=` of its addon, and the label
/// of its boot entry.
pub fn bootname(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "A",
        Slot::B => "B",
    }
}

impl Selection<'_> {
    /// `system.conf`, or none for a machine with loaders outside any partition whose description does
    /// not say that systemd-boot chooses the slot: its firmware could not be told.
    pub fn rauc_conf(&self) -> Option<String> {
        let loader = self.machine.boot.loader;
        if !self.layout.raw.is_empty() && loader == Loader::Firmware {
            return None;
        }
        let mut s = String::from(
            "# Rendered from distro/ by lamadist. Slots are those of the machine's layout.\n[system]\n",
        );
        let _ = writeln!(s, "compatible={}", self.machine.compatible);
        // By the firmware's boot order and BootNext, or by entries of systemd-boot's.
        let _ = match loader {
            Loader::Firmware => writeln!(s, "bootloader=efi"),
            Loader::SystemdBoot => writeln!(s, "bootloader=custom"),
        };
        // A bundle without a hash tree of its own is refused.
        s += "bundle-formats=-plain\n";
        if let Some(v) = &self.machine.min_version {
            let _ = writeln!(s, "min-bundle-version={v}");
        }
        let _ = writeln!(s, "data-directory={DATA}\nmountprefix=/run/rauc/mnt");
        if loader == Loader::SystemdBoot {
            let _ = writeln!(s, "\n[handlers]\nbootloader-custom-backend={BACKEND}");
        }
        s += "\n[keyring]\npath=keyring.pem\ncheck-purpose=codesign\n";
        let _ = writeln!(
            s,
            "\n[encryption]\nkey=/run/credentials/rauc.service/{KEY}\ncert={CERTIFICATE}"
        );
        let of = |role, slot| {
            let mut all = self.layout.partitions.iter();
            all.find(|p| p.role == role && (p.slot.is_none() || p.slot == Some(slot)))
        };
        for (n, slot) in [Slot::A, Slot::B].into_iter().enumerate() {
            let root = of(Role::Root, slot)?;
            let verity = of(Role::Verity, slot)?;
            let esp = of(Role::Esp, slot)?;
            let mut section = |class: &str, device: String, kind: &str, rest: &str| {
                let _ = writeln!(
                    s,
                    "\n[slot.{class}.{n}]\ndevice={device}\ntype={kind}\n{rest}"
                );
            };
            let parent = format!("parent={}.{n}", class::ROOT);
            section(
                class::ROOT,
                device(root),
                "raw",
                &format!("bootname={}", bootname(slot)),
            );
            section(class::VERITY, device(verity), "raw", &parent);
            // One file on the ESP, which both slots share: a hook of the bundle puts it there.
            let shared = format!("{parent}\nallow-mounted=true");
            section(class::UKI, device(esp), "vfat", &shared);
        }
        Some(s)
    }
}

/// The device that RAUC writes: of an encrypted partition what lies inside it.
fn device(p: &Partition) -> String {
    let label = p.label.get_ref();
    match p.encryption {
        Encryption::None => format!("/dev/lamadist/{label}"),
        Encryption::Luks2 => format!("/dev/mapper/{}", label.replace('-', "_")),
    }
}
