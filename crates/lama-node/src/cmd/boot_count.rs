// SPDX-License-Identifier: Apache-2.0
//! `lama-node boot-count`: starts that did not come up.

use crate::boot_count;
use crate::cli::{Arg, Args, Command};
use crate::run::Run;
use crate::{Error, Result};
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "boot-count",
    about: "Count starts, and take the other slot where this one does not come up",
    help: "\
Usage: lama-node boot-count start
       lama-node boot-count up

Services run it: `start` at the very beginning of a start, `up` when the system has come up. After
three starts in a row of which none came up, `start` has the firmware start the other slot once, and
restarts the machine. `lama-node update` and `lama-node health` then tell of it.

Example:
  lama-node boot-count up",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let mut word = None;
    while let Some(a) = args.next()? {
        match a {
            Arg::Value(v) if word.is_none() => word = Some(v),
            other => return Err(other.unknown()),
        }
    }
    match word.as_deref() {
        Some("start") => {
            if boot_count::start()? {
                println!("this slot did not come up three times in a row: starting the other one");
                Run::new("systemctl").args(["--force", "reboot"]).run()?;
            }
        }
        Some("up") => {
            if let Some(given_up) = boot_count::up()? {
                println!("{}", given_up.text());
            }
        }
        _ => return Err(Error::new("start or up?").hint("see --help")),
    }
    Ok(ExitCode::SUCCESS)
}
