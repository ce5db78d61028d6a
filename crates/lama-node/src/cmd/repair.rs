// SPDX-License-Identifier: Apache-2.0
//! `lama-node repair`: what was left by an installation that was cut off at its end, or lost by the
//! firmware.

use crate::Result;
use crate::cli::{Args, Command};
use crate::machine::Machine;
use crate::repair::repair;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "repair",
    about: "Mend boot entries and the marks on the disk",
    help: "\
Usage: lama-node repair [--json]

Makes the firmware's boot entries A and B where they are missing, and removes those of another disk.
Where systemd-boot starts the machine, does the same with its entries, and finds out whether it counts
attempts. Takes away the mark of an installation that was cut off at its very end. Runs at every boot.

Example:
  lama-node repair",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    args.none()?;
    let done = repair(&Machine::read()?)?;
    args.print(&done, || done.text())?;
    Ok(ExitCode::SUCCESS)
}
