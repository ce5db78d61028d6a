// SPDX-License-Identifier: Apache-2.0
//! Following a change of keys: what a machine in use is sealed to, and whom its firmware trusts, moves
//! on to the keys by which the systems of its slots are signed (docs/SECURITY.md, "Keys").
//!
//! While a key changes, systems are signed by the old one and the new one, so each step can be taken
//! back by starting the other slot, and each leaves what opened the disk before until what opens it now
//! has been seen to do so. A step that a power cut interrupts is taken again at the next start.

pub mod firmware;
pub mod images;
pub mod policy;
pub mod predict;

use crate::attest::bytes::{Digest, hex};
use crate::attest::eventlog::EventLog;
use crate::attest::pcr;
use crate::efivar::{self, Change};
use crate::kernel::{Cmdline, Slot};
use crate::loader::Loader;
use crate::loader::backend::{Access, Esp};
use crate::luks::{self, Header, PCR_PUBLIC_KEY, Seal};
use crate::machine::Machine;
use crate::secret::seal::{Kind, To};
use crate::secret::{Outcome, Store};
use crate::update::book::{Book, DIR};
use crate::{Error, Result, fs, ids, volumes};
use firmware::Step;
use images::{Image, Images, Rule};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// Where what came of it is left for others.
pub const PATH: &str = "/run/lamadist/keys.json";
/// The signed changes of `db` that come with a system: what adds, and what replaces.
const CHANGES: [(&str, Change); 2] = [
    (
        "/usr/lib/lamadist/secure-boot/db-append.auth",
        Change::Append,
    ),
    ("/usr/lib/lamadist/secure-boot/db.auth", Change::Replace),
];

/// How the firmware stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It trusts the keys that it should.
    Current,
    /// Secure Boot is off, or the system says nothing of `db`.
    Unknown,
    /// The next start brings what was changed.
    Restart,
    /// A change has begun elsewhere, and is not due here yet.
    Waiting,
    /// A change is due that the next run takes up.
    Due,
    /// Somebody has to do something.
    Stuck,
}

/// How a machine stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct State {
    /// The policy key of the running system ([`policy::fingerprint`]).
    pub policy_key: Option<String>,
    /// Volumes and secrets that a replaced policy key opens, too, or alone.
    pub older: Vec<String>,
    /// Whether the systems of all slots are signed by the policy key.
    pub everywhere: bool,
    /// The firmware's `db`.
    pub firmware: Standing,
    /// That in words, where there is something to say.
    pub firmware_note: String,
    /// Why the last run did not come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl State {
    /// What the last run in this boot left; none where there was none.
    pub fn last() -> Option<Self> {
        let data = fs::read_optional(PATH).ok()??;
        serde_json::from_slice(&data).ok()
    }

    /// Leaves it for others.
    ///
    /// # Errors
    /// `/run` cannot be written.
    pub fn leave(&self) -> Result<()> {
        fs::write(PATH, serde_json::to_vec(self).unwrap_or_default(), 0o644)
    }

    /// For people.
    pub fn text(&self) -> String {
        let short = |k: &str| k.get(..16).unwrap_or(k).to_owned();
        let key = self.policy_key.as_deref().map(short);
        let mut out = format!(
            "policy key  {}\n",
            key.as_deref()
                .unwrap_or("none: this boot has no signed PCR policy")
        );
        if !self.older.is_empty() {
            out += &format!(
                "            a replaced one still opens {}",
                self.older.join(", ")
            );
            out += match self.everywhere {
                true => "\n",
                false => ":\n            it is let go when both slots are signed by the new one\n",
            };
        }
        let words = match self.firmware {
            Standing::Current => "db holds the keys that it should",
            Standing::Unknown => "db is not looked at",
            Standing::Restart => "db has changed; the next start goes by it",
            Standing::Waiting => "db waits",
            Standing::Due => "db is to be changed",
            Standing::Stuck => "db is not as it should be",
        };
        out += &format!("firmware    {words}\n");
        if !self.firmware_note.is_empty() {
            out += &format!("            {}\n", self.firmware_note);
        }
        if let Some(e) = &self.error {
            out += &format!("            {e}\n");
        }
        out
    }
}

