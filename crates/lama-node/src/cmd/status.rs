// SPDX-License-Identifier: Apache-2.0
//! `lama-node status`: what this machine runs and what protects it.

use crate::Result;
use crate::cli::{Args, Command};
use crate::kernel::Cmdline;
use crate::machine::Machine;
use serde::Serialize;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "status",
    about: "What this machine runs, and what protects it",
    help: "\
Usage: lama-node status [--json]

Example:
  lama-node status --json",
    run,
};

#[derive(Serialize)]
struct Status {
    bsp: String,
    image: String,
    version: String,
    slot: Option<&'static str>,
}

fn run(args: &mut Args) -> Result<ExitCode> {
    args.none()?;
    let machine = Machine::read()?;
    let status = Status {
        bsp: machine.bsp,
        image: machine.image,
        version: machine.version,
        slot: Cmdline::read()?.slot().map(crate::kernel::Slot::name),
    };
    args.print(&status, || {
        format!(
            "{} {} {} slot {}",
            status.bsp,
            status.image,
            status.version,
            status.slot.unwrap_or("?")
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
