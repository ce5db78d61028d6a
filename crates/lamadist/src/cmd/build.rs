// SPDX-License-Identifier: Apache-2.0
//! `lamadist build`.

use crate::App;
use crate::cli::Build;
use crate::cmd::inspect::describe;
use crate::pipeline;
use miette::Result;
use std::process::ExitCode;
use std::time::Instant;

/// Builds, and says where the result is.
pub fn run(app: &App, c: &Build) -> Result<ExitCode> {
    let start = Instant::now();
    let built = pipeline::build(app, c)?;
    let Some(index) = &built.index else {
        let tar = built.deploy.join("root.tar");
        app.result(&tar, || tar.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    };
    let done = if built.fresh {
        "nothing to do"
    } else {
        "built"
    };
    app.talk.say(&format!(
        "{done}: {} {} for {} in {:.1} s",
        index.image,
        index.version,
        index.bsp,
        start.elapsed().as_secs_f64()
    ));
    app.result(index, || {
        if app.global.quiet {
            String::new()
        } else {
            describe(&built.deploy, index)
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
