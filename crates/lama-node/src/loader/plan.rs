// SPDX-License-Identifier: Apache-2.0
//! What is to be changed on the ESP, as steps of which each is whole or not at all: after any of them
//! some slot that is good, or is being tried for the first time, is what systemd-boot starts next
//! (`tests/bootcount.rs` walks through it).
//!
//! What is asked for means what it means to RAUC's own backend for EFI: good slots are those in the
//! boot order, a slot that is marked good comes first, and the primary slot of an installation is
//! started once.

use super::entries::{CONF, CONF_TEXT, COUNTS, Entry, Kind, State, Step};
use crate::kernel::Slot;
use crate::{Error, Result};

/// What [`State::mend`] has to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mending {
    /// The changes.
    pub steps: Vec<Step>,
    /// What is said of them, a line each.
    pub said: Vec<String>,
}

fn write(e: &Entry) -> Step {
    Step::Write(e.path(), e.text())
}

fn remove(e: &Entry) -> Step {
    Step::Remove(e.path())
}

/// What a new installation begins with: the slot is good, and its first start is counted.
pub fn first(slot: Slot, boot: &str) -> Vec<Step> {
    let none = State::default();
    vec![
        Step::Write(CONF.to_owned(), CONF_TEXT.to_owned()),
        write(&none.good(slot, boot)),
        write(&none.once(slot, boot)),
    ]
}

impl State {
    fn good(&self, slot: Slot, boot: &str) -> Entry {
        self.entry(slot, Kind::Good, boot)
    }

    fn once(&self, slot: Slot, boot: &str) -> Entry {
        let left = Some(1);
        self.entry(slot, Kind::Once { left, done: 0 }, boot)
    }

    /// A new one, before all that there are.
    fn entry(&self, slot: Slot, kind: Kind, boot: &str) -> Entry {
        let highest = self.entries.iter().map(|e| e.version).max();
        Entry {
            slot,
            kind,
            version: highest.unwrap_or(0).saturating_add(1),
            boot: boot.to_owned(),
        }
    }

