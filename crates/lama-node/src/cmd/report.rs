// SPDX-License-Identifier: Apache-2.0
//! `lama-node report`: what this machine is, how it is reached, how it is.

use crate::Result;
use crate::cli::{Arg, Args, Command};
use crate::report::{FIRST_BOOT, Report};
use std::path::Path;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "report",
    about: "What this machine is, how it is reached, how it is",
    help: "\
Usage: lama-node report [--json] [--first-boot]

Options:
  --first-boot  show it, then write it to /var/lib/lamadist/first-boot.json (the service does that)

Example:
  lama-node report",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let mut first = false;
    while let Some(a) = args.next()? {
        match a {
            Arg::Option(o) if o == "first-boot" => first = true,
            other => return Err(other.unknown()),
        }
    }
    let report = Report::now()?;
    args.print(&report, || report.text())?;
    if first {
        // What is written means that all of it is done.
        report.write(Path::new(FIRST_BOOT))?;
    }
    Ok(ExitCode::SUCCESS)
}
