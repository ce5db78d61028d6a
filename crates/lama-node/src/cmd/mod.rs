// SPDX-License-Identifier: Apache-2.0
//! The commands, a module each.

mod attest;
mod backup;
mod boot_backend;
mod boot_count;
mod enroll;
mod etc;
mod grow;
mod health;
mod install;
mod key;
mod keys;
mod repair;
mod report;
mod restore;
mod rollback;
mod secret;
mod slot_hook;
mod status;
mod update;

use crate::cli::Command;

/// All of them, in the order that `--help` shows.
pub const ALL: &[Command] = &[
    install::COMMAND,
    status::COMMAND,
    health::COMMAND,
    update::COMMAND,
    rollback::COMMAND,
    etc::COMMAND,
    enroll::COMMAND,
    keys::COMMAND,
    secret::COMMAND,
    backup::COMMAND,
    restore::COMMAND,
    attest::COMMAND,
    report::COMMAND,
    grow::COMMAND,
    repair::COMMAND,
    key::COMMAND,
    slot_hook::COMMAND,
    boot_backend::COMMAND,
    boot_count::COMMAND,
];
