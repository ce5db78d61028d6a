// SPDX-License-Identifier: Apache-2.0
//! What a bundle's hook does: the UKI into its place on the ESP.
//!
//! RAUC writes whole partitions; both slots' UKIs are files on one. So the UKI is an image with an
//! `install` hook (RAUC 1.13, "Slot Hooks"), and the hook calls this, of the running root. The UKI of
//! the slot that runs is not touched, and the other one is whole or is not there: it is written
//! beside its place, synced, and renamed.

use crate::error::Context;
use crate::install::mount::Mounted;
use crate::kernel::Slot;
use crate::loader::backend::Turn;
use crate::loader::{room, slot_addon, uki};
use crate::update::book::{Book, DIR};
use crate::update::judge::boot_id;
use crate::update::trial::{Stage, Trial};
use crate::{Error, Result, fs, keys};
use std::path::{Path, PathBuf};

/// Where the ESP is mounted meanwhile.
const MOUNT: &str = "/run/lamadist/update-esp";
/// Where the hook says why it refused.
pub const WHY: &str = "/run/lamadist/slot-hook.error";

/// What RAUC says of the slot and the image, in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The ESP.
    pub device: PathBuf,
    /// Where the ESP is mounted already.
    pub mounted: Option<PathBuf>,
    /// `a` or `b`.
    pub slot: &'static str,
    /// The UKI, in the mounted bundle.
    pub uki: PathBuf,
    /// Its SHA-256, from the signed manifest.
    pub sha256: String,
    /// The slot's addon, in the mounted bundle.
    pub addon: PathBuf,
}

impl Request {
    /// From variables and the hook's argument.
    ///
    /// # Errors
    /// It is another hook than the one that bundles of ours have, or a variable is missing.
    pub fn parse(argument: &str, get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        if argument != "slot-install" {
            return Err(Error::new(format!("there is no hook {argument:?}")));
        }
        let var = |name: &str| {
            get(name)
                .filter(|v| !v.is_empty())
                .ok_or_else(|| Error::new(format!("{name} is not set")).hint("RAUC calls this"))
        };
        let class = var("RAUC_SLOT_CLASS")?;
        if class != "uki" {
            return Err(Error::new(format!("the slot class {class} has no hook")));
        }
        let slot = match var("RAUC_SLOT_BOOTNAME")?.as_str() {
            "A" => "a",
            "B" => "b",
            other => return Err(Error::new(format!("there is no slot {other:?}"))),
        };
        // Relative where RAUC has changed into the bundle.
        let bundle = PathBuf::from(var("RAUC_BUNDLE_MOUNT_POINT")?);
        Ok(Self {
            device: var("RAUC_SLOT_DEVICE")?.into(),
            mounted: get("RAUC_SLOT_MOUNT_POINT")
                .filter(|v| !v.is_empty())
                .map(Into::into),
            uki: bundle.join(var("RAUC_IMAGE_NAME")?),
            sha256: var("RAUC_IMAGE_DIGEST")?,
            addon: bundle.join(format!("slot-{slot}.addon.efi")),
            slot,
        })
    }

    /// Reads what the bundle brings, which RAUC may be streaming just then.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(&self) -> Result<()> {
        for path in [&self.uki, &self.addon] {
            let what = format!("cannot read {}", path.display());
            std::io::copy(&mut fs::open(path)?, &mut std::io::sink()).context(what)?;
        }
        Ok(())
    }

    /// Installs UKI and addon.
    ///
    /// # Errors
    /// No room, another image than was signed, or a full or broken disk; what ran before is not
    /// touched.
    pub fn install(&self) -> Result<()> {
        match &self.mounted {
            Some(at) => {
                self.guard(at)?;
                self.install_to(at)
            }
            None => {
                let _turn = Turn::wait()?;
                let device = self.device.display().to_string();
                let esp = Mounted::new(&device, "vfat", MOUNT, "rw")?;
                self.guard(esp.at())?;
                self.install_to(esp.at())?;
                esp.close()
            }
        }
    }

    /// Refuses a system that this machine's firmware or TPM would have nothing to do with.
    fn guard(&self, esp: &Path) -> Result<()> {
        // RAUC reads what it streams a second time.
        self.is_judged(Book::new(DIR).trial()?.as_ref(), &boot_id())?;
        let running = match self.slot {
            "a" => Slot::B,
            _ => Slot::A,
        };
        keys::guard(&self.uki, esp, running)
    }

    /// Whether this is the bundle that was looked at and allowed: its UKI has the root's hash in it.
    /// Where `lama-node` did not begin the installation, whoever did had to look.
    fn is_judged(&self, trial: Option<&Trial>, boot: &str) -> Result<()> {
        let now = |t: &&Trial| t.stage == Stage::Installing && t.boot == boot;
        let judged = trial.filter(now).and_then(|t| t.uki.as_deref());
        match judged {
            Some(uki) if !uki.eq_ignore_ascii_case(&self.sha256) => Err(Error::new(
                "the bundle that is installed is another than the one that was looked at",
            )
            .hint("the server is being changed just now, or lies; try again")),
            _ => Ok(()),
        }
    }

    /// As [`Request::install`], to an ESP that is mounted here.
    ///
    /// # Errors
    /// As there.
    pub fn install_to(&self, esp: &Path) -> Result<()> {
        let uki = uki(self.slot);
        let addon = esp.join(slot_addon(&uki));
        let uki = esp.join(uki);
        let (digest, size) = fs::sha256(&self.uki)?;
        if digest != self.sha256.to_ascii_lowercase() {
            return Err(Error::new("the UKI is not the one that was signed"));
        }
        // What was left behind by an update that was cut short goes first.
        for path in [&uki, &addon] {
            fs::remove(beside(path))?;
        }
        room(esp, size)?;
        // The addon first: a UKI without the one of its slot would be started as nobody's.
        for (from, to) in [(&self.addon, &addon), (&self.uki, &uki)] {
            fs::copy(&mut fs::open(from)?, to, 0o644)?;
        }
        if fs::sha256(&uki)?.0 != digest {
            return Err(Error::new(
                "the UKI on the boot partition is not what was written",
            ));
        }
        Ok(())
    }
}

