// SPDX-License-Identifier: Apache-2.0
//! Ground floor: files whose errors name their path, external tools run in a sandbox, and
//! progress that a terminal, a log or a machine can follow.
//!
//! Nothing here knows what LamaDist is. The parts:
//!
//! - [`fs`]: thin wrappers around `std::fs`. `clippy.toml` forbids the raw functions elsewhere.
//! - [`tool`]: [`Tools`] (where external programs come from) and [`Cmd`] (one run of one of them).
//! - [`interrupt`]: what an interrupted process leaves behind: nothing.
//! - [`progress`]: the [`Progress`] trait that long-running stages report to.

mod error;
pub mod fs;
pub mod interrupt;
pub mod progress;
mod sandbox;
pub mod tool;

pub use progress::{Progress, Quiet};
pub use tool::{Cmd, Running, ToolError, Tools};
