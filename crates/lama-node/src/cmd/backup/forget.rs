// SPDX-License-Identifier: Apache-2.0
//! Retention: which snapshots go.

use super::{Options, configured, repository};
use crate::backup::TAG;
use crate::backup::config::Config;
use crate::backup::host::Host;
use crate::backup::message::Snapshot;
use crate::backup::restic::Repository;
use crate::cli::Args;
use crate::{Context, Error, Result};
use serde::Serialize;
use std::process::ExitCode;

/// Whether snapshots are removed, or only named.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Prune {
    Yes,
    Try,
}

#[derive(serde::Deserialize)]
struct Group {
    #[serde(default)]
    keep: Option<Vec<Snapshot>>,
    #[serde(default)]
    remove: Option<Vec<Snapshot>>,
}

#[derive(Serialize)]
pub(super) struct Forgotten {
    kept: usize,
    removed: Vec<String>,
}

/// Removes snapshots that the configuration does not keep.
pub(super) fn forget(
    repo: &Repository,
    config: &Config,
    host: &str,
    prune: Prune,
) -> Result<Forgotten> {
    let mut args = vec![
        "forget".to_owned(),
        "--retry-lock=5m".to_owned(),
        // Not by paths: another `include=` would begin another count.
        "--group-by=host".to_owned(),
        format!("--tag={TAG}"),
        format!("--host={host}"),
    ];
    args.extend(config.keep.args());
    args.push(match prune {
        Prune::Yes => "--prune".to_owned(),
        Prune::Try => "--dry-run".to_owned(),
    });
    let out = repo.run(args, &mut |_| ())?;
    let line = out.result.lines().find(|l| l.starts_with('['));
    let groups: Vec<Group> =
        serde_json::from_str(line.unwrap_or("[]")).context("cannot read what restic removed")?;
    let mut done = Forgotten {
        kept: 0,
        removed: Vec::new(),
    };
    for g in groups {
        done.kept += g.keep.unwrap_or_default().len();
        done.removed.extend(
            g.remove
                .unwrap_or_default()
                .iter()
                .map(|s| s.short().to_owned()),
        );
    }
    Ok(done)
}

/// `backup forget`.
pub(super) fn run(args: &Args, o: &Options) -> Result<ExitCode> {
    let config = configured(&o.system)?;
    let repo = repository(&o.system, &config)?;
    let host = Host::of(&o.system)?;
    if config.keep.args().is_empty() {
        return Err(Error::new(
            "the configuration keeps no snapshot, so none is removed",
        ));
    }
    let prune = if o.dry_run { Prune::Try } else { Prune::Yes };
    let done = forget(&repo, &config, &host.hostname, prune)?;
    args.print(&done, || {
        let verb = if o.dry_run { "would be " } else { "" };
        let mut s = format!("{} kept, {} {verb}removed", done.kept, done.removed.len());
        for r in &done.removed {
            s += &format!("\n{r}");
        }
        s
    })?;
    Ok(ExitCode::SUCCESS)
}
