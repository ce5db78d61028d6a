// SPDX-License-Identifier: Apache-2.0
//! A new slot on trial: from its installation until it is kept or the machine is back on the old one.
//!
//! RAUC and the firmware do it: RAUC takes the new slot out of the boot order and names it in the
//! variable `BootNext`, which the firmware follows once. What is kept here is for people, and so that
//! the reason of a fallback survives it: both slots share /var. Nothing of it decides what is started.

use super::version::Version;
use crate::health::parse::named_units;
use crate::health::{Finding, Verdict};
use crate::kernel::Slot;
use crate::{block, clock};
use serde::{Deserialize, Serialize};

/// A slot on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trial {
    /// The slot that ran when it was installed.
    pub from: Slot,
    /// The new one.
    pub to: Slot,
    /// The version that ran.
    pub before: String,
    /// The new one.
    pub version: String,
    /// The boot in which it was installed (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The server that it came from, which has to be reachable from the new slot, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Bytes that were loaded for it; none where RAUC loaded it, or nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<u64>,
    /// Bytes of the whole bundle, where `loaded` is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 of its UKI in hexadecimal, as the bundle said that was judged: no other is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uki: Option<String>,
    /// What was not well already when it was installed, which is no fault of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ailing: Vec<Finding>,
    /// Whether there was a way out into the network then, so that there has to be one now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub networked: bool,
    /// When, RFC 3339 in UTC.
    pub installed: String,
    /// How far it has come.
    pub stage: Stage,
}

/// How far a trial has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "stage")]
pub enum Stage {
    /// RAUC writes it.
    Installing,
    /// It waits for the restart.
    Installed,
    /// The new slot has come as far as /var.
    Started {
        /// The boot.
        boot: String,
        /// When, RFC 3339 in UTC.
        time: String,
    },
    /// The new slot was judged, and is going to restart.
    Failed {
        /// Why.
        reason: String,
        /// Whether all of that lies outside of this machine, and may be gone the next time.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        outside: bool,
    },
}

/// The checks of what lies outside of the machine, though a new system may have lost the way there.
pub const NETWORK: &str = "network";
/// Whether the server of the update answers.
pub const SERVER: &str = "update-server";

/// What came of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// Whether the new slot is kept.
    pub kept: bool,
    /// The version that ran before.
    pub before: String,
    /// The one that was tried.
    pub version: String,
    /// Its slot.
    pub slot: Slot,
    /// When that was known, RFC 3339 in UTC.
    pub time: String,
    /// Bytes that were loaded for it, as in [`Trial`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<u64>,
    /// Bytes of the whole bundle, as in [`Trial`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Why, where it was not kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How often it was tried, where it was not kept; [`TRIES`] where once was enough to know.
    #[serde(default = "enough", skip_serializing_if = "is_enough")]
    pub tries: u32,
}

/// How often a version is tried by itself that was never judged: what ended it may have been the power.
pub const TRIES: u32 = 2;

