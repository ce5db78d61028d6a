// SPDX-License-Identifier: Apache-2.0
//! Replacing keys.

use crate::create::lock;
use crate::error::{Error, Result};
use crate::file::{Entry, Kind, Previous};
use crate::generate::{Install, now};
use crate::release::Source;
use crate::role::Role;
use crate::set::KeySet;
use lama_exec::{Progress, Tools, fs};
use std::collections::BTreeSet;

/// The signed replacement of PK in `enroll/`, for machines that have the previous one.
const PK_UPDATE: &str = "PK-update.auth";

impl KeySet {
    /// Replaces the key of a role. The old certificate stays in the set as a previous one, honoured
    /// until [`KeySet::forget_previous`]; of `pcr` and `rauc-encryption` the old private key stays
    /// too, others are removed (in a token or outside the set, they are left alone).
    ///
    /// A new `rauc-ca` issues a new `rauc-signing` key as well, where that one is a file of the set.
    /// A new `pk` leaves `enroll/PK-update.auth`, signed by the old one. The change takes effect all
    /// at once, when `keyset.toml` is replaced.
    pub fn rotate(
        &mut self,
        role: Role,
        source: &Source,
        tools: Option<&Tools>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let _lock = lock(&self.dir)?;
        let old = Self::open(&self.dir)?;
        let mut next = old.clone();
        let mut gone = Vec::new();
        if let Err(e) = next.prepare(&old, role, source, tools, progress, &mut gone) {
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

    /// The files of the set that `keyset.toml` names.
    fn own_files(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for e in self.file.roles.values() {
            all.insert(e.certificate.clone());
            all.extend(e.public_key.clone());
            all.extend(e.private_key.clone().filter(|k| self.owns(k)));
            for p in &e.previous {
                all.insert(p.certificate.clone());
                all.extend(p.public_key.clone());
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
            let private = p.private_key.filter(|k| next.owns(k));
            for file in [Some(p.certificate), p.public_key, private]
                .into_iter()
                .flatten()
            {
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
