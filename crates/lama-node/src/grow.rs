// SPDX-License-Identifier: Apache-2.0
//! /var on a disk that has become larger: the partition, the encrypted volume, the file system.
//!
//! Nothing but the data partition is touched. systemd-repart(8) gets one definition, of a partition
//! that exists; before it writes it is asked what it would do, and anything but growing that one is
//! refused. Partitions without a definition it leaves as they are.

use crate::error::Context;
use crate::machine::{Machine, Role};
use crate::run::Run;
use crate::{Error, Result, block, fs, generator, health};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Below this many bytes to gain nothing is done.
pub const LEAST: u64 = 64 << 20;
/// Bytes at the end of a disk that are not counted: the second GPT, and alignment.
const TAIL: u64 = 1 << 20;
/// Where sysfs counts in, whatever the disk's sectors are.
const SECTOR: u64 = 512;
/// Made anew at every run.
const DEFINITIONS: &str = "/run/lamadist/grow.repart.d";
/// The file in it.
const DEFINITION: &str = "data.conf";

/// A partition, as sysfs tells.
#[derive(Debug)]
pub struct Partition {
    /// Its device, without links.
    pub path: String,
    /// Its disk's device.
    pub disk: String,
    /// `/sys/…/DISK/PARTITION`.
    sys: PathBuf,
}

impl Partition {
    /// The one that a link leads to.
    ///
    /// # Errors
    /// There is none, or it is no partition.
    pub fn find(link: &str) -> Result<Self> {
        let path = fs::canonical(link)?;
        let name = path.file_name().unwrap_or_default();
        let sys = fs::canonical(Path::new("/sys/class/block").join(name))?;
        let parent = sys.parent().and_then(Path::file_name);
        match parent {
            Some(disk) if sys.join("partition").exists() => Ok(Self {
                disk: format!("/dev/{}", disk.to_string_lossy()),
                path: path.to_string_lossy().into_owned(),
                sys,
            }),
            _ => Err(Error::new(format!("{} is no partition", path.display()))),
        }
    }

    /// Bytes of its disk.
    pub fn disk_size(&self) -> u64 {
        self.sys.parent().map_or(0, |d| number(&d.join("size")))
    }

    /// Bytes of it.
    pub fn size(&self) -> u64 {
        number(&self.sys.join("size"))
    }

    /// Free bytes behind it.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn room(&self) -> Result<u64> {
        let disk = self.sys.parent().unwrap_or(&self.sys);
        let mut starts = Vec::new();
        for name in fs::names(disk)? {
            let dir = disk.join(name);
            if dir.join("partition").exists() {
                starts.push(number(&dir.join("start")));
            }
        }
        let start = number(&self.sys.join("start"));
        Ok(room(self.disk_size(), start, self.size(), &starts))
    }
}

/// A file of sysfs that counts sectors, in bytes.
fn number(path: &Path) -> u64 {
    let n: Option<u64> = fs::line(path).and_then(|l| l.parse().ok());
    n.unwrap_or(0).saturating_mul(SECTOR)
}

/// Free bytes behind a partition, up to the next one or the end of the disk.
fn room(disk: u64, start: u64, size: u64, starts: &[u64]) -> u64 {
    let next = starts.iter().copied().filter(|s| *s > start).min();
    let end = next.unwrap_or(disk.saturating_sub(TAIL));
    end.saturating_sub(start.saturating_add(size))
}

/// What is to be done, or was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Grown {
    /// Bytes that the partition gains.
    pub partition: u64,
    /// Bytes that the encrypted volume gains.
    pub volume: u64,
    /// Bytes that the file system gains, about.
    pub filesystem: u64,
}

impl Grown {
    /// For people.
    pub fn text(&self) -> String {
        if *self == Self::default() {
            return "/var fills its disk".to_owned();
        }
        let size = block::size;
        format!(
            "to gain: partition {}, encrypted volume {}, file system about {}",
            size(self.partition),
            size(self.volume),
            size(self.filesystem)
        )
    }
}

/// Grows /var, or with `dry` says what would be.
///
/// # Errors
/// It can't be told what is there, or a program refuses. What was grown before that stays; the rest
/// is taken up at the next run.
pub fn grow(machine: &Machine, dry: bool) -> Result<Grown> {
    let var = machine.layout.iter().find(|p| p.role == Role::Var);
    let var = var.ok_or_else(|| Error::new("this machine has no partition for /var"))?;
    let link = format!("/dev/lamadist/{}", var.label);
    let partition = Partition::find(&link)?;
    let room = partition.room()?;
    let mut grown = Grown {
        partition: if room < LEAST { 0 } else { room },
        ..Grown::default()
    };
    if grown.partition > 0 && !dry {
        repart(&partition, &var.label)?;
    }
    // Where it was cut off after a step, the next ones are still to be done.
    let coming = if dry { grown.partition } else { 0 };
    let mut device = partition.size().saturating_add(coming);
    if var.encrypted {
        let name = generator::mapper(&var.label);
        let volume = format!("/dev/mapper/{name}");
        let size = |v: &str| -> Result<u64> {
            let dm = fs::canonical(v)?;
            let dm = dm.file_name().unwrap_or_default();
            Ok(number(&Path::new("/sys/class/block").join(dm).join("size")))
        };
        // The LUKS2 header takes 16 MiB.
        let gain = device.saturating_sub(size(&volume)?);
        if gain >= LEAST {
            grown.volume = gain;
            if !dry {
                // The volume's key is in a keyring that only the initrd's process had, so that
                // systemd-growfs gets EPERM: the TPM gives it once more.
                Run::new("cryptsetup")
                    .args(["resize", "--token-only", "--batch-mode", &name])
                    .run()
                    .map_err(|e| {
                        e.hint(format!(
                            "a machine without TPM: cryptsetup resize {name}, then lama-node grow"
                        ))
                    })?;
            }
        }
        if !dry {
            device = size(&volume)?;
        }
    }
    let s = health::checks::statvfs("/var")?;
    let gain = device.saturating_sub(s.f_blocks.saturating_mul(s.f_frsize));
    // What a file system needs for itself is no gain.
    if gain >= LEAST && gain > device / 20 {
        grown.filesystem = gain;
        if !dry {
            Run::new("/usr/lib/systemd/systemd-growfs")
                .arg("/var")
                .run()?;
        }
    }
    Ok(grown)
}

