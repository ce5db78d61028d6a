// SPDX-License-Identifier: Apache-2.0
//! Secrets of this machine: passwords, keys and tokens that services need. Each is a credential of
//! systemd's, sealed to the machine, where systemd looks for those that a unit names
//! (`ImportCredential=`, `LoadCredentialEncrypted=` of systemd.exec(5)).
//!
//! A copy of each, encrypted to the recovery key, lies beside: what the TPM sealed is lost when the
//! machine changes, and that is what recovery keys are for.

pub mod escrow;
pub mod seal;

use crate::error::Context;
use crate::kernel::{Cmdline, Slot};
use crate::keys::policy;
use crate::luks::Header;
use crate::machine::{Machine, Role};
use crate::{Error, Result, fs};
use seal::{Kind, To, check_name};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Where systemd looks for sealed credentials.
pub const DIR: &str = "/etc/credstore.encrypted";
/// Where their copies lie, below /var.
const COPIES: &str = "lib/lamadist/secrets";

/// The secrets of a system.
#[derive(Debug, Clone)]
pub struct Store {
    /// Its /var.
    pub var: PathBuf,
    /// Where its sealed credentials lie.
    pub dir: PathBuf,
    /// Who copies are encrypted to: the recovery keys.
    pub recipients: Vec<String>,
}

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is sealed to.
    pub sealed: Kind,
    /// Whether this machine opens it now.
    pub opens: bool,
    /// Whether there is a copy for the recovery key.
    pub copy: bool,
}

/// What a secret is sealed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its name.
    pub name: String,
    /// What it is sealed to.
    pub kind: Kind,
    /// The key of the signed policy in it ([`policy::fingerprint`]).
    pub key: Option<String>,
    /// Whether there is a copy for the recovery key.
    pub copy: bool,
}

/// What became of a secret that was to be sealed anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It opened, and is sealed anew.
    Sealed,
    /// It did not open; its copy did.
    Recovered,
    /// Neither did. It stays as it is.
    Lost(Error),
    /// It opened and could not be sealed anew. It stays as it is.
    Failed(Error),
}

impl Store {
    /// That of the running, installed system.
    ///
    /// # Errors
    /// The live system of a medium, where nothing stays; whoever asks is not root; the disk's header
    /// cannot be read.
    pub fn here() -> Result<Self> {
        match Cmdline::read()?.slot() {
            Some(Slot::A | Slot::B) => {}
            _ => {
                return Err(Error::new("this is not an installed machine")
                    .hint("the live system of a medium keeps no secrets; install it first"));
            }
        }
        if !crate::backup::disk::is_root() {
            return Err(Error::new("this needs root"));
        }
        let machine = Machine::read()?;
        let var = machine.layout.iter().find(|p| p.role == Role::Var);
        let recipients = match var.filter(|p| p.encrypted) {
            Some(p) => Header::read(&format!("/dev/lamadist/{}", p.label))?.recipients(),
            None => Vec::new(),
        };
        Ok(Self {
            var: "/var".into(),
            dir: DIR.into(),
            recipients,
        })
    }

