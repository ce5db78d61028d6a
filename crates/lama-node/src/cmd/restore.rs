// SPDX-License-Identifier: Apache-2.0
//! `lama-node restore`: a host from its backup, on this or another machine.

use crate::backup::config::{self, Config};
use crate::backup::host::Host;
use crate::backup::message::Snapshot;
use crate::backup::onto::Data;
use crate::backup::progress::Progress;
use crate::backup::restic::{self, Found, Repository};
use crate::backup::restore::{self, Credential, Part, Verify};
use crate::backup::select::select;
use crate::backup::swap::{Phase, Plan, Staging};
use crate::backup::{System, disk, secret, size, time};
use crate::cli::{Arg, Args, Command};
use crate::kernel::{Cmdline, Slot};
use crate::{Context, Error, Result, fs};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "restore",
    about: "Restore a host from its backup",
    help: "\
Usage: lama-node restore [--repository NAME] [--snapshot ID] [--host NAME] [OPTIONS]
       lama-node restore --clean
       lama-node restore --finish --root DIR

On an installed machine what was restored is put in place by the next boot; what was
there before is kept until `restore --clean`. On the medium it is written to the data of
the machine that was just installed, with --target to a directory that is going to be
/var.

Options:
  --repository NAME     where from (default: that of /etc/lamadist/backup.conf)
  --password-file FILE  the password's file, - for standard input (default: the sealed
                        one, the credential lamadist.backup.password, or it is asked for)
  --env-file FILE       lines of NAME=value that restic needs
  --snapshot ID         latest (default), or the beginning of an ID
  --host NAME           whose (default: this host, or the only one)
  --disk PATH           on the medium: the disk of the machine, where there are several
  --target DIR          an empty directory: a new data partition
  --identity-only       only who the host is: /etc and what opens its credentials
  --verify              read everything again when it is written
  --force               into a directory that is not empty: same names are overwritten
  --dry-run             only say what would be done
  --clean               remove what an earlier restore left
  --finish              put in place what is ready; for the initrd
  --root DIR            the system (default /)

Example:
  lama-node restore --repository sftp:me@nas:/srv/restic --host web",
    run,
};

struct Options {
    system: System,
    repository: Option<String>,
    password_file: Option<String>,
    env_file: Option<String>,
    snapshot: String,
    host: Option<String>,
    target: Option<PathBuf>,
    disk: Option<String>,
    part: Part,
    verify: Verify,
    force: bool,
    dry_run: bool,
    clean: bool,
    finish: bool,
}

fn options(args: &mut Args) -> Result<Options> {
    let mut o = Options {
        system: System::default(),
        repository: None,
        password_file: None,
        env_file: None,
        snapshot: "latest".to_owned(),
        host: None,
        target: None,
        disk: None,
        part: Part::All,
        verify: Verify::No,
        force: false,
        dry_run: false,
        clean: false,
        finish: false,
    };
    while let Some(arg) = args.next()? {
        let Arg::Option(name) = arg else {
            return Err(arg.unknown());
        };
        match name.as_str() {
            "root" => o.system = System::open(&args.value()?)?,
            "repository" => o.repository = Some(config::repository_name(&args.value()?)?),
            "password-file" => o.password_file = Some(args.value()?),
            "env-file" => o.env_file = Some(args.value()?),
            "snapshot" => o.snapshot = args.value()?,
            "host" => o.host = Some(args.value()?),
            "disk" => o.disk = Some(args.value()?),
            "target" => o.target = Some(args.value()?.into()),
            "identity-only" => o.part = Part::Identity,
            "verify" => o.verify = Verify::Yes,
            "force" => o.force = true,
            "dry-run" => o.dry_run = true,
            "clean" => o.clean = true,
            "finish" => o.finish = true,
            _ => return Err(Arg::Option(name).unknown()),
        }
    }
    if o.clean && o.finish {
        return Err(Error::new("--clean and --finish do not go together"));
    }
    Ok(o)
}

fn run(args: &mut Args) -> Result<ExitCode> {
    let o = options(args)?;
    let staging = Staging::of(o.system.var());
    if o.finish {
        match staging.finish()? {
            Some(plan) => eprintln!("Restored {} from snapshot {}.", plan.host, plan.snapshot),
            None => eprintln!("There is nothing to put in place."),
        }
        return Ok(ExitCode::SUCCESS);
    }
    if o.clean {
        staging.clean()?;
        return Ok(ExitCode::SUCCESS);
    }
    let live = o.system.running() && Cmdline::read()?.slot() == Some(Slot::Live);
    let mut o = o;
    let data = match (&o.target, live) {
        (None, true) => Some(Data::open(o.disk.as_deref())?),
        (_, false) if o.disk.is_some() => {
            return Err(Error::new("--disk is for the live system of a medium")
                .hint("on an installed machine its own data are meant"));
        }
        _ => None,
    };
    if let Some(d) = &data {
        o.target = Some(d.at().to_owned());
    }
    restore(args, &o, &staging)
}