/// What systemd-repart says of a partition.
#[derive(Debug, Deserialize)]
struct Row {
    uuid: String,
    /// The definition; by 252 its name and `-` for none, by 257 its path and nothing.
    file: Option<String>,
    activity: String,
}

fn repart(partition: &Partition, label: &str) -> Result<()> {
    let devices = block::devices()?;
    let disk = devices.iter().find(|d| d.path == partition.disk);
    let disk = disk.ok_or_else(|| Error::new(format!("lsblk knows no {}", partition.disk)))?;
    let me = disk.children.iter().find(|c| c.path == partition.path);
    let (Some(kind), Some(uuid)) = (
        me.and_then(|m| m.parttype.clone()),
        me.and_then(|m| m.partuuid.clone()),
    ) else {
        return Err(Error::new(format!("lsblk knows no {}", partition.path)));
    };
    // systemd-repart takes the first partition of a type.
    let alike = disk
        .children
        .iter()
        .filter(|c| c.parttype.as_ref() == Some(&kind));
    if alike.count() != 1 {
        return Err(Error::new(format!(
            "{} has several partitions of the type of {label}",
            disk.path
        ))
        .hint("grow the partition by hand, then run lama-node grow"));
    }
    fs::write(
        Path::new(DEFINITIONS).join(DEFINITION),
        format!("[Partition]\nType={kind}\nLabel={label}\nUUID={uuid}\n"),
        0o644,
    )?;
    let run = |dry: &str| {
        Run::new("systemd-repart")
            .args([
                "--empty=refuse",
                "--discard=no",
                "--no-pager",
                "--json=short",
            ])
            .arg(format!("--definitions={DEFINITIONS}"))
            .arg(format!("--dry-run={dry}"))
            .arg(&disk.path)
    };
    let rows: Vec<Row> = run("yes").json()?;
    check(&rows, &uuid).context(format_args!("cannot grow {}", partition.path))?;
    run("no").run().map(|_| ())
}

/// Only this partition may change, and it must be there.
fn check(rows: &[Row], uuid: &str) -> Result<()> {
    let mine = |r: &&Row| {
        let file = r.file.as_ref().map(Path::new);
        file.and_then(Path::file_name) == Some(DEFINITION.as_ref())
    };
    let ok = |r: &Row| {
        r.uuid.eq_ignore_ascii_case(uuid) && matches!(r.activity.as_str(), "resize" | "unchanged")
    };
    let one = rows.iter().filter(mine).count() == 1;
    let others = rows.iter().filter(|r| !mine(r));
    if one
        && rows.iter().filter(mine).all(ok)
        && others.map(|r| &r.activity).all(|a| a == "unchanged")
    {
        return Ok(());
    }
    Err(Error::new("systemd-repart would change something else"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    #[test]
    fn room_ends_at_the_next_partition() {
        assert_eq!(room(400 * M, 100 * M, 100 * M, &[M, 100 * M]), 199 * M);
        assert_eq!(room(400 * M, 100 * M, 100 * M, &[300 * M, 220 * M]), 20 * M);
        // Nothing is gained on a full, a smaller or an unknown disk.
        assert_eq!(room(200 * M, 100 * M, 100 * M, &[]), 0);
        assert_eq!(room(0, 100 * M, 100 * M, &[]), 0);
        assert_eq!(room(400 * M, u64::MAX, M, &[]), 0);
    }

    #[test]
    fn nothing_but_growing_is_let_through() {
        // What systemd-repart 252 and 257 printed.
        let row = |uuid: &str, file: &str, activity: &str| {
            format!(
                r#"{{"type":"var","label":"data","uuid":"{uuid}","file":"{file}","node":"x2",
                "offset":22020096,"old_size":62914560,"raw_size":82817024,"old_padding":19902464,
                "raw_padding":0,"activity":"{activity}"}}"#
            )
        };
        let rows = |all: &[String]| -> Vec<Row> {
            serde_json::from_str(&format!("[{}]", all.join(","))).unwrap()
        };
        let esp = row("e", "-", "unchanged");
        let good = row("D", "data.conf", "resize");
        assert!(check(&rows(&[good.clone(), esp.clone()]), "d").is_ok());
        let path = row("d", "/run/lamadist/grow.repart.d/data.conf", "resize");
        let none = esp.replace("\"-\"", "null");
        assert!(check(&rows(&[path, none]), "d").is_ok());
        for bad in [
            vec![],
            vec![esp.clone()],
            vec![row("d", "data.conf", "create"), esp.clone()],
            vec![row("other", "data.conf", "resize"), esp],
            vec![good.clone(), row("e", "-", "resize")],
            vec![good.clone(), good],
        ] {
            assert!(check(&rows(&bad), "d").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_partition_is_refused() {
        assert!(Partition::find("/dev/null").is_err());
        assert!(Partition::find("/nonexistent").is_err());
        assert_eq!(Grown::default().text(), "/var fills its disk");
    }
}
