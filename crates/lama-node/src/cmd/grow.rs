// SPDX-License-Identifier: Apache-2.0
//! `lama-node grow`: /var on a disk that has become larger.

use crate::Result;
use crate::cli::{Arg, Args, Command};
use crate::grow::grow;
use crate::machine::Machine;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "grow",
    about: "Let /var fill a disk that has become larger",
    help: "\
Usage: lama-node grow [--plan] [--json]

Grows the data partition, its encrypted volume and its file system, when there are 64 MiB or more to
gain. Nothing else on the disk is touched. Runs at every boot.

Options:
  --plan   show what would be gained, change nothing

Example:
  lama-node grow --plan",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let mut plan = false;
    while let Some(a) = args.next()? {
        match a {
            Arg::Option(o) if o == "plan" => plan = true,
            other => return Err(other.unknown()),
        }
    }
    let grown = grow(&Machine::read()?, plan)?;
    args.print(&grown, || grown.text())?;
    Ok(ExitCode::SUCCESS)
}
