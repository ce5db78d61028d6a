// SPDX-License-Identifier: Apache-2.0
//! `lamadist lock`.

use crate::App;
use crate::cli;
use crate::pipeline::packages::{SetSpec, guard, resolve};
use lama_feed::{Lock, LockedPackage, Renew};
use lama_model::Description;
use miette::{Result, miette};
use serde_json::json;
use std::process::ExitCode;

/// Pins, renews, or prints.
pub fn run(app: &App, c: &cli::Lock) -> Result<ExitCode> {
    let path = app.place.lock();
    if let Some(set) = &c.print {
        return print(app, &Lock::load(&path)?, set);
    }
    let _guard = guard(app)?;
    let old = Lock::load(&path)?;
    let description = Description::load(&app.place.distro)?;
    let renew = match &c.update {
        None => Renew::Nothing,
        Some(names) if names.is_empty() => Renew::All,
        Some(names) => {
            let unknown = old.unknown(names.iter().map(String::as_str));
            if !unknown.is_empty() {
                return Err(miette!(
                    help = "name a package or source package that the lock has",
                    "the lock has no {}",
                    unknown.join(", ")
                ));
            }
            Renew::Named(names.iter().cloned().collect())
        }
    };
    let mut new = old.clone();
    let specs = SetSpec::all(&description)?;
    // Tools of another architecture were pinned on another machine; they stay.
    new.retain_sets(|n| SetSpec::is_of_builds(n) || specs.iter().any(|s| s.name == n));
    for spec in &specs {
        if !spec.is_pinned(&new, &description) || c.update.is_some() {
            resolve(app, &description, spec, &mut new, &renew)?;
        }
    }
    let changes = Lock::diff(&old, &new);
    if !c.dry_run && new != old {
        new.save(&path)?;
    }
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    app.result(&lines, || lines.join("\n"))?;
    let wrote = if c.dry_run || new == old {
        "not written"
    } else {
        "written"
    };
    app.talk.say(&format!(
        "{}: {} packages in {} sets, {} change(s), {wrote}",
        path.display(),
        new.packages().count(),
        new.set_names().count(),
        changes.len()
    ));
    Ok(ExitCode::SUCCESS)
}

fn print(app: &App, lock: &Lock, set: &str) -> Result<ExitCode> {
    let packages: Vec<&LockedPackage> = lock.packages_of(set).ok_or_else(|| {
        let names: Vec<&str> = lock.set_names().collect();
        miette!(
            help = format!("there are: {}", names.join(", ")),
            "the lock has no set {set}"
        )
    })?;
    let rows: Vec<_> = packages
        .iter()
        .map(|p| {
            json!({
                "name": p.name(), "version": p.version(), "architecture": p.architecture(),
                "source": p.source, "source_version": p.source_version, "size": p.size,
                "sha256": p.sha256.to_string(),
            })
        })
        .collect();
    app.result(&rows, || {
        let line =
            |p: &&LockedPackage| format!("{} {} {}", p.name(), p.version(), p.architecture());
        packages.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    Ok(ExitCode::SUCCESS)
}
