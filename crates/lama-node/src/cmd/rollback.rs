// SPDX-License-Identifier: Apache-2.0
//! `lama-node rollback`: back to the version before.

use crate::Result;
use crate::cli::{Arg, Args, Command};
use crate::run::Run;
use crate::update::rollback;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "rollback",
    about: "Go back to the version in the other slot",
    help: "\
Usage: lama-node rollback [--reboot]

Puts the other slot first in the boot order; the next restart starts it. What is in /var and /etc
stays as it is.

Options:
  --reboot  restart at once

Example:
  lama-node rollback --reboot",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let mut reboot = false;
    while let Some(a) = args.next()? {
        match a {
            Arg::Option(o) if o == "reboot" => reboot = true,
            other => return Err(other.unknown()),
        }
    }
    let slot = rollback()?;
    args.print(&slot, || {
        format!("slot {} comes first from the next restart on", slot.name())
    })?;
    if reboot {
        Run::new("systemctl").args(["--no-block", "reboot"]).run()?;
    }
    Ok(ExitCode::SUCCESS)
}
