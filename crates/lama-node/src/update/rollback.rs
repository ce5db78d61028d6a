// SPDX-License-Identifier: Apache-2.0
//! Back by hand to the version in the other slot.
//!
//! It is tried as an update is: started once, judged, kept when it is well. So a slot that has gone bad
//! since it ran last does not strand the machine, and what came of it is known.

use super::book::{Book, DIR};
use super::rauc::{self, Status};
use super::trial::{Outcome, Stage, TRIES, Trial};
use super::version::Version;
use super::{Allow, before, judge, oldest, open, running};
use crate::kernel::Slot;
use crate::machine::{Machine, Migration};
use crate::run::Run;
use crate::{Error, Result, clock};
use serde::Serialize;

/// What the next restart starts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Back {
    /// The slot.
    pub slot: Slot,
    /// What is in it, where that is known.
    pub version: Option<String>,
    /// Whether it is judged then. The slot that an update was tried from is not: it is known to be well.
    pub judged: bool,
}

/// Has the next restart try the other slot.
///
/// # Errors
/// The other slot holds nothing that could be started, or a version that was revoked (with
/// [`Allow::Any`] it may be); the machine cannot try a slot; RAUC fails.
pub fn rollback(allow: Allow) -> Result<Back> {
    let slot = running()?;
    let to = slot.other().unwrap_or(slot);
    let machine = Machine::read()?;
    let book = Book::new(DIR);
    let status = Status::now()?;
    match book.trial()? {
        Some(t) if t.to == to => {
            return Err(Error::new(format!(
                "{} was installed to slot {} and has not been tried yet",
                t.version,
                to.name()
            ))
            .hint("restart to try it; it falls back by itself when it is not well"));
        }
        // This system is on trial itself.
        Some(t) => {
            machine.loader.can_choose()?;
            // It may be about to keep this system.
            let judge = Run::new("systemctl").args(["stop", "lamadist-judge.service"]);
            judge.run()?;
            if let Err(e) = rauc::keep(to) {
                let judge = Run::new("systemctl").args(["--no-block", "start"]);
                judge.arg("lamadist-judge.service").run()?;
                return Err(e);
            }
            // The firmware knows; that it cannot be written down changes nothing.
            let outcome = t.outcome(false, "taken back by hand".to_owned());
            if let Err(e) = book.end(&Outcome {
                tries: TRIES,
                ..outcome
            }) {
                eprintln!("{e}");
            }
            return Ok(Back {
                slot: to,
                version: Some(t.before),
                judged: false,
            });
        }
        None => {}
    }
    let version = target(&status, to, allow, oldest()?.as_ref())?;
    if let Some(m) = &machine.migration {
        readable(&version, &machine.version, m, allow)?;
    }
    machine.loader.can_try(&machine)?;
    // What cannot be opened now could not be started either.
    open(&machine, to)?;
    let (ailing, networked) = before();
    let trial = Trial {
        from: slot,
        to,
        before: machine.version,
        version,
        boot: judge::boot_id(),
        server: None,
        loaded: None,
        size: None,
        uki: None,
        ailing,
        networked,
        installed: clock::now(),
        stage: Stage::Installed,
    };
    book.begin(&trial)?;
    if let Err(e) = rauc::try_once(to) {
        book.drop_trial()?;
        return Err(e);
    }
    Ok(Back {
        slot: to,
        version: Some(trial.version),
        judged: true,
    })
}

/// The version in a slot, when that can be gone back to.
fn target(status: &Status, to: Slot, allow: Allow, oldest: Option<&Version>) -> Result<String> {
    let name = to.name();
    let Some(version) = status.version(to) else {
        return Err(match status.is_empty(to) {
            true => Error::new(format!("slot {name} has never held a system"))
                .hint("there is something to go back to after the first update"),
            false => Error::new(format!("what is in slot {name} is not whole"))
                .hint("its installation was cut off or failed: install it again"),
        });
    };
    let revoked = |o: &&Version| Version::parse(version).is_ok_and(|v| v < **o);
    if let Some(oldest) = oldest.filter(revoked).filter(|_| allow == Allow::Newer) {
        return Err(Error::new(format!(
            "{version} in slot {name} has been revoked: the server has said that none before {oldest} \
             may run"
        ))
        .hint("--force goes back all the same"));
    }
    Ok(version.to_owned())
}

