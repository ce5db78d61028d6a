// SPDX-License-Identifier: Apache-2.0
//! Replacing keys.

use crate::cert::{self, CertificateInfo};
use crate::create::lock;
use crate::error::{Error, Result};
use crate::file::{Entry, Kind, Previous, write_synced};
use crate::generate::{Install, now, short};
use crate::local::encode_pem;
use crate::release::Source;
use crate::role::Role;
use crate::set::KeySet;
use lama_exec::{Progress, Tools, fs};
use std::collections::BTreeSet;
use std::path::Path;

/// The signed replacement of PK in `enroll/`, for machines that have the previous one.
const PK_UPDATE: &str = "PK-update.auth";

impl KeySet {
    /// Replaces the key of a role. The old certificate stays in the set as a previous one, honoured
    /// until [`KeySet::forget_previous`]; of `db`, `pcr` and `rauc-encryption` the old private key
    /// stays too, others are removed (in a token or outside the set, they are left alone).
    ///
    /// A new `rauc-ca` issues a new `rauc-signing` key as well, where that one is a file of the set,
    /// and is certified by the old one, so that machines which trust that alone follow.
    /// A new `pk` leaves `enroll/PK-update.auth`, signed by the old one. The change takes effect all
    /// at once, when `keyset.toml` is replaced.
    pub fn rotate(
        &mut self,
        role: Role,
        source: &Source,
        tools: Option<&Tools>,
        progress: &dyn Progress,
    ) -> Result<()> {
        self.rotate_by(role, source, None, tools, progress)
    }

    /// Replaces `rauc-ca` as [`KeySet::rotate`] does, where the old one's private key is not at hand:
    /// `cross` is a certificate of the new CA's key by the old one.
    pub fn rotate_ca(
        &mut self,
        source: &Source,
        cross: &Path,
        tools: Option<&Tools>,
        progress: &dyn Progress,
    ) -> Result<()> {
        self.rotate_by(Role::RaucCa, source, Some(cross), tools, progress)
    }

    fn rotate_by(
        &mut self,
        role: Role,
        source: &Source,
        cross: Option<&Path>,
        tools: Option<&Tools>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let _lock = lock(&self.dir)?;
        let old = Self::open(&self.dir)?;
        let mut next = old.clone();
        let mut gone = Vec::new();
        let made = next
            .prepare(&old, role, source, tools, progress, &mut gone)
            .and_then(|()| match role {
                Role::RaucCa => next.certify(&old, cross, tools),
                _ => Ok(()),
            });
        if let Err(e) = made {
            // Whatever was written is named by nothing.
            for file in next.own_files().difference(&old.own_files()) {
                fs::remove_file(self.dir.join(file))?;
            }
            return Err(e);
        }
        next.file.write(&self.dir)?;
        for file in gone {
            fs::remove_file(self.dir.join(file))?;
        }
        next.write_enrolment(tools)?;
        *self = next;
        progress.note(&format!("replaced the key of {role}"));
        Ok(())
    }