/// The name that [`fs::copy`] writes under.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn variables(dir: &Path) -> BTreeMap<&'static str, String> {
        let (digest, _) = fs::sha256(dir.join("uki.img")).unwrap();
        BTreeMap::from([
            ("RAUC_SLOT_CLASS", "uki".to_owned()),
            ("RAUC_SLOT_BOOTNAME", "B".to_owned()),
            ("RAUC_SLOT_DEVICE", "/dev/lamadist/esp".to_owned()),
            ("RAUC_SLOT_MOUNT_POINT", String::new()),
            ("RAUC_BUNDLE_MOUNT_POINT", dir.display().to_string()),
            ("RAUC_IMAGE_NAME", "uki.img".to_owned()),
            ("RAUC_IMAGE_DIGEST", digest),
        ])
    }

    #[test]
    fn the_other_slot_s_uki_is_put_in_place() {
        let bundle = tempfile::tempdir().unwrap();
        let esp = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join("uki.img"), "new", 0o644).unwrap();
        fs::write(bundle.path().join("slot-b.addon.efi"), "addon", 0o644).unwrap();
        let linux = esp.path().join("EFI/Linux");
        fs::write(linux.join("lamadist-a.efi"), "running", 0o644).unwrap();
        fs::write(linux.join("lamadist-b.efi"), "old", 0o644).unwrap();
        fs::write(linux.join("lamadist-b.efi.new"), "half", 0o644).unwrap();
        let vars = variables(bundle.path());
        let get = |n: &str| vars.get(n).cloned();
        let r = Request::parse("slot-install", get).unwrap();
        assert_eq!((r.slot, &r.mounted), ("b", &None));
        r.install_to(esp.path()).unwrap();
        let names = fs::names(&linux).unwrap();
        assert_eq!(
            names,
            ["lamadist-a.efi", "lamadist-b.efi", "lamadist-b.efi.extra.d"]
        );
        assert_eq!(fs::text(linux.join("lamadist-a.efi")).unwrap(), "running");
        assert_eq!(fs::text(linux.join("lamadist-b.efi")).unwrap(), "new");
        let addon = linux.join("lamadist-b.efi.extra.d/slot.addon.efi");
        assert_eq!(fs::text(addon).unwrap(), "addon");

        // Another image than the manifest speaks of touches nothing.
        fs::write(bundle.path().join("uki.img"), "forged", 0o644).unwrap();
        assert!(r.install_to(esp.path()).is_err());
        assert_eq!(fs::text(linux.join("lamadist-b.efi")).unwrap(), "new");
    }

    #[test]
    fn another_bundle_than_was_looked_at_is_refused() {
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join("uki.img"), "new", 0o644).unwrap();
        let vars = variables(bundle.path());
        let r = Request::parse("slot-install", |n| vars.get(n).cloned()).unwrap();
        let json = |uki: &str, stage: &str| {
            let json = format!(
                r#"{{"from":"a","to":"b","before":"1","version":"2","boot":"now","uki":"{uki}",
                "installed":"t","stage":{{"stage":"{stage}"}}}}"#
            );
            serde_json::from_str::<Trial>(&json).unwrap()
        };
        let same = vars["RAUC_IMAGE_DIGEST"].clone();
        let is = |uki: &str, stage: &str, boot: &str| r.is_judged(Some(&json(uki, stage)), boot);
        assert!(is("00", "installing", "now").is_err());
        assert!(is(&same, "installing", "now").is_ok());
        // What is no installation of ours is none of ours to judge.
        assert!(is("00", "installed", "now").is_ok() && is("00", "installing", "then").is_ok());
        assert!(r.is_judged(None, "now").is_ok());
    }

    #[test]
    fn what_rauc_does_not_say_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("uki.img"), "x", 0o644).unwrap();
        let vars = variables(dir.path());
        for missing in vars.keys().filter(|k| **k != "RAUC_SLOT_MOUNT_POINT") {
            let get = |n: &str| vars.get(n).filter(|_| n != *missing).cloned();
            assert!(Request::parse("slot-install", get).is_err(), "{missing}");
        }
        let get = |n: &str| match n {
            "RAUC_SLOT_BOOTNAME" => Some("C".to_owned()),
            n => vars.get(n).cloned(),
        };
        assert!(Request::parse("slot-install", get).is_err());
        assert!(Request::parse("install-check", |n| vars.get(n).cloned()).is_err());
    }
}