fn enough() -> u32 {
    TRIES
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's
fn is_enough(tries: &u32) -> bool {
    *tries >= TRIES
}

impl Trial {
    /// Whether something was not well before, and in the same way, whatever numbers were in it. Of units,
    /// those have to be among the ones that had failed.
    pub fn had(&self, f: &Finding) -> bool {
        let mut before = self.ailing.iter().filter(|a| a.name == f.name);
        before.any(|b| match f.name.as_str() {
            "units" => {
                let units = named_units(&f.reason);
                !units.is_empty() && units.is_subset(&named_units(&b.reason))
            }
            _ => words(&b.reason) == words(&f.reason),
        })
    }

    /// What a look at the machine says of the new system: without what was not well before, and a way
    /// out that was there and is not any more weighs more than it does by itself.
    pub fn weigh(&self, checks: &mut Vec<Finding>) {
        checks.retain(|c| !self.had(c));
        for c in checks {
            if self.networked && c.name == NETWORK && c.result == Verdict::Warning {
                c.result = Verdict::Failed;
            }
        }
    }

    /// What came of it.
    pub fn outcome(&self, kept: bool, reason: String) -> Outcome {
        Outcome {
            kept,
            before: self.before.clone(),
            version: self.version.clone(),
            slot: self.to,
            time: clock::now(),
            loaded: self.loaded,
            size: self.size,
            reason,
            tries: match self.stage {
                _ if kept => TRIES,
                Stage::Installing => 0,
                Stage::Installed | Stage::Started { .. } => 1,
                Stage::Failed { outside: true, .. } => 1,
                Stage::Failed { outside: false, .. } => TRIES,
            },
        }
    }
}

/// A reason without its numbers.
fn words(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// `loaded 12.3 MiB instead of 353 MiB`, where it is known what was loaded.
pub fn loaded(loaded: Option<u64>, size: Option<u64>) -> Option<String> {
    let (loaded, size) = loaded.zip(size)?;
    let mut text = format!("loaded {}", block::size(loaded));
    if loaded < size {
        text += &format!(" instead of {}", block::size(size));
    }
    Some(text)
}

impl Outcome {
    /// The version that is not installed by itself any more: one that was not well, or that somebody
    /// went back from. One that was never judged is tried once more, and one whose installation was cut
    /// off as often as that happens.
    pub fn unwanted(&self) -> Option<&str> {
        if !self.kept {
            return is_enough(&self.tries).then_some(&self.version);
        }
        let parse = |v: &str| Version::parse(v).ok();
        let (before, now) = (parse(&self.before)?, parse(&self.version)?);
        (now < before).then_some(self.before.as_str())
    }

    /// For people.
    pub fn text(&self) -> String {
        if self.kept {
            let loaded = loaded(self.loaded, self.size);
            let loaded = loaded.map(|l| format!(" ({l})")).unwrap_or_default();
            return format!(
                "{}: {} was kept on slot {}{loaded}",
                self.time,
                self.version,
                self.slot.name()
            );
        }
        format!(
            "{}: {} on slot {} was not kept, {} runs again: {}",
            self.time,
            self.version,
            self.slot.name(),
            self.before,
            self.reason
        )
    }
}

/// Why a new slot is not what runs.
pub(super) fn fallen(trial: &Trial, clues: &str) -> String {
    let mut s = match &trial.stage {
        Stage::Installing => return "its installation was cut off; install it again".to_owned(),
        Stage::Installed => {
            "it did not come as far as /var: the firmware refused it, its kernel or \
                             its initrd failed, or it never came to a restart into it"
                .to_owned()
        }
        Stage::Started { time, .. } => format!(
            "it came as far as /var at {time}, and ended before it was judged: a crash, a hang that \
             the watchdog ended, or the power"
        ),
        Stage::Failed { reason, .. } => reason.clone(),
    };
    if !clues.is_empty() {
        s += "; last words: ";
        s += clues;
    }
    s
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn failed(reason: &str, outside: bool) -> Stage {
        Stage::Failed {
            reason: reason.into(),
            outside,
        }
    }

    /// One that waits for the restart.
    pub fn trial() -> Trial {
        Trial {
            from: Slot::A,
            to: Slot::B,
            before: "1.0.0".into(),
            version: "1.1.0".into(),
            boot: "one".into(),
            server: None,
            loaded: Some(12_900_000),
            size: Some(370_000_000),
            uki: None,
            ailing: Vec::new(),
            networked: false,
            installed: "2025-01-01T00:00:00Z".into(),
            stage: Stage::Installed,
        }
    }

    #[test]
    fn what_ailed_before_is_no_fault_of_the_new_one() {
        let finding = |name: &str, reason: &str| Finding {
            name: name.into(),
            result: Verdict::Failed,
            reason: reason.into(),
        };
        let t = Trial {
            ailing: vec![
                finding("units", "failed: a.service, b.service"),
                finding("disk", "it has 7 bad sectors"),
            ],
            ..trial()
        };
        assert!(t.had(&finding("units", "failed: b.service")));
        assert!(t.had(&finding("disk", "it has 8 bad sectors")));
        for (name, reason) in [
            ("units", "failed: a.service, c.service"),
            ("units", "no end after 10 s"),
            ("disk", "no end after 10 s"),
            ("time", "the clock is wrong"),
        ] {
            assert!(!t.had(&finding(name, reason)), "{name}: {reason}");
        }
        let json = serde_json::to_string(&t).unwrap();
        assert_eq!(serde_json::from_str::<Trial>(&json).unwrap(), t);
    }

    #[test]
    fn a_network_that_was_there_has_to_be_there() {
        let lost = |networked| {
            let t = Trial {
                networked,
                ..trial()
            };
            let names = [NETWORK, "time"];
            let mut checks: Vec<Finding> = names
                .map(|name| Finding {
                    name: name.into(),
                    result: Verdict::Warning,
                    reason: "gone".into(),
                })
                .into();
            t.weigh(&mut checks);
            checks
                .iter()
                .filter(|c| c.result == Verdict::Failed)
                .count()
        };
        assert_eq!((lost(false), lost(true)), (0, 1));
        // What is outside of the machine may be there the next time.
        let of = |outside| Trial {
            stage: failed("x", outside),
            ..trial()
        };
        let unwanted = |outside| {
            let o = of(outside).outcome(false, "x".into());
            o.unwanted().is_some()
        };
        assert!(!unwanted(true) && unwanted(false));
    }

    #[test]
    fn what_was_not_well_or_gone_back_from_is_unwanted() {
        let up = trial().outcome(true, String::new());
        let not = Trial {
            stage: failed("x", false),
            ..trial()
        };
        let not = not.outcome(false, "x".into());
        let back = Outcome {
            before: "1.1.0".into(),
            version: "1.0.0".into(),
            ..up.clone()
        };
        let all = [&up, &not, &back].map(Outcome::unwanted);
        assert_eq!(all, [None, Some("1.1.0"), Some("1.1.0")]);
        // What an earlier version wrote down was judged.
        let json = serde_json::to_string(&not).unwrap();
        assert!(!json.contains("tries"), "{json}");
        let kept = serde_json::to_string(&up).unwrap();
        assert!(!kept.contains("tries"), "{kept}");
        assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), not);
    }
}