    /// All of a rotation but what makes it take effect. `gone` gets the files that are then of no
    /// use.
    fn prepare(
        &mut self,
        old: &KeySet,
        role: Role,
        source: &Source,
        tools: Option<&Tools>,
        progress: &dyn Progress,
        gone: &mut Vec<String>,
    ) -> Result<()> {
        gone.extend(self.replace(role, source)?);
        if role == Role::RaucCa {
            let signing = old.entry(Role::RaucSigning)?.private_key.as_deref();
            if signing.is_some_and(|k| old.owns(k)) {
                gone.extend(self.replace(Role::RaucSigning, &Source::Generate)?);
            } else {
                progress.note("rauc-signing keeps its certificate from the previous CA: rotate it too, with one from the new CA");
            }
        }
        self.file.changed = later_than(old.file.changed);
        self.check()?;
        if old.file.kind == Kind::Release {
            self.require_release()?;
        }
        if role == Role::Pk {
            // Before anything is final: afterwards the old key is gone.
            match old.pk_update(self, tools) {
                Ok(auth) => fs::write_atomic(self.enroll_dir().join(PK_UPDATE), auth)?,
                Err(Error::NoPrivateKey { .. } | Error::NeedsTools { .. }) => progress.note(
                    "the previous PK is not at hand to sign the change: machines need setup mode to take the new one",
                ),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Has the new CA certified by that of `old`, or takes the certificate that was made elsewhere.
    fn certify(&mut self, old: &KeySet, made: Option<&Path>, tools: Option<&Tools>) -> Result<()> {
        let role = Role::RaucCa;
        let read = |s: &KeySet| CertificateInfo::read(&s.certificate_path(role));
        let (new, before) = (read(self)?, read(old)?);
        let pem = match made {
            Some(path) => {
                let c = CertificateInfo::read(path)?;
                let wanted = (&new.spki, &new.subject_der, &before.subject_der);
                if !c.ca || (&c.spki, &c.subject_der, &c.issuer) != wanted {
                    return Err(Error::Unsuitable {
                        role,
                        reason: format!("{} is not the new CA's by the previous one", path.display()),
                        hint: "pass a CA certificate of the new CA's key and name, issued by the previous CA".into(),
                    });
                }
                encode_pem("CERTIFICATE", &c.der)?
            }
            None => {
                let signer = old.signer(role, tools).map_err(|e| match e {
                    Error::NoPrivateKey { role } => Error::Unsuitable {
                        role,
                        reason: "the previous CA's private key is not at hand to certify the new one, and machines that know the previous one alone would trust nothing that the new one signs".into(),
                        hint: "issue a CA certificate of the new CA's key with the previous CA and pass it: --cross FILE".into(),
                    },
                    e => e,
                })?;
                cert::cross(&new, &before, signer.as_ref())?
            }
        };
        let name = format!("rauc-ca-cross-{}.crt", short(&new.fingerprint));
        write_synced(&self.dir.join(&name), pem.as_bytes(), 0o644)?;
        let entry = self.file.roles.get_mut(&role);
        if let Some(p) = entry.and_then(|e| e.previous.first_mut()) {
            p.cross_certificate = Some(name);
        }
        Ok(())
    }

    /// The files of the set that `keyset.toml` names.
    fn own_files(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for e in self.file.roles.values() {
            all.insert(e.certificate.clone());
            all.extend(e.public_key.clone());
            all.extend(e.private_key.clone().filter(|k| self.owns(k)));
            for p in &e.previous {
                all.extend(p.public_files().cloned());
                all.extend(p.private_key.clone().filter(|k| self.owns(k)));
            }
        }
        all
    }

    /// Installs a new key; returns the files of the set that are no longer needed.
    fn replace(&mut self, role: Role, source: &Source) -> Result<Vec<String>> {
        let old = self.entry(role)?.clone();
        let ca = match role {
            Role::RaucSigning => Some(self.entry(Role::RaucCa)?.clone()),
            _ => None,
        };
        let install = Install {
            dir: &self.dir,
            kind: self.file.kind,
            name: &self.file.name,
            role,
            ca: ca.as_ref(),
        };
        let mut entry = install.install(source, None)?;
        if entry.fingerprint == old.fingerprint {
            return Err(Error::Unsuitable {
                role,
                reason: "it is the key that is there already".into(),
                hint: "pass another key, or let one be made".into(),
            });
        }
        let Entry {
            private_key,
            certificate,
            public_key,
            fingerprint,
            previous,
            ..
        } = old;
        let (kept, gone) = match private_key {
            Some(k) if role.keeps_previous_private() => (Some(k), None),
            Some(k) if self.owns(&k) => (None, Some(k)),
            _ => (None, None),
        };
        entry.previous = vec![Previous {
            private_key: kept,
            certificate,
            public_key,
            fingerprint,
            cross_certificate: None,
        }];
        entry.previous.extend(previous);
        self.file.roles.insert(role, entry);
        Ok(gone.into_iter().collect())
    }

    /// Ends the change of a role: the replaced keys are honoured no longer and removed.
    pub fn forget_previous(&mut self, role: Role, tools: Option<&Tools>) -> Result<()> {
        let _lock = lock(&self.dir)?;
        let mut next = Self::load(&self.dir)?;
        let Some(entry) = next.file.roles.get_mut(&role) else {
            return Ok(());
        };
        let previous = std::mem::take(&mut entry.previous);
        if previous.is_empty() {
            *self = next;
            return Ok(());
        }
        next.file.changed = later_than(next.file.changed);
        next.file.write(&self.dir)?;
        for p in previous {
            let private = p.private_key.as_ref().filter(|k| next.owns(k));
            for file in p.public_files().chain(private) {
                fs::remove_file(self.dir.join(file))?;
            }
        }
        if role == Role::Pk {
            fs::remove_file(self.enroll_dir().join(PK_UPDATE))?;
        }
        next.write_enrolment(tools)?;
        *self = next;
        Ok(())
    }

    /// Whether a private key is a file of this set.
    fn owns(&self, private_key: &str) -> bool {
        !private_key.starts_with("pkcs11:") && !std::path::Path::new(private_key).is_absolute()
    }
}

/// Now, but later than `before`: firmware takes a change only with a later time stamp.
fn later_than(before: jiff::Timestamp) -> jiff::Timestamp {
    let next = jiff::Timestamp::from_second(before.as_second().saturating_add(1));
    now().max(next.unwrap_or(before))
}
