// SPDX-License-Identifier: Apache-2.0
//! `lama-node keys`: a change of the keys that sign systems, followed on this machine.

use crate::Result;
use crate::cli::{Arg, Args, Command};
use crate::keys::Keys;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "keys",
    about: "Follow a change of the keys that sign systems",
    help: "\
Usage: lama-node keys [--json]
       lama-node keys follow

Without a word, shows by which key of a PCR policy the disk and the secrets open, and whether the
firmware's db holds the keys that it should. `follow` takes the steps that are due: seals to a new
policy key and lets go of the old one when both slots are signed by the new one, has the firmware take
up a new db key and let go of the old one, and seals for what it measures then. A service does so
after every start, and after an update was kept.

After a host addon that is signed by another key was put on the boot partition, run `follow` before
the next start: the TPM sees by which keys it is let through.

Example:
  lama-node keys",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let (mut follow, mut quiet) = (false, false);
    while let Some(a) = args.next()? {
        match a {
            Arg::Value(v) if v == "follow" => follow = true,
            // As the service: a failed unit would speak against a system that is on trial.
            Arg::Option(o) if o == "as-service" => quiet = true,
            other => return Err(other.unknown()),
        }
    }
    let keys = match Keys::here() {
        Err(e) if quiet => {
            eprintln!("{e}");
            return Ok(ExitCode::SUCCESS);
        }
        keys => keys?,
    };
    let failed = match follow {
        true => match keys.follow() {
            Ok(did) => {
                did.iter().for_each(|d| eprintln!("{d}"));
                None
            }
            Err(e) => Some(e),
        },
        false => None,
    };
    let mut state = Keys::here()?.state()?;
    state.error = failed.as_ref().map(ToString::to_string);
    if follow {
        state.leave()?;
    }
    if let Some(e) = failed.filter(|_| !quiet) {
        return Err(e);
    }
    args.print(&state, || state.text())?;
    Ok(ExitCode::SUCCESS)
}