/// A machine, as far as its keys go.
pub struct Keys {
    machine: Machine,
    running: Slot,
    devices: Vec<(String, String)>,
    store: Store,
    key: Option<String>,
    images: Images,
}

/// The firmware's side of it.
struct Db {
    now: Vec<u8>,
    measured: Vec<u8>,
    wanted: Vec<u8>,
    log: Option<EventLog>,
}

impl Db {
    /// It; none where Secure Boot is off, or the system brings no changes.
    fn read() -> Result<Option<Self>> {
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
    /// Looks around.
    ///
    /// # Errors
    /// This is not an installed machine, whoever asks is not root, the ESP or a header cannot be read.
    pub fn here() -> Result<Self> {
        let machine = Machine::read()?;
        let running = match Cmdline::read()?.slot() {
            Some(s @ (Slot::A | Slot::B)) => s,
            _ => return Err(Error::new("this is not an installed machine")),
        };
        let esp = Esp::open(&machine, Access::Read)?;
        let images = Images::of(esp.at())?;
        esp.close()?;
        let key = fs::read_optional(PCR_PUBLIC_KEY)?;
        Ok(Self {
            running,
            devices: volumes::devices(&machine)?,
            store: Store::here()?,
            key: key.and_then(|k| policy::fingerprint(&String::from_utf8_lossy(&k))),
            images,
            machine,
        })
    }

    fn seals<'s>(&'s self) -> Result<Vec<(&'s str, &'s str, Vec<Seal>)>> {
        let one = |(name, device): &'s (String, String)| {
            let seals = Header::read(device)?.seals();
            Ok((name.as_str(), device.as_str(), seals))
        };
        self.devices.iter().map(one).collect()
    }

    /// Whether the systems of all slots are signed by the policy key of the one that runs.
    fn everywhere(&self) -> bool {
        let signed = |u: &Image| self.key.as_ref().is_some_and(|k| u.policy.contains(k));
        self.images.ukis().all(|(_, u)| signed(u))
    }

    fn is_older(&self, key: Option<&String>) -> bool {
        key.is_some() && key != self.key.as_ref()
    }

    /// How it stands.
    ///
    /// # Errors
    /// A header, a variable or a log cannot be read.
    pub fn state(&self) -> Result<State> {
        let mut older = Vec::new();
        for (name, _, seals) in self.seals()? {
            if seals.iter().any(|s| self.is_older(s.key.as_ref())) {
                older.push(name.to_owned());
            }
        }
        for s in self.store.seals()? {
            if self.is_older(s.key.as_ref()) {
                older.push(s.name);
            }
        }
        let step = Db::read().and_then(|db| db.map(|db| self.step(&db)).transpose());
        let step = step.unwrap_or_else(|e| Some(Step::Stuck(e.to_string())));
        let (firmware, firmware_note) = match step {
            None => (Standing::Unknown, String::new()),
            Some(Step::Nothing) => (Standing::Current, String::new()),
            Some(Step::Restart) => (Standing::Restart, String::new()),
            Some(Step::Wait(why)) => (Standing::Waiting, why),
            Some(Step::Stuck(why)) => (Standing::Stuck, why),
            Some(Step::Append(_)) => (Standing::Due, "a new key is to be taken up".to_owned()),
            Some(Step::Replace(_)) => (Standing::Due, "a replaced key is to go".to_owned()),
        };
        Ok(State {
            policy_key: self.key.clone(),
            everywhere: self.everywhere(),
            older,
            firmware,
            firmware_note,
            error: None,
        })
    }

    fn step(&self, db: &Db) -> Result<Step> {
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

    /// Takes the steps that are due. Says what was done. While an update waits for its restart or is on
    /// trial, only what the next start needs is added: it may be gone after it.
    ///
    /// # Errors
    /// A step failed; those before it stay, and those after it are not begun.
    pub fn follow(&self) -> Result<Vec<String>> {
        let mut did = Vec::new();
        if Book::new(DIR).trial()?.is_some() {
            did.push(
                "an update is on trial: nothing is taken away before it was judged".to_owned(),
            );
            self.prepare(&mut did)?;
            return Ok(did);
        }
        let settled = self.follow_policy(&mut did)?;
        if let Some(db) = Db::read()? {
            self.follow_db(&db, settled, &mut did)?;
        }
        Ok(did)
    }

    /// Adds seals for what the next start measures otherwise than this one, with `db` as it is now.
    ///
    /// # Errors
    /// It cannot be told, or sealed.
    pub fn prepare(&self, did: &mut Vec<String>) -> Result<()> {
        let Some(db) = Db::read()? else { return Ok(()) };
        if !firmware::changing(&db.now, &db.wanted)? && db.now == db.measured {
            return Ok(());
        }
        let Some(log) = &db.log else { return Ok(()) };
        let coming = self.coming(&db, log, &db.now, false)?;
        self.seal_for(&coming, did)
    }

    /// Seals volumes for these values of PCR 7, and secrets to the host key, which is on one of them.
    fn seal_for(&self, coming: &BTreeSet<String>, did: &mut Vec<String>) -> Result<()> {
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
    fn follow_policy(&self, did: &mut Vec<String>) -> Result<bool> {
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

    fn reseal(&self, to: To, did: &mut Vec<String>) -> Result<()> {
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

    /// The firmware's side.
    fn follow_db(&self, db: &Db, settled: bool, did: &mut Vec<String>) -> Result<()> {
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
    fn coming(
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

    /// Takes away what was sealed for starts that will not come any more.
    fn tidy(&self, did: &mut Vec<String>) -> Result<()> {
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
        let loose = |s: &crate::secret::Sealed| s.kind == Kind::Host && s.copy;
        if luks::has_tpm() && self.key.is_some() && self.store.seals()?.iter().any(loose) {
            self.reseal(To::Machine, did)?;
        }
        Ok(())
    }
}

/// Whether `db` was changed since this start, so that PCR 7 is another one after the next.
pub fn pending() -> bool {
    matches!(Db::read(), Ok(Some(db)) if db.now != db.measured)
}

/// Whether a new system, whose UKI this is, could be started here and would open the disk: refused
/// otherwise, before anything of it is in its place.
///
/// # Errors
/// It could not.
pub fn guard(uki: &Path, esp: &Path, running: Slot) -> Result<()> {
    let new = Image::read(uki, "the new UKI")?;
    let way = "update by way of a version that is signed by both keys";
    let machine = Machine::read()?;
    for (name, device) in volumes::devices(&machine)? {
        let seals = Header::read(&device)?.seals();
        // systemd tries no further than the first seal whose key has signed nothing.
        let mut keys = seals.iter().filter_map(|s| s.key.as_ref());
        if keys.any(|k| !new.policy.contains(k)) {
            return Err(Error::new(format!(
                "the new system could not open {name}: its PCR policy is signed by another key than the one that it is sealed to"
            ))
            .hint(way));
        }
    }
    let store = Store::here()?;
    for s in store.seals()? {
        // One that does not open as it is cannot be lost.
        if s.key.as_ref().is_some_and(|k| !new.policy.contains(k)) && store.opens(&s.name) {
            return Err(Error::new(format!(
                "the new system could not open the secret {}: its PCR policy is signed by another key than the one that it is sealed to",
                s.name
            ))
            .hint(way));
        }
    }
    let Some(db) = ids::variable("db", firmware::VENDOR).filter(|_| ids::secure_boot()) else {
        return Ok(());
    };
    let lists = crate::attest::eventlog::lists(&db)?;
    let entries = firmware::entries(&lists);
    let path = crate::loader::uki(running.name());
    let old = Image::read(&esp.join(&path), &path)?;
    let through = |i: &Image| i.authority(&entries, Rule::Signatures).is_some();
    // Where a CA is in db, this cannot tell.
    if through(&old) && !through(&new) {
        return Err(Error::new(
            "the firmware would not start the new system: it is signed by a key that is not in db",
        )
        .hint(way));
    }
    Ok(())
}
