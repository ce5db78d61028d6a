// SPDX-License-Identifier: Apache-2.0
//! What a build says while it runs: the lines that `meta-lamadist/classes/lamadist-events.bbclass`
//! writes, one JSON object an event of BitBake's.

use serde::Deserialize;
use std::collections::BTreeSet;

/// A line. Events that are not known are skipped, so that the class may say more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "event")]
enum Event {
    ParseStarted {
        total: u64,
    },
    ParseProgress {
        current: u64,
        total: u64,
    },
    ParseCompleted {
        #[serde(default)]
        errors: u64,
        total: u64,
    },
    #[serde(alias = "sceneQueueTaskStarted")]
    #[serde(rename = "runQueueTaskStarted")]
    Started {
        recipe: String,
        task: String,
        done: u64,
        total: u64,
    },
    #[serde(rename = "runQueueTaskCompleted", alias = "sceneQueueTaskCompleted")]
    #[serde(alias = "runQueueTaskSkipped")]
    Completed {
        recipe: String,
        task: String,
        done: u64,
        total: u64,
    },
    #[serde(rename = "runQueueTaskFailed")]
    Ended {
        recipe: String,
        task: String,
    },
    TaskFailed {
        recipe: String,
        task: String,
        log: String,
    },
    NoProvider {
        recipe: String,
        why: String,
    },
    #[serde(other)]
    Other,
}

/// A task that failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// The recipe.
    pub recipe: String,
    /// The task, `do_compile` …
    pub task: String,
    /// The log it wrote; empty where there is none.
    pub log: String,
}

/// How far a build is, and what went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Recipes parsed, and how many there are.
    pub parsed: (u64, u64),
    /// Recipes that could not be parsed.
    pub parse_errors: u64,
    /// Tasks done, and how many there are.
    pub tasks: (u64, u64),
    /// What runs: recipe and task.
    pub running: BTreeSet<(String, String)>,
    /// Tasks that failed.
    pub failures: BTreeSet<Failure>,
    /// What nothing provides, in BitBake's words.
    pub missing: BTreeSet<String>,
}

impl State {
    /// Takes a line in. One that is no event (a broken or half-written one) changes nothing.
    pub fn take(&mut self, line: &str) {
        let Ok(event) = serde_json::from_str::<Event>(line) else {
            return;
        };
        match event {
            Event::ParseStarted { total } => self.parsed = (0, total),
            Event::ParseProgress { current, total } => self.parsed = (current, total),
            Event::ParseCompleted { errors, total } => {
                self.parsed = (total, total);
                self.parse_errors = errors;
            }
            Event::Started {
                recipe,
                task,
                done,
                total,
            } => {
                self.tasks = (done, total);
                self.running.insert((recipe, task));
            }
            Event::Completed {
                recipe,
                task,
                done,
                total,
            } => {
                self.tasks = (done, total);
                self.running.remove(&(recipe, task));
            }
            Event::Ended { recipe, task } => {
                self.running.remove(&(recipe.clone(), task.clone()));
                let known = |f: &Failure| f.recipe == recipe && f.task == task;
                if !self.failures.iter().any(known) {
                    let log = String::new();
                    self.failures.insert(Failure { recipe, task, log });
                }
            }
            Event::TaskFailed { recipe, task, log } => {
                // The queue's word of the same failure has no log.
                self.failures
                    .retain(|f| !(f.recipe == recipe && f.task == task && f.log.is_empty()));
                self.failures.insert(Failure { recipe, task, log });
            }
            Event::NoProvider { recipe, why } => {
                let why = why.trim();
                self.missing.insert(if why.is_empty() {
                    format!("nothing provides {recipe}")
                } else {
                    why.to_owned()
                });
            }
            Event::Other => {}
        }
    }

    /// What goes on, in a few words: the tasks that run.
    pub fn words(&self) -> String {
        let names = self.running.iter();
        let names: Vec<String> = names
            .map(|(recipe, task)| format!("{recipe} {}", task.trim_start_matches("do_")))
            .collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(lines: &[&str]) -> State {
        let mut s = State::default();
        lines.iter().for_each(|l| s.take(l));
        s
    }

    #[test]
    fn a_build_from_parse_to_failure() {
        let s = state(&[
            r#"{"event": "ParseStarted", "total": 10}"#,
            r#"{"event": "ParseProgress", "current": 4, "total": 10}"#,
        ]);
        assert_eq!(s.parsed, (4, 10));
        let s = state(&[
            r#"{"event": "ParseCompleted", "errors": 0, "total": 10}"#,
            r#"{"event": "runQueueTaskStarted", "recipe": "a", "task": "do_fetch", "done": 0, "total": 3}"#,
            r#"{"event": "runQueueTaskStarted", "recipe": "b", "task": "do_fetch", "done": 0, "total": 3}"#,
            r#"{"event": "runQueueTaskCompleted", "recipe": "a", "task": "do_fetch", "done": 1, "total": 3}"#,
        ]);
        assert_eq!((s.parsed, s.tasks), ((10, 10), (1, 3)));
        assert_eq!(s.words(), "b fetch");
        let mut s = s;
        // The worker and the queue both tell of a failure, in either order.
        let worker = r#"{"event": "TaskFailed", "recipe": "b", "task": "do_fetch", "log": "/l"}"#;
        let queue = r#"{"event": "runQueueTaskFailed", "recipe": "b", "task": "do_fetch", "done": 2, "total": 3}"#;
        let mut other = s.clone();
        for line in [worker, queue] {
            s.take(line);
        }
        for line in [queue, worker] {
            other.take(line);
        }
        assert_eq!(s, other);
        let logs: Vec<&str> = s.failures.iter().map(|f| f.log.as_str()).collect();
        assert_eq!((logs, s.words()), (vec!["/l"], String::new()));
    }

    #[test]
    fn what_is_no_event_changes_nothing() {
        for line in [
            "",
            "{",
            "{}",
            "[1]",
            r#"{"event": "New", "x": 1}"#,
            r#"{"event": "ParseStarted"}"#,
        ] {
            assert_eq!(state(&[line]), State::default(), "{line}");
        }
        let s = state(&[r#"{"event": "NoProvider", "recipe": "x", "why": ""}"#]);
        assert_eq!(
            s.missing.first().map(String::as_str),
            Some("nothing provides x")
        );
    }
}
