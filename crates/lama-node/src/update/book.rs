// SPDX-License-Identifier: Apache-2.0
//! The book of trials: which one goes on, and what came of the last one, across restarts of either
//! slot.

use super::trial::{Outcome, Stage, TRIES, Trial, fallen};
use crate::error::Context;
use crate::kernel::Slot;
use crate::{Error, Result, clock, fs};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where it is kept.
pub const DIR: &str = "/var/lib/lamadist/update";

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

/// An installation that failed: the machine does not try for ever, each hour, what costs the line
/// hundreds of megabytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failed {
    /// The version.
    pub version: String,
    /// The SHA-256 of its bundle, in hexadecimal: another bundle begins anew.
    pub sha256: String,
    /// When it failed last, in seconds since 1970.
    pub time: u64,
    /// How often it has.
    pub count: u32,
    /// Why, the last time.
    pub reason: String,
}

impl Failed {
    /// When it may be tried again by itself, in seconds since 1970: at the next look of the timer after
    /// the first failure, then after two hours, four, and so on up to a day.
    pub fn again(&self) -> u64 {
        let hours = 1u64 << self.count.saturating_sub(1).min(5);
        // The timer's looks are not exactly an hour apart.
        self.time + hours.min(24) * HOUR - HOUR / 2
    }

    /// Whether that is still to come. A clock that was wrong holds nothing up.
    pub fn waits(&self, now: u64) -> bool {
        (self.time..self.again()).contains(&now)
    }

    /// For people.
    pub fn text(&self) -> String {
        let times = match self.count {
            1 => String::new(),
            n => format!(", {n} times"),
        };
        format!(
            "{}: {} was not installed{times}: {}; tried again by itself after {}",
            clock::rfc3339(self.time),
            self.version,
            self.reason,
            clock::rfc3339(self.again())
        )
    }
}

const HOUR: u64 = 3600;

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

    /// When the trial that is going on was last written down; long ago where it cannot be told.
    pub fn written(&self) -> SystemTime {
        let meta = std::fs::metadata(self.path("trial.json"));
        let time = meta.and_then(|m| m.modified());
        time.unwrap_or(SystemTime::UNIX_EPOCH)
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

    /// Writes down what came of it. Where that cannot be written, one that was kept has ended all the
    /// same, and of another it is told at the next boot.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(&self, outcome: &Outcome) -> Result<()> {
        let before = self.last().ok().flatten();
        let again = before.filter(|b| !b.kept && !outcome.kept && b.version == outcome.version);
        let tries = outcome.tries + again.map_or(0, |b| b.tries);
        let outcome = Outcome {
            tries: tries.min(TRIES),
            ..outcome.clone()
        };
        // In this order: after a power cut between them it is done once more, and counted twice, which
        // is a try less and no harm.
        let noted = write(&self.path("last.json"), &outcome);
        if noted.is_err() && !outcome.kept {
            return noted;
        }
        let dropped = self.drop_trial();
        // What could not be installed before is of an older time.
        let forgotten = match outcome.kept {
            true => self.succeeded(),
            false => Ok(()),
        };
        noted.and(dropped).and(forgotten)
    }

    /// The installation that failed last, unless one has succeeded since.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn failure(&self) -> Result<Option<Failed>> {
        read(&self.path("failed.json"))
    }

    /// Notes that what the server offers could not be installed.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn failed(&self, version: &str, sha256: &str, reason: &str) -> Result<()> {
        let before = self.failure().ok().flatten();
        let before = before.filter(|f| f.sha256 == sha256);
        let failed = Failed {
            version: version.to_owned(),
            sha256: sha256.to_owned(),
            time: clock::seconds(),
            count: before.map_or(0, |f| f.count).saturating_add(1),
            reason: reason.to_owned(),
        };
        write(&self.path("failed.json"), &failed)
    }

    /// Forgets that.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn succeeded(&self) -> Result<()> {
        fs::remove(self.path("failed.json"))
    }

    /// What this boot has to do, on the slot that runs. `boot` is its ID, `clues` what the kernel kept
    /// of a crash.
    ///
    /// # Errors
    /// The trial can neither be read nor set aside.
    pub fn step(&self, running: Slot, boot: &str, clues: &str) -> Result<Step> {
        let trial = match self.trial() {
            Ok(trial) => trial,
            Err(e) => {
                self.set_aside(&e)?;
                None
            }
        };
        let Some(mut trial) = trial else {
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
            // For people; what cannot write it down has to be judged all the more.
            if let Err(e) = self.begin(&trial) {
                eprintln!("{e}");
            }
            return Ok(Step::Judge(trial));
        }
        let reason = fallen(&trial, clues);
        Ok(Step::FellBack(trial.outcome(false, reason)))
    }

    /// Takes a trial that nobody can read out of the way of all further ones. If this is the system that it
    /// spoke of, the next restart leads back: it was not marked good.
    fn set_aside(&self, why: &Error) -> Result<()> {
        let (from, to) = (self.path("trial.json"), self.path("trial.json.damaged"));
        eprintln!("{why}; it is {} now, and there is no trial", to.display());
        fs::rename(&from, &to)
    }

    /// Notes that the system on trial is not well, before it restarts.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn fail(&self, mut trial: Trial, reason: &str, outside: bool) -> Result<()> {
        trial.stage = Stage::Failed {
            reason: reason.to_owned(),
            outside,
        };
        self.begin(&trial)
    }
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

