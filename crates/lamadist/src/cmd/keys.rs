// SPDX-License-Identifier: Apache-2.0
//! `lamadist keys`.

use crate::App;
use crate::cli::Keys;
use lama_keys::{KeySet, PrivateLocation, ReleaseOptions, Role, Severity, Source, Status};
use miette::{IntoDiagnostic, Result, miette};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Makes, shows or rotates keys.
pub fn run(app: &App, c: Keys) -> Result<ExitCode> {
    let dir = |release: bool| {
        if release {
            app.place.release_keys()
        } else {
            app.place.development_keys()
        }
    };
    let status = match c {
        Keys::Init { release: false, .. } => {
            KeySet::open_or_create_development(dir(false), app.progress())?.status()
        }
        Keys::Init {
            release: true,
            name,
            key,
        } => {
            let mut options = ReleaseOptions {
                name,
                ..ReleaseOptions::default()
            };
            for k in &key {
                let (role, source) = source(k)?;
                options.sources.insert(role, source);
            }
            KeySet::init_release(dir(true), &options, None, app.progress())?.status()
        }
        // Loaded, not opened: a broken set is what one wants to see the status of.
        Keys::Status { release } => KeySet::load(dir(release))?.status(),
        Keys::Rotate {
            role,
            finish,
            release,
        } => {
            let role: Role = role.parse().map_err(|e| miette!("{e}"))?;
            let mut set = KeySet::open(dir(release))?;
            if finish {
                set.forget_previous(role, None)?;
            } else {
                set.rotate(role, &Source::Generate, None, app.progress())?;
            }
            set.status()
        }
        Keys::Enroll { release } => {
            let set = KeySet::open(dir(release))?;
            set.write_enrolment(None)?;
            set.status()
        }
    };
    let broken = status.all_problems().any(|p| p.severity == Severity::Error);
    app.result(&status, || text(&status))?;
    Ok(if broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// `ROLE=FILE` or `ROLE=pkcs11:…`; the certificate lies in ROLE.crt beside the file, or, for a
/// token, in the working directory.
fn source(text: &str) -> Result<(Role, Source)> {
    let (role, key) = text.split_once('=').ok_or_else(|| {
        miette!(
            help = "write --key db=/path/db.key or --key db=pkcs11:…",
            "{text:?} has no `=`"
        )
    })?;
    let role: Role = role.parse().map_err(|e| miette!("{e}"))?;
    if key.starts_with("pkcs11:") {
        let certificate = std::path::absolute(format!("{role}.crt")).into_diagnostic()?;
        return Ok((
            role,
            Source::Pkcs11 {
                uri: lama_keys::Pkcs11Uri::parse(key, lama_keys::PinValue::Refused)?,
                certificate,
            },
        ));
    }
    let private_key: PathBuf = std::path::absolute(key).into_diagnostic()?;
    let beside = private_key
        .parent()
        .unwrap_or(Path::new("/"))
        .join(format!("{role}.crt"));
    let certificate = beside.is_file().then_some(beside);
    Ok((
        role,
        Source::Files {
            private_key,
            certificate,
        },
    ))
}

fn text(s: &Status) -> String {
    let mut o = String::new();
    let kind = if s.kind == lama_keys::Kind::Development {
        "development keys: NOT FOR RELEASE"
    } else {
        "release keys"
    };
    let _ = writeln!(o, "{} ({kind})\n{}", s.name, s.dir.display());
    for r in &s.roles {
        let place = match &r.private {
            PrivateLocation::File(p) if p.starts_with(&s.dir) => "in the set".to_owned(),
            PrivateLocation::File(p) => p.display().to_string(),
            PrivateLocation::Pkcs11(u) => u.clone(),
            PrivateLocation::Elsewhere => "kept elsewhere".to_owned(),
        };
        let _ = writeln!(
            o,
            "  {:16} {:9} {}  private key {place}{}",
            r.role.to_string(),
            r.algorithm,
            r.fingerprint.get(..16).unwrap_or(&r.fingerprint),
            match r.previous.len() {
                0 => String::new(),
                n => format!(", {n} previous still honoured"),
            }
        );
    }
    for p in s.all_problems() {
        let mark = if p.severity == Severity::Error {
            "error"
        } else {
            "warning"
        };
        let _ = writeln!(o, "{mark}: {}\nhint: {}", p.message, p.hint);
    }
    o.truncate(o.trim_end().len());
    o
}
