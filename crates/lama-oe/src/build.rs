// SPDX-License-Identifier: Apache-2.0
//! `kas build`, followed by its events.

use crate::events::State;
use crate::kas::Kas;
use lama_exec::Progress;
use lama_exec::fs::{self, FsError};
use lama_exec::progress::{Task, Unit};
use lama_exec::tool::ToolError;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

/// How often new events are looked for.
const PAUSE: Duration = Duration::from_millis(300);
/// Lines of a failed task's log that are shown.
const LOG_LINES: usize = 25;

/// Why a build failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// kas could not be started.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tool(#[from] ToolError),
    /// kas could not be waited for.
    #[error("cannot wait for kas: {0}")]
    Wait(#[source] io::Error),
    /// BitBake failed.
    #[error("BitBake failed: {what}")]
    #[diagnostic(help("all that it said is in {}; `lamadist oe shell` opens a shell with its environment", log.display()))]
    Failed {
        /// The tasks that failed, with the end of what each one said, or BitBake's own errors.
        what: String,
        /// Everything it said.
        log: PathBuf,
    },
}

/// A build.
pub struct Build<'a> {
    /// kas.
    pub kas: &'a Kas,
    /// The machine's configuration, and extras.
    pub files: String,
    /// The recipe.
    pub target: &'a str,
    /// What the configuration is told, by name.
    pub env: Vec<(&'static str, String)>,
    /// Where the log and events go.
    pub work: &'a Path,
    /// Where progress is reported.
    pub progress: &'a dyn Progress,
}

impl Build<'_> {
    /// Runs it to its end.
    ///
    /// # Errors
    /// A task failed, something needed has no recipe, or kas refuses the configuration.
    pub fn run(&self) -> Result<(), Error> {
        fs::create_dir_all(self.work)?;
        let log = self.work.join("kas.log");
        let events = self.work.join("events");
        fs::write(&events, "")?;
        let out = fs::create(&log)?;
        let both = out.try_clone().map_err(Error::Wait)?;
        let mut command = self.kas.command("build").args(["--target", self.target]);
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        let mut running = command
            .env("LAMA_EVENTS", &events)
            .arg(&self.files)
            .spawn(Stdio::from(out), Stdio::from(both))?;
        let mut follow = Follow::new(self.progress, &events)?;
        let status = loop {
            let ended = running.try_wait().map_err(Error::Wait)?;
            follow.look()?;
            if let Some(status) = ended {
                break status;
            }
            std::thread::sleep(PAUSE);
        };
        if status.success() {
            return Ok(());
        }
        let said = fs::read(&log)?;
        Err(Error::Failed {
            what: explain(&follow.state, &String::from_utf8_lossy(&said)),
            log,
        })
    }
}

/// Reads events as they are written, and reports.
struct Follow<'a> {
    progress: &'a dyn Progress,
    file: std::fs::File,
    /// A line that is not whole yet.
    rest: String,
    state: State,
    /// What is reported, and how much of it has been.
    shown: Option<(&'static str, Arc<dyn Task>, u64)>,
    failures: usize,
}

impl<'a> Follow<'a> {
    fn new(progress: &'a dyn Progress, events: &Path) -> Result<Self, FsError> {
        Ok(Self {
            progress,
            file: fs::open(events)?,
            rest: String::new(),
            state: State::default(),
            shown: None,
            failures: 0,
        })
    }

    fn look(&mut self) -> Result<(), Error> {
        let mut new = Vec::new();
        self.file.read_to_end(&mut new).map_err(Error::Wait)?;
        if new.is_empty() {
            return Ok(());
        }
        self.rest += &String::from_utf8_lossy(&new);
        while let Some((line, rest)) = self.rest.split_once('\n') {
            self.state.take(line);
            self.rest = rest.to_owned();
        }
        self.report();
        Ok(())
    }

    fn report(&mut self) {
        let s = &self.state;
        let (title, (done, total)) = if s.tasks.1 > 0 {
            ("Building", s.tasks)
        } else {
            ("Parsing recipes", s.parsed)
        };
        if self.shown.as_ref().is_none_or(|(t, ..)| *t != title) {
            let task = self.progress.task(title, Unit::Items, total);
            self.shown = Some((title, task, 0));
        }
        if let Some((_, task, before)) = &mut self.shown {
            task.total(total);
            task.advance(done.saturating_sub(*before));
            *before = done.max(*before);
            task.message(&s.words());
        }
        for f in s.failures.iter().skip(self.failures) {
            self.progress
                .note(&format!("failed: {} {}", f.recipe, f.task));
        }
        self.failures = s.failures.len();
    }
}

/// What went wrong, readably: each failed task with the end of its log, or what has no recipe, or
/// what BitBake itself called an error.
fn explain(state: &State, said: &str) -> String {
    let mut out = String::new();
    for f in &state.failures {
        out += &format!("\n{} {}", f.recipe, f.task);
        let log = fs::read_optional(&f.log).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        for line in lines.get(from..).unwrap_or_default() {
            out += &format!("\n    {line}");
        }
    }
    for why in &state.missing {
        out += &format!("\n{why}");
    }
    if out.is_empty() {
        let errors = said.lines().filter(|l| l.contains("ERROR"));
        let errors: Vec<&str> = errors.take(LOG_LINES).collect();
        let all: Vec<&str> = said.lines().collect();
        let tail = all
            .get(all.len().saturating_sub(LOG_LINES)..)
            .unwrap_or_default();
        let lines = if errors.is_empty() { tail } else { &errors };
        for line in lines {
            out += &format!("\n{line}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);
    impl Progress for Notes {
        fn task(&self, title: &str, _: Unit, total: u64) -> Arc<dyn Task> {
            self.note(&format!("{title} {total}"));
            Arc::new(lama_exec::Quiet)
        }
        fn note(&self, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
    }

    #[test]
    fn events_are_followed_while_they_are_written() {
        let d = tempfile::tempdir().unwrap();
        let events = d.path().join("events");
        let log = d.path().join("log");
        fs::write(&log, "compiling\nno such file\n").unwrap();
        let notes = Notes::default();
        fs::write(
            &events,
            "{\"event\": \"ParseStarted\", \"total\": 7}\n{\"event\":",
        )
        .unwrap();
        let mut f = Follow::new(&notes, &events).unwrap();
        f.look().unwrap();
        assert_eq!(f.state.parsed, (0, 7));
        let rest = format!(
            " \"ParseProgress\", \"current\": 3, \"total\": 7}}\n\
             {{\"event\": \"runQueueTaskStarted\", \"recipe\": \"a\", \"task\": \"do_x\", \"done\": 0, \"total\": 2}}\n\
             {{\"event\": \"TaskFailed\", \"recipe\": \"a\", \"task\": \"do_x\", \"log\": \"{}\"}}\n",
            log.display()
        );
        let mut append = std::fs::OpenOptions::new()
            .append(true)
            .open(&events)
            .unwrap();
        io::Write::write_all(&mut append, rest.as_bytes()).unwrap();
        f.look().unwrap();
        let seen = notes.0.lock().unwrap().clone();
        assert_eq!(seen, ["Parsing recipes 7", "Building 2", "failed: a do_x"]);
        let why = explain(&f.state, "ERROR: task failed");
        assert_eq!(why, "\na do_x\n    compiling\n    no such file");
    }

    #[test]
    fn what_has_no_failed_task_is_told_in_bitbakes_words() {
        let none = State::default();
        assert_eq!(explain(&none, "a\nERROR: b\n"), "\nERROR: b");
        assert_eq!(explain(&none, "a\nb\n"), "\na\nb");
    }
}