/// Whether an older version can read what this one leaves on /var.
fn readable(older: &str, running: &str, migration: &Migration, allow: Allow) -> Result<()> {
    if allow == Allow::Any || !migration.is_between(older, running)? {
        return Ok(());
    }
    Err(Error::new(format!(
        "{older} cannot read the data any more, which changed with {}: {}",
        migration.since, migration.note
    ))
    .hint("--force goes back all the same; a backup from before is what its services understand"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(root: &str, uki: &str) -> Status {
        let json = format!(
            r#"{{"compatible":"c","booted":"A","boot_primary":"rootfs.0","slots":[
            {{"rootfs.1":{{"bootname":"B","parent":null,"slot_status":{{{root}}}}}}},
            {{"verity.1":{{"bootname":null,"parent":"rootfs.1","slot_status":{{"status":"ok"}}}}}},
            {{"uki.1":{{"bootname":null,"parent":"rootfs.1","slot_status":{{{uki}}}}}}},
            {{"uki.0":{{"parent":"rootfs.0","slot_status":{{"status":"failed"}}}}}}]}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn only_a_whole_slot_is_gone_back_to() {
        let root = r#""bundle":{"version":"1.1.0"},"status":"ok""#;
        let ok = r#""status":"ok""#;
        let at = |s: &Status| target(s, Slot::B, Allow::Newer, None).map_err(|e| e.to_string());
        assert_eq!(at(&status(root, ok)).unwrap(), "1.1.0");
        // The root is new, and the UKI is not: no machine starts from that.
        for uki in [r#""status":"failed""#, r#""status":"pending""#] {
            let e = at(&status(root, uki)).unwrap_err();
            assert!(e.contains("not whole"), "{e}");
        }
        let half = r#""bundle":{"version":"1.1.0"},"status":"pending""#;
        assert!(at(&status(half, ok)).unwrap_err().contains("not whole"));
        assert!(at(&status("", "")).unwrap_err().contains("never held"));
    }

    #[test]
    fn over_a_change_of_data_only_force_leads_back() {
        let m = Migration {
            since: "1.2.0".into(),
            note: "databases become version 17".into(),
        };
        let back = |older, running, allow| readable(older, running, &m, allow);
        let e = back("1.1.0", "1.3.0", Allow::Newer).unwrap_err();
        assert!(
            e.to_string()
                .ends_with("with 1.2.0: databases become version 17")
        );
        assert!(e.help().is_some() && back("1.1.0", "1.3.0", Allow::Any).is_ok());
        // Candidates do it, too.
        for older in ["1.2.0-rc.1", "1.2.0", "1.3.0"] {
            assert!(back(older, "1.3.0-dev", Allow::Newer).is_ok(), "{older}");
        }
        assert!(back("1.1.0", "1.2.0-dev", Allow::Newer).is_err());
        assert!(back("1.0.0", "1.1.0", Allow::Newer).is_ok());
    }

    #[test]
    fn a_revoked_version_is_gone_back_to_by_force_only() {
        let s = status(r#""bundle":{"version":"1.1.0"},"status":"ok""#, "");
        let to = |allow, oldest: &str| {
            target(&s, Slot::B, allow, Some(&Version::parse(oldest).unwrap()))
        };
        assert!(to(Allow::Newer, "1.1.0").is_ok() && to(Allow::Any, "1.2.0").is_ok());
        let e = to(Allow::Newer, "1.2.0").unwrap_err();
        assert!(e.to_string().contains("none before 1.2.0") && e.help().is_some());
    }
}
