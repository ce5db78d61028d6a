// SPDX-License-Identifier: Apache-2.0
//! Following a change of keys: what a machine in use is sealed to, and whom its firmware trusts, moves
//! on to the keys by which the systems of its slots are signed (docs/SECURITY.md, "Keys").
//!
//! While a key changes, systems are signed by the old one and the new one, so each step can be taken
//! back by starting the other slot, and each leaves what opened the disk before until what opens it now
//! has been seen to do so. A step that a power cut interrupts is taken again at the next start.

mod db;
pub mod firmware;
mod guard;
pub mod images;
pub mod policy;
pub mod predict;
mod seals;
mod state;

use crate::kernel::{Cmdline, Slot};
use crate::loader::backend::{Access, Esp};
use crate::luks::{Header, PCR_PUBLIC_KEY, Seal};
use crate::machine::Machine;
use crate::secret::Store;
use crate::update::book::{Book, DIR};
use crate::{Error, Result, fs, volumes};
use db::Db;
pub use db::pending;
use firmware::Step;
pub use guard::guard;
use images::{Image, Images};
pub use state::{Standing, State};

/// A machine, as far as its keys go.
pub struct Keys {
    machine: Machine,
    running: Slot,
    devices: Vec<(String, String)>,
    store: Store,
    key: Option<String>,
    images: Images,
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
}
