// SPDX-License-Identifier: Apache-2.0
//! What `--release` insists on, besides a locked build and release keys: that what is built is what
//! is committed.

use crate::place::Place;
use lama_exec::Tools;
use miette::{Result, miette};

/// Refuses tools that no lock pins.
pub fn pinned_tools() -> Result<()> {
    if std::env::var_os("LAMADIST_TOOLS").is_none() {
        return Ok(());
    }
    Err(miette!(
        help = "unset it",
        "a release is made with the tools that the lock pins, not with those of LAMADIST_TOOLS"
    ))
}

/// Refuses a program on the node that is from another checkout than the rest.
pub fn own_source(place: &Place, source: &super::node::Source) -> Result<()> {
    if source.project == place.project {
        return Ok(());
    }
    Err(miette!(
        help = "build a release from a whole checkout of the project",
        "a release is made of one checkout, but {} has no {}",
        place.project.display(),
        super::node::CRATE
    ))
}

/// Refuses uncommitted changes, untracked files, and ignored ones in the description.
pub fn clean_tree(place: &Place) -> Result<()> {
    let git = |args: &[&str]| {
        let cmd = Tools::host().command("git").arg("-C").arg(&place.project);
        cmd.args(args).text().map_err(|e| {
            miette!(
                help = "build a release from a git checkout, on a machine with git",
                "a release records its commit, but git does not tell it: {e}"
            )
        })
    };
    let mut status = git(&["status", "--porcelain", "--untracked-files=normal"])?;
    // Ignored files of the description and of the node's program would be built in like any other.
    let distro = place.distro.to_string_lossy();
    let node = place.project.join(super::node::CRATE);
    let node = node.to_string_lossy();
    let ignored = ["status", "--porcelain", "--ignored=matching", "--"];
    let ignored = git(&[&ignored[..], &[&*distro, &*node]].concat())?;
    for line in ignored.lines().filter(|l| l.starts_with("!!")) {
        status = format!("{status}\n{line}").trim().to_owned();
    }
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