/// Writes down a value as JSON, whole or not at all.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_vec_pretty(value).context("cannot write JSON")?;
    fs::write(path, json, 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::trial::loaded;
    use super::super::trial::tests::{failed, trial};
    use crate::kernel::Slot;

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
        assert!(fell(&book, "Kernel panic - x").ends_with("last words: Kernel panic - x"));
        book.begin(&trial()).unwrap();
        book.step(Slot::B, "two", "").unwrap();
        assert!(fell(&book, "").contains("ended before it was judged"));
        book.begin(&trial()).unwrap();
        let Step::Judge(t) = book.step(Slot::B, "two", "").unwrap() else {
            panic!("not judged");
        };
        book.fail(t, "units: ssh.service has failed", false)
            .unwrap();
        assert!(fell(&book, "").ends_with("1.0.0 runs again: units: ssh.service has failed"));
    }

    #[test]
    fn what_the_power_ended_is_tried_again() {
        let (_dir, book) = book();
        let unwanted = || {
            let last = book.last().unwrap().unwrap();
            last.unwanted().is_some()
        };
        let ends = |stage: Stage| {
            book.begin(&Trial { stage, ..trial() }).unwrap();
            match book.step(Slot::A, "two", "").unwrap() {
                Step::FellBack(o) => book.end(&o).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        for _ in 0..5 {
            ends(Stage::Installing);
            assert!(!unwanted());
        }
        ends(Stage::Installed);
        assert!(!unwanted());
        ends(Stage::Installing);
        assert!(!unwanted());
        ends(Stage::Installed);
        assert!(unwanted(), "a version that crashes is tried for ever");
        book.end(&trial().outcome(true, String::new())).unwrap();
        ends(failed("x", true));
        assert!(!unwanted());
        ends(failed("x", false));
        assert!(unwanted());
        // Another version begins anew.
        let other = Trial {
            version: "1.2.0".into(),
            ..trial()
        };
        book.end(&other.outcome(false, String::new())).unwrap();
        assert!(!unwanted());
    }

    #[test]
    fn what_fails_again_and_again_is_tried_more_seldom() {
        let (_dir, book) = book();
        assert_eq!(book.failure().unwrap(), None);
        let mut hours = Vec::new();
        for _ in 0..7 {
            book.failed("1.1.0", "ab", "no room").unwrap();
            let f = book.failure().unwrap().unwrap();
            assert!(f.waits(f.time) && !f.waits(f.again()) && !f.waits(f.time - 1));
            hours.push((f.again() - f.time + HOUR / 2) / HOUR);
        }
        assert_eq!(hours, [1, 2, 4, 8, 16, 24, 24]);
        let text = book.failure().unwrap().unwrap().text();
        assert!(text.contains(": 1.1.0 was not installed, 7 times: no room; tried again"));
        // The same version in another bundle.
        book.failed("1.1.0", "cd", "no room").unwrap();
        assert_eq!(book.failure().unwrap().unwrap().count, 1);
        book.succeeded().unwrap();
        assert_eq!(book.failure().unwrap(), None);
    }

    #[test]
    fn what_cannot_be_written_down_is_not_forgotten() {
        let (dir, book) = book();
        book.begin(&trial()).unwrap();
        // In the place of the file.
        fs::create_dir(dir.path().join("last.json/x")).unwrap();
        assert!(book.end(&trial().outcome(false, "x".into())).is_err());
        assert_eq!(book.trial().unwrap(), Some(trial()));
        assert!(book.end(&trial().outcome(true, String::new())).is_err());
        assert_eq!(book.trial().unwrap(), None);
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
    fn a_damaged_book_is_named_and_set_aside() {
        let (dir, book) = book();
        fs::write(dir.path().join("trial.json"), "{", 0o644).unwrap();
        let e = book.trial().unwrap_err();
        assert!(e.to_string().contains("trial.json cannot be understood"));
        assert_eq!(book.step(Slot::A, "x", "").unwrap(), Step::Wait);
        assert_eq!(book.trial().unwrap(), None);
        assert_eq!(fs::names(dir.path()).unwrap(), ["trial.json.damaged"]);
        book.begin(&trial()).unwrap();
        assert!(matches!(
            book.step(Slot::B, "x", "").unwrap(),
            Step::Judge(_)
        ));
    }
}
