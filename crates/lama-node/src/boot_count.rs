// SPDX-License-Identifier: Apache-2.0
//! Starts that did not come up, counted in a firmware variable: a slot that was kept once and cannot be
//! started any more must not be started for ever while the other one is well.
//!
//! The initrd counts before it does anything else; a system that has come up takes the count away. What
//! fails before the initrd is the firmware's to see, and a system on trial is not concerned: it is
//! started once, and the count of the old slot begins anew. Where systemd-boot starts the machine, since
//! its firmware has no variables at run time, nothing is counted here ([`crate::loader`]).

use crate::kernel::{Cmdline, Slot};
use crate::loader::Loader;
use crate::machine::Machine;
use crate::update::book::{self, DIR};
use crate::update::judge;
use crate::{Error, Result, clock, efivar, fs, ids};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Of our variables: chosen at random, once.
const VENDOR: &str = "c1d0e2f6-3a57-4f0b-9b8e-6d2a7f10c4e5";
const VARIABLE: &str = "LamaDistStarts";
/// So often a slot is started in vain before the other one is.
const TRIES: u8 = 3;

/// What the variable says, as text: `a 2`, or `b 0 a` when slot a was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    slot: Slot,
    starts: u8,
    given_up: Option<Slot>,
}

fn slot(text: &str) -> Option<Slot> {
    [Slot::A, Slot::B].into_iter().find(|s| s.name() == text)
}

impl Count {
    fn parse(data: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(data).ok()?.split_whitespace();
        Some(Self {
            slot: slot(words.next()?)?,
            starts: words.next()?.parse().ok()?,
            given_up: words.next().and_then(slot),
        })
    }

    fn read() -> Option<Self> {
        Self::parse(&ids::variable(VARIABLE, VENDOR)?)
    }

    fn text(self) -> String {
        let given_up = self.given_up.map_or("", Slot::name);
        format!("{} {} {given_up}", self.slot.name(), self.starts)
            .trim_end()
            .to_owned()
    }

    fn write(self) -> Result<()> {
        efivar::write(VARIABLE, VENDOR, self.text().as_bytes())
    }

    /// What another start of this slot makes of it.
    fn next(before: Option<Self>, running: Slot) -> Self {
        match before.filter(|c| c.slot == running) {
            Some(c) => Self {
                starts: c.starts.saturating_add(1),
                ..c
            },
            None => Self {
                slot: running,
                starts: 1,
                given_up: None,
            },
        }
    }
}

/// A slot that was given up, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// The slot that did not come up.
    pub slot: Slot,
    /// When the other one was up, RFC 3339 in UTC.
    pub time: String,
    /// Last words, where the firmware kept any; may be empty.
    pub reason: String,
}

impl GivenUp {
    /// The note, where there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read() -> Result<Option<Self>> {
        Self::of(Path::new(DIR))
    }

    fn of(dir: &Path) -> Result<Option<Self>> {
        let data = fs::read_optional(dir.join(NOTE))?;
        // One that cannot be understood tells nothing.
        Ok(data.and_then(|d| serde_json::from_slice(&d).ok()))
    }

    /// In a line.
    pub fn text(&self) -> String {
        let mut t = format!(
            "slot {} did not come up in {TRIES} starts ({})",
            self.slot.name(),
            self.time
        );
        if !self.reason.is_empty() {
            t += &format!("; last words: {}", self.reason);
        }
        t
    }
}

const NOTE: &str = "given-up.json";

/// Forgets that a slot was given up: it has come up, or there is a new system in it.
///
/// # Errors
/// The note cannot be removed.
pub fn forgive(slot: Slot) -> Result<()> {
    match GivenUp::read()? {
        Some(g) if g.slot == slot => fs::remove(Path::new(DIR).join(NOTE)),
        _ => Ok(()),
    }
}

/// The slot that runs, where starts are counted.
fn counted() -> Result<Option<Slot>> {
    let slot = Cmdline::read()?.slot().filter(|s| *s != Slot::Live);
    Ok(match Machine::read()?.loader {
        Loader::Firmware => slot,
        Loader::SystemdBoot => None,
    })
}

