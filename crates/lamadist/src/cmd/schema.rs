// SPDX-License-Identifier: Apache-2.0
//! `lamadist schema`.

use crate::cli::Schema;
use miette::{IntoDiagnostic, Result, miette};
use std::process::ExitCode;

/// Prints a schema, or with no name the list of them.
pub fn run(c: &Schema) -> Result<ExitCode> {
    let Some(name) = &c.name else {
        for (name, files) in lama_model::SCHEMAS {
            println!("{name:14}distro/{files}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let schema = lama_model::schema(name).ok_or_else(|| {
        let names: Vec<&str> = lama_model::SCHEMAS.iter().map(|(n, _)| *n).collect();
        miette!(
            help = format!("there are: {}", names.join(", ")),
            "there is no schema {name:?}"
        )
    })?;
    println!(
        "{}",
        serde_json::to_string_pretty(&schema).into_diagnostic()?
    );
    Ok(ExitCode::SUCCESS)
}
