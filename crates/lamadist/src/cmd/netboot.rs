// SPDX-License-Identifier: Apache-2.0
//! `lamadist netboot`: the installer, over the network.

use super::host;
use crate::App;
use crate::cli::{self, HostName};
use crate::pipeline::netboot::{Job, Machine};
use crate::pipeline::{self, Sources, packages::Policy};
use lama_exec::fs;
use lama_exec::progress::{Progress, Unit};
use lama_model::host::Checked;
use lama_model::host::install::{Answer, merge};
use lama_netboot::{Architecture, Files, Options, Place, Server, render};
use miette::{Result, miette};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// What is printed before the first request.
#[derive(Serialize)]
struct Said {
    /// Where it listens.
    address: IpAddr,
    http_port: u16,
    tftp_port: Option<u16>,
    /// The URL of each name.
    urls: BTreeMap<String, String>,
    dhcp: render::Dhcp,
}

/// Makes what is missing, and serves it.
pub fn run(app: &App, c: &cli::Netboot) -> Result<ExitCode> {
    let answers = host::answers(&c.answer)?;
    let hosts = hosts(app, c)?;
    let server = Server::bind(&Options {
        listen: c.listen.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        http_port: c.http_port,
        tftp_port: (!c.no_tftp).then_some(c.tftp_port),
        count: if c.once { Some(1) } else { c.count },
    })?;
    let architecture = architecture(app, c)?;
    let (files, what) = files(app, c, &hosts, &answers)?;
    let place = Place {
        address: address(c.listen),
        http_port: server.http_port(),
        tftp_port: server.tftp_port(),
        architecture,
    };
    say(app, c, &place, &files)?;
    let stopper = server.stopper();
    crate::on_interrupt(move || stopper.stop());
    app.talk.say(&format!("serving {what}; Ctrl-C ends it"));
    let talk = Arc::clone(&app.talk);
    let n = server.run(files, move |event| talk.say(&event.to_string()))?;
    app.talk
        .say(&format!("stopped after {n} complete downloads"));
    Ok(ExitCode::SUCCESS)
}

/// The hosts that were named.
fn hosts(app: &App, c: &cli::Netboot) -> Result<Vec<(HostName, Checked)>> {
    let mut all: Vec<(HostName, Checked)> = Vec::new();
    for name in &c.host {
        let n = HostName {
            name: name.clone(),
            hosts: c.hosts.clone(),
        };
        let checked = host::load(app, &n)?;
        if checked.host.bsp != c.target.bsp {
            return Err(miette!(
                help = format!("serve it with --bsp {}", checked.host.bsp),
                "{name} is a machine of {}, which cannot start what is built for {}",
                checked.host.bsp,
                c.target.bsp
            ));
        }
        if !all.iter().any(|(other, _)| other.name == *name) {
            all.push((n, checked));
        }
    }
    Ok(all)
}

fn architecture(app: &App, c: &cli::Netboot) -> Result<Architecture> {
    let d = lama_model::Description::load(&app.place.distro)?;
    let machine = d.select(&c.target.bsp, &c.target.image)?.machine;
    Ok(match machine.arch {
        lama_model::Arch::Amd64 => Architecture::X86_64,
        lama_model::Arch::Arm64 => Architecture::Arm64,
    })
}

/// Makes the files that are out of date, and names them all.
fn files(
    app: &App,
    c: &cli::Netboot,
    hosts: &[(HostName, Checked)],
    answers: &[Answer],
) -> Result<(Files, String)> {
    let (deploy, _) = pipeline::built(app, &c.target)?;
    // Not while somebody builds there.
    let _lock = fs::FileLock::exclusive(deploy.join(".lock"))?;
    let index = lama_image::index::Index::read(&deploy)?;
    let sources = Sources::load(&app.place.distro)?;
    let tools = pipeline::tools(app, &sources, Policy::Extend)?;
    let keys = pipeline::keys_of(app, &deploy)?;
    let release = keys.dir() == app.place.release_keys();
    let job = Job {
        deploy: &deploy,
        index: &index,
        keys: &keys,
        tools: &tools,
        cache: &app.place.cache,
        epoch: sources.description.distro.source_date_epoch,
    };
    let mut files = Files::new();
    let any = format!("{}/{}/installer.efi", c.target.bsp, c.target.image);
    // An answer may wipe a disk: what is for some machines is not given to every one.
    let of_any: &[Answer] = if hosts.is_empty() { answers } else { &[] };
    files.add_file(&any, &make(app, &job, None, of_any)?)?;
    let mut first = any;
    for (name, checked) in hosts {
        let machine = Machine {
            name: &name.name,
            cmdline: &checked.cmdline,
            addon: &|to| host::Signer::new(app, name, release)?.host(to),
        };
        let answers = merge(&checked.install, answers);
        let own = format!("hosts/{}/installer.efi", name.name);
        files.add_file(&own, &make(app, &job, Some(&machine), &answers)?)?;
        for mac in checked.host.network.iter().filter_map(|n| n.mac.as_ref()) {
            let mac = render::mac_name(mac.get_ref());
            files.alias(&format!("mac/{mac}/installer.efi"), &own)?;
        }
        if let [_] = hosts {
            first = own;
        }
    }
    files.alias("installer.efi", &first)?;
    let what = format!(
        "{} {} ({}/{})",
        sources.description.distro.name, index.version, c.target.bsp, c.target.image
    );
    files.add_text("boot.ipxe", &render::ipxe(&what))?;
    Ok((files, what))
}

fn make(
    app: &App,
    job: &Job<'_>,
    machine: Option<&Machine<'_>>,
    answers: &[Answer],
) -> Result<PathBuf> {
    let title = match machine {
        None => "Making the installer for any machine".to_owned(),
        Some(m) => format!("Making the installer for {}", m.name),
    };
    let _t = app.talk.task(&title, Unit::Busy, 0);
    job.make(machine, answers)
}

/// The address that others reach this machine at: the one that was named, or else that of the
/// default route. No packet is sent for it.
fn address(listen: Option<IpAddr>) -> IpAddr {
    match listen {
        Some(a) if !a.is_unspecified() => return a,
        _ => {}
    }
    let ask = || {
        let s = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        // TEST-NET-1 (RFC 5737): nobody's, but routed like everything else.
        s.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        Some(s.local_addr().ok()?.ip())
    };
    ask().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn say(app: &App, c: &cli::Netboot, place: &Place, files: &Files) -> Result<()> {
    let said = Said {
        address: place.address,
        http_port: place.http_port,
        tftp_port: place.tftp_port,
        urls: files
            .names()
            .map(|n| (n.to_owned(), place.url(n)))
            .collect(),
        dhcp: place.dhcp(),
    };
    app.result(&said, || {
        let urls: Vec<&str> = said.urls.values().map(String::as_str).collect();
        let lines = match c.dhcp {
            cli::Dhcp::Dnsmasq => &said.dhcp.dnsmasq,
            cli::Dhcp::Proxy => &said.dhcp.proxy,
            cli::Dhcp::Isc => &said.dhcp.isc,
            cli::Dhcp::Kea => &said.dhcp.kea,
        };
        format!("{}\n\n{}", urls.join("\n"), lines.trim_end())
    })
}
