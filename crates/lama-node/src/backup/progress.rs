// SPDX-License-Identifier: Apache-2.0
//! How far it is, on standard error: one line that changes on a terminal, one in ten seconds
//! elsewhere.

use super::message::Status;
use super::size;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Shows how far it is.
pub struct Progress {
    terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    /// Shows nothing yet.
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            shown: None,
        }
    }

    /// Shows it, if it is time to.
    pub fn show(&mut self, status: &Status) {
        let wait = if self.terminal { 300 } else { 10_000 };
        let now = Instant::now();
        if self
            .shown
            .is_some_and(|t| now.duration_since(t) < Duration::from_millis(wait))
        {
            return;
        }
        if !self.terminal && self.shown.is_none() {
            // What is done at once needs no progress.
            self.shown = Some(now);
            return;
        }
        self.shown = Some(now);
        if self.terminal {
            eprint!("\r{}\x1b[K", line(status));
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{}", line(status));
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.terminal && self.shown.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(s: &Status) -> String {
    let percent = (s.percent_done.clamp(0.0, 1.0) * 100.0) as u32;
    format!(
        "{percent:3} %, {} of {}, {} of {} files",
        size(s.bytes_done.max(s.bytes_restored)),
        size(s.total_bytes),
        s.files_done.max(s.files_restored),
        s.total_files
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let s = Status {
            percent_done: 0.456,
            total_files: 9,
            files_restored: 4,
            total_bytes: 2048,
            bytes_done: 1024,
            ..Status::default()
        };
        assert_eq!(line(&s), " 45 %, 1.0 KiB of 2.0 KiB, 4 of 9 files");
        let odd = Status {
            percent_done: f64::NAN,
            ..Status::default()
        };
        assert!(line(&odd).starts_with("  0 %"));
    }
}