    fn sealed(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn copy(&self, name: &str) -> PathBuf {
        self.var.join(COPIES).join(format!("{name}.age"))
    }

    /// Seals a secret under a name, in place of the one that has it.
    ///
    /// # Errors
    /// The name is none, the secret is empty, it cannot be sealed or written. Then the one that was
    /// there stays.
    pub fn set(&self, name: &str, data: &[u8]) -> Result<()> {
        self.put(name, data, To::Machine)
    }

    fn put(&self, name: &str, data: &[u8], to: To) -> Result<()> {
        check_name(name)?;
        if data.is_empty() {
            return Err(Error::new(format!("the secret {name} is empty")).hint(
                "give it on standard input, or remove the old one with `lama-node secret rm`",
            ));
        }
        let sealed = seal::seal(&self.var, name, data, to)?;
        let copy = if self.recipients.is_empty() {
            None
        } else {
            let c = escrow::encrypt(data, &self.recipients);
            Some(c.context(format_args!("cannot encrypt the secret {name}"))?)
        };
        private(&self.dir)?;
        // The copy first: one that is older than the secret would bring an old one back.
        match copy {
            Some(c) => {
                private(&self.var.join(COPIES))?;
                fs::write(self.copy(name), c, 0o600)?;
            }
            None => fs::remove(self.copy(name))?,
        }
        fs::write(self.sealed(name), sealed, 0o600)
    }

    /// The names of all, sorted. What systemd would not take for one is passed over.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = fs::names(&self.dir)?;
        names.retain(|n| {
            let meta = self.sealed(n).symlink_metadata();
            check_name(n).is_ok() && meta.is_ok_and(|m| m.is_file())
        });
        Ok(names)
    }

    /// What each is sealed to. They are not opened.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn seals(&self) -> Result<Vec<Sealed>> {
        let one = |name: String| {
            let data = fs::read(self.sealed(&name))?;
            Ok(Sealed {
                kind: Kind::of(&data),
                key: policy::of_credential(&data),
                copy: self.copy(&name).is_file(),
                name,
            })
        };
        self.names()?.into_iter().map(one).collect()
    }

    /// Whether this machine opens it now.
    pub fn opens(&self, name: &str) -> bool {
        seal::open(&self.var, name, &self.sealed(name)).is_ok()
    }

    /// All of them, and whether they open.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let one = |name: String| {
            let path = self.sealed(&name);
            Ok(Entry {
                sealed: Kind::of(&fs::read(&path)?),
                opens: self.opens(&name),
                copy: self.copy(&name).is_file(),
                name,
            })
        };
        self.names()?.into_iter().map(one).collect()
    }

    /// Removes one and its copy.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let path = self.sealed(name);
        if path.symlink_metadata().is_err() {
            let known = self.names()?.join(", ");
            let hint = if known.is_empty() {
                "there are none".to_owned()
            } else {
                format!("there are: {known}")
            };
            return Err(Error::new(format!("there is no secret {name}")).hint(hint));
        }
        fs::remove(self.copy(name))?;
        fs::remove(path)
    }

    /// Seals all anew, to this machine and its recovery keys as they are now: what opens, and with a
    /// recovery key what has a copy that it opens. What is sealed to the host key alone stays.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn reseal(&self, recovery_key: Option<&str>) -> Result<Vec<(String, Outcome)>> {
        self.reseal_to(recovery_key, To::Machine)
    }

    /// As [`Store::reseal`], to something else.
    ///
    /// # Errors
    /// As there.
    pub fn reseal_to(&self, recovery_key: Option<&str>, to: To) -> Result<Vec<(String, Outcome)>> {
        let mut out = Vec::new();
        for name in self.names()? {
            let path = self.sealed(&name);
            let ours = self.copy(&name).is_file();
            if !ours && !Kind::of(&fs::read(&path)?).by_tpm() {
                continue;
            }
            let opened = seal::open(&self.var, &name, &path);
            let (data, outcome) = match (opened, recovery_key.filter(|_| ours)) {
                (Ok(d), _) => (Ok(d), Outcome::Sealed),
                (Err(_), Some(key)) => {
                    (escrow::decrypt(&self.copy(&name), key), Outcome::Recovered)
                }
                (Err(e), None) => (Err(e), Outcome::Sealed),
            };
            let outcome = match data.map(|d| self.put(&name, &d, to)) {
                Ok(Ok(())) => outcome,
                Ok(Err(e)) => Outcome::Failed(e),
                Err(e) => Outcome::Lost(e),
            };
            out.push((name, outcome));
        }
        Ok(out)
    }
}

/// A directory that only its owner enters.
fn private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir(dir)?;
    let what = format!("cannot close {}", dir.display());
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).context(what)
}
