// SPDX-License-Identifier: Apache-2.0
//! `lama-node update`: which version there is, installing it, judging it.

use crate::cli::{Arg, Args, Command};
use crate::run::Run;
use crate::update::book::{Book, DIR};
use crate::update::config::{self, Automatic, Config};
use crate::update::judge::{Judged, boot_id, judge};
use crate::update::obtain::How;
use crate::update::store::Store;
use crate::update::trial::{self, Stage, Trial};
use crate::update::{Allow, Found, Standing, check, delta, flow, rauc, running, standing};
use crate::{Error, Result, block, clock};
use std::path::Path;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "update",
    about: "Update this machine, and see how it stands",
    help: "\
Usage: lama-node update [--json]
       lama-node update check [--json]
       lama-node update install [--stream|--download] [--force] [--reboot]
       lama-node update install [--force] [--reboot] BUNDLE
       lama-node update download [--force] [--json]
       lama-node update auto|judge

Without a word, shows slots, versions, and what came of the last update. `check` asks the server,
`install` puts the server's version into the other slot, or BUNDLE: a bundle (a file or a URL), or a
delta bundle (a file). The next restart tries it once: it is kept when the machine is well, else the
old one comes back by itself. `download` loads ahead what `install` needs, which then does without
the server. `auto` does what /etc/lamadist/update.conf says, `judge` looks at a system on trial; timers and
services run them.

What is loaded: a delta bundle, where the server has one from the version that runs; else RAUC
streams the bundle, and passes over what has not changed. An interrupted download goes on where it
was. What was loaded ahead is taken first.

Options:
  --force     also a version that is not newer, but never one that was revoked
  --reboot    restart when it is installed
  --stream    let RAUC stream the bundle, whatever else there is
  --download  load the whole bundle to /var first

