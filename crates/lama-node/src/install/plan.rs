// SPDX-License-Identifier: Apache-2.0
//! What an installation will do, before anything is written.

use crate::block::{Device, State, size};
use crate::install::answers::{Answers, Choice};
use crate::machine::{Machine, Role};
use crate::{Error, Result};

/// Where the first partition begins; the backup of the table and the alignment at the end.
const EDGES: u64 = 2 << 20;
/// The least that /var gets.
const DATA: u64 = 2 << 30;
/// What LUKS2 takes of a partition that holds an image.
pub const LUKS: u64 = 16 << 20;

/// What is to be installed, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    /// The root's EROFS.
    pub root: u64,
    /// Its hash tree.
    pub verity: u64,
    /// UKI and addons of one slot.
    pub boot: u64,
}

/// One partition to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its GPT name.
    pub label: String,
    /// Bytes.
    pub size: u64,
    /// What it will hold.
    pub holds: String,
}

/// A disk and what becomes of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The disk.
    pub disk: Device,
    /// Its partitions.
    pub partitions: Vec<Planned>,
    /// What will be lost.
    pub lost: Vec<String>,
}

/// Finds the disk that the answers name.
///
/// # Errors
/// None, several, or one that must not be overwritten: each with what would change that.
pub fn choose<'d>(disks: &'d [Device], machine: &Machine, answers: &Answers) -> Result<&'d Device> {
    let choice = answers
        .disk
        .as_ref()
        .ok_or_else(|| Error::new("no disk was named").hint("answer disk="))?;
    // A machine that is installed is never installed over by itself, whatever disk was named:
    // else a medium left in it would erase it at the next boot.
    let installed = disks.iter().find_map(|d| match d.state(machine) {
        State::Installed(id) => Some((d, id)),
        _ => None,
    });
    if let Some((d, id)) = installed {
        let asked = answers.reinstall.as_deref() == Some(&id.to_ascii_lowercase());
        if !asked || id.is_empty() {
            return Err(Error::new(format!(
                "this machine is installed already, on {}",
                d.line().trim()
            ))
            .hint(format!(
                "remove the medium to start it; to erase it and install anew, answer reinstall={id}"
            )));
        }
    }
    let found: Vec<&Device> = disks.iter().filter(|d| fits(d, choice, machine)).collect();
    let disk = match found.as_slice() {
        [one] => *one,
        [] => {
            return Err(Error::new(format!("there is no such disk: {choice}"))
                .hint(format!("there are:\n{}", list(disks, machine))));
        }
        more => {
            let lines: Vec<String> = more.iter().map(|d| format!("  {}", d.line())).collect();
            return Err(
                Error::new(format!("{choice} could be one of {}", more.len())).hint(format!(
                    "name it by serial number or path:\n{}",
                    lines.join("\n")
                )),
            );
        }
    };
    allowed(disk, machine, answers)?;
    Ok(disk)
}

fn fits(d: &Device, choice: &Choice, machine: &Machine) -> bool {
    let is = |have: &Option<String>, want: &str| have.as_deref().map(str::trim) == Some(want);
    match choice {
        Choice::Any => matches!(d.state(machine), State::Blank | State::Unfinished),
        Choice::Serial(s) => is(&d.serial, s),
        Choice::Model(m) => is(&d.model, m),
        Choice::Path(p) => {
            let real = crate::fs::canonical(p);
            real.is_ok_and(|r| r == std::path::Path::new(&d.path))
        }
    }
}

/// Whether this disk may be overwritten.
///
/// # Errors
/// It may not: why, and what answer would allow it.
pub fn allowed(disk: &Device, machine: &Machine, answers: &Answers) -> Result<()> {
    let path = &disk.path;
    match disk.state(machine) {
        State::Blank | State::Unfinished => Ok(()),
        State::InUse(how) => Err(Error::new(format!(
            "{path} is in use by the running system, {how}"
        ))
        .hint("it is the medium itself, or holds something that is mounted; choose another disk")),
        State::ReadOnly => {
            Err(Error::new(format!("{path} is write-protected")).hint("choose another disk"))
        }
        State::Installed(id) if answers.reinstall.as_deref() == Some(&id.to_ascii_lowercase()) => {
            Ok(())
        }
        State::Installed(id) => Err(Error::new(format!("{path} holds an installed LamaDist"))
            .hint(format!(
                "to erase it and install anew, answer reinstall={id}"
            ))),
        State::Data(_) if answers.wipe => Ok(()),
        State::Data(what) => Err(Error::new(format!("{path} holds data: {}", what.join("; ")))
            .hint(
                "choose another disk, or answer wipe=yes and name this one by serial, model or path",
            )),
    }
}

