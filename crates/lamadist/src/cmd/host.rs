// SPDX-License-Identifier: Apache-2.0
//! `lamadist host`: one machine's name, network and keys, signed into an addon of its UKI.

use crate::App;
use crate::cli::{self, Host as Command, HostAdd, HostName, Hosts};
use crate::pipeline::{self, Sources, packages::Policy};
use lama_exec::{Tools, fs};
use lama_image::{Arch, uki};
use lama_keys::KeySet;
use lama_model::host::{Checked, Host, Network};
use miette::{IntoDiagnostic, Result, WrapErr, miette};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use toml::Spanned;

/// Where systemd-stub looks for addons of every UKI on the ESP.
const ADDONS: &str = "::/loader/addons";

/// Adds, lists, shows, signs or removes hosts.
pub fn run(app: &App, c: &Command) -> Result<ExitCode> {
    match c {
        Command::Add(a) => add(app, a)?,
        Command::List(h) => list(app, h)?,
        Command::Show(n) => {
            let checked = load(app, n)?;
            app.result(&checked.cmdline, || checked.cmdline.clone())?;
        }
        Command::Addon(a) => {
            let output = a.output.clone();
            let output = output.unwrap_or_else(|| default_output(app, &a.host));
            sign(app, &a.host, &output, a.release)?;
            app.result(&output, || output.display().to_string())?;
        }
        Command::Put(p) => put(app, p)?,
        Command::Rm(n) => {
            let path = file(app, n);
            if !path.is_file() {
                load(app, n)?;
            }
            fs::remove_file(path)?;
            fs::remove_file(default_output(app, n))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn folder(app: &App, hosts: &Hosts) -> PathBuf {
    let default = || app.place.project.join("hosts");
    hosts.hosts.clone().unwrap_or_else(default)
}

fn file(app: &App, n: &HostName) -> PathBuf {
    folder(app, &n.hosts).join(format!("{}.toml", n.name))
}

fn default_output(app: &App, n: &HostName) -> PathBuf {
    let deploy = std::env::var_os("LAMADIST_DEPLOY");
    let deploy = deploy.map_or_else(|| app.place.project.join("deploy"), PathBuf::from);
    deploy.join("hosts").join(format!("{}.addon.efi", n.name))
}

/// Reads one, with an error that names those that there are.
pub fn load(app: &App, n: &HostName) -> Result<Checked> {
    let path = file(app, n);
    if !path.is_file() {
        let known = names(&folder(app, &n.hosts))?.join(", ");
        let hint = if known.is_empty() {
            format!("describe it with `lamadist host add {}`", n.name)
        } else {
            format!("there are: {known}")
        };
        return Err(miette!(
            help = hint,
            "there is no host {}, that is, no {}",
            n.name,
            path.display()
        ));
    }
    Ok(Host::load(path)?)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let name = |e: std::fs::DirEntry| {
        let name = e.file_name().into_string().ok()?;
        name.strip_suffix(".toml").map(str::to_owned)
    };
    let mut all: Vec<String> = fs::read_dir(dir)?.into_iter().filter_map(name).collect();
    all.sort();
    Ok(all)
}

fn list(app: &App, hosts: &Hosts) -> Result<()> {
    #[derive(Serialize)]
    struct Row {
        name: String,
        bsp: String,
        hostname: String,
    }
    let dir = folder(app, hosts);
    let mut rows = Vec::new();
    for name in names(&dir)? {
        let c = Host::load(dir.join(format!("{name}.toml")))?;
        rows.push(Row {
            name,
            bsp: c.host.bsp,
            hostname: c.hostname,
        });
    }
    app.result(&rows, || {
        let line = |r: &Row| format!("{:16} {:12} {}", r.name, r.bsp, r.hostname);
        rows.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

fn add(app: &App, a: &HostAdd) -> Result<()> {
    let path = file(app, &a.host);
    if path.exists() {
        return Err(miette!(
            help = "edit it, then run `lamadist host addon`; or remove it with `lamadist host rm`",
            "{} is there already",
            path.display()
        ));
    }
    let plain = |v: &String| Spanned::new(0..0, v.clone());
    let all = |v: &[String]| v.iter().map(plain).collect::<Vec<_>>();
    let mut ssh_keys = Vec::new();
    for f in &a.ssh_key {
        let text = fs::read_to_string(f)?;
        let lines = text.lines().map(str::trim);
        let keys = lines.filter(|l| !l.is_empty() && !l.starts_with('#'));
        ssh_keys.extend(keys.map(|l| Spanned::new(0..0, l.to_owned())));
    }
    let network = Network {
        interface: a.interface.as_ref().map(plain),
        mac: a.mac.as_ref().map(plain),
        dhcp: None,
        addresses: all(&a.address),
        gateways: all(&a.gateway),
        dns: all(&a.dns),
        domains: all(&a.domain),
        ntp: all(&a.ntp),
    };
    let given = a.interface.is_some()
        || a.mac.is_some()
        || [&a.address, &a.gateway, &a.dns, &a.domain, &a.ntp]
            .iter()
            .any(|v| !v.is_empty());
    // machine-id(5) recommends a random UUID of version 4.
    let id = || uuid::Uuid::new_v4().simple().to_string();
    let host = Host {
        bsp: a.bsp.clone(),
        hostname: a.hostname.as_ref().map(plain),
        machine_id: Some(plain(&a.machine_id.clone().unwrap_or_else(id))),
        time_zone: a.time_zone.as_ref().map(plain),
        ssh_keys,
        consoles: all(&a.console),
        network: if given { vec![network] } else { Vec::new() },
    };
    let text = toml::to_string_pretty(&host).into_diagnostic()?;
    Host::parse(&path, &text)?;
    let sources = Sources::load(&app.place.distro)?;
    sources.description.select(&a.bsp, "base")?;
    fs::write_atomic(&path, text)?;
    let output = default_output(app, &a.host);
    sign(app, &a.host, &output, a.release)?;
    app.result(&[&path, &output], || {
        format!("{}\n{}", path.display(), output.display())
    })
}

fn keys(app: &App, release: bool) -> Result<KeySet> {
    if !release {
        return pipeline::development(app);
    }
    let set = KeySet::open(app.place.release_keys())?;
    set.require_release()?;
    Ok(set)
}

/// Signs the host's addon to `output`. Returns the tools it took.
pub fn sign(app: &App, name: &HostName, output: &Path, release: bool) -> Result<Tools> {
    let checked = load(app, name)?;
    let sources = Sources::load(&app.place.distro)?;
    // The stub comes from the machine's own packages, so it is of its architecture.
    let selection = sources.description.select(&checked.host.bsp, "base")?;
    let version = &sources.description.distro.version;
    let tools = pipeline::tools(app, &sources, Policy::Extend)?;
    let root = pipeline::root(app, &sources, &selection, version, &tools, Policy::Extend)?;
    let arch = selection.machine.arch.as_str();
    let arch = Arch::from_debian(arch).ok_or_else(|| miette!("no addon can be made for {arch}"))?;
    let keys = keys(app, release)?;
    let addon = uki::Addon {
        arch,
        cmdline: &checked.cmdline,
        name: "lamadist.host",
        generation: 1,
        version,
    };
    {
        let signing = uki::Signing::new(&keys, &tools)?;
        uki::addon(&root.tree, output, &addon, Some(&signing))?;
    }
    Ok(tools)
}

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

pub fn put(app: &App, p: &cli::HostPut) -> Result<()> {
    let disk = std::path::absolute(&p.disk).into_diagnostic()?;
    fs::metadata(&disk)?;
    let scratch = fs::Scratch::new_in(app.place.cache.join("tmp"))?;
    let addon = scratch.path().join("host.addon.efi");
    let tools = sign(app, &p.host, &addon, p.release)?;
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
    let mtool = |program: &str| {
        let cmd = tools.command(program).args(["-i", &image]);
        cmd.bind(&disk).env("MTOOLS_SKIP_CHECK", "1")
    };
    for folder in ["::/loader", ADDONS] {
        if !mtool("mdir").arg(folder).run_any()?.0.success() {
            mtool("mmd").arg(folder).run()?;
        }
    }
    mtool("mcopy")
        .arg("-o")
        .arg(&addon)
        .arg(format!("{ADDONS}/host.addon.efi"))
        .bind_ro(&addon)
        .run()
        .wrap_err_with(|| format!("cannot write the addon to {}", disk.display()))?;
    app.talk
        .say(&format!("{} is {} now", disk.display(), p.host.name));
    Ok(())
}
