// SPDX-License-Identifier: Apache-2.0
//! `lamadist oe check`.

use crate::App;
use crate::cli::{OeCheck, OeStep};
use crate::pipeline::{Sources, oe};
use lama_exec::fs;
use lama_keys::KeySet;
use lama_oe::check::{Check, Firmware, Step};
use lama_oe::render::LAYERS;
use miette::{IntoDiagnostic, Result, miette};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;

/// The machine layer's machines that need no vendor's layer, which yocto-check-layer goes through.
const MACHINES: [&str; 3] = [
    "lamadist-qemu-arm64",
    "lamadist-qemu-x86-64",
    "lamadist-x86-64",
];

/// A step as `--json` prints it.
#[derive(Serialize)]
struct Line<'a> {
    step: &'a str,
    passed: bool,
    what: &'a str,
    seconds: u64,
}

/// Runs the steps one after another, a line each, whether or not one before has failed.
pub fn run(app: &App, c: &OeCheck) -> Result<ExitCode> {
    let kas = oe::kas(app, false)?;
    for bsp in &c.bsp {
        oe::known(&kas, bsp, &[])?;
    }
    let sources = Sources::load(&app.place.distro)?;
    let table = oe::table(&app.place, &sources)?;
    let work = match &c.work {
        Some(d) => std::path::absolute(d).into_diagnostic()?,
        None => app.place.cache.join("oe-check"),
    };
    fs::create_dir_all(&work)?;
    let _lock = fs::FileLock::exclusive(work.join(".lock"))?;
    let images: Vec<String> = (sources.description.images())
        .map(|(n, _)| n.to_owned())
        .collect();
    let mut targets: Vec<String> = images.iter().map(|n| format!("lama-image-{n}")).collect();
    targets.push("lama-image-installer".to_owned());
    let check = Check {
        project: &app.place.project,
        layers: &std::path::absolute(&c.layers).into_diagnostic()?,
        work: &work,
        kas: &kas,
        targets: &targets,
        bundle: "lama-bundle",
        progress: &*app.talk,
    };
    let wanted = |s| c.step.is_empty() || c.step.contains(&s);
    let machines = if c.bsp.is_empty() {
        kas.machines()?
    } else {
        c.bsp.clone()
    };
    let mut steps = Vec::new();
    let mut say = |step: Step| {
        app.talk.say(&line(&step));
        steps.push(step);
    };
    for (n, bsp) in machines.iter().enumerate() {
        let dry = n == 0 && wanted(OeStep::DryRun);
        if !wanted(OeStep::Parse) && !wanted(OeStep::Graph) && !dry {
            break;
        }
        let config = check.configuration(bsp)?;
        let parsed = check.parse(bsp, &config)?;
        let readable = parsed.outcome.is_ok();
        say(parsed);
        if readable && wanted(OeStep::Graph) {
            let all = table.all_machines();
            let own = all.get(config.machine.as_str());
            let own = own.ok_or_else(|| unknown(bsp, &config.machine))?;
            // A bundle is for machines that RAUC can choose a slot on.
            let image = images.first().map_or("", String::as_str);
            let conf = sources.description.select(own, image)?.rauc_conf();
            let firmware = match conf {
                Some(_) => Firmware::Uefi,
                None => Firmware::Loader,
            };
            say(check.graph(bsp, firmware)?);
        }
        if readable && dry {
            say(check.dry_run(bsp, "lama-image-base")?);
        }
    }
    if wanted(OeStep::Layers) {
        let [distro, bsp] = LAYERS;
        say(check.layer(distro, &[])?);
        say(check.layer(bsp, &MACHINES)?);
    }
    // It needs programs that nothing else does, so it is asked for.
    if c.step.contains(&OeStep::Packages) {
        let set = KeySet::open_or_create_development(app.place.development_keys(), app.progress())?;
        let public = oe::public_keys(&work, &set)?;
        let mut recipes: Vec<String> = images
            .iter()
            .map(|n| format!("lamadist-config-{n}"))
            .collect();
        recipes.extend(["lamadist-initrd-config", "lamadist-keys"].map(str::to_owned));
        let mut step = check.packages(&recipes, &public)?;
        if step.outcome.is_ok() {
            step.outcome = signed(&check.packages_dir(), &work, &set)
                .map(|n| {
                    format!(
                        "{n} packages of {}: SPDX 3.0.1, signed, and rpm takes them",
                        recipes.join(", ")
                    )
                })
                .map_err(|e| e.to_string());
        }
        say(step);
    }
    let failed = steps.iter().filter(|s| s.outcome.is_err()).count();
    let lines: Vec<Line<'_>> = steps
        .iter()
        .map(|s| Line {
            step: &s.name,
            passed: s.outcome.is_ok(),
            what: s.outcome.as_ref().unwrap_or_else(|why| why),
            seconds: s.took.as_secs(),
        })
        .collect();
    app.result(&lines, String::new)?;
    if failed > 0 {
        return Err(miette!(
            help = format!(
                "BitBake's own logs are in {}",
                work.join("build/bitbake-cookerdaemon.log").display()
            ),
            "{failed} of {} steps failed",
            steps.len()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Signs the packages, and has this machine's rpm look at them.
fn signed(dir: &Path, work: &Path, set: &KeySet) -> Result<usize> {
    let (signer, certificates) = (set.openpgp_signer()?, set.openpgp_certificates()?);
    let files = lama_rpm::packages(dir)?;
    for file in &files {
        lama_rpm::sign(file, &signer, &certificates, lama_rpm::Others::Refuse)?;
    }
    let db = lama_exec::fs::Scratch::new_in(work)?;
    let key = db.path().join("key.asc");
    fs::write(&key, set.openpgp_keyring()?)?;
    let rpmkeys = |option: &str| {
        let c = lama_exec::Tools::host().command("rpmkeys");
        c.arg("--dbpath").arg(db.path().join("db")).arg(option)
    };
    rpmkeys("--import").arg(&key).run()?;
    let all = rpmkeys("--checksig").args(&files).run()?;
    let said = String::from_utf8_lossy(&all.stdout);
    let good = said
        .lines()
        .filter(|l| l.ends_with("digests signatures OK"));
    if good.count() != files.len() {
        return Err(miette!("rpm does not take all of them:\n{said}"));
    }
    Ok(files.len())
}

fn unknown(bsp: &str, machine: &str) -> miette::Report {
    miette!(
        help = "name it under [machines] or [variants]",
        "kas/bsp/{bsp}.yml builds for {machine}, which distro/oe.toml does not have"
    )
}

fn line(s: &Step) -> String {
    let (word, what) = match &s.outcome {
        Ok(what) => ("ok", what.clone()),
        Err(why) => ("FAIL", why.replace('\n', "\n        ")),
    };
    format!("{word:5} {}: {what} ({} s)", s.name, s.took.as_secs())
}
