// SPDX-License-Identifier: Apache-2.0
//! `lama-node backup`: the data and the identity of this host, into a restic repository.

mod forget;
mod setup;

use crate::backup::config::{self, Config, Retention};
use crate::backup::host::Host;
use crate::backup::message::Problem;
use crate::backup::progress::Progress;
use crate::backup::restic::{self, Found, Repository};
use crate::backup::state::{Health, State};
use crate::backup::{self, System, TAG, scope, secret, time};
use crate::cli::{Arg, Args, Command};
use crate::{Context, Error, Result, fs};
use serde::Serialize;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "backup",
    about: "Back up /var and the host's identity, encrypted",
    help: "\
Usage: lama-node backup [--init] [--no-forget]
       lama-node backup setup --repository NAME [--password-file FILE] [--env-file FILE]
       lama-node backup list [--host NAME | --all]
       lama-node backup check [--read-data | --read-data-subset PART]
       lama-node backup forget [--dry-run]
       lama-node backup status

Without a word more it makes a backup, and removes snapshots that the configuration
(/etc/lamadist/backup.conf) does not keep.

  setup   says where to, makes the repository where there is none, and seals the
          password to this machine; without --password-file it makes one, and shows it
  list    the snapshots of this host
  check   whether the repository is whole; with --read-data all of it is read, with
          --read-data-subset 10% (or 3/7, or 5G) a part
  forget  removes what is not kept, and the space it took
  status  when the last backup was; status 1 where that is no good news

Options:
  --repository NAME     a path, or restic's name: rest:https://nas/host,
                        sftp:user@nas:/srv/restic, s3:https://host/bucket …
  --password-file FILE  the password's file, - for standard input
  --env-file FILE       lines of NAME=value that restic needs, such as AWS_ACCESS_KEY_ID
  --init                make the repository where there is none
  --no-forget           keep all snapshots, this time
  --root DIR            the system to back up (default /)

Example:
  lama-node backup setup --repository /var/mnt/usb/restic
  lama-node backup",
    run,
};

#[derive(Default)]
struct Options {
    word: Option<String>,
    system: System,
    repository: Option<String>,
    password_file: Option<String>,
    env_file: Option<String>,
    init: bool,
    no_forget: bool,
    dry_run: bool,
    host: Option<String>,
    all: bool,
    read: Option<String>,
}

fn options(args: &mut Args) -> Result<Options> {
    let mut o = Options::default();
    while let Some(arg) = args.next()? {
        let word = o.word.as_deref().unwrap_or_default();
        match arg {
            Arg::Value(v)
                if word.is_empty()
                    && ["setup", "list", "check", "forget", "status"].contains(&v.as_str()) =>
            {
                o.word = Some(v);
            }
            Arg::Option(name) => match (word, name.as_str()) {
                (_, "root") => o.system = System::open(&args.value()?)?,
                ("setup", "repository") => o.repository = Some(args.value()?),
                ("setup", "password-file") => o.password_file = Some(args.value()?),
                ("setup", "env-file") => o.env_file = Some(args.value()?),
                ("list", "host") => o.host = Some(args.value()?),
                ("list", "all") => o.all = true,
                ("check", "read-data") => o.read = Some("--read-data".to_owned()),
                ("check", "read-data-subset") => {
                    o.read = Some(format!("--read-data-subset={}", subset(&args.value()?)?));
                }
                ("forget", "dry-run") => o.dry_run = true,
                ("", "init") => o.init = true,
                ("", "no-forget") => o.no_forget = true,
                _ => return Err(Arg::Option(name).unknown()),
            },
            v => return Err(v.unknown()),
        }
    }
    Ok(o)
}

/// restic's syntax of a part of the data: `10%`, `3/7`, `5G`.
fn subset(text: &str) -> Result<&str> {
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let percent = text
        .strip_suffix('%')
        .is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !p.is_empty());
    let of = text
        .split_once('/')
        .is_some_and(|(a, b)| number(a) && number(b));
    let size = number(text.trim_end_matches(['K', 'M', 'G', 'T']));
    if percent || of || size {
        return Ok(text);
    }
    Err(Error::new(format!("\"{text}\" is not a part of the data"))
        .hint("10% is a tenth, 3/7 the third of seven parts, 5G so much"))
}

fn run(args: &mut Args) -> Result<ExitCode> {
    let o = options(args)?;
    match o.word.as_deref() {
        None => now(args, &o),
        Some("setup") => setup::run(args, &o),
        Some("list") => list(args, &o),
        Some("check") => check(args, &o),
        Some("forget") => forget::run(args, &o),
        _ => status(args, &o),
    }
}