Example:
  lama-node update install --reboot",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let (mut word, mut bundle) = (None, None);
    let (mut force, mut reboot, mut how) = (false, false, How::Best);
    while let Some(a) = args.next()? {
        match a {
            Arg::Option(o) if o == "force" => force = true,
            Arg::Option(o) if o == "reboot" => reboot = true,
            Arg::Option(o) if how == How::Best && o == "stream" => how = How::Stream,
            Arg::Option(o) if how == How::Best && o == "download" => how = How::Download,
            Arg::Value(v) if word.is_none() => word = Some(v),
            Arg::Value(v) if bundle.is_none() && word.as_deref() == Some("install") => {
                bundle = Some(v);
            }
            other => return Err(other.unknown()),
        }
    }
    allowed(word.as_deref(), force, reboot)?;
    if how != How::Best && (word.as_deref() != Some("install") || bundle.is_some()) {
        return Err(Error::new(
            "--stream and --download say how the server's version is installed",
        )
        .hint("see --help"));
    }
    match word.as_deref() {
        None => {
            let s = standing()?;
            args.print(&s, || show(&s))?;
        }
        Some("check") => {
            let found = check(&Config::read()?)?;
            args.print(&found, || {
                let Some(size) = found.newer.then(|| block::size(found.size)) else {
                    return current(&found);
                };
                let by = match &found.delta {
                    Some(d) => format!("{} to load, of {size}", block::size(d.size)),
                    None => size,
                };
                format!("{} is there, {} runs ({by})", found.version, found.running)
            })?;
            if found.revoked {
                eprintln!("warning: {} must not run any more: update", found.running);
            }
        }
        Some("install") => {
            let allow = if force { Allow::Any } else { Allow::Newer };
            let trial = match &bundle {
                Some(b) if delta::is_one(Path::new(b)) => flow::install_delta(Path::new(b), allow)?,
                Some(b) => flow::install_bundle(b, allow)?,
                None => {
                    let found = flow::check_or_loaded(&Config::read()?)?;
                    if !found.newer && !force {
                        println!("{}", current(&found));
                        return Ok(ExitCode::SUCCESS);
                    }
                    flow::update(&found, allow, how)?
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
        Some("download") => {
            let found = check(&Config::read()?)?;
            if !found.newer && !force {
                println!("{}", current(&found));
                return Ok(ExitCode::SUCCESS);
            }
            let ahead = flow::download(&found)?;
            args.print(&ahead, || {
                let loaded = ahead.as_ref().map(|a| (a.loaded, a.size)).unzip();
                let loaded = trial::loaded(loaded.0, loaded.1).unwrap_or_default();
                format!(
                    "{} is here ({loaded}): lama-node update install needs no server",
                    found.version
                )
            })?;
        }
        Some("auto") => auto()?,
        Some("judge") => {
            match judge(&Book::new(DIR))? {
                Judged::Restart => return Ok(ExitCode::FAILURE),
                // What is kept may be signed by other keys.
                Judged::Kept => {
                    let start = ["--no-block", "start", "lamadist-keys.service"];
                    // It is kept all the same; the next start follows, too.
                    if let Err(e) = Run::new("systemctl").args(start).run() {
                        eprintln!("{e}");
                    }
                }
                Judged::Nothing | Judged::FellBack => {}
            }
        }
        Some(other) => return Err(Arg::Value(other.to_owned()).unknown()),
    }
    Ok(ExitCode::SUCCESS)
}

fn current(found: &Found) -> String {
    if found.version == found.running {
        return format!("{} runs, and is what the track is at", found.running);
    }
    format!(
        "{} runs, which is newer than {}, what the track is at",
        found.running, found.version
    )
}

/// Whether these options belong to this word.
fn allowed(word: Option<&str>, force: bool, reboot: bool) -> Result<()> {
    if reboot && word != Some("install") {
        return Err(Error::new("--reboot belongs to install").hint("see --help"));
    }
    if force && !matches!(word, Some("install" | "download")) {
        return Err(Error::new("--force belongs to install and download").hint("see --help"));
    }
    Ok(())
}

fn restart() -> Result<()> {
    let run = Run::new("systemctl").args(["--no-block", "reboot"]);
    run.run().map(|_| ())
}

/// What the timer does.
fn auto() -> Result<()> {
    let config = Config::read()?;
    let book = Book::new(DIR);
    // Takes away what a power cut left half made, too.
    if Store::try_open(Path::new(DIR))?.is_none() {
        eprintln!("an update is being loaded or installed already");
        return Ok(());
    }
    if config.automatic == Automatic::Off || config.source.url.is_none() {
        return Ok(());
    }
    let trial = book.trial()?;
    if let Some(t) = trial.as_ref().filter(|t| running().ok() == Some(t.to)) {
        // That this fails now would be a reason against it.
        eprintln!("{} is on trial itself", t.version);
        return Ok(());
    }
    // Whoever began an installation may have been killed since, and RAUC goes on; it may take hours.
    rauc::settle()?;
    let trial = book.trial()?;
    let installs = config.automatic == Automatic::Install;
    // One of an earlier boot has been started already, or never will be.
    let boot = boot_id();
    let waits = |t: &Trial| t.stage == Stage::Installed && t.boot == boot;
    let waiting = trial.as_ref().is_some_and(waits);
    if !waiting {
        let found = if installs {
            flow::check_or_loaded(&config)?
        } else {
            check(&config)?
        };
        eprintln!("{} runs, the track is at {}", found.running, found.version);
        if !found.newer {
            // A version that was loaded ahead, and taken back since.
            Store::clear_below(Path::new(DIR));
        }
        if !found.newer || !installs {
            return Ok(());
        }
        // What came of it could not be written down.
        let open = trial.filter(|t| t.version == found.version && t.stage != Stage::Installing);
        if let Some(t) = open {
            eprintln!(
                "what came of {} is not known yet: see lamadist-judge.service",
                t.version
            );
            return Ok(());
        }
        let last = book.last()?;
        if last.and_then(|l| l.unwanted().map(|v| v == found.version)) == Some(true) {
            eprintln!(
                "it was not kept, or somebody went back from it; `lama-node update install` tries it again"
            );
            return Ok(());
        }
        let failed = book.failure()?.filter(|f| f.sha256 == found.sha256);
        if let Some(f) = failed.filter(|f| f.waits(clock::seconds())) {
            eprintln!("{}", f.text());
            return Ok(());
        }
        flow::update(&found, Allow::Newer, How::Best)?;
    }
    let (day, minute) = config::now();
    if installs && config.may_restart(day, minute) {
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
        let loaded = trial::loaded(trial.loaded, trial.size);
        let loaded = loaded.map(|l| format!(" ({l})")).unwrap_or_default();
        t += &format!("trial    {} {stage}{loaded}\n", trial.version);
    }
    if let Some(a) = &s.ahead {
        t += &match a.ready {
            true => format!("loaded   {}, waits to be installed\n", a.version),
            false => format!(
                "loaded   {} of {}, the next try goes on\n",
                block::size(a.loaded),
                a.version
            ),
        };
    }
    if let Some(last) = &s.last {
        t += &format!("last     {}\n", last.text());
    }
    if let Some(f) = &s.failed {
        t += &format!("failed   {}\n", f.text());
    }
    if let Some(g) = &s.given_up {
        t += &format!("note     {}\n", g.text());
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Slot;
    use crate::update::store::Ahead;

    #[test]
    fn what_was_loaded_is_shown() {
        let mut s = Standing {
            slot: Slot::A,
            version: "1.0.0".into(),
            other: None,
            config: Config::default(),
            trial: Some(Trial {
                from: Slot::A,
                to: Slot::B,
                before: "1.0.0".into(),
                version: "1.1.0".into(),
                boot: String::new(),
                server: None,
                loaded: Some(12 << 20),
                size: Some(353 << 20),
                uki: None,
                ailing: Vec::new(),
                networked: false,
                installed: String::new(),
                stage: Stage::Installed,
            }),
            last: None,
            failed: None,
            given_up: None,
            ahead: Some(Ahead {
                version: "1.2.0".into(),
                loaded: 5 << 20,
                size: 353 << 20,
                ready: false,
            }),
        };
        let text = show(&s);
        let trial = "trial    1.1.0 waits for a restart (loaded 12 MiB instead of 353 MiB)\n";
        assert!(text.contains(trial), "{text}");
        assert!(text.contains("loaded   5 MiB of 1.2.0, the next try goes on\n"));
        if let Some(a) = &mut s.ahead {
            a.ready = true;
        }
        assert!(show(&s).contains("loaded   1.2.0, waits to be installed\n"));
    }

    #[test]
    fn options_belong_to_words() {
        for (word, force, reboot, ok) in [
            (None, false, false, true),
            (Some("install"), true, true, true),
            (Some("download"), true, false, true),
            (Some("download"), false, true, false),
            (Some("check"), true, false, false),
            (None, false, true, false),
        ] {
            assert_eq!(allowed(word, force, reboot).is_ok(), ok, "{word:?}");
        }
    }
}
