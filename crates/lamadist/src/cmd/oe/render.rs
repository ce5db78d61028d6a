// SPDX-License-Identifier: Apache-2.0
//! `lamadist oe render`.

use crate::App;
use crate::cli::OeRender;
use crate::pipeline::{Sources, node, oe};
use lama_oe::render::{self, Difference};
use miette::{Result, miette};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// A file that is not what would be rendered.
#[derive(Serialize)]
struct Change {
    file: PathBuf,
    what: &'static str,
}

/// Renders, or tells what would change.
pub fn run(app: &App, c: &OeRender) -> Result<ExitCode> {
    let project = &app.place.project;
    let sources = Sources::load(&app.place.distro)?;
    let d = &sources.description;
    let rendered = render::render(&render::Input {
        description: d,
        ids: &sources.ids,
        files: &sources.files,
        oe: &oe::table(&app.place, &sources)?,
        node: &node::for_recipe(&node::Source::read(&app.place)?)?,
    })?;
    let changes = if c.check {
        render::compare(project, &rendered)?
    } else {
        render::write(project, &rendered)?
    };
    let changes: Vec<Change> = changes
        .into_iter()
        .map(|(file, d)| Change {
            file,
            what: match (d, c.check) {
                (Difference::Missing, true) => "missing",
                (Difference::Changed, true) => "differs",
                (Difference::Stale, true) => "stale",
                (Difference::Missing, false) => "new",
                (Difference::Changed, false) => "changed",
                (Difference::Stale, false) => "removed",
            },
        })
        .collect();
    app.result(&changes, || {
        let lines = changes.iter();
        let lines: Vec<String> = lines
            .map(|c| format!("{:8} {}", c.what, c.file.display()))
            .collect();
        lines.join("\n")
    })?;
    if c.check && !changes.is_empty() {
        return Err(miette!(
            help = "run `lamadist oe render` and commit what it writes",
            "{} of {} rendered files are not what distro/ says",
            changes.len(),
            rendered.len()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
