// SPDX-License-Identifier: Apache-2.0
//! `lamadist vm install`: the medium and a blank disk in a new machine, until the installer is done.

use super::{bare, disk, registry, tools};
use crate::App;
use crate::cli::{HostName, HostPut, Hosts, VmInstall};
use crate::cmd::host;
use lama_exec::fs::AtPath;
use lama_exec::progress::Unit;
use lama_exec::{Progress, fs};
use lama_model::host::install::{Answer, merge};
use lama_vm::{Bus, Disk, Lifetime, Stop, Vm};
use miette::{IntoDiagnostic, Result, WrapErr, miette};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The serial number of the disk that is installed to.
pub const SERIAL: &str = "lamadist-vm";
/// What the installer says when it is done, with the disk behind it.
const DONE: &str = "LamaDist is installed on ";
/// What it says before that of the recovery key, and of where it was written.
const KEY: &str = "  The recovery key ";
/// How its lines begin while it works.
const STEP: &str = "lamadist-install> ";
/// What it says when it gave up, with the reason behind it.
const FAILED: &str = "lamadist-install: ";
/// A machine under emulation boots in a minute or two, and installs in one.
const PATIENCE: Duration = Duration::from_secs(900);

/// A machine that was installed: what `vm boot` has to know of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Installed {
    /// Bytes of its disk.
    disk: u64,
}

impl Installed {
    const FILE: &str = "installed.json";

    /// Of the machine in this folder; none where it was not installed.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(Self::FILE);
        let Some(data) = fs::read_optional(&path)? else {
            return Ok(None);
        };
        let this = serde_json::from_slice(&data).into_diagnostic();
        this.map(Some)
            .wrap_err_with(|| format!("{} is damaged", path.display()))
    }

    /// Its disk, which lies in the machine's folder.
    pub fn disk(&self) -> Disk {
        Disk::blank(self.disk).serial(SERIAL)
    }
}

/// Installs a machine.
pub fn run(app: &App, c: &VmInstall) -> Result<ExitCode> {
    let tools = tools(app)?;
    let registry = registry(app)?;
    let name = &c.name.name;
    let dir = registry.dir(name)?;
    if registry.info(name)?.is_some() {
        return Err(miette!(
            help = format!("remove it with `lamadist vm rm --name {name}`, or choose another name"),
            "there is a machine {name} already"
        ));
    }
    let answers = answers(&c.answers)?;
    let mut medium = disk(app, &c.target)?;
    let scratch = fs::Scratch::new_in(app.place.cache.join("tmp"))?;
    if let Some(h) = &c.host {
        let copy = scratch.path().join("medium.raw");
        std::fs::copy(&medium, &copy).at("copy", &copy)?;
        medium = copy;
        let put = HostPut {
            host: HostName {
                name: h.clone(),
                hosts: Hosts {
                    hosts: c.hosts.clone(),
                },
            },
            disk: medium.clone(),
            release: false,
        };
        // The host's own answers name a disk that this machine doesn't have.
        host::put(app, &put, &answers)?;
    }
    let installed = Installed {
        disk: c.disk_size << 30,
    };
    let mut config = bare(app, &tools, name, &c.target)?
        .disk(installed.disk())
        .disk(Disk::image(&medium).on(Bus::Usb))
        .credential("lamadist.install", lines(&answers));
    config.memory_mib = c.memory;
    config.cpus = c.cpus;
    let mut vm = registry.boot(&config, Lifetime::Vm)?;
    let result = {
        let _t = app.talk.task(&format!("Installing {name}"), Unit::Busy, 0);
        wait(&mut vm)
    };
    vm.stop(Stop::Now)?;
    let said = match result {
        Ok(said) => said,
        Err(e) => {
            // The console is what explains it; the disk is of no use.
            fs::remove_file(dir.join("disk-0.raw"))?;
            return Err(e);
        }
    };
    let data = serde_json::to_vec_pretty(&installed).into_diagnostic()?;
    fs::write_atomic(dir.join(Installed::FILE), data)?;
    fs::remove_file(dir.join("disk-1.qcow2"))?;
    fs::remove_file(dir.join("disk-1.base.json"))?;
    let info = vm.info();
    app.result(&info, || said.clone())?;
    app.talk.say(&format!(
        "start it with `lamadist vm boot --name {name}`, or `lamadist vm shell --name {name}`"
    ));
    Ok(ExitCode::SUCCESS)
}

/// The installer's answers: what was given, and what installing this machine takes.
fn answers(given: &[String]) -> Result<Vec<Answer>> {
    let disk = format!("disk=serial:{SERIAL}");
    let own = host::answers(&[disk, "finish=poweroff".to_owned()])?;
    Ok(merge(&own, &host::answers(given)?))
}

/// As the installer reads them from a file.
fn lines(answers: &[Answer]) -> String {
    answers.iter().map(|a| format!("{a}\n")).collect()
}

/// Waits until the machine has powered off. Returns what the installer said at its end.
fn wait(vm: &mut Vm) -> Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let running = vm.is_running();
        let text = vm.console_text()?;
        if let Some(at) = text.find(FAILED) {
            let line = text.get(at..).and_then(|t| t.lines().next());
            return Err(miette!(
                help = format!("the console is in {}", vm.console().path().display()),
                "{}",
                line.unwrap_or(FAILED)
            ));
        }
        if !running {
            return summary(&text).ok_or_else(|| {
                miette!(
                    help = format!("the console is in {}", vm.console().path().display()),
                    "the machine went off before it was installed"
                )
            });
        }
        if Instant::now() > end {
            return Err(miette!(
                help = format!("the console is in {}", vm.console().path().display()),
                "the installer was not done after {} s",
                PATIENCE.as_secs()
            ));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The recovery key and what comes after it, without the steps between.
fn summary(console: &str) -> Option<String> {
    let done = console.rfind(DONE)?;
    let before = console.get(..done)?;
    let text = console.get(before.find(KEY).unwrap_or(done)..)?;
    let end = text.find("lamadist-install ends").unwrap_or(text.len());
    let lines = text.get(..end)?.lines().filter(|l| !l.contains(STEP));
    let text: Vec<&str> = lines.map(|l| l.trim_end_matches('\r')).collect();
    Some(text.join("\n").trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_is_filled_in() {
        let lines = |given: &[String]| lines(&answers(given).unwrap());
        assert_eq!(lines(&[]), "disk=serial:lamadist-vm\nfinish=poweroff\n");
        assert_eq!(
            lines(&["finish=reboot".into(), "disk=any".into()]),
            "finish=reboot\ndisk=any\n"
        );
        assert!(answers(&["disk".into()]).is_err());
    }

    #[test]
    fn the_summary_is_found_on_the_console() {
        let text = "lamadist-install> x\r\n  The recovery key opens\r\n    key\r\n\
                    lama-node[9]: lamadist-install> y\r\nLamaDist is installed on /dev/vda\r\n  \
                    note\r\nlamadist-install ends\r\ny";
        assert_eq!(
            summary(text).unwrap(),
            "  The recovery key opens\n    key\nLamaDist is installed on /dev/vda\n  note"
        );
        assert_eq!(summary("x"), None);
    }
}
