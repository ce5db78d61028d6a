// SPDX-License-Identifier: Apache-2.0
//! `lamadist host`: one machine's name, network and keys, signed into an addon of its UKI.

mod put;
mod signer;

pub use put::put;
pub use signer::Signer;

use crate::App;
use crate::cli::{Host as Command, HostAdd, HostCertificate, HostName, Hosts};
use crate::pipeline::Sources;
use lama_bundle::cms::Certificate;
use lama_exec::fs;
use lama_model::host::install::{self, Answer, Install};
use lama_model::host::update::Update;
use lama_model::host::{Checked, Host, Network};
use miette::{IntoDiagnostic, Result, miette};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use toml::Spanned;

/// Adds, lists, shows, signs or removes hosts.
pub fn run(app: &App, c: &Command) -> Result<ExitCode> {
    match c {
        Command::Add(a) => add(app, a)?,
        Command::List(h) => list(app, h)?,
        Command::Show(n) => {
            let shown = Shown::of(&load(app, n)?);
            app.result(&shown, || {
                let lines = [shown.cmdline.as_str(), shown.install.as_str()];
                lines.join("\n").trim_end().to_owned()
            })?;
        }
        Command::Addon(a) => {
            let output = a.output.clone();
            let output = output.unwrap_or_else(|| default_output(app, &a.host));
            Signer::new(app, &a.host, a.release)?.host(&output)?;
            app.result(&output, || output.display().to_string())?;
        }
        Command::Certificate(c) => take_certificate(app, c)?,
        Command::Put(p) => put(app, p, &[])?,
        Command::Rm(n) => {
            let path = file(app, n);
            if !path.is_file() {
                load(app, n)?;
            }
            fs::remove_file(path.with_extension("crt"))?;
            fs::remove_file(path)?;
            fs::remove_file(default_output(app, n))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a machine's addons say.
#[derive(Serialize)]
struct Shown {
    /// Kernel parameters of medium and system.
    cmdline: String,
    /// Those of the installer alone.
    install: String,
}

impl Shown {
    fn of(c: &Checked) -> Self {
        Self {
            cmdline: c.cmdline.clone(),
            install: install::cmdline(&c.install),
        }
    }
}

/// Answers as they were given, `KEY=VALUE` each.
///
/// # Errors
/// One is none that the installer would take.
pub fn answers(given: &[String]) -> Result<Vec<Answer>> {
    let one = |text: &String| {
        Answer::parse(text).map_err(|w| miette!(help = w.hint, "{}", w.message.escape_debug()))
    };
    given.iter().map(one).collect()
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

/// The certificate of a host, which bundles are encrypted to.
pub fn certificate(app: &App, name: &str, hosts: &Hosts) -> Result<PathBuf> {
    let host = HostName {
        name: name.to_owned(),
        hosts: hosts.clone(),
    };
    load(app, &host)?;
    let path = file(app, &host).with_extension("crt");
    if path.is_file() {
        return Ok(path);
    }
    Err(miette!(
        help = format!(
            "on the machine, `lama-node key` prints it; then `lamadist host certificate {name} FILE`"
        ),
        "the certificate of {name} is not known here"
    ))
}

/// Takes up a host's certificate, or shows it.
fn take_certificate(app: &App, c: &HostCertificate) -> Result<()> {
    let Some(from) = &c.file else {
        let path = certificate(app, &c.host.name, &c.host.hosts)?;
        return show_certificate(app, &path);
    };
    load(app, &c.host)?;
    let pem = fs::read(from)?;
    let new = Certificate::parse_pem(&pem);
    let new = new.ok_or_else(|| {
        miette!(
            help = "take what `lama-node key` prints on the machine",
            "{} is no certificate in PEM form",
            from.display()
        )
    })?;
    let path = file(app, &c.host).with_extension("crt");
    if let Some(old) = fs::read_optional(&path)?
        && Certificate::parse_pem(&old).is_some_and(|o| o.sha256 != new.sha256)
        && !c.replace
    {
        return Err(miette!(
            help = "where the machine was installed anew, or made itself a new key, pass --replace; ask yourself who did it",
            "{} has another certificate already",
            c.host.name
        ));
    }
    fs::write_atomic(&path, pem)?;
    show_certificate(app, &path)
}

fn show_certificate(app: &App, path: &Path) -> Result<()> {
    let known = Certificate::parse_pem(&fs::read(path)?);
    let known = known.ok_or_else(|| miette!("{} is no certificate", path.display()))?;
    app.result(&known, || format!("{}\n{}", known.subject, known.sha256))
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
    let answers = answers(&a.answer)?;
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
        update: (a.update_url.is_some() || a.track.is_some()).then(|| Update {
            url: a.update_url.as_ref().map(plain),
            track: a.track.as_ref().map(plain),
        }),
        install: (!answers.is_empty()).then(|| Install::of(&answers)),
    };
    let text = toml::to_string_pretty(&host).into_diagnostic()?;
    let checked = Host::parse(&path, &text)?;
    let sources = Sources::load(&app.place.distro)?;
    checked.check_track(&sources.description.distro)?;
    sources.description.select(&a.bsp, "base")?;
    fs::write_atomic(&path, text)?;
    let output = default_output(app, &a.host);
    Signer::new(app, &a.host, a.release)?.host(&output)?;
    app.result(&[&path, &output], || {
        format!("{}\n{}", path.display(), output.display())
    })
}
