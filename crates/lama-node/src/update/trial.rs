// SPDX-License-Identifier: Apache-2.0
//! A new slot on trial: from its installation until it is kept or the machine is back on the old one.
//!
//! RAUC and the firmware do it: RAUC takes the new slot out of the boot order and names it in the
//! variable `BootNext`, which the firmware follows once. What is kept here is for people, and so that
//! the reason of a fallback survives it: both slots share /var. Nothing of it decides what is started.

use crate::error::Context;
use crate::kernel::Slot;
use crate::{Result, block, clock, fs};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where it is kept.
pub const DIR: &str = "/var/lib/lamadist/update";

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
    },
}

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
}

/// What is to be done in this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the restart has not come yet.
    Wait,
    /// To judge this system.
    Judge(Trial),
    /// To note that the machine is back on the old slot.
    FellBack(Outcome),
}

/// Where trials are kept: `trial.json` while there is one, `last.json` with what came of the last one.
#[derive(Debug, Clone)]
pub struct Book {
    dir: PathBuf,
}

impl Book {
    /// In this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The trial that is going on.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn trial(&self) -> Result<Option<Trial>> {
        read(&self.path("trial.json"))
    }

    /// What came of the last one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn last(&self) -> Result<Option<Outcome>> {
        read(&self.path("last.json"))
    }

    /// Writes down a trial.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(&self, trial: &Trial) -> Result<()> {
        write(&self.path("trial.json"), trial)
    }

    /// Forgets the trial, without an outcome: what was to be tried was taken back.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn drop_trial(&self) -> Result<()> {
        fs::remove(self.path("trial.json"))
    }

    /// Writes down what came of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(&self, outcome: &Outcome) -> Result<()> {
        // In this order: after a power cut between them it is done once more.
        write(&self.path("last.json"), outcome)?;
        self.drop_trial()
    }

    /// What this boot has to do, on the slot that runs. `boot` is its ID, `clues` what the kernel kept
    /// of a crash.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn step(&self, running: Slot, boot: &str, clues: &str) -> Result<Step> {
        let Some(mut trial) = self.trial()? else {
            return Ok(Step::Wait);
        };
        if trial.boot == boot {
            return Ok(Step::Wait);
        }
        if running == trial.to {
            if let Stage::Failed { .. } = trial.stage {
                // It was judged in an earlier boot and was started once more, by hand.
                return Ok(Step::Judge(trial));
            }
            trial.stage = Stage::Started {
                boot: boot.to_owned(),
                time: clock::now(),
            };
            self.begin(&trial)?;
            return Ok(Step::Judge(trial));
        }
        let reason = fallen(&trial, clues);
        Ok(Step::FellBack(trial.outcome(false, reason)))
    }

    /// Notes that the system on trial is not well, before it restarts.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn fail(&self, mut trial: Trial, reason: &str) -> Result<()> {
        trial.stage = Stage::Failed {
            reason: reason.to_owned(),
        };
        self.begin(&trial)
    }
}

