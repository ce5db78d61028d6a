// SPDX-License-Identifier: Apache-2.0
//! `lama-node boot-backend`: what RAUC asks and tells of the slots.

use crate::Result;
use crate::cli::{Arg, Args, Command};
use crate::loader::backend::Request;
use crate::machine::Machine;
use crate::update::judge::boot_id;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "boot-backend",
    about: "Tell systemd-boot which slot to start; RAUC calls it",
    help: "\
Usage: lama-node boot-backend get-primary
       lama-node boot-backend get-current
       lama-node boot-backend get-state A|B
       lama-node boot-backend set-primary A|B
       lama-node boot-backend set-state A|B good|bad

RAUC calls it on machines that systemd-boot starts. A slot that is set primary is started once; one
that is set good comes first. By hand, use lama-node rollback.

Example:
  lama-node boot-backend get-primary",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let mut words = Vec::new();
    while let Some(a) = args.next()? {
        match a {
            Arg::Value(v) => words.push(v),
            other => return Err(other.unknown()),
        }
    }
    let answer = Request::parse(&words)?.run(&Machine::read()?, &boot_id())?;
    if let Some(a) = answer {
        args.print(&a, || a.clone())?;
    }
    Ok(ExitCode::SUCCESS)
}
