// SPDX-License-Identifier: Apache-2.0
//! `lamadist clean`.

use crate::App;
use crate::cli::Clean;
use crate::pipeline::builder::BUILDER;
use lama_exec::fs;
use miette::{Result, miette};
use std::process::ExitCode;

/// What is in a cache.
const CACHE: [&str; 10] = [
    BUILDER,
    "firmware",
    "frames",
    "node",
    "oe",
    "oe-check",
    "store",
    "tmp",
    "toolchain",
    "tools",
];

/// Removes what was asked for; nothing else can be made again as easily, so nothing is the default.
pub fn run(app: &App, c: &Clean) -> Result<ExitCode> {
    let p = &app.place;
    let mut gone = Vec::new();
    if c.all {
        // By name: the cache may be a folder that has other things, too.
        gone = CACHE.map(|d| p.cache.join(d)).to_vec();
        gone.push(p.project.join("deploy"));
    } else {
        if c.tools {
            gone.extend([p.tools(), p.toolchains(), p.cache.join(BUILDER)]);
        }
        if c.results {
            gone.extend(["frames", "node", "tmp", "store/effects"].map(|d| p.cache.join(d)));
        }
        if c.unpacked {
            gone.push(p.store().join("unpacked"));
        }
        if c.packages {
            gone.push(p.store());
        }
    }
    if gone.is_empty() {
        return Err(miette!(
            help = "--tools: the tools tree and the toolchain; --packages: downloads; --unpacked: only what they were unpacked to; --results: what builds go on from; --all: the whole cache and deploy/",
            "say what to remove"
        ));
    }
    for dir in &gone {
        fs::remove_dir_all(dir)?;
        app.progress().note(&format!("removed {}", dir.display()));
    }
    app.result(&gone, String::new)?;
    Ok(ExitCode::SUCCESS)
}
