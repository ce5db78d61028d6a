// SPDX-License-Identifier: Apache-2.0
//! `lamadist host put`: a machine's addons, on a medium.

use super::Signer;
use crate::App;
use crate::cli::HostPut;
use lama_exec::{Cmd, Tools, fs};
use lama_model::host::LIMIT;
use lama_model::host::install::{self, Answer};
use miette::{IntoDiagnostic, Result, WrapErr, miette};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where systemd-stub looks for addons of every UKI on the ESP; the installer takes this one along.
const HOST: &str = "loader/addons/host.addon.efi";
/// The addon that makes a UKI the live system, beside it.
const LIVE: &str = "live.addon.efi";
/// The answers, beside that. The installer copies neither, so an installed machine does not carry
/// what it was installed with.
const INSTALL: &str = "install.addon.efi";

/// What `sfdisk --json` says, as far as it matters here.
#[derive(Deserialize)]
struct Table {
    partitiontable: Partitions,
}

#[derive(Deserialize)]
struct Partitions {
    #[serde(default = "Partitions::sector")]
    sectorsize: u64,
    partitions: Vec<Partition>,
}

impl Partitions {
    fn sector() -> u64 {
        512
    }
}

#[derive(Deserialize)]
struct Partition {
    start: u64,
    #[serde(rename = "type")]
    kind: String,
}

/// The ESP of a medium, to read and write by mtools.
struct Esp<'a> {
    tools: &'a Tools,
    disk: PathBuf,
    /// `FILE@@OFFSET`, as mtools names it.
    image: String,
}

impl<'a> Esp<'a> {
    fn open(tools: &'a Tools, disk: PathBuf) -> Result<Self> {
        let table: Table = tools
            .command("sfdisk")
            .arg("--json")
            .arg(&disk)
            .bind_ro(&disk)
            .json()
            .wrap_err_with(|| format!("{} is no medium", disk.display()))?;
        let table = table.partitiontable;
        let esp = lama_model::layout::Role::Esp.type_uuid(lama_model::Arch::Amd64);
        let esp = esp.to_string().to_uppercase();
        let esp = table.partitions.iter().find(|p| p.kind == esp);
        let esp = esp.ok_or_else(|| {
            miette!(
                help = "name a disk.raw that `lamadist build` made, or a medium it was written to",
                "{} has no EFI system partition",
                disk.display()
            )
        })?;
        let image = format!("{}@@{}", disk.display(), esp.start * table.sectorsize);
        Ok(Self { tools, disk, image })
    }

    fn mtool(&self, program: &str) -> Cmd {
        let cmd = self.tools.command(program).args(["-i", &self.image]);
        cmd.bind(&self.disk).env("MTOOLS_SKIP_CHECK", "1")
    }

    fn has(&self, path: &str) -> Result<bool> {
        let cmd = self.mtool("mdir").arg(format!("::/{path}"));
        Ok(cmd.run_any()?.0.success())
    }

    /// Writes a file, in place of one of that name.
    fn write(&self, from: &Path, path: &str) -> Result<()> {
        let mut folder = String::new();
        let names: Vec<&str> = path.split('/').collect();
        for name in names.iter().take(names.len().saturating_sub(1)) {
            folder = format!("{folder}/{name}");
            if !self.has(folder.trim_start_matches('/'))? {
                self.mtool("mmd").arg(format!("::{folder}")).run()?;
            }
        }
        self.mtool("mcopy")
            .arg("-o")
            .arg(from)
            .arg(format!("::/{path}"))
            .bind_ro(from)
            .run()
            .wrap_err_with(|| format!("cannot write the addon to {}", self.disk.display()))?;
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        if self.has(path)? {
            self.mtool("mdel").arg(format!("::/{path}")).run()?;
        }
        Ok(())
    }
}

/// Puts the machine's addon on a medium, and its answers for the installer, where it has some: with
/// those of `over` in place of its own.
///
/// # Errors
/// It is no medium, cannot be written, or the addons cannot be made.
pub fn put(app: &App, p: &HostPut, over: &[Answer]) -> Result<()> {
    let disk = std::path::absolute(&p.disk).into_diagnostic()?;
    fs::metadata(&disk)?;
    let scratch = fs::Scratch::new_in(app.place.cache.join("tmp"))?;
    let signer = Signer::new(app, &p.host, p.release)?;
    let esp = Esp::open(&signer.tools, disk)?;
    let described = &signer.checked.install;
    let answers = if described.is_empty() {
        String::new()
    } else {
        install::cmdline(&install::merge(described, over))
    };
    let length = signer.checked.cmdline.len() + 1 + answers.len();
    if length > LIMIT {
        return Err(miette!(
            help = "give fewer or shorter answers",
            "host and answers take {length} bytes of the kernel's command line; {LIMIT} is the most"
        ));
    }
    let beside = format!("{}.extra.d", signer.arch.boot_path());
    // Beside a UKI that is not the live system they would be parameters of the installed one.
    let live = esp.has(&format!("{beside}/{LIVE}"))?;
    if !live && !answers.is_empty() {
        return Err(miette!(
            help = "name a medium that `lamadist build` made, or remove [install] from the description",
            "{} is no medium to install from, so it takes no answers for the installer",
            esp.disk.display()
        ));
    }
    let addon = scratch.path().join("addon.efi");
    let install = format!("{beside}/{INSTALL}");
    if answers.is_empty() {
        esp.remove(&install)?;
    } else {
        signer.addon("lamadist.install", &answers, &addon)?;
        esp.write(&addon, &install)?;
    }
    signer.host(&addon)?;
    esp.write(&addon, HOST)?;
    app.talk
        .say(&format!("{} is {} now", esp.disk.display(), p.host.name));
    Ok(())
}
