// SPDX-License-Identifier: Apache-2.0
//! `lamadist tools`.

use crate::App;
use crate::cli::ToolsCmd;
use crate::pipeline::{self, Sources, packages::Policy};
use miette::{IntoDiagnostic, Result};
use std::process::ExitCode;

/// Prints where the tools tree is, or runs a program of it, with the working directory visible.
pub fn run(app: &App, c: &ToolsCmd) -> Result<ExitCode> {
    let tools = pipeline::tools(app, &Sources::load(&app.place.distro)?, Policy::Extend)?;
    let Some((program, args)) = c.command.split_first() else {
        let root = tools.root().map(std::path::Path::to_owned);
        app.result(&root, || {
            root.iter().map(|r| r.display().to_string()).collect()
        })?;
        return Ok(ExitCode::SUCCESS);
    };
    let cwd = std::env::current_dir().into_diagnostic()?;
    let code = tools
        .command(program)
        .args(args)
        .bind(&cwd)
        .cwd(&cwd)
        .interactive()?;
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}
