// SPDX-License-Identifier: Apache-2.0
//! `lama-node slot-hook`: what a bundle's hook calls.

use crate::cli::{Arg, Args, Command};
use crate::slot::{self, Request};
use crate::{Result, fs};
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "slot-hook",
    about: "Install a UKI; RAUC calls it while it installs a bundle",
    help: "\
Usage: lama-node slot-hook slot-install

Called by the hook of a bundle; RAUC says in its environment what is to be done. Not meant to be
called by hand.

Example:
  lama-node slot-hook slot-install",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let mut argument = String::new();
    while let Some(a) = args.next()? {
        match a {
            Arg::Value(v) if argument.is_empty() => argument = v,
            other => return Err(other.unknown()),
        }
    }
    let request = Request::parse(&argument, |name| std::env::var(name).ok());
    if let Ok(r) = &request {
        // A stream may break off here, which is no word against the bundle.
        r.load()?;
    }
    let done = request.and_then(|r| r.install());
    if let Err(e) = &done {
        // RAUC hands on no more than that it failed.
        let _ = fs::write(slot::WHY, e.to_string(), 0o644);
    }
    done.map(|()| ExitCode::SUCCESS)
}
