// SPDX-License-Identifier: Apache-2.0
//! What volumes and secrets are sealed to: new seals beside the old ones, and old ones taken away.

use super::Keys;
use crate::luks::{self, Header, Seal};
use crate::secret::seal::{Kind, To};
use crate::secret::{Outcome, Sealed};
use crate::{Error, Result};
use std::collections::BTreeSet;

impl Keys {
    /// Seals volumes for these values of PCR 7, and secrets to the host key, which is on one of them.
    pub(super) fn seal_for(&self, coming: &BTreeSet<String>, did: &mut Vec<String>) -> Result<()> {
        if coming.is_empty() {
            return Ok(());
        }
        for (name, device, seals) in self.seals()? {
            if seals.is_empty() {
                continue;
            }
            for v in coming {
                luks::seal_beside(device, Some(v))?;
            }
            if seals.len() < Header::read(device)?.seals().len() {
                did.push(format!("{name} opens after the change of db, too"));
            }
        }
        if self.store.seals()?.iter().any(|s| s.kind.by_tpm()) {
            if self.store.recipients.is_empty() {
                return Err(
                    Error::new("secrets have no copies that a recovery key opens")
                        .hint("lama-node enroll --new-recovery-key"),
                );
            }
            self.reseal(To::Host, did)?;
        }
        Ok(())
    }

    /// Seals to the running system's policy key what is not, and takes away the replaced ones when no
    /// slot needs them. Returns whether nothing is left of them.
    pub(super) fn follow_policy(&self, did: &mut Vec<String>) -> Result<bool> {
        let Some(key) = &self.key else {
            return Ok(true);
        };
        let is_new = |s: &Seal| s.key.as_ref() == Some(key);
        for (name, device, seals) in self.seals()? {
            if seals.is_empty() || seals.iter().any(is_new) {
                continue;
            }
            luks::seal_beside(device, None)?;
            let made = Header::read(device)?.seals();
            let Some(new) = made.iter().find(|s| is_new(s)) else {
                return Err(Error::new(format!(
                    "{name} was not sealed to the new policy key"
                )));
            };
            if !luks::opens(device, new) {
                luks::unseal(device, new)?;
                return Err(Error::new(format!(
                    "{name} does not open by the new policy key; the old one stays"
                )));
            }
            did.push(format!("{name} opens by the new policy key, too"));
        }
        let secrets = self.store.seals()?;
        let old: Vec<_> = secrets
            .iter()
            .filter(|s| self.is_older(s.key.as_ref()))
            .collect();
        let volumes = self.seals()?;
        let mut seals = volumes.iter().flat_map(|(_, _, s)| s);
        if old.is_empty() && seals.all(|s| !self.is_older(s.key.as_ref())) {
            return Ok(true);
        }
        if !self.everywhere() {
            return Ok(false);
        }
        if !old.is_empty() {
            self.reseal(To::Machine, did)?;
        }
        for (name, device, seals) in volumes {
            let (new, old): (Vec<_>, Vec<_>) = seals.into_iter().partition(is_new);
            if old.is_empty() || !new.iter().any(|s| luks::opens(device, s)) {
                continue;
            }
            for s in &old {
                luks::unseal(device, s)?;
            }
            did.push(format!("{name} opens by the replaced policy key no longer"));
        }
        Ok(true)
    }

    pub(super) fn reseal(&self, to: To, did: &mut Vec<String>) -> Result<()> {
        let where_to = match to {
            To::Machine => "to this machine as it is now",
            To::Host => "to the host key alone, until the next start",
        };
        for (name, outcome) in self.store.reseal_to(None, to)? {
            match outcome {
                Outcome::Lost(e) => did.push(format!("the secret {name} does not open: {e}")),
                // It opens now, and would not after the next start.
                Outcome::Failed(e) => return Err(e.within(&format!("the secret {name}"))),
                _ => did.push(format!("the secret {name} is sealed {where_to}")),
            }
        }
        Ok(())
    }

    /// Takes away what was sealed for starts that will not come any more.
    pub(super) fn tidy(&self, did: &mut Vec<String>) -> Result<()> {
        for (name, device, seals) in self.seals()? {
            if seals.len() < 2 || self.key.is_none() {
                continue;
            }
            let all = seals.iter().filter(|s| !self.is_older(s.key.as_ref()));
            let (open, stale): (Vec<_>, Vec<_>) = all.partition(|s| luks::opens(device, s));
            if open.is_empty() {
                continue;
            }
            for s in &stale {
                luks::unseal(device, s)?;
            }
            if !stale.is_empty() {
                did.push(format!(
                    "{name} is sealed to the firmware as it is now alone"
                ));
            }
        }
        let loose = |s: &Sealed| s.kind == Kind::Host && s.copy;
        if luks::has_tpm() && self.key.is_some() && self.store.seals()?.iter().any(loose) {
            self.reseal(To::Machine, did)?;
        }
        Ok(())
    }
}
