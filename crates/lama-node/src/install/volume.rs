// SPDX-License-Identifier: Apache-2.0
//! The encrypted volumes of a new disk: formatted, filled, and closed to all but the machine.
//!
//! systemd-repart(8) could do that, too, but formats LUKS2 with the disk's sectors, which are 512 bytes
//! on most: eight times as many pieces to encrypt as with [`luks::SECTOR`]. And it does one thing after
//! the other, where the TPM is waited for as well as the disk.

use crate::error::{Context, Error, Result};
use crate::install::copy::Ahead;
use crate::luks::{self, Opener};
use crate::machine::{Machine, Partition, Role};
use crate::run::Run;
use crate::secret::escrow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What volumes are called while they are open here, before their GPT name.
const PREFIX: &str = "lamadist-install-";

/// How volumes are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// By the TPM.
    Tpm,
    /// By a passphrase.
    Passphrase,
}

/// All volumes of a disk.
pub struct Volumes<'a> {
    /// Opens all of them, and stays with whoever installs.
    pub recovery: &'a str,
    /// What opens them from now on.
    pub lock: Lock,
    /// The passphrase where it is one.
    pub passphrase: Option<&'a str>,
    /// Who copies of secrets are encrypted to.
    recipient: String,
    /// The TPM does one thing at a time, and a passphrase takes much memory.
    one: Mutex<()>,
}

/// A new volume, open.
pub struct New<'a> {
    partition: &'a Partition,
    device: String,
    open: Open,
}

impl<'a> Volumes<'a> {
    /// With these.
    ///
    /// # Errors
    /// age-keygen's.
    pub fn new(recovery: &'a str, lock: Lock, passphrase: Option<&'a str>) -> Result<Self> {
        Ok(Self {
            recovery,
            lock,
            passphrase,
            recipient: escrow::recipient(recovery)?,
            one: Mutex::new(()),
        })
    }

    /// Makes one of them. It is opened by the recovery key, so that is known to do it. Where a passphrase
    /// is to open it, that is added here: cryptsetup(8) measures what this machine can do in two seconds,
    /// which is as much less as others do meanwhile.
    ///
    /// # Errors
    /// cryptsetup's.
    pub fn make<'p>(&self, partition: &'p Partition, device: String) -> Result<New<'p>> {
        let label = &partition.label;
        let make = || {
            luks::format(&device, label, self.recovery)?;
            if let (Lock::Passphrase, Some(p)) = (self.lock, self.passphrase) {
                luks::add_passphrase(&device, Opener::Key(self.recovery), p)?;
            }
            Open::new(&device, label, self.recovery)
        };
        let open = make().context(format_args!("volume {label}"))?;
        Ok(New {
            partition,
            device,
            open,
        })
    }

    /// Fills it with the root where there is one to copy, or else as its role is, and sees that it
    /// opens by the machine's key, too. It is closed afterwards.
    ///
    /// # Errors
    /// cryptsetup's, systemd-cryptenroll's, mkfs's; the root cannot be read, or not be written.
    pub fn finish(&self, new: New<'_>, root: Option<Ahead>) -> Result<()> {
        let (p, device) = (new.partition, new.device);
        // One works on the header, the other behind it.
        std::thread::scope(|s| {
            let sealing = s.spawn(|| self.seal(&device));
            let filled = match (root, p.role) {
                (Some(root), _) => root.write(&new.open.path()),
                (None, Role::Var) => make_fs(p, &new.open.path()),
                _ => Ok(()),
            };
            let panicked = |_| Err(Error::new("sealing came to no end"));
            let sealed = sealing.join().unwrap_or_else(panicked);
            sealed.and(filled).and_then(|()| new.open.close())
        })
        .context(format_args!("volume {}", p.label))
    }

    fn seal(&self, device: &str) -> Result<()> {
        luks::mark_recovery(device, luks::FIRST, Some(&self.recipient))?;
        let opener = Opener::Key(self.recovery);
        // What another thread left in a panic is no secret of this one's.
        let _one = self.one.lock().unwrap_or_else(|e| e.into_inner());
        match (self.lock, self.passphrase) {
            (Lock::Passphrase, Some(p)) => luks::check(device, Opener::Key(p)),
            _ => {
                luks::seal(device, opener)?;
                luks::check(device, Opener::Tpm)
            }
        }
    }
}

/// Closes what an installation has left that was killed in the same live system.
///
/// # Errors
/// Something uses it.
pub fn close_left(machine: &Machine) -> Result<()> {
    for p in machine.layout.iter().filter(|p| p.encrypted) {
        let name = format!("{PREFIX}{}", p.label);
        if Path::new("/dev/mapper").join(&name).exists() {
            Open(name).close()?;
        }
    }
    Ok(())
}

/// An open volume, by its name; dropping it closes it.
struct Open(String);

impl Open {
    fn new(device: &str, label: &str, key: &str) -> Result<Self> {
        let name = format!("{PREFIX}{label}");
        let run = Run::new("cryptsetup").args(["open", "--type=luks2", "--batch-mode"]);
        let run = run.args(["--disable-external-tokens", "--key-file", "-"]);
        run.args([device, &name]).stdin(key).run()?;
        Ok(Self(name))
    }

    fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.0)
    }

    fn close(mut self) -> Result<()> {
        let name = std::mem::take(&mut self.0);
        let run = Run::new("cryptsetup").args(["close", &name]);
        run.run().map(|_| ())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let _ = Run::new("cryptsetup").args(["close", &self.0]).any();
        }
    }
}

fn make_fs(p: &Partition, device: &Path) -> Result<()> {
    let kind = p.filesystem.as_deref().unwrap_or("ext4");
    let run = Run::new(format!("mkfs.{kind}")).arg("-q");
    // The partition was discarded as a whole.
    let run = match kind {
        "xfs" => run.arg("-K"),
        _ => run.args(["-m", "0", "-E", "nodiscard,lazy_itable_init=1"]),
    };
    // As much of a name as both take.
    let label: String = p.label.chars().take(12).collect();
    run.args(["-L", &label])
        .arg(device)
        .run()
        .context("cannot make the file system")
        .map(|_| ())
}
