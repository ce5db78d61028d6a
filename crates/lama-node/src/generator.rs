// SPDX-License-Identifier: Apache-2.0
//! `lamadist-generator` (systemd.generator(7)): what an installed machine mounts and opens, in its
//! initrd and in its system. The same program by another name, at the very start of each.
//!
//! Nothing is found by its name on the disk: udev gives links below `/dev/lamadist/` to the partitions
//! whose UUIDs follow from the ESP that was booted ([`crate::ids`]). Only where the firmware has no
//! variables, GPT names have to do.

use crate::block::UNFINISHED;
use crate::error::Context;
use crate::kernel::{Cmdline, Slot};
use crate::machine::{Machine, Partition, Role};
use crate::run::Run;
use crate::{Result, fs, ids};
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The name it is called by.
pub const NAME: &str = "lamadist-generator";
/// systemd's own, which makes units from a crypttab.
const CRYPTSETUP: &str = "/usr/lib/systemd/system-generators/systemd-cryptsetup-generator";
/// Seconds that somebody has to type a recovery key, when the TPM does not open the disk. Then the
/// machine restarts, and the firmware may take the other slot.
const PROMPT: u32 = 300;
/// Where udev takes rules of this boot from.
const RULES: &str = "/run/udev/rules.d/61-lamadist.rules";
/// After systemd's own, which these take back.
const READY_RULES: &str = "/run/udev/rules.d/99-z-lamadist.rules";
/// systemd waits for an opened volume until something is on it, since it may be about to be formatted.
/// What should be in the initrd is there already, or is damaged: then dm-verity or fsck(8) has to say so
/// at once, and not a time limit minutes later.
const READY: &str = "# Made by lamadist-generator at every boot.\n\
    SUBSYSTEM==\"block\", ENV{DM_UUID}==\"CRYPT-LUKS2-*\", ENV{ID_PART_TABLE_TYPE}==\"\", \
    ENV{ID_FS_USAGE}==\"\", ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}!=\"1\", ENV{DM_SUSPENDED}!=\"1\", \
    ENV{SYSTEMD_READY}=\"1\"\n";
const CRYPTTAB: &str = "/run/lamadist/crypttab";

/// Which of the two systems of a boot this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The initrd.
    Initrd,
    /// The system.
    System,
}

/// Runs with systemd's three output directories.
///
/// # Errors
/// A file cannot be written. systemd logs it and goes on; then the root is missed and the initrd
/// restarts the machine.
pub fn run(dirs: &[String]) -> Result<()> {
    let slot = match Cmdline::read()?.slot() {
        Some(s @ (Slot::A | Slot::B)) => s,
        _ => return Ok(()),
    };
    let Some(dir) = dirs.first().map(Path::new) else {
        return Ok(());
    };
    let stage = if Path::new("/etc/initrd-release").exists() {
        Stage::Initrd
    } else {
        Stage::System
    };
    let machine = Machine::read()?;
    fs::write(RULES, rules(&machine, ids::booted_esp().as_deref()), 0o644)?;
    fs::write(CRYPTTAB, crypttab(&machine, slot, stage), 0o600)?;
    match stage {
        Stage::Initrd => fs::write(READY_RULES, READY, 0o644)?,
        // A slot without a system is no defect there.
        Stage::System => fs::remove(READY_RULES)?,
    }
    for (name, text) in units(&machine, slot, stage) {
        fs::write(dir.join(name), text, 0o644)?;
    }
    if stage == Stage::Initrd {
        let wants = dir.join("initrd-root-fs.target.requires");
        fs::create_dir(&wants)?;
        let link = wants.join("sysroot-var.mount");
        fs::remove(&link)?;
        symlink("../sysroot-var.mount", &link)
            .context(format_args!("cannot make {}", link.display()))?;
    }
    let run = Run::new(CRYPTSETUP).env("SYSTEMD_CRYPTTAB", CRYPTTAB);
    run.args(dirs).run().map(|_| ())
}

/// The name of an opened volume: `rootfs_a` of the partition `rootfs-a`.
pub fn mapper(label: &str) -> String {
    label.replace('-', "_")
}

