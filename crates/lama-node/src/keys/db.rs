// SPDX-License-Identifier: Apache-2.0
//! The firmware's `db`: read, changed, and what follows from that for PCR 7.

use super::Keys;
use super::firmware::{self, Step};
use super::images::{Image, Rule};
use super::predict;
use crate::attest::bytes::{Digest, hex};
use crate::attest::eventlog::EventLog;
use crate::attest::pcr;
use crate::efivar::{self, Change};
use crate::loader::Loader;
use crate::secret::seal::To;
use crate::{Error, Result, fs, ids, luks};
use std::collections::BTreeSet;

/// The signed changes of `db` that come with a system: what adds, and what replaces.
const CHANGES: [(&str, Change); 2] = [
    (
        "/usr/lib/lamadist/secure-boot/db-append.auth",
        Change::Append,
    ),
    ("/usr/lib/lamadist/secure-boot/db.auth", Change::Replace),
];

/// The firmware's side of it.
pub(super) struct Db {
    pub(super) now: Vec<u8>,
    pub(super) measured: Vec<u8>,
    pub(super) wanted: Vec<u8>,
    pub(super) log: Option<EventLog>,
}

impl Db {
    /// It; none where Secure Boot is off, or the system brings no changes.
    pub(super) fn read() -> Result<Option<Self>> {
        let auth = fs::read_optional(CHANGES[0].0)?;
        let now = ids::variable("db", firmware::VENDOR);
        let (Some(auth), Some(now), true) = (auth, now, ids::secure_boot()) else {
            return Ok(None);
        };
        let log = match luks::has_tpm() {
            true => Some(EventLog::parse(&EventLog::read()?)?),
            false => None,
        };
        let measured = match &log {
            Some(l) => predict::measured(l)?.to_vec(),
            None => now.clone(),
        };
        Ok(Some(Self {
            wanted: firmware::payload(&auth)?.to_vec(),
            now,
            measured,
            log,
        }))
    }
}

impl Keys {
    pub(super) fn step(&self, db: &Db) -> Result<Step> {
        let step = firmware::step(&db.now, &db.measured, &db.wanted, &self.images)?;
        let changes = matches!(step, Step::Append(_) | Step::Replace(_));
        if changes && (self.machine.loader != Loader::Firmware) {
            return Ok(Step::Stuck(
                "its variables cannot be changed at run time: change db in its setup, then lama-node enroll --recovery-key"
                    .to_owned(),
            ));
        }
        Ok(step)
    }

    /// The firmware's side.
    pub(super) fn follow_db(&self, db: &Db, settled: bool, did: &mut Vec<String>) -> Result<()> {
        let step = self.step(db)?;
        let changing = step != Step::Nothing || firmware::changing(&db.now, &db.wanted)?;
        let (after, change) = match &step {
            Step::Append(c) => (c, Some(CHANGES[0])),
            Step::Replace(c) => (c, Some(CHANGES[1])),
            _ => (&db.now, None),
        };
        let coming = match &db.log {
            // Without a TPM nothing is sealed.
            None => BTreeSet::new(),
            Some(_) if !changing => BTreeSet::new(),
            Some(log) => self.coming(db, log, after, change.is_some())?,
        };
        if coming.is_empty() && change.is_none() {
            return self.tidy(did);
        }
        if change.is_some() && !settled {
            // One after the other: a header has room for few seals.
            return Ok(());
        }
        self.seal_for(&coming, did)?;
        let Some((file, change)) = change else {
            return Ok(());
        };
        let written = efivar::change("db", firmware::VENDOR, change, &fs::read(file)?);
        let now = ids::variable("db", firmware::VENDOR).unwrap_or_default();
        if now == *after {
            did.push(match change {
                Change::Append => "the firmware trusts the new key".to_owned(),
                Change::Replace => "the firmware trusts the replaced key no longer".to_owned(),
            });
            return Ok(());
        }
        let e = match written {
            Err(e) => e.within("the firmware does not take the change of db"),
            Ok(()) => Error::new("db does not hold what was to be expected"),
        };
        if now == db.now {
            // As they were; what was sealed for after it opens nothing and goes with the next change.
            self.reseal(To::Machine, did)?;
            return Err(e);
        }
        // What it does hold is known now.
        if let Some(log) = &db.log {
            let coming = self.coming(db, log, &now, true)?;
            self.seal_for(&coming, did)?;
        }
        Err(e
            .hint("what it holds was sealed for; keep the recovery key at hand for the next start"))
    }

    /// What starts to come may measure into PCR 7 and this one did not, when `db` is `after`. Where this
    /// boot does not tell by which rule the firmware chooses among signatures, `broadly` takes in all of
    /// them.
    pub(super) fn coming(
        &self,
        db: &Db,
        log: &EventLog,
        after: &[u8],
        broadly: bool,
    ) -> Result<BTreeSet<String>> {
        let actual: Digest = pcr::read()?
            .get(&7)
            .copied()
            .ok_or_else(|| Error::new("PCR 7 cannot be read"))?;
        let images: Vec<&Image> = self.images.all().collect();
        let owner = firmware::owner(&db.wanted)?;
        let ours = predict::Ours {
            owner: &owner,
            images: &images,
        };
        let mut slots = self.images.slots.iter();
        let running = slots.find(|(s, _)| *s == self.running);
        let (_, running) =
            running.ok_or_else(|| Error::new("the running system's UKI is not there"))?;
        let mut rules = Vec::new();
        for rule in [Rule::Signatures, Rule::Database] {
            if predict::explains(log, &actual, &db.measured, running, ours, rule)? {
                rules.push(rule);
            }
        }
        if !broadly {
            rules.truncate(1);
        }
        if rules.is_empty() {
            return Err(Error::new(
                "this firmware measures into PCR 7 what is not understood, so that nothing can be sealed for after a change of db",
            )
            .hint("change db in the firmware's setup, then lama-node enroll --recovery-key"));
        }
        let mut all = BTreeSet::new();
        for (_, images) in &self.images.slots {
            for rule in &rules {
                all.insert(predict::pcr7(log, after, images, ours, *rule)?);
            }
        }
        all.remove(&actual);
        Ok(all.iter().map(|d| hex(d)).collect())
    }
}

/// Whether `db` was changed since this start, so that PCR 7 is another one after the next.
pub fn pending() -> bool {
    matches!(Db::read(), Ok(Some(db)) if db.now != db.measured)
}
