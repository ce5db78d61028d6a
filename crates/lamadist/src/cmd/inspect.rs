// SPDX-License-Identifier: Apache-2.0
//! `lamadist inspect`: a build's index, a bundle, a delta bundle, a channel file.

use crate::App;
use crate::cli::Inspect;
use crate::pipeline::packages::Policy;
use crate::pipeline::{self, Sources, bundle};
use lama_bundle::Bundle;
use lama_bundle::open::Summary;
use lama_exec::{Tools, fs};
use lama_image::index::Index;
use lama_keys::KeySet;
use lama_node::delta::{Header, MAGIC};
use miette::{Result, miette};
use std::fmt::Write;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

/// Tells what an artefact is.
pub fn run(app: &App, c: &Inspect) -> Result<ExitCode> {
    let index = c.file.is_dir() || c.file.extension().is_some_and(|e| e == "json");
    if index {
        return builds(app, c);
    }
    let file = std::path::absolute(&c.file).unwrap_or_else(|_| c.file.clone());
    let mut start = Vec::new();
    let mut opened = fs::open(&file)?;
    let _ = opened.by_ref().take(8).read_to_end(&mut start);
    if start == MAGIC {
        return delta(app, &file);
    }
    if let Some(told) = super::channel::inspect(app, c, &file)? {
        return Ok(told);
    }
    let (tools, keys) = opener(app, c.release)?;
    let scratch = bundle::scratch(app);
    let with = bundle::with(&tools, Some(&keys), &scratch);
    let summary = Bundle::open(&file, with)?.summary();
    app.result(&summary, || bundle_text(&summary))?;
    Ok(ExitCode::SUCCESS)
}

/// The tools and keys that bundles are opened with.
pub fn opener(app: &App, release: bool) -> Result<(Tools, KeySet)> {
    let sources = Sources::load(&app.place.distro)?;
    let tools = pipeline::tools(app, &sources, Policy::Extend)?;
    let keys = if release {
        KeySet::open(app.place.release_keys())?
    } else {
        pipeline::development(app)?
    };
    Ok((tools, keys))
}

/// What a delta bundle says without a key.
fn delta(app: &App, file: &Path) -> Result<ExitCode> {
    let mut opened = fs::open(file)?;
    let header = Header::read(&mut opened).map_err(|e| miette!("{}: {e}", file.display()))?;
    let mut again = fs::open(file)?;
    let whole = Header::verified(&mut again).is_ok_and(|(_, whole)| whole);
    let value = serde_json::json!({ "header": header, "whole": whole });
    app.result(&value, || {
        let mut o = format!(
            "{}\n  delta bundle for {}: {} to {}\n  bundle       {} ({:.1} MiB)\n",
            file.display(),
            header.compatible,
            header.from,
            header.to,
            header.bundle_sha256,
            mib(header.bundle_size)
        );
        for i in &header.base {
            let _ = writeln!(
                o,
                "  needs        {:8} {} ({:.1} MiB)",
                i.class,
                i.sha256,
                mib(i.size)
            );
        }
        o + if whole {
            "  whole        yes"
        } else {
            "  whole        NO: it is damaged, or was not loaded whole"
        }
    })?;
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Bytes in MiB.
pub fn mib(n: u64) -> f64 {
    n as f64 / f64::from(1 << 20)
}

/// A bundle as a table.
pub fn bundle_text(s: &Summary) -> String {
    let mut o = format!("{}\n", s.file.display());
    let mut row = |k: &str, v: &str| {
        let _ = writeln!(o, "  {k:12} {v}");
    };
    row("size", &format!("{:.1} MiB", mib(s.size)));
    row(
        "format",
        s.format
            .as_deref()
            .unwrap_or("encrypted; no key here opens it"),
    );
    for (k, v) in [
        ("compatible", &s.compatible),
        ("version", &s.version),
        ("machine", &s.bsp),
        ("image", &s.image),
        ("root hash", &s.root_hash),
        ("min-version", &s.min_version),
        ("data since", &s.migration_since),
        ("", &s.migration_note),
    ] {
        if let Some(v) = v {
            row(k, v);
        }
    }
    if s.development {
        row("keys", "development: NOT FOR RELEASE");
    }
    for c in &s.signers {
        row(
            "signed by",
            &format!("{}, until {}", c.subject, c.not_after),
        );
        row("", &format!("issued by {}", c.issuer));
    }
    for r in &s.recipients {
        row(
            "encrypted to",
            &format!("{}, certificate {}", r.issuer, r.serial),
        );
    }
    if s.opened && s.recipients.is_empty() {
        row("encrypted to", "NOBODY: its key lies open in it");
    }
    for i in &s.images {
        let how = [i.adaptive.as_slice(), i.hooks.as_slice()]
            .concat()
            .join(", ");
        row(&i.class, &format!("{:.1} MiB  {how}", mib(i.size)));
        row("", &i.sha256);
    }
    if let (Some(p), Some(t)) = (s.payload, s.hash_tree) {
        row(
            "payload",
            &format!("{:.1} MiB, hash tree {:.1} MiB", mib(p), mib(t)),
        );
    }
    o.truncate(o.trim_end().len());
    o
}

/// Tells what a build's index says, and whether its files are as it says.
fn builds(app: &App, c: &Inspect) -> Result<ExitCode> {
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
