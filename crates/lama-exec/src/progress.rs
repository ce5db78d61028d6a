// SPDX-License-Identifier: Apache-2.0
//! Progress of long stages, decoupled from how it is shown.
//!
//! Libraries take `&dyn Progress` and open [`Task`]s on it; the command line shows bars on a
//! terminal, plain lines elsewhere, nothing with `--quiet`.

use std::sync::Arc;

/// What a task counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: packages, files.
    Items,
    /// Nothing countable: it runs until it is done.
    Busy,
}

/// One running piece of work. Finished when dropped.
pub trait Task: Send + Sync {
    /// `n` more units are done.
    fn advance(&self, n: u64);
    /// Replaces the text behind the bar (current file or package).
    fn message(&self, text: &str);
    /// The total has become known.
    fn total(&self, n: u64);
}

/// Where stages report to.
pub trait Progress: Send + Sync {
    /// Starts a task named `title` of `total` units (0: not known yet).
    fn task(&self, title: &str, unit: Unit, total: u64) -> Arc<dyn Task>;
    /// One line worth telling that is neither an error nor a result.
    fn note(&self, line: &str);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Task for Quiet {
    fn advance(&self, _: u64) {}
    fn message(&self, _: &str) {}
    fn total(&self, _: u64) {}
}

impl Progress for Quiet {
    fn task(&self, _: &str, _: Unit, _: u64) -> Arc<dyn Task> {
        Arc::new(Quiet)
    }
    fn note(&self, _: &str) {}
}
