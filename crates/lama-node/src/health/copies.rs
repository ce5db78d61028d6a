// SPDX-License-Identifier: Apache-2.0
//! Whether another disk passes for this machine's: a copy of it, made block by block, bears the same
//! UUIDs. Which of the two a link in /dev/lamadist/ leads to is chance then, and so is what the next
//! boot starts from and what the next update writes to.

use super::{Answer, Verdict};
use crate::block::Device;
use crate::ids;
use crate::machine::{Machine, Role};
use std::collections::BTreeMap;

/// Looks at all block devices. `esp` is the UUID of the one that was booted; none where the firmware
/// does not say, and GPT names have to do.
pub fn check(devices: &[Device], machine: &Machine, esp: Option<&str>) -> Answer {
    // For each of the machine's partitions the disks that have one that passes for it.
    let mut found: BTreeMap<&str, Vec<&Device>> = BTreeMap::new();
    for p in &machine.layout {
        let passes = |d: &Device| match esp {
            Some(e) if p.role == Role::Esp => d.partition(e).is_some(),
            Some(e) => d.partition(&ids::partition(e, &p.label)).is_some(),
            None => {
                let named = |c: &Device| c.partlabel.as_ref() == Some(&p.label);
                d.children.iter().any(named)
            }
        };
        let disks = devices.iter().filter(|d| passes(d)).collect();
        found.insert(&p.label, disks);
    }
    let mut copies: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (label, disks) in found.iter().filter(|(_, d)| d.len() > 1) {
        let used: Vec<&&Device> = disks.iter().filter(|d| is_used(d)).collect();
        for d in disks {
            // Where one of them is used it is the machine's; else nobody can tell.
            if used.is_empty() || !is_used(d) || used.len() > 1 {
                copies.entry(&d.path).or_default().push(label);
            }
        }
    }
    if copies.is_empty() {
        return (
            Verdict::Ok,
            "no other disk passes for this machine's".to_owned(),
        );
    }
    let by = if esp.is_some() { "UUIDs" } else { "names" };
    let one = |(path, labels): (&&str, &Vec<&str>)| {
        let disk = devices.iter().find(|d| d.path == **path);
        let serial = disk.and_then(|d| d.serial.as_deref()).map(str::trim);
        let serial = serial.filter(|s| !s.is_empty());
        let serial = serial.map_or_else(String::new, |s| format!(" (serial {s})"));
        format!("{path}{serial}: {}", labels.join(", "))
    };
    let all: Vec<String> = copies.iter().map(one).collect();
    (
        Verdict::Failed,
        format!(
            "partitions with the same {by} as this machine's, as a copy of its disk has them: {}; \
             remove that disk, or give it another partition table",
            all.join("; ")
        ),
    )
}

/// Whether something of the running system lies on a disk.
fn is_used(disk: &Device) -> bool {
    disk.all().iter().any(|d| {
        let mapped = !matches!(d.r#type.as_deref(), Some("disk" | "part"));
        mapped || d.mountpoints.iter().flatten().next().is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESP: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

    fn machine() -> Machine {
        Machine::parse(
            br#"{"bsp":"x","image":"base","version":"1","compatible":"c","layout":[
            {"label":"esp","type":"e","role":"esp","size":4096},
            {"label":"rootfs-a","type":"r","role":"root","slot":"a","encrypted":true},
            {"label":"data","type":"d","role":"var","encrypted":true,"filesystem":"ext4"}]}"#,
        )
        .unwrap()
    }

    /// What lsblk says of a disk with these partitions, the last of which is opened or not.
    fn disk(path: &str, esp: &str, labels: &[&str], opened: bool) -> Device {
        let part = |(n, label): (usize, &&str)| {
            let uuid = match *label {
                "esp" => esp.to_uppercase(),
                l => ids::partition(esp, l),
            };
            let on = if opened && n + 1 == labels.len() {
                r#"[{"name":"/dev/mapper/data","type":"crypt","mountpoints":["/var"]}]"#
            } else {
                "[]"
            };
            format!(
                r#"{{"name":"{path}{n}","type":"part","partlabel":"{label}","partuuid":"{uuid}",
                "mountpoints":[null],"children":{on}}}"#
            )
        };
        let parts: Vec<String> = labels.iter().enumerate().map(part).collect();
        serde_json::from_str(&format!(
            r#"{{"name":"{path}","type":"disk","serial":"S {path} ","size":9,"mountpoints":[],
            "children":[{}]}}"#,
            parts.join(",")
        ))
        .unwrap()
    }

    #[test]
    fn a_copy_of_the_disk_is_found() {
        let all = ["esp", "rootfs-a", "data"];
        let own = disk("/dev/vda", ESP, &all, true);
        let other = disk(
            "/dev/vdb",
            "11111111-8483-4772-8e79-3d69d8477de4",
            &all,
            false,
        );
        let check = |d: &[Device], esp| check(d, &machine(), esp);
        let (v, why) = check(&[own.clone(), other.clone()], Some(ESP));
        assert_eq!(v, Verdict::Ok, "{why}");

        let copy = disk("/dev/sdb", ESP, &all, false);
        let (v, why) = check(&[copy.clone(), own.clone()], Some(ESP));
        assert_eq!(v, Verdict::Failed);
        assert!(
            why.contains("/dev/sdb (serial S /dev/sdb): data, esp, rootfs-a;"),
            "{why}"
        );
        assert!(!why.contains("vda") && why.contains("UUIDs"), "{why}");
        // One partition is enough, and where nobody can tell which is which both are named.
        let part = disk("/dev/sdb", ESP, &["data"], false);
        let (_, why) = check(&[own.clone(), part], Some(ESP));
        assert!(why.contains("/dev/sdb (serial S /dev/sdb): data;"), "{why}");
        let closed = disk("/dev/vda", ESP, &all, false);
        let (_, why) = check(&[closed, copy], Some(ESP));
        assert!(
            why.contains("/dev/vda") && why.contains("/dev/sdb"),
            "{why}"
        );
        // Without the firmware's word names are all there is.
        let (v, why) = check(&[own.clone(), other], None);
        assert!(v == Verdict::Failed && why.contains("names"), "{why}");
        assert_eq!(check(&[own], None).0, Verdict::Ok);
    }
}