fn configured(system: &System) -> Result<Config> {
    Config::read(&system.config())?.ok_or_else(|| {
        Error::new(format!("there is no {}", system.config().display()))
            .hint("`lama-node backup setup --repository …` writes it")
    })
}

/// The repository of the configuration, with the stored secrets.
fn repository(system: &System, config: &Config) -> Result<Repository> {
    let password = secret::stored(system, secret::PASSWORD)?.ok_or_else(|| {
        Error::new("there is no password of the repository")
            .hint("`lama-node backup setup` seals it; root can open it")
    })?;
    let environment = secret::stored(system, secret::ENVIRONMENT)?;
    Ok(Repository {
        name: config.repository.clone(),
        password: secret::password(&password)?,
        environment: restic::environment(environment, secret::ENVIRONMENT)?,
        cache: system.cache(),
        upload_limit: config.upload_limit,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Done {
    snapshot: String,
    files: u64,
    bytes: u64,
    added: u64,
    seconds: u64,
    unreadable: Vec<String>,
}

fn now(args: &Args, o: &Options) -> Result<ExitCode> {
    let system = &o.system;
    let config = configured(system)?;
    let mut state = State::load(system)?;
    state.last_run = time::now();
    let result = back_up(o, &config, &mut state);
    state.error = match &result {
        Ok(d) if d.unreadable.is_empty() => None,
        Ok(d) => Some(format!("{} file(s) could not be read", d.unreadable.len())),
        Err(e) => Some(e.to_string()),
    };
    // What failed matters more than that it could not be noted.
    let noted = state.save(system);
    let done = result?;
    noted?;
    args.print(&done, || {
        format!(
            "snapshot {}: {} in {} files, {} added, {}",
            done.snapshot,
            backup::size(done.bytes),
            done.files,
            backup::size(done.added),
            time::span(done.seconds)
        )
    })?;
    if done.unreadable.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for f in done.unreadable.iter().take(20) {
        eprintln!("warning: {f}");
    }
    Err(Error::new(format!(
        "{} file(s) could not be read; the snapshot holds the others",
        done.unreadable.len()
    )))
}

fn back_up(o: &Options, config: &Config, state: &mut State) -> Result<Done> {
    let system = &o.system;
    let began = time::now();
    let repo = repository(system, config)?;
    let local = config::local(&config.repository);
    if local.is_some_and(|l| on_the_same_disk(system, l)) {
        eprintln!(
            "warning: the repository lies on the file system that is backed up, and is lost with it"
        );
    }
    match repo.state()? {
        Found::Open => {}
        Found::Missing if o.init => {
            repo.run(["init"], &mut |_| ())?;
        }
        Found::Missing => return Err(restic::explain(Some(10), &[], &repo.name)),
        Found::Closed => return Err(restic::explain(Some(12), &[], &repo.name)),
    }
    let host = Host::of(system)?;
    host.save(&system.var())?;
    // Locks of processes that are gone: a power cut leaves one.
    let _ = repo.any(["unlock"], &mut |_| ())?;
    let swaps = fs::read_optional("/proc/swaps")?.unwrap_or_default();
    let mut args = vec![
        "backup".to_owned(),
        "--retry-lock=5m".to_owned(),
        "--one-file-system".to_owned(),
        format!("--host={}", host.hostname),
        format!("--tag={TAG}"),
    ];
    if !host.machine_id.is_empty() {
        args.push(format!("--tag=machine-id={}", host.machine_id));
    }
    args.extend(scope::excludes(
        system,
        config,
        &String::from_utf8_lossy(&swaps),
    ));
    args.push("--".to_owned());
    args.push(system.var().display().to_string());
    for i in &config.include {
        let path = system.path(i.trim_start_matches('/'));
        if !path.is_dir() {
            return Err(Error::new(format!(
                "{i}, an include= of the configuration, is not there"
            ))
            .hint("is its disk mounted?"));
        }
        args.push(path.display().to_string());
    }
    let mut progress = Progress::new();
    let out = repo.any(args, &mut |s| progress.show(s))?;
    progress.clear();
    if !matches!(out.code, Some(0 | 3)) {
        return Err(out.failure(&repo.name));
    }
    let summary = out.summary.unwrap_or_default();
    let id: String = summary.snapshot_id.unwrap_or_default();
    let done = Done {
        snapshot: id.get(..8).unwrap_or(&id).to_owned(),
        files: summary.total_files_processed,
        bytes: summary.total_bytes_processed,
        added: summary.data_added_packed,
        seconds: time::now().saturating_sub(began),
        unreadable: unreadable(&out.problems),
    };
    if done.unreadable.is_empty() {
        state.last_success = Some(time::now());
    }
    state.snapshot = Some(done.snapshot.clone());
    (state.files, state.bytes) = (done.files, done.bytes);
    (state.added, state.seconds) = (done.added, done.seconds);
    if config.retention == Retention::On && !o.no_forget {
        forget::forget(&repo, config, &host.hostname, forget::Prune::Yes)
            .context("the backup is made, but old ones could not be removed")?;
    }
    Ok(done)
}

/// Files that could not be read, without those that were removed meanwhile.
fn unreadable(problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .filter(|p| !p.vanished())
        .map(|p| format!("{}: {}", p.item, p.why))
        .collect()
}

fn on_the_same_disk(system: &System, repository: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |p: &std::path::Path| p.metadata().ok().map(|m| m.dev());
    let var = device(&system.var());
    system.running() && var.is_some() && device(std::path::Path::new(repository)) == var
}

#[derive(Serialize)]
struct Listed {
    id: String,
    host: String,
    time: String,
    bytes: Option<u64>,
}

fn list(args: &Args, o: &Options) -> Result<ExitCode> {
    let repo = repository(&o.system, &configured(&o.system)?)?;
    let host = match &o.host {
        Some(h) => h.clone(),
        None => Host::of(&o.system)?.hostname,
    };
    let host = if o.all { None } else { Some(host.as_str()) };
    let all: Vec<Listed> = repo
        .snapshots(host)?
        .into_iter()
        .map(|s| Listed {
            id: s.short().to_owned(),
            time: s.time.clone(),
            bytes: s.bytes(),
            host: s.hostname,
        })
        .collect();
    args.print(&all, || {
        let line = |s: &Listed| {
            let when = time::parse(&s.time).map_or(s.time.clone(), |t| time::show(t.0));
            let size = s.bytes.map_or(String::new(), backup::size);
            format!("{}  {when}  {}  {size}\n", s.id, s.host)
        };
        all.iter().map(line).collect()
    })?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Checked {
    errors: u64,
    said: Vec<String>,
}

fn check(args: &Args, o: &Options) -> Result<ExitCode> {
    let repo = repository(&o.system, &configured(&o.system)?)?;
    let mut a = vec!["check".to_owned(), "--retry-lock=5m".to_owned()];
    a.extend(o.read.clone());
    let mut progress = Progress::new();
    let out = repo.any(a, &mut |s| progress.show(s))?;
    progress.clear();
    let found = out.summary.as_ref().map_or(0, |s| s.num_errors);
    if out.code == Some(0) && found == 0 {
        let done = Checked {
            errors: 0,
            said: Vec::new(),
        };
        args.print(&done, || "no errors were found".to_owned())?;
        return Ok(ExitCode::SUCCESS);
    }
    // 1 is a damage as well as a repository that cannot be reached.
    if out.code != Some(1) || out.summary.is_none() {
        return Err(out.failure(&repo.name));
    }
    let said: Vec<String> = out
        .problems
        .into_iter()
        .map(|p| p.why)
        .chain(out.said)
        .collect();
    let done = Checked {
        errors: found.max(1),
        said,
    };
    args.print(&done, || done.said.join("\n"))?;
    Err(
        Error::new(format!("the repository {} is damaged", repo.name))
            .hint("see docs/BACKUP.md; the next backup stores again what this host still has"),
    )
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    health: Health,
    repository: Option<String>,
    #[serde(flatten)]
    state: State,
}

fn status(args: &Args, o: &Options) -> Result<ExitCode> {
    let config = Config::read(&o.system.config())?;
    let state = State::load(&o.system)?;
    let now = time::now();
    let health = match &config {
        None => Health::Off,
        Some(c) => state.health(now, c.max_age),
    };
    let status = Status {
        health,
        repository: config.map(|c| c.repository),
        state,
    };
    args.print(&status, || status.state.show(health, now))?;
    Ok(match health {
        Health::Stale | Health::Failed => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_data() {
        for good in ["10%", "2.5%", "1/7", "5G", "100"] {
            assert_eq!(subset(good).unwrap(), good);
        }
        for bad in ["", "%", "1/", "G", "-1", "a b", "1/2/3"] {
            assert!(subset(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_that_vanished_was_not_unreadable() {
        let p = |why: &str| Problem {
            item: "/x".into(),
            why: why.into(),
        };
        let all = [
            p("lstat /x: no such file or directory"),
            p("open /x: permission denied"),
        ];
        assert_eq!(unreadable(&all), ["/x: open /x: permission denied"]);
    }
}