/// All disks with what stands against each, a line each.
pub fn list(disks: &[Device], machine: &Machine) -> String {
    let line = |d: &Device| {
        let state = match d.state(machine) {
            State::Blank => "blank".to_owned(),
            State::Unfinished => "an interrupted installation".to_owned(),
            State::Installed(_) => "an installed LamaDist".to_owned(),
            State::Data(w) => format!("holds {}", w.join("; ")),
            State::InUse(how) => how,
            State::ReadOnly => "write-protected".to_owned(),
        };
        format!("  {}  ({state})", d.line())
    };
    if disks.is_empty() {
        return "  no disk at all".to_owned();
    }
    disks.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Plans the installation to `disk`.
///
/// # Errors
/// The disk is too small, or the image does not fit its slot.
pub fn plan(disk: &Device, machine: &Machine, content: Content) -> Result<Plan> {
    let mut fixed = EDGES;
    for p in &machine.layout {
        fixed = fixed.saturating_add(p.size.unwrap_or(0));
        let need = match p.role {
            // A UKI for each slot, the one for firmware that forgot its entries, and one while an
            // update is written.
            Role::Esp => content.boot.saturating_mul(4),
            Role::Root => content.root.saturating_add(LUKS),
            Role::Verity => content.verity,
            Role::Var => 0,
        };
        if p.size.is_some_and(|s| s < need) {
            return Err(Error::new(format!(
                "the partition {} of {} is too small for this image, which takes {}",
                p.label,
                size(p.size.unwrap_or(0)),
                size(need)
            ))
            .hint("make it larger in distro/layouts/ and build again"));
        }
    }
    let least = fixed.saturating_add(DATA);
    if disk.size < least {
        return Err(Error::new(format!(
            "{} has {}, but LamaDist takes at least {}",
            disk.path,
            size(disk.size),
            size(least)
        ))
        .hint("use a larger disk"));
    }
    let rest = disk.size.saturating_sub(fixed) / 4096 * 4096;
    let partitions = machine
        .layout
        .iter()
        .map(|p| Planned {
            label: p.label.clone(),
            size: p.size.unwrap_or(rest),
            holds: holds(p),
        })
        .collect();
    let lost = match disk.state(machine) {
        State::Data(what) => what,
        State::Installed(_) => vec!["an installed LamaDist and all its data".to_owned()],
        _ => Vec::new(),
    };
    Ok(Plan {
        disk: disk.clone(),
        partitions,
        lost,
    })
}

fn holds(p: &crate::machine::Partition) -> String {
    let slot = p.slot.as_deref().unwrap_or("").to_uppercase();
    let what = match p.role {
        Role::Esp => "boot files, signed".to_owned(),
        Role::Root => format!("system {slot}, read-only"),
        Role::Verity => format!("hashes of system {slot}"),
        Role::Var => format!(
            "/var and changes of /etc, {}",
            p.filesystem.as_deref().unwrap_or("")
        ),
    };
    if p.encrypted {
        format!("{what}, encrypted")
    } else {
        what
    }
}

impl Plan {
    /// A picture of it: the disk, a box of partitions, what is lost.
    pub fn picture(&self) -> String {
        let rows: Vec<(String, String, &str)> = self
            .partitions
            .iter()
            .map(|p| (p.label.clone(), size(p.size), p.holds.as_str()))
            .collect();
        let width = |f: fn(&(String, String, &str)) -> usize| rows.iter().map(f).max().unwrap_or(0);
        let (l, s, h) = (
            width(|r| r.0.chars().count()),
            width(|r| r.1.chars().count()),
            width(|r| r.2.chars().count()),
        );
        let rule = |left: char, mid: char, right: char| {
            let part = |n: usize| "─".repeat(n + 2);
            format!(
                "  {left}{}{mid}{}{mid}{}{right}\n",
                part(l),
                part(s),
                part(h)
            )
        };
        let mut out = format!("  {}\n", self.disk.line());
        out += &rule('┌', '┬', '┐');
        for (label, size, holds) in &rows {
            out += &format!("  │ {label:l$} │ {size:>s$} │ {holds:h$} │\n");
        }
        out += &rule('└', '┴', '┘');
        if self.lost.is_empty() {
            out += "  Nothing is lost: the disk holds no data.\n";
        } else {
            out += "  THIS WILL BE LOST:\n";
            for w in &self.lost {
                out += &format!("    {w}\n");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::UNFINISHED;

    const GIB: u64 = 1 << 30;

    fn machine() -> Machine {
        Machine::parse(
            br#"{"bsp":"x86_64","image":"base","version":"1","compatible":"c","layout":[
            {"label":"esp","type":"e","role":"esp","size":1073741824},
            {"label":"rootfs-a","type":"r","role":"root","slot":"a","size":4294967296,"encrypted":true},
            {"label":"verity-a","type":"v","role":"verity","slot":"a","size":67108864},
            {"label":"rootfs-b","type":"r","role":"root","slot":"b","size":4294967296,"encrypted":true},
            {"label":"verity-b","type":"v","role":"verity","slot":"b","size":67108864},
            {"label":"data","type":"d","role":"var","encrypted":true,"filesystem":"ext4"}]}"#,
        )
        .unwrap()
    }

    fn disk(path: &str, serial: &str) -> Device {
        Device {
            path: path.into(),
            serial: Some(serial.into()),
            model: Some("QEMU HARDDISK ".into()),
            r#type: Some("disk".into()),
            size: 16 * GIB,
            ..Device::default()
        }
    }

    fn part(label: &str) -> Device {
        Device {
            path: "/dev/sdx1".into(),
            r#type: Some("part".into()),
            partlabel: Some(label.into()),
            fstype: Some("ext4".into()),
            ..Device::default()
        }
    }

    fn answers(text: &str) -> Answers {
        let mut a = Answers::default();
        a.read(text, "x").unwrap();
        a
    }

    #[test]
    fn the_right_disk_or_none() {
        let m = machine();
        let blank = disk("/dev/vda", "A");
        let mut full = disk("/dev/vdb", "B");
        full.children = vec![part("photos")];
        let disks = [blank.clone(), full.clone()];
        let chosen = |disks: &[Device], text: &str| {
            choose(disks, &m, &answers(text))
                .map(|d| d.path.clone())
                .map_err(|e| format!("{e} / {}", e.help().unwrap_or("no hint")))
        };
        assert_eq!(chosen(&disks, "disk=any").unwrap(), "/dev/vda");
        assert_eq!(chosen(&disks, "disk=serial:A").unwrap(), "/dev/vda");
        let e = chosen(&disks, "disk=serial:B").unwrap_err();
        assert!(e.contains("holds data") && e.contains("photos") && e.contains("wipe=yes"));
        assert_eq!(
            chosen(&disks, "disk=serial:B\nwipe=yes").unwrap(),
            "/dev/vdb"
        );
        // `any` never means one with data, even where it may be wiped.
        let e = chosen(&[full.clone()], "disk=any\nwipe=yes").unwrap_err();
        assert!(e.contains("there is no such disk"), "{e}");
        let e = chosen(&disks, "disk=model:QEMU HARDDISK").unwrap_err();
        assert!(e.contains("could be one of 2"), "{e}");
        let e = chosen(&disks, "disk=serial:C").unwrap_err();
        assert!(e.contains("/dev/vda") && e.contains("holds"), "{e}");

        let mut unfinished = disk("/dev/vdc", "C");
        unfinished.children = vec![part(UNFINISHED)];
        assert_eq!(chosen(&[unfinished], "disk=serial:C").unwrap(), "/dev/vdc");
    }

    #[test]
    fn an_installed_machine_is_not_installed_over_by_itself() {
        let m = machine();
        let mut node = disk("/dev/vda", "A");
        node.ptuuid = Some("AB-12".into());
        node.children = m.layout.iter().map(|p| part(&p.label)).collect();
        let disks = [node, disk("/dev/vdb", "B")];
        for text in [
            "disk=any",
            "disk=serial:A\nwipe=yes",
            "disk=serial:B",
            "disk=serial:A\nwipe=yes\nreinstall=cd-34",
        ] {
            let e = choose(&disks, &m, &answers(text)).unwrap_err();
            assert!(e.to_string().contains("installed already"), "{text}: {e}");
            assert!(e.help().unwrap().contains("reinstall=AB-12"));
        }
        let a = answers("disk=serial:A\nreinstall=AB-12");
        assert_eq!(choose(&disks, &m, &a).unwrap().path, "/dev/vda");
    }

    #[test]
    fn sizes_are_checked_before_anything_is_written() {
        let m = machine();
        let content = Content {
            root: 100 << 20,
            verity: 1 << 20,
            boot: 60 << 20,
        };
        let mut d = disk("/dev/vda", "A");
        let p = plan(&d, &m, content).unwrap();
        let text = p.picture();
        assert!(text.contains("│ data     │"), "{text}");
        assert!(text.contains("Nothing is lost"), "{text}");
        let sum: u64 = p.partitions.iter().map(|p| p.size).sum();
        assert!(sum <= d.size);
        d.size = 11 * GIB;
        let e = plan(&d, &m, content).unwrap_err();
        assert!(
            e.to_string().contains("has 11 GiB, but LamaDist takes"),
            "{e}"
        );
        d.size = 16 * GIB;
        for c in [
            Content {
                root: 4 * GIB,
                ..content
            },
            Content {
                verity: 65 << 20,
                ..content
            },
            Content {
                boot: 300 << 20,
                ..content
            },
        ] {
            let e = plan(&d, &m, c).unwrap_err();
            assert!(e.to_string().contains("is too small for this image"), "{e}");
        }
        d.children = vec![part("photos")];
        assert!(plan(&d, &m, content).unwrap().picture().contains("photos"));
    }
}
