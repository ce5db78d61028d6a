// SPDX-License-Identifier: Apache-2.0
//! `lama-node update`: which version there is, installing it, judging it.

use crate::cli::{Arg, Args, Command};
use crate::run::Run;
use crate::update::config::{self, Automatic, Config};
use crate::update::judge::{Judged, judge};
use crate::update::trial::{Book, DIR, Stage};
use crate::update::{Allow, Standing, check, install, standing};
use crate::{Error, Result, block};
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "update",
    about: "Update this machine, and see how it stands",
    help: "\
Usage: lama-node update [--json]
       lama-node update check [--json]
       lama-node update install [--force] [--reboot] [BUNDLE]
       lama-node update auto|judge

Without a word, shows slots, versions, and what came of the last update. `check` asks the server,
`install` puts the server's version, or BUNDLE (a file or a URL), into the other slot. The next
restart tries it once: it is kept when the machine is well, else the old one comes back by itself.
`auto` does what /etc/lamadist/update.conf says, `judge` looks at a system on trial; timers and
services run them.

Options:
  --force   also a version that is not newer
  --reboot  restart when it is installed

Example:
  lama-node update install --reboot",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let (mut word, mut bundle) = (None, None);
    let (mut force, mut reboot) = (false, false);
    while let Some(a) = args.next()? {
        match a {
            Arg::Option(o) if o == "force" => force = true,
            Arg::Option(o) if o == "reboot" => reboot = true,
            Arg::Value(v) if word.is_none() => word = Some(v),
            Arg::Value(v) if bundle.is_none() && word.as_deref() == Some("install") => {
                bundle = Some(v);
            }
            other => return Err(other.unknown()),
        }
    }
    if (force || reboot) && word.as_deref() != Some("install") {
        return Err(Error::new("--force and --reboot belong to install").hint("see --help"));
    }
    match word.as_deref() {
        None => {
            let s = standing()?;
            args.print(&s, || show(&s))?;
        }
        Some("check") => {
            let found = check(&Config::read()?)?;
            args.print(&found, || {
                if found.newer {
                    format!(
                        "{} is there, {} runs ({})",
                        found.version,
                        found.running,
                        block::size(found.size)
                    )
                } else {
                    format!("{} runs, and is what the track is at", found.running)
                }
            })?;
            if found.revoked {
                eprintln!("warning: {} must not run any more: update", found.running);
            }
        }
        Some("install") => {
            let allow = if force { Allow::Any } else { Allow::Newer };
            let trial = match &bundle {
                Some(b) => install(b, allow, None)?,
                None => {
                    let found = check(&Config::read()?)?;
                    if !found.newer && !force {
                        println!("{} runs, and is what the track is at", found.running);
                        return Ok(ExitCode::SUCCESS);
                    }
                    install(&found.bundle, allow, Some(&found.version))?
                }
            };
            args.print(&trial, || {
                format!(
                    "{} is in slot {}: the next restart tries it",
                    trial.version,
                    trial.to.name()
                )
            })?;
            if reboot {
                restart()?;
            }
        }
        Some("auto") => auto()?,
        Some("judge") => {
            if judge(&Book::new(DIR))? == Judged::Restart {
                return Ok(ExitCode::FAILURE);
            }
        }
        Some(other) => return Err(Arg::Value(other.to_owned()).unknown()),
    }
    Ok(ExitCode::SUCCESS)
}

fn restart() -> Result<()> {
    let run = Run::new("systemctl").args(["--no-block", "reboot"]);
    run.run().map(|_| ())
}

/// What the timer does.
fn auto() -> Result<()> {
    let config = Config::read()?;
    let book = Book::new(DIR);
    let waiting = |book: &Book| -> Result<bool> {
        Ok(book.trial()?.is_some_and(|t| t.stage == Stage::Installed))
    };
    if config.automatic == Automatic::Off || config.source.url.is_none() {
        return Ok(());
    }
    if !waiting(&book)? {
        let found = check(&config)?;
        eprintln!("{} runs, the track is at {}", found.running, found.version);
        if !found.newer || config.automatic != Automatic::Install {
            return Ok(());
        }
        let failed = book.last()?.filter(|l| !l.kept);
        if failed.is_some_and(|l| l.version == found.version) {
            eprintln!("it was tried and not kept; `lama-node update install` tries it again");
            return Ok(());
        }
        install(&found.bundle, Allow::Newer, Some(&found.version))?;
    }
    let (day, minute) = config::now();
    if config.automatic == Automatic::Install && config.may_restart(day, minute) {
        eprintln!("restarting into the new version");
        return restart();
    }
    Ok(())
}

fn show(s: &Standing) -> String {
    let other = s.slot.other().unwrap_or(s.slot);
    let automatic = match s.config.automatic {
        Automatic::Off => "nothing by itself",
        Automatic::Check => "looks for new versions by itself",
        Automatic::Install => "installs new versions by itself",
    };
    let mut t = format!(
        "slot {}   {}, runs\nslot {}   {}\nserver   {}, {automatic}\n",
        s.slot.name(),
        s.version,
        other.name(),
        s.other.as_deref().unwrap_or("nothing that RAUC knows"),
        s.config.source,
    );
    if let Some(trial) = &s.trial {
        let stage = match &trial.stage {
            Stage::Installing => "is being installed",
            Stage::Installed => "waits for a restart",
            Stage::Started { .. } => "is on trial",
            Stage::Failed { .. } => "is not well, and about to restart",
        };
        t += &format!("trial    {} {stage}\n", trial.version);
    }
    if let Some(last) = &s.last {
        t += &format!("last     {}\n", last.text());
    }
    t
}
