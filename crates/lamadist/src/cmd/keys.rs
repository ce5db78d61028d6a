// SPDX-License-Identifier: Apache-2.0
//! `lamadist keys`.

use crate::App;
use crate::cli::Keys;
use crate::pipeline::{self, Sources, packages::Policy};
use lama_exec::Tools;
use lama_keys::{
    KeySet, Pkcs11Access, PrivateKey, PrivateLocation, ReleaseOptions, Role, Severity, Source,
    Status,
};
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
            pkcs11_module,
            pkcs11_path,
        } => {
            let mut options = ReleaseOptions {
                name,
                ..ReleaseOptions::default()
            };
            for k in &key {
                let (role, key) = k.split_once('=').ok_or_else(|| {
                    miette!(
                        help = "write --key db=/path/db.key or --key db=pkcs11:…",
                        "{k:?} has no `=`"
                    )
                })?;
                let role: Role = role.parse().map_err(|e| miette!("{e}"))?;
                options.sources.insert(role, source(role, key)?);
            }
            if pkcs11_module.is_some() || !pkcs11_path.is_empty() {
                options.pkcs11 = Some(Pkcs11Access {
                    module: pkcs11_module,
                    paths: pkcs11_path,
                    ..Pkcs11Access::default()
                });
            }
            let token = |s: &Source| matches!(s, Source::Pkcs11 { .. });
            let tools = tools_for(app, options.sources.values().any(token))?;
            KeySet::init_release(dir(true), &options, tools.as_ref(), app.progress())?.status()
        }
        // Loaded, not opened: a broken set is what one wants to see the status of.
        Keys::Status { release } => KeySet::load(dir(release))?.status(),
        Keys::Rotate {
            role,
            finish,
            key,
            cross,
            release,
        } => {
            let role: Role = role.parse().map_err(|e| miette!("{e}"))?;
            let mut set = KeySet::open(dir(release))?;
            let tools = tools_for(app, has_token(&set))?;
            if finish {
                set.forget_previous(role, tools.as_ref())?;
            } else {
                let in_token = matches!(set.private_key(role), Ok(PrivateKey::Pkcs11(_)));
                let source = match key {
                    Some(k) => source(role, &k)?,
                    None if in_token => {
                        return Err(miette!(
                            help = "make a new key in the token and name it: --key pkcs11:…",
                            "the {role} key lives in a token, and its successor would be a file"
                        ));
                    }
                    None => Source::Generate,
                };
                let tools = match (&source, tools) {
                    (Source::Pkcs11 { .. }, None) => tools_for(app, true)?,
                    (_, tools) => tools,
                };
                match cross {
                    None => set.rotate(role, &source, tools.as_ref(), app.progress())?,
                    Some(file) if role == Role::RaucCa => {
                        set.rotate_ca(&source, &file, tools.as_ref(), app.progress())?;
                    }
                    Some(_) => {
                        return Err(miette!(
                            help = "leave --cross out",
                            "only rauc-ca certifies its successor, {role} does not"
                        ));
                    }
                }
            }
            set.status()
        }
        Keys::Enroll { release } => {
            let set = KeySet::open(dir(release))?;
            let tools = tools_for(app, has_token(&set))?;
            set.write_enrolment(tools.as_ref())?;
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

/// The tools tree, which keys in a token need.
fn tools_for(app: &App, token: bool) -> Result<Option<Tools>> {
    if !token {
        return Ok(None);
    }
    let sources = Sources::load(&app.place.distro)?;
    pipeline::tools(app, &sources, Policy::Extend).map(Some)
}

fn has_token(set: &KeySet) -> bool {
    let token = |r: &Role| matches!(set.private_key(*r), Ok(PrivateKey::Pkcs11(_)));
    Role::ALL.iter().any(token)
}

/// A file or `pkcs11:…`; the certificate lies in ROLE.crt beside the file, or, for a token, in the
/// working directory.
fn source(role: Role, key: &str) -> Result<Source> {
    if key.starts_with("pkcs11:") {
        let certificate = std::path::absolute(format!("{role}.crt")).into_diagnostic()?;
        return Ok(Source::Pkcs11 {
            uri: lama_keys::Pkcs11Uri::parse(key, lama_keys::PinValue::Refused)?,
            certificate,
        });
    }
    let private_key: PathBuf = std::path::absolute(key).into_diagnostic()?;
    let beside = private_key
        .parent()
        .unwrap_or(Path::new("/"))
        .join(format!("{role}.crt"));
    let certificate = beside.is_file().then_some(beside);
    Ok(Source::Files {
        private_key,
        certificate,
    })
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
