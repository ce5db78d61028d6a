// SPDX-License-Identifier: Apache-2.0
//! `lama-node backup setup`: where to, and the password, sealed to this machine.

use super::{Options, configured};
use crate::backup::config::{self, Config};
use crate::backup::restic::{self, Found, Repository};
use crate::backup::{disk, secret};
use crate::cli::Args;
use crate::{Error, Result, fs};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Serialize)]
struct SetUp {
    repository: String,
    made: bool,
    /// One that was made here, to be kept elsewhere.
    password: Option<String>,
}

/// Says where to, and seals what opens it.
pub(super) fn run(args: &Args, o: &Options) -> Result<ExitCode> {
    let system = &o.system;
    let text = fs::read_optional(system.config())?;
    let text = text.map(|t| String::from_utf8_lossy(&t).into_owned());
    let name = match &o.repository {
        Some(r) => config::repository_name(r)?,
        None => configured(system)?.repository,
    };
    if system.running() && !disk::is_root() {
        return Err(Error::new("this needs root"));
    }
    let (password, new) = match &o.password_file {
        Some(f) => (secret::password(&secret::read(f)?)?, false),
        None => match secret::stored(system, secret::PASSWORD) {
            Ok(Some(p)) => (secret::password(&p)?, false),
            _ => (secret::generate()?, true),
        },
    };
    let environment = match &o.env_file {
        Some(f) => Some(secret::read(f)?),
        None => secret::stored(system, secret::ENVIRONMENT)?,
    };
    let repo = Repository {
        name,
        password,
        environment: restic::environment(
            environment.clone(),
            o.env_file.as_deref().unwrap_or(secret::ENVIRONMENT),
        )?,
        cache: system.cache(),
        upload_limit: None,
    };
    let written = config::with_repository(text.as_deref(), &repo.name);
    Config::parse(&written, &system.config().display().to_string())?;
    let found = repo.state()?;
    if found == Found::Closed {
        let e = Error::new(format!(
            "{} is a repository with a password already",
            repo.name
        ));
        return Err(if new {
            e.hint("give it by --password-file")
        } else {
            restic::explain(Some(12), &[], &repo.name)
        });
    }
    // First what can be done again: a repository whose password nobody has is lost.
    let line = format!("{}\n", repo.password);
    secret::keep(system, secret::PASSWORD, line.as_bytes())?;
    if let Some(e) = &environment {
        secret::keep(system, secret::ENVIRONMENT, e)?;
    }
    if found == Found::Missing {
        repo.run(["init"], &mut |_| ())?;
    }
    fs::write(system.config(), written, 0o600)?;
    let done = SetUp {
        made: found == Found::Missing,
        password: new.then(|| repo.password.clone()),
        repository: repo.name,
    };
    let made = if done.made { "made" } else { "found" };
    eprintln!("The repository {} is {made}.", done.repository);
    if new {
        eprintln!(
            "Keep this password outside of this machine: without it nobody opens the backup."
        );
    }
    args.print(&done, || done.password.clone().unwrap_or_default())?;
    Ok(ExitCode::SUCCESS)
}
