// SPDX-License-Identifier: Apache-2.0
//! What is said while working: bars on a terminal, plain lines elsewhere, nothing with `--quiet`.
//! All of it goes to standard error; standard output is for results.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lama_exec::progress::{Progress, Task, Unit};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much is said, and how.
pub enum Talk {
    /// Bars on a terminal.
    Bars(MultiProgress),
    /// A line at the end of each task that took long enough to matter.
    Lines,
    /// Nothing.
    Quiet,
}

impl Talk {
    /// Chooses by the options and by what standard error is.
    pub fn new(quiet: bool, json: bool) -> Self {
        if quiet {
            Talk::Quiet
        } else if !json && std::io::stderr().is_terminal() {
            Talk::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
        } else {
            Talk::Lines
        }
    }
}

impl Talk {
    /// One line about what goes on.
    pub fn say(&self, line: &str) {
        self.note(line);
    }
}

struct Bar(ProgressBar);

impl Task for Bar {
    fn advance(&self, n: u64) {
        self.0.inc(n);
    }
    fn message(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }
    fn total(&self, n: u64) {
        self.0.set_length(n);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

struct Line {
    title: String,
    start: Instant,
}

impl Task for Line {
    fn advance(&self, _: u64) {}
    fn message(&self, _: &str) {}
    fn total(&self, _: u64) {}
}

impl Drop for Line {
    fn drop(&mut self) {
        let t = self.start.elapsed();
        if t > Duration::from_millis(50) {
            eprintln!("{}: {:.1} s", self.title, t.as_secs_f64());
        }
    }
}

impl Progress for Talk {
    fn task(&self, title: &str, unit: Unit, total: u64) -> Arc<dyn Task> {
        match self {
            Talk::Quiet => Arc::new(lama_exec::Quiet),
            Talk::Lines => Arc::new(Line {
                title: title.to_owned(),
                start: Instant::now(),
            }),
            Talk::Bars(all) => {
                let bar = all.add(ProgressBar::new(total));
                let template = match (unit, total) {
                    (Unit::Busy, _) => "{spinner} {prefix} {elapsed} {wide_msg}",
                    (Unit::Bytes, _) => {
                        "{prefix:24} [{bar:30}] {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {wide_msg}"
                    }
                    (Unit::Items, _) => "{prefix:24} [{bar:30}] {pos:>5}/{len:5} {wide_msg}",
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_prefix(title.to_owned());
                bar.enable_steady_tick(Duration::from_millis(120));
                Arc::new(Bar(bar))
            }
        }
    }

    fn note(&self, line: &str) {
        match self {
            Talk::Quiet => {}
            Talk::Lines => eprintln!("{line}"),
            Talk::Bars(all) => {
                let _ = all.println(line);
            }
        }
    }
}
