// SPDX-License-Identifier: Apache-2.0
//! What a channel file says, for people and programs.

use crate::App;
use crate::cli::{Inspect, Verify};
use crate::cmd::inspect::{mib, opener};
use crate::pipeline::bundle::scratch;
use lama_bundle::channel::site::{State, state};
use lama_bundle::channel::{self, Channel, Claim, EXTENSION, File};
use lama_bundle::cms::Certificate;
use lama_exec::fs;
use lama_node::clock;
use miette::{Result, miette};
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// All about it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    file: PathBuf,
    /// Whether it is signed by whom the key set, or the keyring that was named, trusts.
    trusted: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// By the certificates that came along.
    signers: Vec<Certificate>,
    /// Whether development keys signed it.
    development: bool,
    /// Whether its time is over.
    expired: bool,
    channel: Channel,
    /// The files that it names, where somebody looked at them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<Looked>,
    /// What was removed besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<PathBuf>,
}

/// A file that it names.
#[derive(Debug, Serialize)]
struct Looked {
    #[serde(flatten)]
    file: File,
    #[serde(flatten)]
    state: State,
}

impl Report {
    /// Of one that is trusted.
    pub fn new(file: PathBuf, claim: Claim) -> Self {
        Self {
            file,
            trusted: true,
            why: None,
            development: claim.signers.iter().any(|s| s.development),
            signers: claim.signers,
            // Both are RFC 3339 in UTC, of the same form: their order is that of time.
            expired: claim.channel.expires <= clock::now(),
            channel: claim.channel,
            files: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// As a table.
    pub fn text(&self) -> String {
        let c = &self.channel;
        let mut o = format!("{}\n", self.file.display());
        let mut row = |k: &str, v: &str| {
            let _ = writeln!(o, "  {k:12} {v}");
        };
        row("track", &c.track);
        row("compatible", &c.compatible);
        row("image", &c.image);
        row("version", &c.version);
        if let Some(m) = &c.minimum {
            row("minimum", &format!("{m}: none before it may run"));
        }
        row("serial", &c.serial.to_string());
        row("issued", &c.issued);
        let over = if self.expired { ": IT HAS EXPIRED" } else { "" };
        row("expires", &format!("{}{over}", c.expires));
        let named = |f: &File| format!("{} ({:.1} MiB)", f.url, mib(f.size));
        row("bundle", &named(&c.bundle));
        row("", &c.bundle.sha256);
        for d in &c.deltas {
            row("delta from", &format!("{}: {}", d.from, named(&d.file)));
            row("", &d.file.sha256);
        }
        for s in &self.signers {
            row(
                "signed by",
                &format!("{}, until {}", s.subject, s.not_after),
            );
            row("", &format!("issued by {}", s.issuer));
        }
        if self.development {
            row("keys", "development: NOT FOR RELEASE");
        }
        match &self.why {
            None => row("signature", "right, and by who is trusted here"),
            Some(why) => row("signature", &format!("NOT TRUSTED: {why}")),
        }
        for f in &self.files {
            row("file", &format!("{}: {}", f.file.url, words(f)));
        }
        for r in &self.removed {
            row("removed", &r.display().to_string());
        }
        o.truncate(o.trim_end().len());
        o
    }
}

fn words(f: &Looked) -> String {
    match f.state {
        State::Whole => "whole".to_owned(),
        State::Missing => "is not beside it".to_owned(),
        State::Size { found } => format!("has {found} bytes, not {}", f.file.size),
        State::Content => "has another content (SHA-256)".to_owned(),
        State::Elsewhere => "is elsewhere, where nobody looked".to_owned(),
    }
}

/// Whether a file is to be taken for a channel file.
pub fn is_one(file: &Path) -> Result<bool> {
    Ok(file.extension().is_some_and(|e| e == EXTENSION) || channel::is_one(file)?)
}

/// Tells what a channel file says, and whether it is signed by whom the key set trusts. None where the
/// file is something else.
pub fn inspect(app: &App, c: &Inspect, file: &Path) -> Result<Option<ExitCode>> {
    if !is_one(file)? {
        return Ok(None);
    }
    let claim = channel::read(file)?;
    let (tools, keys) = opener(app, c.release)?;
    let ring = keys.rauc_keyring_pem()?;
    let report = match channel::open(file, &tools, &ring, &scratch(app)) {
        Ok(claim) => Report::new(file.to_owned(), claim),
        Err(e) => Report {
            trusted: false,
            why: Some(match e {
                lama_bundle::Error::Refused { reason, .. } => reason,
                e => return Err(e.into()),
            }),
            ..Report::new(file.to_owned(), claim)
        },
    };
    app.result(&report, || report.text())?;
    Ok(Some(ExitCode::SUCCESS))
}

/// Checks a channel file's signature and time, and what it names beside it. None where the file is
/// something else.
pub fn verify(app: &App, c: &Verify, file: &Path) -> Result<Option<ExitCode>> {
    if !is_one(file)? {
        return Ok(None);
    }
    if c.from.is_some() {
        return Err(miette!(
            help = "leave --from out",
            "{} is no delta bundle",
            file.display()
        ));
    }
    let (tools, keys) = opener(app, c.release)?;
    let ring = match &c.keyring {
        Some(k) => fs::read_to_string(k)?,
        None => keys.rauc_keyring_pem()?,
    };
    let claim = channel::open(file, &tools, &ring, &scratch(app))?;
    let mut report = Report::new(file.to_owned(), claim);
    let folder = file.parent().unwrap_or(Path::new("."));
    let named = &report.channel;
    let named = [&named.bundle]
        .into_iter()
        .chain(named.deltas.iter().map(|d| &d.file));
    let mut looked = Vec::new();
    for f in named {
        looked.push(Looked {
            file: f.clone(),
            state: state(folder, f)?,
        });
    }
    report.files = looked;
    app.result(&report, || report.text())?;
    let wrong = report.files.iter().filter(|f| f.state != State::Whole);
    let mut wrong: Vec<String> = wrong
        .map(|f| format!("{} {}", f.file.url, words(f)))
        .collect();
    if report.expired {
        wrong.insert(0, format!("it has expired at {}", report.channel.expires));
    }
    if wrong.is_empty() {
        return Ok(Some(ExitCode::SUCCESS));
    }
    Err(miette!(
        help =
            "publish it again: `lamadist channel`, or with --refresh where only its time is over",
        "{} is refused: {}",
        file.display(),
        wrong.join("; ")
    ))
}
