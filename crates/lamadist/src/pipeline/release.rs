// SPDX-License-Identifier: Apache-2.0
//! What `--release` insists on, besides a locked build and release keys: that what is built is what
//! is committed.

use crate::place::Place;
use lama_exec::Tools;
use miette::{Result, miette};

/// Refuses uncommitted changes and untracked files.
pub fn clean_tree(place: &Place) -> Result<()> {
    let git = |args: &[&str]| {
        Tools::host()
            .command("git")
            .arg("-C")
            .arg(&place.project)
            .args(args)
            .text()
    };
    let status = git(&["status", "--porcelain", "--untracked-files=normal"]).map_err(|e| {
        miette!(
            help = "build a release from a git checkout, on a machine with git",
            "a release records its commit, but git does not tell it: {e}"
        )
    })?;
    if status.is_empty() {
        return Ok(());
    }
    let shown: Vec<&str> = status.lines().take(10).collect();
    Err(miette!(
        help = "commit or remove them; a release has to be what the repository says",
        "{} uncommitted change(s) in {}:\n{}",
        status.lines().count(),
        place.project.display(),
        shown.join("\n")
    ))
}
