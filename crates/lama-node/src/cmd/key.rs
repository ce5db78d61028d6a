// SPDX-License-Identifier: Apache-2.0
//! `lama-node key`: the certificate that bundles for this machine are encrypted to.

use crate::cli::{Arg, Args, Command};
use crate::{Error, Result, node_key};
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "key",
    about: "The certificate that updates for this machine are encrypted to",
    help: "\
Usage: lama-node key [--make | --new] [--json]

Prints the certificate (PEM). The workstation takes it up with lamadist host certificate.

Options:
  --make   make the key pair where there is none (a service does that at the first boot)
  --new    make a new key pair in place of the one there is: bundles that were encrypted to the old
           one cannot be installed here any more

Example:
  lama-node key",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let (mut make, mut new) = (false, false);
    while let Some(a) = args.next()? {
        match a {
            Arg::Option(o) if o == "make" => make = true,
            Arg::Option(o) if o == "new" => new = true,
            other => return Err(other.unknown()),
        }
    }
    let shown = if make || new {
        node_key::make(new)?
    } else {
        node_key::shown()?.ok_or_else(|| {
            Error::new("this machine has no key pair yet").hint("run lama-node key --make as root")
        })?
    };
    args.print(&shown, || shown.certificate.clone())?;
    Ok(ExitCode::SUCCESS)
}
