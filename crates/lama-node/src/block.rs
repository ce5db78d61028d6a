// SPDX-License-Identifier: Apache-2.0
//! The machine's disks, as lsblk(8) sees them.

use crate::Result;
use crate::machine::{Machine, Role};
use crate::run::Run;
use serde::Deserialize;

/// The GPT name that the ESP bears until an installation is complete.
pub const UNFINISHED: &str = "lamadist-installing";

/// lsblk's answer.
#[derive(Debug, Deserialize)]
struct Answer {
    blockdevices: Vec<Device>,
}

/// A block device.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Device {
    /// `/dev/…`
    #[serde(rename = "name")]
    pub path: String,
    /// `disk`, `part`, `crypt`, `loop`, `rom` …
    pub r#type: Option<String>,
    /// Bytes.
    pub size: u64,
    /// What the maker calls it.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// `nvme`, `sata`, `usb`, `virtio` …
    pub tran: Option<String>,
    /// Whether it cannot be written.
    pub ro: bool,
    /// The file system or container on it.
    pub fstype: Option<String>,
    /// Its name.
    pub label: Option<String>,
    /// The kind of its partition table, `gpt` or `dos`.
    pub pttype: Option<String>,
    /// The table's UUID.
    pub ptuuid: Option<String>,
    /// Of a partition: its GPT name.
    pub partlabel: Option<String>,
    /// Of a partition: its type UUID.
    pub parttype: Option<String>,
    /// Of a partition: its UUID.
    pub partuuid: Option<String>,
    /// Bytes of a sector.
    #[serde(rename = "log-sec")]
    pub sector: u64,
    /// Where it is mounted.
    pub mountpoints: Vec<Option<String>>,
    /// What lies on it.
    pub children: Vec<Device>,
}

/// All block devices.
///
/// # Errors
/// lsblk fails.
pub fn devices() -> Result<Vec<Device>> {
    let columns = "NAME,TYPE,SIZE,MODEL,SERIAL,TRAN,RO,FSTYPE,LABEL,PTTYPE,PTUUID,PARTLABEL,\
                   PARTTYPE,PARTUUID,LOG-SEC,MOUNTPOINTS";
    let run = Run::new("lsblk").args(["--json", "--bytes", "--paths", "--tree", "--output"]);
    Ok(run.arg(columns).json::<Answer>()?.blockdevices)
}

/// What stands against overwriting a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing: it holds nothing.
    Blank,
    /// Nothing: an installation of this kind was interrupted on it.
    Unfinished,
    /// A LamaDist machine lives on it; its GPT's UUID.
    Installed(String),
    /// Something else is on it: what.
    Data(Vec<String>),
    /// It is used by the running system: by what.
    InUse(String),
    /// It is write-protected.
    ReadOnly,
}

impl Device {
    /// Whether it is a disk that could be installed to: no loop, no RAM disk, no optical drive, and
    /// with a medium in it.
    pub fn is_disk(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or("");
        let virtual_ = ["zram", "ram", "loop", "nbd", "fd", "md", "dm-"]
            .iter()
            .any(|p| name.starts_with(p));
        let boot = name.contains("boot") || name.contains("rpmb");
        self.r#type.as_deref() == Some("disk") && self.size > 0 && !virtual_ && !boot
    }

    /// Itself and all on it.
    pub fn all(&self) -> Vec<&Device> {
        let mut out = vec![self];
        for c in &self.children {
            out.extend(c.all());
        }
        out
    }

    /// Its partition with this UUID.
    pub fn partition(&self, partuuid: &str) -> Option<&Device> {
        let same = |u: &String| u.eq_ignore_ascii_case(partuuid);
        self.children
            .iter()
            .find(|c| c.partuuid.as_ref().is_some_and(same))
    }

