// SPDX-License-Identifier: Apache-2.0
//! Whether the machine is well: checks that run beside each other, each with a time limit.
//!
//! A check that hangs (a dead network file system, a disk that does not answer) is reported as
//! failed; its thread is left behind and ends with the process.

pub mod checks;
pub mod copies;
pub mod own;
pub mod parse;

use crate::{Result, clock, fs};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Where [`Health::write`] puts the result.
pub const PATH: &str = "/run/lamadist/health.json";
/// How long a check may take.
pub const LIMIT: Duration = Duration::from_secs(10);

/// What a check says, by severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is well.
    Ok,
    /// Somebody should look; the machine does its work.
    Warning,
    /// It is not well.
    Failed,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check.
    pub name: String,
    /// What it says.
    pub result: Verdict,
    /// Why, in plain words.
    pub reason: String,
}

/// The result of a check.
pub type Answer = (Verdict, String);

/// A check.
pub struct Check {
    /// Its name.
    pub name: String,
    /// How long it may take.
    pub limit: Duration,
    /// What it does.
    pub run: Box<dyn FnOnce() -> Result<Answer> + Send>,
}

impl Check {
    /// With the usual time limit.
    pub fn new(name: &str, run: impl FnOnce() -> Result<Answer> + Send + 'static) -> Self {
        Self {
            name: name.to_owned(),
            limit: LIMIT,
            run: Box::new(run),
        }
    }
}

/// The machine as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No check failed.
    Good,
    /// One did.
    Bad,
}

/// How the machine is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// As a whole.
    pub state: State,
    /// When it was looked at, RFC 3339 in UTC.
    pub time: String,
    /// One by one.
    pub checks: Vec<Finding>,
}

impl Health {
    /// Of this machine.
    ///
    /// # Errors
    /// The machine's description cannot be read.
    pub fn now() -> Result<Self> {
        let mut all = checks::all()?;
        all.extend(own::all());
        Ok(Self::of(all))
    }

    /// Runs the checks.
    pub fn of(checks: Vec<Check>) -> Self {
        let checks = run(checks);
        let bad = checks.iter().any(|c| c.result == Verdict::Failed);
        Self {
            state: if bad { State::Bad } else { State::Good },
            time: clock::now(),
            checks,
        }
    }

    /// What [`Health::write`] wrote.
    ///
    /// # Errors
    /// Nothing was written in this boot, or it cannot be understood.
    pub fn read(path: &Path) -> Result<Self> {
        use crate::Context;
        let what = format!("{} cannot be understood", path.display());
        serde_json::from_str(&fs::text(path)?).context(what)
    }

    /// What failed.
    pub fn failed(&self) -> impl Iterator<Item = &Finding> {
        self.checks.iter().filter(|c| c.result == Verdict::Failed)
    }

    /// Writes it for other programs.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        use crate::Context;
        let json = serde_json::to_vec_pretty(self).context("cannot write JSON")?;
        fs::write(path, json, 0o644)
    }

    /// Line by line.
    pub fn text(&self) -> String {
        let mut s = String::new();
        for c in &self.checks {
            let result = match c.result {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Failed => "FAILED",
            };
            s += &format!("{result:8} {:14} {}\n", c.name, c.reason);
        }
        s += match self.state {
            State::Good => "\nThe machine is well.\n",
            State::Bad => "\nThe machine is not well.\n",
        };
        s
    }
}

fn run(checks: Vec<Check>) -> Vec<Finding> {
    let start = Instant::now();
    let mut running = Vec::new();
    for c in checks {
        let (send, receive) = mpsc::channel();
        let work = c.run;
        let thread = std::thread::Builder::new().spawn(move || {
            let _ = send.send(work());
        });
        running.push((c.name, c.limit, thread.map(|_| receive)));
    }
    let mut out = Vec::new();
    for (name, limit, receive) in running {
        // A second more than what a program in it may take, whose own message says more.
        let left = (limit + Duration::from_secs(1)).saturating_sub(start.elapsed());
        let answer = match receive {
            Err(e) => Err(crate::Error::new(format!("cannot be started: {e}"))),
            Ok(r) => match r.recv_timeout(left) {
                Ok(a) => a,
                Err(mpsc::RecvTimeoutError::Timeout) => Err(crate::Error::new(format!(
                    "no answer within {} s",
                    limit.as_secs()
                ))),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    Err(crate::Error::new("it ended without an answer"))
                }
            },
        };
        let (result, reason) = answer.unwrap_or_else(|e| (Verdict::Failed, e.to_string()));
        let reason = parse::line(&reason);
        out.push(Finding {
            name,
            result,
            reason,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn a_check_that_hangs_does_not_hang_the_others() {
        let mut hangs = Check::new("hangs", || {
            std::thread::sleep(Duration::from_secs(600));
            Ok((Verdict::Ok, String::new()))
        });
        hangs.limit = Duration::ZERO;
        let start = Instant::now();
        let h = Health::of(vec![
            hangs,
            Check::new("well", || Ok((Verdict::Ok, "yes".into()))),
            Check::new("error", || Err(Error::new("a\nb\x1b[1m"))),
        ]);
        assert!(start.elapsed() < Duration::from_secs(60));
        let found: Vec<_> = h
            .checks
            .iter()
            .map(|c| (c.name.as_str(), c.result, c.reason.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("hangs", Verdict::Failed, "no answer within 0 s"),
                ("well", Verdict::Ok, "yes"),
                ("error", Verdict::Failed, "a b [1m")
            ]
        );
        assert_eq!(h.state, State::Bad);
        let t = tempfile::tempdir().unwrap();
        let file = t.path().join("health.json");
        h.write(&file).unwrap();
        let v: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(v["state"], "bad");
        assert_eq!(v["checks"][1]["result"], "ok");
    }
}
