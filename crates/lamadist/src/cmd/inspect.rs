// SPDX-License-Identifier: Apache-2.0
//! `lamadist inspect`.

use crate::App;
use crate::cli::Inspect;
use lama_image::index::Index;
use miette::Result;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Tells what a build's index says, and whether its files are as it says.
pub fn run(app: &App, c: &Inspect) -> Result<ExitCode> {
    let dir = if c.file.is_dir() {
        &c.file
    } else {
        c.file.parent().unwrap_or(Path::new("."))
    };
    let index = Index::read(dir)?;
    let mut wrong = Vec::new();
    for a in &index.artifacts {
        match lama_image::hash_file(&dir.join(&a.file)) {
            Ok(f) if f.sha256 == a.sha256 => {}
            Ok(_) => wrong.push(format!("{} differs from what the index says", a.file)),
            Err(e) => wrong.push(e.to_string()),
        }
    }
    app.result(&index, || describe(dir, &index))?;
    for w in &wrong {
        eprintln!("error: {w}");
    }
    if !wrong.is_empty() {
        eprintln!("hint: build it again");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// An index as a table.
pub fn describe(dir: &Path, index: &Index) -> String {
    let mut o = String::new();
    let _ = writeln!(o, "{}", dir.display());
    let _ = writeln!(o, "  root hash {}", index.root_hash);
    for a in &index.artifacts {
        let kind = serde_json::to_value(a.kind).unwrap_or_default();
        let _ = writeln!(
            o,
            "  {:9} {:8.1} MiB  {}",
            kind.as_str().unwrap_or_default(),
            a.size as f64 / f64::from(1 << 20),
            a.file
        );
    }
    o.truncate(o.trim_end().len());
    o
}
