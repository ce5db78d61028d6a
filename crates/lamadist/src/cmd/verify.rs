// SPDX-License-Identifier: Apache-2.0
//! `lamadist verify`: whether a bundle may be installed; of a delta bundle, the one it leads to; whether
//! a channel file may be believed.

use crate::App;
use crate::cli::Verify;
use crate::cmd::bundle::Old;
use crate::cmd::inspect::{bundle_text, opener};
use crate::pipeline::bundle as place;
use lama_bundle::{Bundle, check, delta};
use lama_exec::fs::{self, Scratch};
use lama_exec::progress::Unit;
use lama_node::delta::MAGIC;
use miette::{Result, miette};
use std::io::Read;
use std::process::ExitCode;

/// Checks signature, format and every byte.
pub fn run(app: &App, c: &Verify) -> Result<ExitCode> {
    let file = std::path::absolute(&c.file).unwrap_or_else(|_| c.file.clone());
    if let Some(told) = super::channel::verify(app, c, &file)? {
        return Ok(told);
    }
    let (tools, keys) = opener(app, c.release)?;
    let scratch = place::scratch(app);
    let with = place::with(&tools, Some(&keys), &scratch);
    let held = Scratch::new_in(&scratch)?;
    let mut start = Vec::new();
    // What cannot be read here is told when it is opened.
    let _ = fs::open(&file)?.take(8).read_to_end(&mut start);
    let bundle = match (start == MAGIC, &c.from) {
        (false, None) => file.clone(),
        (true, Some(from)) => {
            let old = Old::find(app, from, with, held.path())?;
            let out = held.path().join("rebuilt.raucb");
            let task = app.progress().task("Making the bundle", Unit::Busy, 0);
            delta::rebuild(&file, with, &[old.root, old.uki], &out)?;
            drop(task);
            out
        }
        (true, None) => {
            return Err(miette!(
                help = "name the bundle or the build of that version with --from",
                "{} is a delta bundle, which is nothing without the version that it begins with",
                file.display()
            ));
        }
        (false, Some(_)) => {
            return Err(miette!(
                help = "leave --from out",
                "{} is no delta bundle",
                file.display()
            ));
        }
    };
    let opened = Bundle::open(&bundle, with)?;
    let keyring = match &c.keyring {
        Some(k) => k.clone(),
        None => {
            let k = held.path().join("keyring.pem");
            fs::write(&k, keys.rauc_keyring_pem()?)?;
            k
        }
    };
    check::check(&opened, with, &keyring, app.progress())?;
    let mut summary = opened.summary();
    summary.file = file;
    app.result(&summary, || {
        format!(
            "{}\n  it is whole, and signed by who is trusted",
            bundle_text(&summary)
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
