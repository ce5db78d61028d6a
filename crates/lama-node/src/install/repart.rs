// SPDX-License-Identifier: Apache-2.0
//! The partition definitions that systemd-repart works from (repart.d(5)).

use crate::block::UNFINISHED;
use crate::ids;
use crate::machine::{Machine, Role};
use std::fmt::Write as _;
use std::path::Path;

/// What goes into the partitions of slot A.
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'a> {
    /// The root.
    pub root: &'a Path,
    /// Its hash tree.
    pub verity: &'a Path,
}

/// The definitions, by file name, for a disk whose ESP has the UUID `esp`. Volumes that are encrypted
/// stay empty ([`super::volume`] makes them).
pub fn definitions(machine: &Machine, esp: &str, blocks: Blocks<'_>) -> Vec<(String, String)> {
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
        let first = p.slot.as_deref() == Some("a");
        let content = match (p.role, first) {
            (Role::Root, true) if !p.encrypted => Some(blocks.root),
            (Role::Verity, true) => Some(blocks.verity),
            _ => None,
        };
        if let Some(c) = content {
            let _ = writeln!(s, "CopyBlocks={}", c.display());
        }
        match p.role {
            Role::Esp => s += "Format=vfat\n",
            Role::Var if !p.encrypted => {
                let fs = p.filesystem.as_deref().unwrap_or("ext4");
                let _ = writeln!(s, "Format={fs}\nNoAuto=yes");
            }
            // What is on them is decided by what was signed, not by discovery.
            Role::Var | Role::Root | Role::Verity => s += "NoAuto=yes\n",
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
        };
        let d = definitions(&m, "E", b);
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
        assert!(d[1].1.ends_with("SizeMaxBytes=8192\nNoAuto=yes\n"));
        assert!(d[2].1.contains("CopyBlocks=/v\n"));
        assert!(!d[3].1.contains("Format") && !d[3].1.contains("Size"));
        let uuid = format!("UUID={}\n", ids::partition("E", "data"));
        assert!(d[3].1.contains(&uuid));

        let mut open = m.clone();
        open.layout.iter_mut().for_each(|p| {
            p.encrypted = false;
            p.slot = p.slot.as_ref().map(|_| "a".to_owned());
        });
        let d = definitions(&open, "E", b);
        assert!(d[1].1.contains("CopyBlocks=/r\n"));
        assert!(d[3].1.contains("Format=xfs\n"));
    }
}
