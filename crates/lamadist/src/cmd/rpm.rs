// SPDX-License-Identifier: Apache-2.0
//! `lamadist rpm`: signed packages and feeds.

use crate::App;
use crate::cli::{Rpm, RpmFeed, RpmPaths, RpmSign};
use crate::pipeline::oe;
use lama_exec::progress::Unit;
use lama_keys::{KeySet, Signed};
use lama_rpm::{Done, Error, Others, feed, packages, sign, verify};
use miette::{IntoDiagnostic, Result, miette};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is told of a file.
#[derive(Serialize)]
struct Line {
    file: PathBuf,
    /// `signed`, `replaced`, `already`; or `current`, `previous`, `refused`.
    state: &'static str,
    /// The key's fingerprint: its own, or the one that was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Signs or verifies.
pub fn run(app: &App, c: &Rpm) -> Result<ExitCode> {
    match c {
        Rpm::Sign(c) => run_sign(app, c),
        Rpm::Verify(c) => run_verify(app, c),
        Rpm::Feed(c) => run_feed(app, c),
        Rpm::Key { release } => {
            let keyring = keys(app, *release)?.openpgp_keyring()?;
            app.result(&keyring, || keyring.trim_end().to_owned())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn keys(app: &App, release: bool) -> Result<KeySet> {
    Ok(if release {
        let set = KeySet::open(app.place.release_keys())?;
        set.require_release()?;
        set
    } else {
        KeySet::open_or_create_development(app.place.development_keys(), app.progress())?
    })
}

/// The folder that was named, or the one that BitBake leaves packages in.
fn folder(app: &App, named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return std::path::absolute(path).into_diagnostic();
    }
    let dir = oe::work(&app.place).join("build/tmp/deploy/rpm");
    if !dir.is_dir() {
        return Err(miette!(
            help = "name the packages or their folder, or build with `lamadist build --engine oe`",
            "BitBake has left no packages in {}",
            dir.display()
        ));
    }
    Ok(dir)
}

fn folders(app: &App, c: &RpmPaths) -> Result<Vec<PathBuf>> {
    if c.paths.is_empty() {
        return Ok(vec![folder(app, None)?]);
    }
    c.paths.iter().map(|p| folder(app, Some(p))).collect()
}

fn all(folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for f in folders {
        out.extend(packages(f)?);
    }
    Ok(out)
}

fn run_sign(app: &App, c: &RpmSign) -> Result<ExitCode> {
    let set = keys(app, c.what.release)?;
    let (signer, certificates) = (set.openpgp_signer()?, set.openpgp_certificates()?);
    let others = if c.replace {
        Others::Replace
    } else {
        Others::Refuse
    };
    let folders = folders(app, &c.what)?;
    work(app, "Signing packages", all(&folders)?, |path| {
        let done = sign(path, &signer, &certificates, others)?;
        Ok(match done {
            Done::Already => ("already", Some(signer.fingerprint().to_owned())),
            Done::Signed => ("signed", Some(signer.fingerprint().to_owned())),
            Done::Replaced(key) => ("replaced", Some(key)),
        })
    })
}

fn state(signed: Signed) -> (&'static str, Option<String>) {
    let state = if signed.previous {
        "previous"
    } else {
        "current"
    };
    (state, Some(signed.fingerprint))
}

fn run_verify(app: &App, c: &RpmPaths) -> Result<ExitCode> {
    let certificates = keys(app, c.release)?.openpgp_certificates()?;
    let folders = folders(app, c)?;
    let mut what = all(&folders)?;
    let feeds = folders.iter().filter(|f| f.join("repodata").is_dir());
    what.extend(feeds.map(|f| f.join(feed::INDEX)));
    work(app, "Verifying packages", what, |path| {
        let index = path.parent().and_then(Path::parent);
        Ok(state(match index {
            Some(dir) if path.ends_with(feed::INDEX) => feed::verify_index(dir, &certificates)?,
            _ => verify(path, &certificates)?,
        }))
    })
}

fn run_feed(app: &App, c: &RpmFeed) -> Result<ExitCode> {
    let set = keys(app, c.release)?;
    let (signer, certificates) = (set.openpgp_signer()?, set.openpgp_certificates()?);
    let dir = folder(app, c.dir.as_deref())?;
    let keyring = set.openpgp_keyring()?;
    let task = app.progress().task("Signing the feed", Unit::Busy, 0);
    let done = feed::sign(&dir, &signer, &certificates, &keyring)?;
    drop(task);
    let line = Line {
        file: dir.join(feed::INDEX),
        state: match done {
            feed::Done::Already => "already",
            feed::Done::Signed => "signed",
        },
        key: Some(signer.fingerprint().to_owned()),
        why: None,
        hint: None,
    };
    app.result(&line, || text(&line))?;
    Ok(ExitCode::SUCCESS)
}

/// Does it for each file. One that is refused does not keep the others from being looked at.
fn work(
    app: &App,
    title: &str,
    files: Vec<PathBuf>,
    mut one: impl FnMut(&Path) -> lama_rpm::Result<(&'static str, Option<String>)>,
) -> Result<ExitCode> {
    if files.is_empty() {
        return Err(miette!(
            help = "packages are files that end in .rpm",
            "there are no packages"
        ));
    }
    let total = u64::try_from(files.len()).unwrap_or(u64::MAX);
    let task = app.progress().task(title, Unit::Items, total);
    let mut lines = Vec::new();
    for file in files {
        lines.push(match one(&file) {
            Ok((state, key)) => Line {
                file,
                state,
                key,
                why: None,
                hint: None,
            },
            Err(Error::Refused { path, why }) => Line {
                file: path,
                state: "refused",
                key: None,
                why: Some(why.to_string()),
                hint: Some(why.hint().to_owned()),
            },
            Err(e) => return Err(e.into()),
        });
        task.advance(1);
    }
    drop(task);
    app.result(&lines, || {
        lines.iter().map(text).collect::<Vec<_>>().join("\n")
    })?;
    let refused = lines.iter().filter(|l| l.state == "refused").count();
    if refused > 0 {
        let hint = lines.iter().find_map(|l| l.hint.clone());
        return Err(miette!(
            help = hint.unwrap_or_default(),
            "{refused} of {} files are refused",
            lines.len()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(l: &Line) -> String {
    let more = match (&l.key, &l.why) {
        (_, Some(why)) => format!(": {why}"),
        (Some(key), None) => format!("  {}", key.get(..16).unwrap_or(key)),
        (None, None) => String::new(),
    };
    format!("{:9} {}{more}", l.state, l.file.display())
}
