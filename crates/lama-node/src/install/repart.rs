// SPDX-License-Identifier: Apache-2.0
//! The partition definitions that systemd-repart works from (repart.d(5)).

use crate::block::UNFINISHED;
use crate::ids;
use crate::machine::{Machine, Role};
use std::fmt::Write as _;
use std::path::Path;

/// How volumes are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// By the TPM.
    Tpm,
    /// By a passphrase.
    Passphrase,
}

/// What goes into the partitions of slot A; `empty` is a small file of zeros: a volume that is
/// formatted needs some content.
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'a> {
    /// The root.
    pub root: &'a Path,
    /// Its hash tree.
    pub verity: &'a Path,
    /// Zeros.
    pub empty: &'a Path,
}

/// The definitions, by file name, for a disk whose ESP has the UUID `esp`.
pub fn definitions(
    machine: &Machine,
    esp: &str,
    lock: Lock,
    blocks: Blocks<'_>,
) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (n, p) in machine.layout.iter().enumerate() {
        let mut s = format!("[Partition]\nType={}\n", p.r#type);
        // The ESP gets its name when all is done.
        let label = if p.role == Role::Esp {
            UNFINISHED
        } else {
            &p.label
        };
        let uuid = if p.role == Role::Esp {
            esp.to_owned()
        } else {
            ids::partition(esp, &p.label)
        };
        let _ = writeln!(s, "Label={label}\nUUID={uuid}");
        if let Some(size) = p.size {
            let _ = writeln!(s, "SizeMinBytes={size}\nSizeMaxBytes={size}");
        }
        if p.encrypted {
            let how = match lock {
                Lock::Tpm => "tpm2",
                Lock::Passphrase => "key-file",
            };
            let _ = writeln!(s, "Encrypt={how}");
        }
        let first = p.slot.as_deref() == Some("a");
        let content = match (p.role, first) {
            (Role::Root, true) => Some(blocks.root),
            (Role::Verity, true) => Some(blocks.verity),
            (Role::Root, false) => Some(blocks.empty),
            _ => None,
        };
        if let Some(c) = content {
            let _ = writeln!(s, "CopyBlocks={}", c.display());
        }
        match p.role {
            Role::Esp => s += "Format=vfat\n",
            Role::Var => {
                let fs = p.filesystem.as_deref().unwrap_or("ext4");
                let _ = writeln!(s, "Format={fs}\nNoAuto=yes");
            }
            // What is on them is decided by what was signed, not by discovery.
            Role::Root | Role::Verity => s += "NoAuto=yes\n",
        }
        out.push((format!("{n:02}-{}.conf", p.label), s));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_its_definition() {
        let m = Machine::parse(
            br#"{"bsp":"x","image":"base","version":"1","compatible":"c","layout":[
            {"label":"esp","type":"e","role":"esp","size":4096},
            {"label":"rootfs-b","type":"r","role":"root","slot":"b","size":8192,"encrypted":true},
            {"label":"verity-a","type":"v","role":"verity","slot":"a","size":4096},
            {"label":"data","type":"d","role":"var","encrypted":true,"filesystem":"xfs"}]}"#,
        )
        .unwrap();
        let b = Blocks {
            root: Path::new("/r"),
            verity: Path::new("/v"),
            empty: Path::new("/0"),
        };
        let d = definitions(&m, "E", Lock::Tpm, b);
        let names: Vec<&str> = d.iter().map(|f| f.0.as_str()).collect();
        assert_eq!(
            names,
            [
                "00-esp.conf",
                "01-rootfs-b.conf",
                "02-verity-a.conf",
                "03-data.conf"
            ]
        );
        assert_eq!(
            d[0].1,
            "[Partition]\nType=e\nLabel=lamadist-installing\nUUID=E\nSizeMinBytes=4096\n\
             SizeMaxBytes=4096\nFormat=vfat\n"
        );
        assert!(d[1].1.contains("Encrypt=tpm2\nCopyBlocks=/0\n"));
        assert!(d[2].1.contains("CopyBlocks=/v\n") && !d[2].1.contains("Encrypt"));
        assert!(d[3].1.contains("Encrypt=tpm2\nFormat=xfs\n") && !d[3].1.contains("Size"));
        let uuid = format!("UUID={}\n", ids::partition("E", "data"));
        assert!(d[3].1.contains(&uuid));
    }
}