/// udev rules that link the machine's partitions.
fn rules(machine: &Machine, esp: Option<&str>) -> String {
    let mut s = String::from("# Made by lamadist-generator at every boot.\n");
    for p in &machine.layout {
        let which = match (esp, p.role) {
            (Some(e), Role::Esp) => format!("ENV{{ID_PART_ENTRY_UUID}}==\"{e}\""),
            (Some(e), _) => {
                format!(
                    "ENV{{ID_PART_ENTRY_UUID}}==\"{}\"",
                    ids::partition(e, &p.label)
                )
            }
            (None, _) => format!("ENV{{ID_PART_ENTRY_NAME}}==\"{}\"", p.label),
        };
        let _ = writeln!(
            s,
            "SUBSYSTEM==\"block\", ENV{{DEVTYPE}}==\"partition\", {which}, \
             SYMLINK+=\"lamadist/{}\"",
            p.label
        );
        // Named so as long as its installation lacks its last step (see `repair`); another disk's is
        // linked only where nothing else is.
        if esp.is_none() && p.role == Role::Esp {
            let _ = writeln!(
                s,
                "SUBSYSTEM==\"block\", ENV{{DEVTYPE}}==\"partition\", \
                 ENV{{ID_PART_ENTRY_NAME}}==\"{UNFINISHED}\", SYMLINK+=\"lamadist/{}\", \
                 OPTIONS+=\"link_priority=-100\"",
                p.label
            );
        }
    }
    s
}

/// Whether the running system stands on this volume.
fn stands_on(p: &Partition, slot: Slot) -> bool {
    p.role == Role::Var || p.slot.as_deref() == Some(slot.name())
}

/// crypttab(5). In the initrd what the root and /var need, opened when they ask for it. In the system
/// all of it: the units of what is open already, and of the other slot, for who updates it.
fn crypttab(machine: &Machine, slot: Slot, stage: Stage) -> String {
    let mut s = String::new();
    for p in machine.layout.iter().filter(|p| p.encrypted) {
        let options = match (stage, stands_on(p, slot)) {
            (Stage::Initrd, true) => format!("noauto,x-initrd.attach,timeout={PROMPT}s"),
            (Stage::Initrd, false) => continue,
            (Stage::System, true) => "nofail,x-initrd.attach".to_owned(),
            // Opened by who writes an update to it, and never while PCR 11 is being extended.
            (Stage::System, false) => "noauto,headless=true".to_owned(),
        };
        let _ = writeln!(
            s,
            "{} /dev/lamadist/{} - tpm2-device=auto,no-read-workqueue,{options}",
            mapper(&p.label),
            p.label
        );
    }
    s
}

/// Units and drop-ins by name.
fn units(machine: &Machine, slot: Slot, stage: Stage) -> Vec<(String, String)> {
    let Some(var) = machine.layout.iter().find(|p| p.role == Role::Var) else {
        return Vec::new();
    };
    let name = if var.encrypted {
        format!("mapper/{}", mapper(&var.label))
    } else {
        format!("lamadist/{}", var.label)
    };
    let device = escape(&format!("dev/{name}"));
    if stage == Stage::System {
        return Vec::new();
    }
    let mount = format!(
        "# Made by lamadist-generator.\n[Unit]\nDescription=Data partition\nDefaultDependencies=no\n\
         Requires=sysroot.mount systemd-fsck@{device}.service\n\
         After=sysroot.mount systemd-fsck@{device}.service\n\
         Before=initrd-root-fs.target\nConflicts=umount.target\nBefore=umount.target\n\n\
         [Mount]\nWhat=/dev/{name}\nWhere=/sysroot/var\nType={}\nOptions=nodev\n",
        var.filesystem.as_deref().unwrap_or("ext4")
    );
    let mut out = vec![("sysroot-var.mount".to_owned(), mount)];
    // What stands on a volume waits as long as somebody may type its key.
    let patient = format!(
        "[Unit]\nJobTimeoutSec={}\nJobRunningTimeoutSec={}\n",
        PROMPT + 60,
        PROMPT + 60
    );
    let mut volumes = vec!["root".to_owned()];
    let held = machine.layout.iter().filter(|p| p.encrypted);
    volumes.extend(
        held.filter(|p| stands_on(p, slot))
            .map(|p| mapper(&p.label)),
    );
    for v in volumes {
        let dir = format!("{}.device.d", escape(&format!("dev/mapper/{v}")));
        out.push((format!("{dir}/50-lamadist.conf"), patient.clone()));
    }
    out
}

