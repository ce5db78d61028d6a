// SPDX-License-Identifier: Apache-2.0
//! `lamadist oe container`.

use crate::App;
use crate::cli::OeContainer;
use crate::pipeline::packages::Policy;
use crate::pipeline::{Sources, builder};
use lama_exec::fs::{self, Staged};
use miette::{IntoDiagnostic, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// What was made, as `--json` prints it.
#[derive(Serialize)]
struct Made {
    /// The name that it is loaded under.
    name: String,
    /// The archive.
    file: PathBuf,
    /// Its SHA-256, hexadecimal.
    sha256: String,
}

/// Composes the container.
pub fn run(app: &App, c: &OeContainer) -> Result<ExitCode> {
    let sources = Sources::load(&app.place.distro)?;
    let (name, mut file) = builder::image(app, &sources, Policy::Extend)?;
    if let Some(to) = &c.output {
        let mut staged = Staged::new(to)?;
        std::io::copy(&mut fs::open(&file)?, &mut staged).into_diagnostic()?;
        staged.commit(0o644)?;
        file = std::path::absolute(to).into_diagnostic()?;
    }
    let sha256 = lama_image::hash_file(&file)?.sha256;
    let made = Made { name, file, sha256 };
    app.result(&made, || format!("{}\n{}", made.file.display(), made.name))?;
    Ok(ExitCode::SUCCESS)
}
