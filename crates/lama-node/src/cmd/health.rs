// SPDX-License-Identifier: Apache-2.0
//! `lama-node health`: whether the machine is well.

use crate::Result;
use crate::cli::{Arg, Args, Command};
use crate::health::{Health, PATH, State};
use std::path::Path;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "health",
    about: "Whether this machine is well",
    help: "\
Usage: lama-node health [--json] [--write]

Runs all checks, and those of the administrator: /etc/lamadist/health.d/*.sh, read by sh. Their first
line is the reason; exit status 0 is good, 3 a warning, another one a failure.

Exit status: 0 when no check failed (warnings do not count), else 1.

Options:
  --write  write the result to /run/lamadist/health.json, too

Example:
  lama-node health --json",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let mut write = false;
    while let Some(a) = args.next()? {
        match a {
            Arg::Option(o) if o == "write" => write = true,
            other => return Err(other.unknown()),
        }
    }
    let health = Health::now()?;
    if write {
        health.write(Path::new(PATH))?;
    }
    args.print(&health, || health.text())?;
    Ok(match health.state {
        State::Good => ExitCode::SUCCESS,
        State::Bad => ExitCode::FAILURE,
    })
}