    /// What stands against overwriting it.
    pub fn state(&self, machine: &Machine) -> State {
        let all = self.all();
        if let Some(m) = all
            .iter()
            .find_map(|d| d.mountpoints.iter().flatten().next())
        {
            return State::InUse(format!("mounted at {m}"));
        }
        // A mapping (dm-verity, LUKS, LVM, RAID) holds what is below it.
        if let Some(d) = all
            .iter()
            .find(|d| !matches!(d.r#type.as_deref(), Some("disk" | "part")))
        {
            return State::InUse(format!("under {}", d.path));
        }
        if self.ro {
            return State::ReadOnly;
        }
        let labelled = |l: &str| {
            self.children
                .iter()
                .any(|c| c.partlabel.as_deref() == Some(l))
        };
        let wanted = |role| machine.layout.iter().filter(move |p| p.role == role);
        if labelled(UNFINISHED) {
            return State::Unfinished;
        }
        // The roots and /var as this machine's layout calls them: a node of ours.
        let ours = wanted(Role::Root)
            .chain(wanted(Role::Var))
            .all(|p| labelled(&p.label));
        if ours {
            return State::Installed(self.ptuuid.clone().unwrap_or_default());
        }
        let mut holds = Vec::new();
        if let Some(f) = &self.fstype {
            holds.push(describe(f, self));
        }
        for c in &self.children {
            let what = c.fstype.as_deref().unwrap_or("unknown content");
            holds.push(format!(
                "{} ({}): {}",
                c.path,
                size(c.size),
                describe(what, c)
            ));
        }
        if holds.is_empty() {
            if let Some(t) = &self.pttype {
                holds.push(format!("an empty {t} partition table"));
            }
        }
        if holds.is_empty() {
            State::Blank
        } else {
            State::Data(holds)
        }
    }

    /// It in a line: path, size, model, serial number, connection.
    pub fn line(&self) -> String {
        let mut s = format!("{:14} {:>10}", self.path, size(self.size));
        for (name, v) in [
            ("", &self.model),
            ("serial ", &self.serial),
            ("", &self.tran),
        ] {
            if let Some(v) = v.as_deref().map(str::trim).filter(|v| !v.is_empty()) {
                s += &format!("  {name}{v}");
            }
        }
        s
    }
}

fn describe(what: &str, d: &Device) -> String {
    let name = d.partlabel.as_ref().or(d.label.as_ref());
    match name.filter(|n| !n.is_empty()) {
        Some(n) => format!("{what}, called {n:?}"),
        None => what.to_owned(),
    }
}

/// The GPT name of the partition with this number, as the table has it: what udev knows of it may come
/// later in a boot.
///
/// # Errors
/// sfdisk(8)'s.
pub fn name(disk: &str, partition: usize) -> Result<String> {
    let run = Run::new("sfdisk").args(["--part-label", disk]);
    run.arg(partition.to_string()).text()
}

/// Gives the partition with this number another GPT name, also while the disk is in use.
///
/// # Errors
/// sfdisk(8)'s.
pub fn set_name(disk: &str, partition: usize, name: &str) -> Result<()> {
    Run::new("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel", "--part-label"])
        .args([disk, &partition.to_string(), name])
        .run()
        .map(|_| ())
}

/// Bytes for people: binary units, one decimal.
pub fn size(bytes: u64) -> String {
    let mut unit = 0;
    let mut rest = bytes;
    while rest >= 10 * 1024 && unit < 4 {
        rest /= 1024;
        unit += 1;
    }
    // With less than two digits before it, a decimal says something.
    let names = ["B", "KiB", "MiB", "GiB", "TiB"];
    let shift = 10u32.saturating_mul(unit);
    let (unit, tenths) = if rest >= 1024 && unit < 4 {
        let shift = shift.saturating_add(10);
        (unit + 1, (u128::from(bytes) * 10) >> shift)
    } else {
        (unit, (u128::from(bytes) * 10) >> shift)
    };
    let name = names.get(unit as usize).unwrap_or(&"B");
    if unit == 0 || tenths % 10 == 0 {
        format!("{} {name}", tenths / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn machine() -> Machine {
        Machine::parse(
            br#"{"bsp":"x86_64","image":"base","version":"1","compatible":"c","layout":[
            {"label":"esp","type":"c12a7328-f81f-11d2-ba4b-00a0c93ec93b","role":"esp","size":1073741824},
            {"label":"rootfs-a","type":"r","role":"root","slot":"a","size":1,"encrypted":true},
            {"label":"rootfs-b","type":"r","role":"root","slot":"b","size":1,"encrypted":true},
            {"label":"data","type":"v","role":"var","encrypted":true,"filesystem":"ext4"}]}"#,
        )
        .unwrap()
    }

    fn disk(json: &str) -> Device {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_on_a_disk_decides() {
        let m = machine();
        let state = |j: &str| disk(j).state(&m);
        assert_eq!(
            state(r#"{"name":"/dev/sda","type":"disk","size":5}"#),
            State::Blank
        );
        assert_eq!(
            state(r#"{"name":"/dev/sda","type":"disk","size":5,"ro":true}"#),
            State::ReadOnly
        );
        assert_eq!(
            state(r#"{"name":"/dev/sda","type":"disk","fstype":"LVM2_member"}"#),
            State::Data(vec!["LVM2_member".into()])
        );
        assert_eq!(
            state(r#"{"name":"/dev/sda","type":"disk","pttype":"gpt"}"#),
            State::Data(vec!["an empty gpt partition table".into()])
        );
        assert_eq!(
            state(
                r#"{"name":"/dev/sda","type":"disk","pttype":"gpt","children":[
                {"name":"/dev/sda1","type":"part","size":2048,"fstype":"ntfs","label":"C"}]}"#
            ),
            State::Data(vec!["/dev/sda1 (2 KiB): ntfs, called \"C\"".into()])
        );
        let p = |l: &str| format!(r#"{{"name":"/dev/x","type":"part","partlabel":"{l}"}}"#);
        let of = |labels: &[&str]| {
            let all: Vec<String> = labels.iter().map(|l| p(l)).collect();
            state(&format!(
                r#"{{"name":"/dev/sda","type":"disk","ptuuid":"U","children":[{}]}}"#,
                all.join(",")
            ))
        };
        let whole = ["esp", "rootfs-a", "rootfs-b", "data"];
        assert_eq!(of(&whole), State::Installed("U".into()));
        assert_eq!(of(&[UNFINISHED]), State::Unfinished);
        assert!(matches!(of(&["esp", "rootfs-a"]), State::Data(_)));
        assert!(matches!(
            state(
                r#"{"name":"/dev/sda","children":[{"name":"/dev/sda1","type":"part",
                "children":[{"name":"/dev/mapper/root","type":"crypt","mountpoints":["/",null]}]}]}"#
            ),
            State::InUse(m) if m == "mounted at /"
        ));
    }

    #[test]
    fn sizes_are_short() {
        for (n, s) in [
            (512, "512 B"),
            (1 << 30, "1 GiB"),
            (16 << 30, "16 GiB"),
            (500_107_862_016, "465.7 GiB"),
            (64 << 20, "64 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(n), s);
        }
    }
}