/// A path as a unit's name (systemd.unit(5), "String escaping for inclusion in unit names").
fn escape(path: &str) -> String {
    let mut s = String::new();
    for (n, b) in path.bytes().enumerate() {
        match b {
            b'/' => s.push('-'),
            b'.' if n == 0 => s.push_str("\\x2e"),
            b if b.is_ascii_alphanumeric() || b":_.".contains(&b) => s.push(char::from(b)),
            b => {
                let _ = write!(s, "\\x{b:02x}");
            }
        }
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine::parse(
            br#"{"bsp":"x","image":"base","version":"1","compatible":"c","layout":[
            {"label":"esp","type":"e","role":"esp","size":4096},
            {"label":"rootfs-a","type":"r","role":"root","slot":"a","size":1,"encrypted":true},
            {"label":"verity-a","type":"v","role":"verity","slot":"a","size":1},
            {"label":"rootfs-b","type":"r","role":"root","slot":"b","size":1,"encrypted":true},
            {"label":"data","type":"d","role":"var","encrypted":true,"filesystem":"xfs"}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn partitions_are_found_by_the_uuid_of_the_esp() {
        let r = rules(&machine(), Some("e-s-p"));
        assert!(r.contains("ENV{ID_PART_ENTRY_UUID}==\"e-s-p\", SYMLINK+=\"lamadist/esp\"\n"));
        let data = ids::partition("e-s-p", "data");
        assert!(r.contains(&format!("==\"{data}\", SYMLINK+=\"lamadist/data\"\n")));
        assert!(!r.contains("ENTRY_NAME"));
        let r = rules(&machine(), None);
        assert!(
            r.contains("ENV{ID_PART_ENTRY_NAME}==\"verity-a\", SYMLINK+=\"lamadist/verity-a\"")
        );
        let unfinished =
            "==\"lamadist-installing\", SYMLINK+=\"lamadist/esp\", OPTIONS+=\"link_pri";
        assert!(r.contains(unfinished), "{r}");
    }

    #[test]
    fn each_stage_opens_what_it_needs() {
        assert_eq!(
            crypttab(&machine(), Slot::B, Stage::Initrd),
            "rootfs_b /dev/lamadist/rootfs-b - tpm2-device=auto,no-read-workqueue,noauto,x-initrd.attach,timeout=300s\n\
             data /dev/lamadist/data - tpm2-device=auto,no-read-workqueue,noauto,x-initrd.attach,timeout=300s\n"
        );
        assert_eq!(
            crypttab(&machine(), Slot::B, Stage::System),
            "rootfs_a /dev/lamadist/rootfs-a - tpm2-device=auto,no-read-workqueue,noauto,headless=true\n\
             rootfs_b /dev/lamadist/rootfs-b - tpm2-device=auto,no-read-workqueue,nofail,x-initrd.attach\n\
             data /dev/lamadist/data - tpm2-device=auto,no-read-workqueue,nofail,x-initrd.attach\n"
        );
    }

    #[test]
    fn var_is_checked_and_mounted() {
        let all = units(&machine(), Slot::A, Stage::Initrd);
        let names: Vec<&str> = all.iter().map(|u| u.0.as_str()).collect();
        assert_eq!(
            names,
            [
                "sysroot-var.mount",
                "dev-mapper-root.device.d/50-lamadist.conf",
                "dev-mapper-rootfs_a.device.d/50-lamadist.conf",
                "dev-mapper-data.device.d/50-lamadist.conf"
            ]
        );
        assert!(all[0].1.contains("What=/dev/mapper/data\n") && all[0].1.contains("Type=xfs\n"));
        assert!(all[0].1.contains("systemd-fsck@dev-mapper-data.service"));
        assert_eq!(escape("dev/lamadist/a-b"), "dev-lamadist-a\\x2db");
    }
}
