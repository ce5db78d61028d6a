// SPDX-License-Identifier: Apache-2.0
//! What is asked of the solver.

use std::collections::BTreeMap;

/// Whether essential packages are part of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Essential {
    /// Every package marked essential is, as on any Debian system.
    #[default]
    Include,
    /// Only those that something depends on.
    Leave,
}

/// What recommendations count for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recommends {
    /// Nothing.
    #[default]
    Ignore,
    /// They are installed where possible, like apt's default.
    Install,
}

/// What is asked of the solver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The packages: `name`, `name=version`, `name:arch` (the root's architecture, `all` or
    /// `any`), or the name of a virtual package.
    pub packages: Vec<String>,
    /// Essential packages.
    pub essential: Essential,
    /// Recommendations.
    pub recommends: Recommends,
    /// Versions that are kept where possible, by package: those of a lock.
    pub prefer: BTreeMap<String, String>,
}
