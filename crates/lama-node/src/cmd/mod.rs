// SPDX-License-Identifier: Apache-2.0
//! The commands, a module each.

mod attest;
mod enroll;
mod etc;
mod health;
mod install;
mod backup;
mod restore;
mod status;

use crate::cli::Command;

/// All of them, in the order that `--help` shows.
pub const ALL: &[Command] = &[
    install::COMMAND,
    status::COMMAND,
    enroll::COMMAND,
    attest::COMMAND,
];
pub const ALL: &[Command] = &[status::COMMAND, backup::COMMAND, restore::COMMAND];
    attest::COMMAND,
    etc::COMMAND,
    health::COMMAND,
];
