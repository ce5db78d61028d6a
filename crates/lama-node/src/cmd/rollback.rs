// SPDX-License-Identifier: Apache-2.0
//! `lama-node rollback`: back to the version before.

use crate::Result;
use crate::cli::{Arg, Args, Command};
use crate::run::Run;
use crate::update::Allow;
use crate::update::rollback::rollback;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "rollback",
    about: "Go back to the version in the other slot",
    help: "\
Usage: lama-node rollback [--force] [--reboot]

The next restart tries the version in the other slot: it is started once, and kept when it is well;
else this one comes back by itself. What is in /var and /etc stays as it is. The version that runs now
is not installed by itself again.

Options:
  --force   also to a version that was revoked
  --reboot  restart at once

Example:
  lama-node rollback --reboot",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let (mut allow, mut reboot) = (Allow::Newer, false);
    while let Some(a) = args.next()? {
        match a {
            Arg::Option(o) if o == "reboot" => reboot = true,
            Arg::Option(o) if o == "force" => allow = Allow::Any,
            other => return Err(other.unknown()),
        }
    }
    let back = rollback(allow)?;
    args.print(&back, || {
        format!(
            "the next restart {} {} in slot {}",
            if back.judged { "tries" } else { "starts" },
            back.version.as_deref().unwrap_or("what is"),
            back.slot.name()
        )
    })?;
    if reboot {
        Run::new("systemctl").args(["--no-block", "reboot"]).run()?;
    }
    Ok(ExitCode::SUCCESS)
}