fn repository(o: &Options) -> Result<Repository> {
    let name = match &o.repository {
        Some(r) => r.clone(),
        None => Config::read(&o.system.config())?
            .map(|c| c.repository)
            .ok_or_else(|| {
                Error::new("it is not known where the backup is").hint("say it by --repository")
            })?,
    };
    let password = match &o.password_file {
        Some(f) => secret::read(f)?,
        None => match secret::stored(&o.system, secret::PASSWORD) {
            Ok(Some(p)) => p,
            // Sealed by another machine, or none.
            _ => secret::ask()?,
        },
    };
    let environment = match &o.env_file {
        Some(f) => Some(secret::read(f)?),
        None => secret::stored(&o.system, secret::ENVIRONMENT).unwrap_or_default(),
    };
    let origin = o.env_file.as_deref().unwrap_or(secret::ENVIRONMENT);
    Ok(Repository {
        name,
        password: secret::password(&password)?,
        environment: restic::environment(environment, origin)?,
        cache: o.system.cache(),
        upload_limit: None,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Done {
    snapshot: String,
    time: String,
    host: Host,
    target: PathBuf,
    /// Whether the next boot puts it in place.
    staged: bool,
    files: u64,
    bytes: u64,
    /// Whether the repository's password is sealed to this machine.
    password_sealed: bool,
    credentials: Vec<Credential>,
    notes: Vec<String>,
}

fn restore(args: &Args, o: &Options, staging: &Staging) -> Result<ExitCode> {
    if o.target.is_none() {
        may_stage(o, staging)?;
    }
    let repo = repository(o)?;
    match repo.state()? {
        Found::Open => {}
        Found::Missing => return Err(restic::explain(Some(10), &[], &repo.name)),
        Found::Closed => return Err(restic::explain(Some(12), &[], &repo.name)),
    }
    let all = repo.snapshots(None)?;
    let own = Host::of(&o.system)?.hostname;
    let host = o.host.as_deref().or_else(|| {
        // Another machine's name says nothing of whose backup is wanted.
        let here = o.target.is_none() && all.iter().any(|s| s.hostname == own);
        here.then_some(own.as_str())
    });
    let snapshot = select(&all, &o.snapshot, host)?;
    let target = match &o.target {
        Some(t) => fs::canonical(t)?,
        None => staging.new_dir(),
    };
    announce(o, snapshot, &target);
    if let Some(t) = &o.target {
        room_for(o, t, snapshot)?;
    } else {
        fits(o, &o.system.var(), snapshot)?;
    }
    if o.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if o.target.is_none() && restore::unfinished(&target)?.as_deref() != Some(&snapshot.id) {
        staging.clean()?;
    }
    let done = write(o, &repo, snapshot, target)?;
    if o.target.is_none() {
        let paths = (o.part == Part::Identity).then(|| {
            let there = |p: &&&str| done.target.join(p).exists();
            let paths = restore::IDENTITY.iter().filter(there);
            paths.map(|p| (*p).to_owned()).collect()
        });
        staging.ready(&Plan {
            snapshot: done.snapshot.clone(),
            host: snapshot.hostname.clone(),
            paths,
        })?;
    }
    args.print(&done, || show(&done))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a restore into the system itself can be put in place.
fn may_stage(o: &Options, staging: &Staging) -> Result<()> {
    if o.system.running() {
        if !disk::is_root() {
            return Err(Error::new("this needs root"));
        }
        let slot = Cmdline::read()?.slot();
        if !matches!(slot, Some(Slot::A | Slot::B)) {
            return Err(Error::new("this is not an installed machine")
                .hint("give the directory that is going to be /var by --target"));
        }
    }
    let e = |what: &str, hint: &str| Err(Error::new(what.to_owned()).hint(hint.to_owned()));
    match staging.phase() {
        Phase::Ready => e(
            "an earlier restore waits for the next boot",
            "restart, or drop it by `lama-node restore --clean`",
        ),
        Phase::Moved => e("an earlier restore is half done", "restart to finish it"),
        Phase::Done => e(
            "what was there before an earlier restore is still kept",
            "when all is well, remove it by `lama-node restore --clean`",
        ),
        Phase::Nothing | Phase::Writing => Ok(()),
    }
}

fn announce(o: &Options, s: &Snapshot, target: &Path) {
    let what = match o.part {
        Part::All => "everything",
        Part::Identity => "the identity",
    };
    eprintln!(
        "Restoring {what} of {} from snapshot {} of {} ({}) to {}.",
        s.hostname,
        s.short(),
        time::show(s.when().0),
        s.bytes().map_or("of unknown size".to_owned(), size),
        target.display()
    );
    if o.target.is_none() {
        eprintln!("The next boot puts it in place, and keeps what is there now.");
    }
}

fn room_for(o: &Options, target: &Path, s: &Snapshot) -> Result<()> {
    if !target.is_dir() {
        return Err(Error::new(format!("{} is no directory", target.display())));
    }
    if o.force {
        return Ok(());
    }
    if let Some(name) = restore::occupied(target, &s.id)? {
        return Err(Error::new(format!(
            "{} is not empty: it holds {name}",
            target.display()
        ))
        .hint("give an empty directory; --force overwrites files of the same name in this one"));
    }
    fits(o, target, s)
}

fn fits(o: &Options, at: &Path, s: &Snapshot) -> Result<()> {
    let free = disk::free(at)?;
    match s.bytes() {
        Some(need) if o.part == Part::All && need > free => Err(Error::new(format!(
            "the backup of {} does not fit into the {} that are free at {}",
            size(need),
            size(free),
            at.display()
        ))
        .hint(
            "restore onto a larger disk; sparse files may need less, --target DIR --force tries",
        )),
        _ => Ok(()),
    }
}

fn write(o: &Options, repo: &Repository, s: &Snapshot, target: PathBuf) -> Result<Done> {
    restore::begin(&target, &s.id)?;
    let mut progress = Progress::new();
    let args = restore::args(s, o.part, o.verify, &target)?;
    let out = repo.any(args, &mut |s| progress.show(s))?;
    progress.clear();
    if out.code != Some(0) {
        for p in out.problems.iter().take(20) {
            eprintln!("warning: {}: {}", p.item, p.why);
        }
        return Err(out.failure(&repo.name)).context("the restore is not whole");
    }
    let summary = out.summary.unwrap_or_default();
    let mut notes = Vec::new();
    let host = restore::settle(&target, o.part)?.unwrap_or_else(|| Host {
        hostname: s.hostname.clone(),
        ..Host::default()
    });
    let here = Host::of(&o.system)?;
    if !here.image.is_empty() && (&here.bsp, &here.image) != (&host.bsp, &host.image) {
        notes.push(format!(
            "the backup is of {} {}, this system is {} {}: what only the other image has does not run",
            host.bsp, host.image, here.bsp, here.image
        ));
    }
    let sealed = restore::reseal(&target, &repo.password, &repo.environment);
    if let Err(e) = &sealed {
        notes.push(format!(
            "backups do not go on by themselves until `lama-node backup setup --password-file FILE` has run: {e}"
        ));
    }
    let credentials = restore::credentials(&target)?;
    disk::sync(&target)?;
    fs::remove(target.join(restore::UNFINISHED))?;
    Ok(Done {
        snapshot: s.short().to_owned(),
        time: s.time.clone(),
        host,
        staged: o.target.is_none(),
        target,
        files: summary.files_restored,
        bytes: summary.bytes_restored,
        password_sealed: sealed.unwrap_or_default(),
        credentials,
        notes,
    })
}

fn show(d: &Done) -> String {
    let mut s = format!(
        "{} files, {}: {} is restored to {}",
        d.files,
        size(d.bytes),
        d.host.hostname,
        d.target.display()
    );
    if d.staged {
        s += "\nrestart to put it in place";
    }
    if d.password_sealed {
        s += "\nthe repository's password is sealed to this machine; its backups go on";
    }
    let lost: Vec<&str> = d
        .credentials
        .iter()
        .filter(|c| !c.opens)
        .map(|c| c.path.as_str())
        .collect();
    if !lost.is_empty() {
        s += "\nsealed to another machine; once this one runs, `lama-node secret reseal --recovery-key` \
              with the other one's recovery key brings back those with a copy, else \
              `lama-node secret set`:";
        for l in lost {
            s += &format!("\n  /etc/{l}");
        }
    }
    for n in &d.notes {
        s += &format!("\nnote: {n}");
    }
    s
}
