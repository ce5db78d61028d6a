// SPDX-License-Identifier: Apache-2.0
//! `lamadist vm`.

mod install;

use crate::App;
use crate::cli::{self, Target, Vm, VmBoot, VmShell};
use crate::pipeline::{self, Sources, packages::Policy};
use lama_exec::Tools;
use lama_image::index::Kind;
use lama_keys::Role;
use lama_vm::{
    Arch, Disk, Display, Firmware, Lifetime, Registry, SecureBoot, Smm, State, Stop, VariableStore,
    Variables, VmConfig, VmInfo,
};
use miette::{Result, miette};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Starts, lists, enters, stops or removes machines.
pub fn run(app: &App, c: &Vm) -> Result<ExitCode> {
    match c {
        Vm::Boot(b) => boot(app, b),
        Vm::Install(i) => install::run(app, i),
        Vm::Shell(s) => shell(app, s),
        Vm::Stop(n) => {
            let mut vm = registry(app)?.open(&n.name)?;
            vm.stop(Stop::Gracefully(Duration::from_secs(60)))?;
            Ok(ExitCode::SUCCESS)
        }
        Vm::List => {
            let all = registry(app)?.list()?;
            app.result(&all, || table(&all))?;
            Ok(ExitCode::SUCCESS)
        }
        Vm::Rm(n) => {
            registry(app)?.remove(&n.name)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn tools(app: &App) -> Result<Tools> {
    pipeline::tools(app, &Sources::load(&app.place.distro)?, Policy::Extend)
}

fn registry(app: &App) -> Result<Registry> {
    Ok(Registry::new(app.place.vms()?, tools(app)?))
}

/// The disk of the built image; built where it is not there.
fn disk(app: &App, target: &Target) -> Result<PathBuf> {
    let (deploy, index) = pipeline::built(app, target)?;
    let entry = index.find(Kind::Disk).ok_or_else(|| {
        miette!(
            help = "build it again",
            "{} lists no disk",
            deploy.display()
        )
    })?;
    Ok(deploy.join(&entry.file))
}

/// A machine with our keys in its firmware, Secure Boot on, and a TPM of its own; it boots its own
/// disk where it was installed, else the medium.
fn config(app: &App, tools: &Tools, name: &str, target: &Target) -> Result<VmConfig> {
    let config = bare(app, tools, name, target)?;
    let dir = app.place.vms()?.join(name);
    match install::Installed::read(&dir)? {
        Some(i) => Ok(config.disk(i.disk())),
        None => Ok(config.disk(Disk::image(disk(app, target)?))),
    }
}

/// The same without a disk.
fn bare(app: &App, tools: &Tools, name: &str, target: &Target) -> Result<VmConfig> {
    let keys = pipeline::keys_of(app, &app.place.deploy(target)?)?;
    let certificates = |role: Role| {
        keys.certificates(role)
            .into_iter()
            .map(|c| c.path)
            .collect::<Vec<_>>()
    };
    let arch = match lama_model::Description::load(&app.place.distro)?
        .select(&target.bsp, &target.image)?
        .machine
        .arch
    {
        lama_model::Arch::Amd64 => Arch::X86_64,
        lama_model::Arch::Arm64 => Arch::Arm64,
    };
    let store = VariableStore {
        arch,
        owner: keys.owner_guid(),
        pk: keys.certificate_path(Role::Pk),
        kek: certificates(Role::Kek),
        db: certificates(Role::Db),
        secure_boot: SecureBoot::On,
        boot_uri: None,
    };
    let variables = store.make(tools, &app.place.cache.join("firmware"))?;
    let mut config = VmConfig::new(name);
    config.arch = arch;
    config.firmware = Firmware::Uefi {
        variables: Variables::Copy(variables),
        smm: Smm::On,
    };
    Ok(config)
}

fn boot(app: &App, c: &VmBoot) -> Result<ExitCode> {
    let tools = tools(app)?;
    let registry = Registry::new(app.place.vms()?, tools.clone());
    let mut config = config(app, &tools, &c.name.name, &c.target)?;
    config.memory_mib = c.memory;
    config.cpus = c.cpus;
    config.display = match c.display {
        cli::Display::Spice => Display::Spice,
        cli::Display::Vnc => Display::Vnc,
        cli::Display::Console | cli::Display::None => Display::None,
    };
    if c.display == cli::Display::Console {
        app.talk
            .say("console in this terminal; Ctrl-A X ends the machine");
        let code = registry.boot_attached(&config, |_| {})?;
        return Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from));
    }
    let vm = registry.boot(&config, Lifetime::Detached)?;
    let info = vm.info();
    app.result(&info, || table(std::slice::from_ref(&info)))?;
    app.talk.say(&format!(
        "the console is in {}; `lamadist vm shell --name {}` opens a shell",
        vm.console().path().display(),
        info.name
    ));
    Ok(ExitCode::SUCCESS)
}

fn shell(app: &App, c: &VmShell) -> Result<ExitCode> {
    let tools = tools(app)?;
    let registry = Registry::new(app.place.vms()?, tools.clone());
    let running = registry
        .info(&c.name.name)?
        .is_some_and(|i| i.state == State::Running);
    let mut vm = if running {
        registry.open(&c.name.name)?
    } else {
        let config = config(app, &tools, &c.name.name, &c.target)?;
        registry.boot(&config, Lifetime::Detached)?
    };
    {
        let title = format!("Waiting for {} to answer", c.name.name);
        let _t = lama_exec::Progress::task(&*app.talk, &title, lama_exec::progress::Unit::Busy, 0);
        vm.wait_ssh(None)?;
    }
    let code = vm.shell(&c.command)?;
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn table(all: &[VmInfo]) -> String {
    let mut lines = Vec::new();
    for i in all {
        let state = match i.state {
            State::Running => "running",
            State::Stopped => "stopped",
        };
        let mut l = format!("{:16} {state}", i.name);
        if let Some(p) = i.ssh_port {
            l += &format!("  ssh 127.0.0.1:{p}");
        }
        if let Some(d) = &i.display {
            l += &format!("  {d}");
        }
        if let Some(d) = &i.image {
            l += &format!("  {}", d.display());
        }
        lines.push(l);
    }
    lines.join("\n")
}