/// Counts this start. True where the machine has to restart, into the other slot.
///
/// # Errors
/// The firmware takes no variable; then there may be room for one at the next start.
pub fn start() -> Result<bool> {
    let Some(running) = counted()? else {
        return Ok(false);
    };
    let count = Count::next(Count::read(), running);
    let other = running.other().filter(|_| count.starts > TRIES);
    let Some(other) = other else {
        count.write()?;
        return Ok(false);
    };
    let esp = ids::booted_esp()
        .ok_or_else(|| Error::new("the firmware does not say which disk was booted"))?;
    let after = Count {
        slot: other,
        starts: 0,
        given_up: Some(running),
    };
    // In this order: a power cut between them costs one more start of this slot.
    efivar::start_once(other, &esp)?;
    after.write()?;
    Ok(true)
}

/// This system has come up: takes the count away, and notes what it says of the other slot.
///
/// # Errors
/// The note or the variable cannot be written.
pub fn up() -> Result<Option<GivenUp>> {
    let Some(running) = counted()? else {
        return Ok(None);
    };
    forgive(running)?;
    let Some(count) = Count::read() else {
        return Ok(None);
    };
    let given_up = count
        .given_up
        .filter(|g| count.slot == running && *g != running);
    let note = given_up.map(|slot| GivenUp {
        slot,
        time: clock::now(),
        reason: judge::recent_clues(),
    });
    if let Some(n) = &note {
        book::write(&Path::new(DIR).join(NOTE), n)?;
    }
    efivar::remove(VARIABLE, VENDOR)?;
    Ok(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_text() {
        for text in ["a 1", "b 0 a", "a 255"] {
            assert_eq!(Count::parse(text.as_bytes()).unwrap().text(), text);
        }
        for bad in ["", "a", "c 1", "live 1", "a x", "a 256", "\u{1}"] {
            assert_eq!(Count::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Count::parse(b"\xff\xfe"), None);
    }

    /// Starts slots until one comes up, as firmware and initrd do it.
    fn starts(order: Slot, well: impl Fn(Slot) -> bool) -> Vec<Slot> {
        let (mut variable, mut next, mut told) = (None, None, Vec::new());
        for _ in 0..20 {
            let running = next.take().unwrap_or(order);
            told.push(running);
            let count = Count::next(variable, running);
            if count.starts > TRIES {
                let other = running.other().unwrap();
                next = Some(other);
                variable = Some(Count {
                    slot: other,
                    starts: 0,
                    given_up: Some(running),
                });
            } else if well(running) {
                assert_eq!(count.given_up.is_some(), running != order);
                return told;
            } else {
                variable = Some(count);
            }
        }
        told
    }

    #[test]
    fn a_slot_that_is_gone_bad_gives_the_other_one_its_turn() {
        use Slot::{A, B};
        assert_eq!(starts(A, |_| true), [A]);
        assert_eq!(starts(A, |s| s == B), [A, A, A, A, B]);
        // Neither is well: by turns, for ever, so that either may come back.
        let both = starts(B, |_| false);
        assert_eq!(both[..6], [B, B, B, B, A, B]);
        assert_eq!(both.iter().filter(|s| **s == A).count(), 4);
    }

    #[test]
    fn a_note_is_told_in_a_line() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(GivenUp::of(dir.path()).unwrap(), None);
        fs::write(dir.path().join(NOTE), "{", 0o644).unwrap();
        assert_eq!(GivenUp::of(dir.path()).unwrap(), None);
        let mut g = GivenUp {
            slot: Slot::A,
            time: "2026-01-02T03:04:05Z".to_owned(),
            reason: String::new(),
        };
        assert_eq!(
            g.text(),
            "slot a did not come up in 3 starts (2026-01-02T03:04:05Z)"
        );
        g.reason = "Kernel panic".to_owned();
        assert!(g.text().ends_with("last words: Kernel panic"));
    }
}
