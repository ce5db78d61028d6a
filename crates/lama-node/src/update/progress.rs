// SPDX-License-Identifier: Apache-2.0
//! How far a download or the making of a bundle is, on standard error: one line that changes on a
//! terminal, a line for every tenth elsewhere.

use crate::block;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Between two changes of the line on a terminal.
const PAUSE: Duration = Duration::from_millis(300);

/// Shows how far something is.
pub struct Progress {
    what: String,
    total: u64,
    terminal: bool,
    shown: Option<Instant>,
    tenth: Option<u64>,
}

impl Progress {
    /// Of `what`, of so many bytes.
    pub fn new(what: impl Into<String>, total: u64) -> Self {
        Self {
            what: what.into(),
            total,
            terminal: stderr().is_terminal(),
            shown: None,
            tenth: None,
        }
    }

    /// Shows that `done` bytes of it are there, if it is time to.
    pub fn at(&mut self, done: u64) {
        if let Some(text) = self.next(done, Instant::now()) {
            let mut out = stderr();
            // Whoever closed it does not want to know.
            let _ = out.write_all(text.as_bytes());
            let _ = out.flush();
        }
    }

    /// Says something in a line of its own.
    pub fn say(&mut self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    fn clear(&mut self) {
        if self.terminal && self.shown.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }

    fn next(&mut self, done: u64, now: Instant) -> Option<String> {
        if self.terminal {
            let soon = |t: Instant| now.duration_since(t) < PAUSE && done < self.total;
            if self.shown.is_some_and(soon) {
                return None;
            }
            self.shown = Some(now);
            return Some(format!("\r{}\x1b[K", self.line(done)));
        }
        let tenth = self.percent(done) / 10;
        let before = self.tenth.replace(tenth);
        // Where it begins is said only where it goes on.
        (before.unwrap_or(0) < tenth).then(|| format!("{}\n", self.line(done)))
    }

    fn percent(&self, done: u64) -> u64 {
        let percent = u128::from(done) * 100 / u128::from(self.total.max(1));
        u64::try_from(percent.min(100)).unwrap_or(100)
    }

    fn line(&self, done: u64) -> String {
        format!(
            "{}: {:3} %, {} of {}",
            self.what,
            self.percent(done),
            block::size(done),
            block::size(self.total)
        )
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(terminal: bool) -> Progress {
        let mut p = Progress::new("loading", 1000);
        p.terminal = terminal;
        p
    }

    #[test]
    fn a_line_for_every_tenth() {
        let mut p = progress(false);
        let now = Instant::now();
        let said: Vec<String> = (0..=1000).filter_map(|n| p.next(n, now)).collect();
        assert_eq!(said.len(), 10);
        assert_eq!(said[0], "loading:  10 %, 100 B of 1000 B\n");
        assert_eq!(said[9], "loading: 100 %, 1000 B of 1000 B\n");
        // One that goes on, and one that begins anew.
        let mut p = progress(false);
        assert!(p.next(450, now).unwrap().contains("45 %"));
        assert!(p.next(499, now).is_none() && p.next(0, now).is_none());
        assert!(p.next(100, now).is_some());
    }

    #[test]
    fn a_terminal_has_one_line() {
        let mut p = progress(true);
        let now = Instant::now();
        assert_eq!(
            p.next(10, now).unwrap(),
            "\rloading:   1 %, 10 B of 1000 B\x1b[K"
        );
        assert!(p.next(20, now).is_none());
        assert!(p.next(30, now + PAUSE).is_some());
        assert!(p.next(1000, now + PAUSE).is_some());
        p.shown = None;
        let odd = Progress::new("", 0).line(u64::MAX);
        assert!(odd.contains("100 %"), "{odd}");
    }
}
