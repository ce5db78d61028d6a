// SPDX-License-Identifier: Apache-2.0
//! `lama-node enroll`: what opens the disk, made anew.

use crate::cli::{Arg, Args, Command};
use crate::error::Context;
use crate::install::recovery;
use crate::keys::Keys;
use crate::luks::{self, Header, Opener};
use crate::machine::Machine;
use crate::run::Run;
use crate::secret::Store;
use crate::{Error, Result, volumes};
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "enroll",
    about: "Seal the disk's keys to this machine as it is now",
    help: "\
Usage: lama-node enroll [--recovery-key] [--new-recovery-key]

Seals the key of every volume to this machine's TPM anew, in place of what was sealed before: after
a firmware update that changed Secure Boot's state or keys, after a change of board, or on another
machine that the disk was moved to. So are the secrets of `lama-node secret`.

Options:
  --recovery-key       open the volumes with the recovery key (from standard input, or asked for)
                       instead of the TPM, which does not open them after such a change
  --new-recovery-key   make a new recovery key and show it once; the old one opens nothing any more

Example:
  lama-node enroll --recovery-key",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let (mut by_key, mut new_key) = (false, false);
    while let Some(a) = args.next()? {
        match a {
            Arg::Option(o) if o == "recovery-key" => by_key = true,
            Arg::Option(o) if o == "new-recovery-key" => new_key = true,
            other => return Err(other.unknown()),
        }
    }
    let machine = Machine::read()?;
    let devices = volumes::devices(&machine)?;
    let key = if by_key {
        Some(volumes::read_key("Recovery key")?)
    } else {
        None
    };
    let opener = key.as_deref().map_or(Opener::Tpm, Opener::Key);
    // All or none: a key that opens only some of them would leave the machine half locked.
    for (name, device) in &devices {
        luks::check(device, opener).map_err(|e| {
            let what = match opener {
                Opener::Tpm => "the TPM does not open",
                Opener::Key(_) => "this key does not open",
            };
            Error::new(format!("{what} {name}: {e}")).hint(match opener {
                Opener::Tpm => "give the recovery key: lama-node enroll --recovery-key",
                Opener::Key(_) => "check it letter by letter; nothing was changed",
            })
        })?;
    }
    if new_key {
        let new = recovery::generate()?;
        for (name, device) in &devices {
            replace_recovery(device, opener, &new).context(name)?;
        }
        let code = recovery::qr(&new).unwrap_or_default();
        println!("The new recovery key, shown this once:\n\n    {new}\n\n{code}");
    } else {
        if !luks::has_tpm() {
            return Err(Error::new("this machine has no TPM 2.0 to seal to")
                .hint("switch it on in the firmware (fTPM, PTT)"));
        }
        for (name, device) in &devices {
            luks::seal(device, opener).context(name)?;
            luks::check(device, Opener::Tpm).context(name)?;
            eprintln!("{name}: sealed to this machine");
        }
    }
    // Where db was changed since this start, the next one has to open it, too.
    let mut did = Vec::new();
    if let Err(e) = Keys::here().and_then(|k| k.prepare(&mut did)) {
        eprintln!("warning: the next start may not open the disk by itself: {e}");
    }
    did.iter().for_each(|d| eprintln!("{d}"));
    // What was sealed as the disk's keys were, or has a copy for a recovery key that is no more.
    super::secret::reseal(&Store::here()?, key.as_deref())
}

/// Adds the new one first, so that there is one at any moment.
fn replace_recovery(device: &str, opener: Opener<'_>, new: &str) -> Result<()> {
    let old = Header::read(device)?.recovery_slots();
    luks::add_recovery(device, opener, new)?;
    luks::check(device, Opener::Key(new))?;
    for slot in old {
        Run::new("systemd-cryptenroll")
            .arg(format!("--wipe-slot={slot}"))
            .arg(device)
            .run()?;
    }
    Ok(())
}
