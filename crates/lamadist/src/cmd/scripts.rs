// SPDX-License-Identifier: Apache-2.0
//! `lamadist scripts`.

use crate::App;
use crate::cli::Scripts;
use crate::pipeline::Sources;
use crate::pipeline::packages::{Policy, SetSpec, ensure};
use lama_compose::review::{Finding, record};
use miette::{Result, miette};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::ExitCode;

/// Shows the scripts that nobody has reviewed, or records a review.
pub fn run(app: &App, c: &Scripts) -> Result<ExitCode> {
    let sources = Sources::load(&app.place.distro)?;
    let spec = SetSpec::image(&sources.description, &c.target.bsp, &c.target.image)?;
    let packages = ensure(app, &sources.description, &spec, Policy::Extend)?;
    let found = lama_compose::findings(
        &app.place.store(),
        &packages,
        &sources.scripts,
        &sources.files,
        &*app.talk,
    )?;
    if let Some(name) = &c.record {
        let known: BTreeSet<&str> = found.iter().map(|f| f.package.as_str()).collect();
        if !known.contains(name.as_str()) {
            return Err(miette!(
                help = format!(
                    "to be reviewed are: {}",
                    known.into_iter().collect::<Vec<_>>().join(" ")
                ),
                "no script of {name} waits for a review"
            ));
        }
        let why = c.why.as_deref().unwrap_or_default();
        let path = record(&app.place.distro.join("scripts"), name, why, &found)?;
        app.result(&path, || path.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = found
        .iter()
        .map(|f| {
            json!({
                "package": f.package, "version": f.version, "script": f.script,
                "sha256": f.digest, "text": f.text,
            })
        })
        .collect();
    app.result(&rows, || text(&found))?;
    Ok(if found.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn text(found: &[Finding]) -> String {
    let mut o = String::new();
    for f in found {
        let _ = writeln!(o, "{} {} {}", f.package, f.version, f.script);
        for l in f.text.lines() {
            let _ = writeln!(o, "    {l}");
        }
    }
    let _ = write!(o, "{} script(s) or trigger(s) to review", found.len());
    o
}