impl Trial {
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
        }
    }
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
fn fallen(trial: &Trial, clues: &str) -> String {
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
        Stage::Failed { reason } => reason.clone(),
    };
    if !clues.is_empty() {
        s += "; the kernel said: ";
        s += clues;
    }
    s
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>> {
    let Some(data) = fs::read_optional(path)? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&data);
    value
        .map(Some)
        .context(format_args!("{} cannot be understood", path.display()))
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_vec_pretty(value).context("cannot write JSON")?;
    fs::write(path, json, 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial() -> Trial {
        Trial {
            from: Slot::A,
            to: Slot::B,
            before: "1.0.0".into(),
            version: "1.1.0".into(),
            boot: "one".into(),
            server: None,
            loaded: Some(12_900_000),
            size: Some(370_000_000),
            installed: "2025-01-01T00:00:00Z".into(),
            stage: Stage::Installed,
        }
    }

    fn book() -> (tempfile::TempDir, Book) {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::new(dir.path());
        (dir, book)
    }

    #[test]
    fn a_good_one_is_kept() {
        let (_dir, book) = book();
        assert_eq!(book.step(Slot::A, "one", "").unwrap(), Step::Wait);
        book.begin(&trial()).unwrap();
        assert_eq!(book.step(Slot::A, "one", "").unwrap(), Step::Wait);
        let Step::Judge(t) = book.step(Slot::B, "two", "").unwrap() else {
            panic!("not judged");
        };
        book.end(&t.outcome(true, String::new())).unwrap();
        assert_eq!(book.step(Slot::B, "two", "").unwrap(), Step::Wait);
        assert_eq!(book.step(Slot::A, "three", "").unwrap(), Step::Wait);
        assert!(
            book.last()
                .unwrap()
                .unwrap()
                .text()
                .ends_with("1.1.0 was kept on slot b (loaded 12.3 MiB instead of 352.8 MiB)")
        );
    }

    #[test]
    fn the_reason_of_a_fallback_survives_it() {
        let fell = |book: &Book, clues: &str| match book.step(Slot::A, "last", clues).unwrap() {
            Step::FellBack(o) => {
                book.end(&o).unwrap();
                assert_eq!(book.step(Slot::A, "last", "").unwrap(), Step::Wait);
                book.last().unwrap().unwrap().text()
            }
            other => panic!("{other:?}"),
        };
        let (_dir, book) = book();
        book.begin(&Trial {
            stage: Stage::Installing,
            ..trial()
        })
        .unwrap();
        assert!(fell(&book, "x").ends_with("cut off; install it again"));
        book.begin(&trial()).unwrap();
        assert!(fell(&book, "Kernel panic - x").ends_with("the kernel said: Kernel panic - x"));
        book.begin(&trial()).unwrap();
        book.step(Slot::B, "two", "").unwrap();
        assert!(fell(&book, "").contains("ended before it was judged"));
        book.begin(&trial()).unwrap();
        let Step::Judge(t) = book.step(Slot::B, "two", "").unwrap() else {
            panic!("not judged");
        };
        book.fail(t, "units: ssh.service has failed").unwrap();
        assert!(fell(&book, "").ends_with("1.0.0 runs again: units: ssh.service has failed"));
    }

    #[test]
    fn every_walk_ends_known() {
        // Boots of either slot in any order: the trial ends at the first boot of the old slot, or
        // when it was judged; never twice.
        for walk in 0..64u32 {
            let (_dir, book) = book();
            book.begin(&trial()).unwrap();
            let mut ended = false;
            for n in 0..6 {
                let slot = if walk >> n & 1 == 1 { Slot::B } else { Slot::A };
                match book.step(slot, &format!("boot{n}"), "").unwrap() {
                    Step::FellBack(o) => {
                        assert!(!ended && slot == Slot::A);
                        book.end(&o).unwrap();
                        ended = true;
                    }
                    Step::Judge(_) => assert!(!ended && slot == Slot::B),
                    Step::Wait => assert!(ended),
                }
            }
            assert_eq!(ended, walk != 63);
        }
    }

    #[test]
    fn books_of_earlier_versions_are_read() {
        let (dir, book) = book();
        let json = r#"{"from":"a","to":"b","before":"1","version":"2","boot":"x","installed":"t",
            "stage":{"stage":"installed"}}"#;
        fs::write(dir.path().join("trial.json"), json, 0o644).unwrap();
        let t = book.trial().unwrap().unwrap();
        assert_eq!((t.loaded, loaded(t.loaded, t.size)), (None, None));
        let whole = loaded(Some(1 << 20), Some(1 << 20));
        assert_eq!(whole.as_deref(), Some("loaded 1 MiB"));
    }

    #[test]
    fn a_damaged_book_is_named() {
        let (dir, book) = book();
        fs::write(dir.path().join("trial.json"), "{", 0o644).unwrap();
        let e = book.step(Slot::A, "x", "").unwrap_err();
        assert!(e.to_string().contains("trial.json cannot be understood"));
    }
}