    fn all_once(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.kind != Kind::Good)
    }

    /// The good slots, first come first started.
    pub fn order(&self) -> impl Iterator<Item = Slot> {
        let good = self.entries.iter().filter(|e| e.kind == Kind::Good);
        good.map(|e| e.slot)
    }

    /// Whether a slot is good.
    pub fn is_good(&self, slot: Slot) -> bool {
        self.order().any(|s| s == slot)
    }

    /// The slot that is started next; none where none of the entries leads to a UKI.
    pub fn primary(&self) -> Option<Slot> {
        let pending = self.all_once().filter(|e| e.is_pending()).map(|e| e.slot);
        let mut all = pending.chain(self.order());
        all.find(|s| self.ukis.contains(s))
    }

    fn whole(&self, slot: Slot) -> Result<()> {
        if self.ukis.contains(&slot) {
            return Ok(());
        }
        Err(
            Error::new(format!("slot {} has no UKI to be started", slot.name()))
                .hint("it is filled by an update: lama-node update install"),
        )
    }

    /// To start a slot once, the next time.
    ///
    /// # Errors
    /// It holds no UKI, or nobody has seen that attempts are counted here.
    pub fn set_primary(&self, slot: Slot, boot: &str) -> Result<Vec<Step>> {
        self.whole(slot)?;
        self.counting()?;
        let new = self.once(slot, boot);
        // Firmware does not rename over a file that is there, and would not count then: so what was
        // used up goes first.
        let mut steps: Vec<Step> = self.all_once().map(remove).collect();
        steps.push(write(&new));
        Ok(steps)
    }

    /// To keep a slot, and to start it first from now on.
    ///
    /// # Errors
    /// It holds no UKI.
    pub fn set_good(&self, slot: Slot, boot: &str) -> Result<Vec<Step>> {
        self.whole(slot)?;
        let mut steps = Vec::new();
        if self.order().next() != Some(slot) {
            steps.push(write(&self.good(slot, boot)));
        }
        // Its attempt is over.
        steps.extend(self.all_once().filter(|e| e.slot == slot).map(remove));
        Ok(steps)
    }

    /// Not to start a slot any more.
    ///
    /// # Errors
    /// It is the only good one.
    pub fn set_bad(&self, slot: Slot) -> Result<Vec<Step>> {
        if self.is_good(slot) && !self.order().any(|s| s != slot) {
            return Err(Error::new(format!(
                "slot {} is the only one that is known to be good, and stays so",
                slot.name()
            ))
            .hint("a system on trial is judged first: lama-node update"));
        }
        let of = |e: &&Entry| e.slot == slot;
        Ok(self.entries.iter().filter(of).map(remove).collect())
    }

    /// What is wrong while `running` runs, in the boot with this ID.
    pub fn mend(&self, running: Slot, boot: &str) -> Mending {
        let mut m = Mending::default();
        let mut counts = self.counts;
        let mut left: Vec<&Entry> = Vec::new();
        if !self.configured {
            let text = CONF_TEXT.to_owned();
            m.steps.push(Step::Write(CONF.to_owned(), text));
            m.said.push("wrote systemd-boot's configuration".to_owned());
        }
        if self.order().next().is_none() {
            m.steps.push(write(&self.good(running, boot)));
            let slot = running.name().to_uppercase();
            m.said.push(format!("made the boot entry {slot}"));
        }
        for e in self.all_once() {
            // What was written in an earlier boot and leads here was what started this one.
            let due = e.slot == running && e.boot != boot;
            match e.kind {
                Kind::Once {
                    left: Some(0),
                    done,
                } => {
                    if done > 0 && !counts {
                        counts = true;
                        let text = "systemd-boot counts attempts on this machine.\n";
                        m.steps
                            .push(Step::Write(COUNTS.to_owned(), text.to_owned()));
                        m.said
                            .push("saw that systemd-boot counts attempts".to_owned());
                    }
                    m.steps.push(remove(e));
                }
                Kind::Once { left: Some(_), .. } if due => {
                    m.steps.push(remove(e));
                    if counts {
                        m.steps.push(Step::Remove(COUNTS.to_owned()));
                    }
                    counts = false;
                    m.said.push(
                        "found that the firmware does not let systemd-boot count attempts: no update \
                         can be tried until it does (U-Boot: CONFIG_FAT_RENAME)"
                            .to_owned(),
                    );
                }
                // Somebody else took the count away: it would be started for ever.
                Kind::Once { left: None, .. } => m.steps.push(remove(e)),
                _ => left.push(e),
            }
        }
        // What will be written anew is not removed.
        let written = |p: &String| {
            m.steps
                .iter()
                .any(|s| matches!(s, Step::Write(w, _) if w == p))
        };
        let junk: Vec<Step> = self
            .junk
            .iter()
            .filter(|p| !written(p))
            .cloned()
            .map(Step::Remove)
            .collect();
        m.steps.extend(junk);
        let first = self.order().next().unwrap_or(running);
        if !counts && left.is_empty() && first == running && self.ukis.contains(&running) {
            // The next start shows it.
            m.steps.push(write(&self.once(running, boot)));
        }
        m
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Slot = Slot::A;
    const B: Slot = Slot::B;

    fn good(slot: Slot, version: u64) -> Entry {
        State::default().entry(slot, Kind::Good, "").at(version)
    }

    fn once(slot: Slot, left: u64, done: u64) -> Entry {
        let left = Some(left);
        State::default()
            .entry(slot, Kind::Once { left, done }, "old")
            .at(9)
    }

    impl Entry {
        fn at(mut self, version: u64) -> Self {
            self.version = version;
            self
        }
    }

    fn state(entries: &[Entry]) -> State {
        State {
            entries: entries.to_vec(),
            ukis: vec![A, B],
            counts: true,
            configured: true,
            ..State::default()
        }
    }

    fn paths(steps: &[Step]) -> Vec<String> {
        let one = |s: &Step| match s {
            Step::Write(p, _) => format!("+{}", p.rsplit('/').next().unwrap()),
            Step::Remove(p) => format!("-{}", p.rsplit('/').next().unwrap()),
        };
        steps.iter().map(one).collect()
    }

    #[test]
    fn a_new_slot_is_tried_once_and_kept() {
        let s = state(&[good(A, 1)]);
        assert_eq!((s.primary(), s.is_good(B)), (Some(A), false));
        assert_eq!(paths(&s.set_bad(B).unwrap()), [""; 0]);
        let steps = s.set_primary(B, "now").unwrap();
        assert_eq!(paths(&steps), ["+lamadist-once-b+1.conf"]);
        let s = state(&[once(B, 1, 0), good(A, 1)]);
        assert_eq!((s.primary(), s.is_good(B)), (Some(B), false));
        let s = state(&[good(A, 1), once(B, 0, 1)]);
        assert_eq!(s.primary(), Some(A));
        let steps = s.set_good(B, "now").unwrap();
        assert_eq!(
            paths(&steps),
            ["+lamadist-b.conf", "-lamadist-once-b+0-1.conf"]
        );
        let Step::Write(_, text) = &steps[0] else {
            panic!("{steps:?}");
        };
        assert!(text.contains("version 10\n"), "{text}");
        // What was used up does not keep the next one from being counted.
        let steps = s.set_primary(B, "now").unwrap();
        assert_eq!(
            paths(&steps),
            ["-lamadist-once-b+0-1.conf", "+lamadist-once-b+1.conf"]
        );
    }

    #[test]
    fn what_is_so_already_changes_nothing() {
        let s = state(&[good(B, 2), good(A, 1)]);
        assert_eq!(s.set_good(B, "now").unwrap(), []);
        assert_eq!(paths(&s.set_good(A, "now").unwrap()), ["+lamadist-a.conf"]);
        assert_eq!(s.mend(B, "now"), Mending::default());
        assert_eq!(paths(&s.set_bad(A).unwrap()), ["-lamadist-a.conf"]);
    }

    #[test]
    fn what_could_not_be_started_again_is_refused() {
        let s = state(&[good(A, 1), once(B, 0, 1)]);
        let e = s.set_bad(A).unwrap_err();
        assert!(e.to_string().contains("the only one") && e.help().is_some());
        let none = State {
            ukis: vec![A],
            ..s.clone()
        };
        assert!(none.set_primary(B, "").is_err() && none.set_good(B, "").is_err());
        let uncounted = State { counts: false, ..s };
        let e = uncounted.set_primary(B, "").unwrap_err();
        assert!(e.help().unwrap().contains("CONFIG_FAT_RENAME"));
        assert!(uncounted.set_good(B, "").is_ok());
    }

    #[test]
    fn counting_is_seen_or_missed() {
        let new = State {
            counts: false,
            ..state(&[good(A, 1), once(A, 0, 1)])
        };
        let m = new.mend(A, "now");
        assert_eq!(
            paths(&m.steps),
            ["+lamadist-counts", "-lamadist-once-a+0-1.conf"]
        );
        assert!(m.said[0].contains("counts attempts"));

        // The firmware did not rename: a slot on trial is not started again.
        let m = state(&[once(B, 1, 0), good(A, 1)]).mend(B, "now");
        assert_eq!(
            paths(&m.steps),
            ["-lamadist-once-b+1.conf", "-lamadist-counts"]
        );
        assert!(m.said[0].contains("CONFIG_FAT_RENAME"));
        // And what waits for the next start is left.
        for running in [A, B] {
            let m = state(&[once(B, 1, 0), good(A, 1)]).mend(running, "old");
            assert_eq!(m, Mending::default());
        }
        // Where nobody knows, the next start shows it.
        let s = State {
            counts: false,
            ..state(&[good(A, 1)])
        };
        assert_eq!(paths(&s.mend(A, "now").steps), ["+lamadist-once-a+1.conf"]);
        assert_eq!(s.mend(B, "now"), Mending::default());
    }

    #[test]
    fn what_was_lost_is_made_anew() {
        let mut s = State {
            configured: false,
            ..state(&[])
        };
        s.junk = vec![
            "loader/entries/lamadist-b.conf".to_owned(),
            "loader/entries/lamadist-a.conf.new".to_owned(),
        ];
        let m = s.mend(B, "now");
        assert_eq!(
            paths(&m.steps),
            ["+loader.conf", "+lamadist-b.conf", "-lamadist-a.conf.new"]
        );
        assert_eq!(m.said.len(), 2);
        // Blessed by somebody who knows nothing of trials.
        let e = State::default().entry(
            B,
            Kind::Once {
                left: None,
                done: 0,
            },
            "old",
        );
        let m = state(&[e, good(A, 1)]).mend(B, "now");
        assert_eq!(paths(&m.steps), ["-lamadist-once-b.conf"]);
    }
}
