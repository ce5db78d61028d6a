// SPDX-License-Identifier: Apache-2.0
//! The data of a machine that was just installed, seen from the medium: where a host from elsewhere
//! is restored to.

use crate::block::{self, Device, State};
use crate::install::mount::Mounted;
use crate::luks::Header;
use crate::machine::{Machine, Role};
use crate::run::Run;
use crate::{Error, Result, ids};
use std::path::Path;

/// Where it is mounted meanwhile.
const AT: &str = "/run/lamadist/data";
/// What it is called by the device mapper meanwhile.
const NAME: &str = "lamadist-restore";

/// It, open and mounted. Dropping it closes it.
pub struct Data {
    mounted: Option<Mounted>,
    encrypted: bool,
}

impl Data {
    /// Opens that of the one disk that holds an installed machine, or of `disk`. The TPM gives the
    /// key, or somebody types it.
    ///
    /// # Errors
    /// There is none, or several; it cannot be opened.
    pub fn open(disk: Option<&str>) -> Result<Self> {
        let machine = Machine::read()?;
        let devices = block::devices()?;
        let disk = choose(&devices, &machine, disk)?;
        let var = machine.layout.iter().find(|p| p.role == Role::Var);
        let var = var.ok_or_else(|| Error::new("this image's layout has no data partition"))?;
        let partition = partition(disk, &machine, &var.label)?;
        let mut this = Self {
            mounted: None,
            encrypted: var.encrypted,
        };
        let mut device = partition.path.clone();
        if var.encrypted {
            let mut options = "luks,timeout=300".to_owned();
            if Header::read(&device)?.tpm() > 0 {
                options += ",tpm2-device=auto";
            }
            Run::new("/usr/lib/systemd/systemd-cryptsetup")
                .args(["attach", NAME, &device, "-", &options])
                .show()?;
            device = format!("/dev/mapper/{NAME}");
        }
        let fs = var.filesystem.as_deref().unwrap_or("ext4");
        this.mounted = Some(Mounted::new(&device, fs, AT, "rw")?);
        Ok(this)
    }

    /// Where it is mounted.
    pub fn at(&self) -> &'static Path {
        Path::new(AT)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        drop(self.mounted.take());
        if self.encrypted {
            let _ = Run::new("/usr/lib/systemd/systemd-cryptsetup")
                .args(["detach", NAME])
                .any();
        }
    }
}

fn choose<'a>(all: &'a [Device], machine: &Machine, disk: Option<&str>) -> Result<&'a Device> {
    let installed = |d: &&Device| matches!(d.state(machine), State::Installed(_));
    if let Some(path) = disk {
        let found = all.iter().find(|d| d.path == path).ok_or_else(|| {
            Error::new(format!("there is no disk {path}")).hint("lsblk lists them")
        })?;
        return Some(found).filter(installed).ok_or_else(|| {
            Error::new(format!("no machine is installed on {path}"))
                .hint("install it first: lama-node install")
        });
    }
    let mut found = all.iter().filter(installed);
    match (found.next(), found.next()) {
        (Some(d), None) => Ok(d),
        (None, _) => Err(Error::new("no disk here has an installed machine")
            .hint("install it first: lama-node install; or give a directory by --target")),
        (Some(a), Some(b)) => Err(Error::new(format!(
            "machines are installed on {} and {}",
            a.path, b.path
        ))
        .hint(format!("say which: --disk {}", a.path))),
    }
}

/// The partition of that name whose UUID follows from the ESP's.
fn partition<'a>(disk: &'a Device, machine: &Machine, label: &str) -> Result<&'a Device> {
    let named = |n: &str| {
        let mut all = disk.children.iter();
        all.find(|c| c.partlabel.as_deref() == Some(n))
    };
    let esp = named(machine.esp_label()).and_then(|e| e.partuuid.as_deref());
    let uuid = esp.map(|e| ids::partition(e, label));
    uuid.and_then(|u| disk.partition(&u)).ok_or_else(|| {
        Error::new(format!("{} has no partition {label} of its own", disk.path))
            .hint("it was copied or changed; give a directory by --target")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine::parse(
            br#"{"bsp":"x86_64","image":"base","version":"1","compatible":"c","layout":[
            {"label":"esp","type":"e","role":"esp","size":1},
            {"label":"rootfs-a","type":"r","role":"root","slot":"a","size":1,"encrypted":true},
            {"label":"data","type":"v","role":"var","encrypted":true,"filesystem":"ext4"}]}"#,
        )
        .unwrap()
    }

    fn disk(path: &str) -> Device {
        let part = |label: &str, uuid: String| Device {
            path: format!("{path}-{label}"),
            partlabel: Some(label.to_owned()),
            partuuid: Some(uuid),
            r#type: Some("part".to_owned()),
            ..Device::default()
        };
        Device {
            path: path.to_owned(),
            r#type: Some("disk".to_owned()),
            ptuuid: Some("t".to_owned()),
            children: vec![
                part("esp", "1".to_owned()),
                part("rootfs-a", ids::partition("1", "rootfs-a")),
                part("data", ids::partition("1", "data")),
            ],
            ..Device::default()
        }
    }

    #[test]
    fn the_installed_disk_is_found() {
        let m = machine();
        let one = [disk("/dev/a"), Device::default()];
        let d = choose(&one, &m, None).unwrap();
        assert_eq!(d.path, "/dev/a");
        assert_eq!(partition(d, &m, "data").unwrap().path, "/dev/a-data");
        assert!(choose(&one[1..], &m, None).is_err());
        assert!(choose(&one, &m, Some("/dev/b")).is_err());
        let two = [disk("/dev/a"), disk("/dev/b")];
        let e = choose(&two, &m, None).err().unwrap();
        assert!(e.help().unwrap().contains("--disk /dev/a"));
        assert_eq!(choose(&two, &m, Some("/dev/b")).unwrap().path, "/dev/b");
        // A data partition of another disk that was copied here.
        let mut mixed = disk("/dev/a");
        mixed.children[2].partuuid = Some("9".to_owned());
        assert!(partition(&mixed, &m, "data").is_err());
    }
}
