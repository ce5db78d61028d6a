// SPDX-License-Identifier: Apache-2.0
//! The report of a machine: what it is, how it is reached, and how it is.

use crate::error::Context;
use crate::health::{Health, State, Verdict, parse};
use crate::kernel::{Cmdline, Slot};
use crate::machine::{Machine, Role};
use crate::run::Run;
use crate::{Result, clock, fs};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// Where the first boot after installation is written down.
pub const FIRST_BOOT: &str = "/var/lib/lamadist/first-boot.json";
/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A machine.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// When this was made, RFC 3339 in UTC.
    pub time: String,
    /// The machine (`distro/machines/`).
    pub bsp: String,
    /// The image.
    pub image: String,
    /// Its version.
    pub version: String,
    /// What was booted.
    pub slot: Option<&'static str>,
    /// The name.
    pub hostname: String,
    /// machine-id(5).
    pub machine_id: String,
    /// What `ssh-keygen -l` says of the host keys.
    pub ssh_host_keys: Vec<String>,
    /// Interface and address with prefix length.
    pub addresses: Vec<Address>,
    /// The disk that /var is on.
    pub disk: Option<Disk>,
    /// Bytes of the file system at /var, and of it those free.
    pub var: Option<Space>,
    /// Whether /var is an encrypted volume.
    pub encrypted: bool,
    /// How it is.
    pub health: Health,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Address {
    /// The interface.
    pub interface: String,
    /// The address with its prefix length.
    pub address: String,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Its device.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// Space of a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Space {
    /// Bytes.
    pub size: u64,
    /// Bytes.
    pub free: u64,
}

impl Report {
    /// Of this machine.
    ///
    /// # Errors
    /// What the build says of it cannot be read; all else is left out where it cannot be told.
    pub fn now() -> Result<Self> {
        let machine = Machine::read()?;
        let slot = Cmdline::read()?.slot();
        let var = machine.layout.iter().find(|p| p.role == Role::Var);
        let health = Health::now()?;
        let on = |name: &str| {
            let found = health.checks.iter().find(|c| c.name == name);
            found.is_some_and(|c| c.result == Verdict::Ok)
        };
        Ok(Self {
            time: clock::now(),
            slot: slot.map(Slot::name),
            hostname: fs::line("/proc/sys/kernel/hostname").unwrap_or_default(),
            machine_id: fs::line("/etc/machine-id").unwrap_or_default(),
            ssh_host_keys: host_keys(Path::new("/etc/ssh")),
            addresses: addresses(),
            disk: var.and_then(|p| disk(&format!("/dev/lamadist/{}", p.label))),
            var: space(),
            encrypted: on("encryption"),
            bsp: machine.bsp,
            image: machine.image,
            version: machine.version,
            health,
        })
    }

    /// In a few lines.
    pub fn text(&self) -> String {
        let slot = self.slot.unwrap_or("unknown");
        let mut s = format!(
            "LamaDist {} {} {}, slot {slot}\n\n",
            self.bsp, self.image, self.version
        );
        let mut row = |name: &str, value: &str| s += &format!("  {name:12} {value}\n");
        row("host name", &self.hostname);
        row("machine ID", &self.machine_id);
        for k in &self.ssh_host_keys {
            row("host key", k);
        }
        if self.addresses.is_empty() {
            row("address", "none");
        }
        for a in &self.addresses {
            row("address", &format!("{} ({})", a.address, a.interface));
        }
        if let Some(d) = &self.disk {
            row("disk", &format!("{}, {}", d.path, size(d.size)));
        }
        if let Some(v) = &self.var {
            let how = if self.encrypted {
                "encrypted"
            } else {
                "NOT encrypted"
            };
            let (all, free) = (size(v.size), size(v.free));
            row("/var", &format!("{all}, {free} free, {how}"));
        }
        let health = match self.health.state {
            State::Good => "good",
            State::Bad => "BAD",
        };
        row("health", health);
        for c in &self.health.checks {
            if c.result != Verdict::Ok {
                row("", &format!("{}: {}", c.name, c.reason));
            }
        }
        s
    }

    /// Writes it down as the one of the first boot.
    ///
    /// # Errors
    /// It cannot be written; then nothing stands there.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).context("cannot write JSON")?;
        fs::write(path, json, 0o644)
    }
}

fn size(bytes: u64) -> String {
    crate::block::size(bytes)
}

/// Fingerprints of the host keys in a directory.
fn host_keys(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for name in fs::names(dir).unwrap_or_default() {
        if !name.starts_with("ssh_host_") || !name.ends_with(".pub") {
            continue;
        }
        let run = Run::new("ssh-keygen")
            .args(["-l", "-f"])
            .arg(dir.join(name));
        if let Ok(o) = run.within(LIMIT) {
            if o.status.success() {
                out.push(parse::line(&String::from_utf8_lossy(&o.stdout)));
            }
        }
    }
    out
}

/// What `ip -j addr` prints (ip(8)).
#[derive(Deserialize)]
struct Link {
    ifname: String,
    #[serde(default)]
    addr_info: Vec<Info>,
}

#[derive(Deserialize)]
struct Info {
    local: Option<String>,
    prefixlen: Option<u8>,
    scope: Option<String>,
}

fn addresses() -> Vec<Address> {
    let out = Run::new("ip").args(["-j", "addr"]).within(LIMIT);
    out.map(|o| parse_addresses(&o.stdout)).unwrap_or_default()
}

/// The addresses that others reach: not those of the machine or the link only.
fn parse_addresses(json: &[u8]) -> Vec<Address> {
    let links: Vec<Link> = serde_json::from_slice(json).unwrap_or_default();
    let mut out = Vec::new();
    for link in links {
        for i in link.addr_info {
            let (Some(a), Some(n)) = (i.local, i.prefixlen) else {
                continue;
            };
            if i.scope.as_deref() == Some("global") {
                out.push(Address {
                    interface: link.ifname.clone(),
                    address: format!("{a}/{n}"),
                });
            }
        }
    }
    out
}

/// The disk of a partition.
fn disk(partition: &str) -> Option<Disk> {
    let p = crate::grow::Partition::find(partition).ok()?;
    Some(Disk {
        path: p.disk.clone(),
        size: p.disk_size(),
    })
}

fn space() -> Option<Space> {
    let s = crate::health::checks::statvfs("/var").ok()?;
    Some(Space {
        size: s.f_blocks.saturating_mul(s.f_frsize),
        free: s.f_bavail.saturating_mul(s.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Finding;

    #[test]
    fn a_report_is_short() {
        let r = Report {
            time: clock::rfc3339(0),
            bsp: "x86_64".into(),
            image: "base".into(),
            version: "1".into(),
            slot: Some("a"),
            hostname: "nas".into(),
            machine_id: "0123".into(),
            ssh_host_keys: vec!["256 SHA256:x root@nas (ED25519)".into()],
            addresses: Vec::new(),
            disk: None,
            var: Some(Space {
                size: 4 << 30,
                free: 1 << 30,
            }),
            encrypted: true,
            health: Health {
                state: State::Bad,
                time: clock::rfc3339(0),
                checks: vec![Finding {
                    name: "units".into(),
                    result: Verdict::Failed,
                    reason: "failed: a.service".into(),
                }],
            },
        };
        let text = r.text();
        assert!(text.starts_with("LamaDist x86_64 base 1, slot a\n\n  host name    nas\n"));
        assert!(text.ends_with("  health       BAD\n               units: failed: a.service\n"));
        let t = tempfile::tempdir().unwrap();
        let f = t.path().join("d/first-boot.json");
        r.write(&f).unwrap();
        let v: serde_json::Value = serde_json::from_slice(&fs::read(&f).unwrap()).unwrap();
        assert_eq!(
            (&v["hostname"], &v["time"]),
            (&"nas".into(), &"1970-01-01T00:00:00Z".into())
        );
    }

    #[test]
    fn addresses_of_the_machine_only_are_left_out() {
        let json = br#"[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1",
            "prefixlen":8,"scope":"host"}]},{"ifname":"eth0","addr_info":[{"local":"192.0.2.1",
            "prefixlen":24,"scope":"global"},{"local":"fe80::1","prefixlen":64,"scope":"link"}]}]"#;
        let a = parse_addresses(json);
        assert_eq!(a.len(), 1);
        assert_eq!(
            (a[0].interface.as_str(), a[0].address.as_str()),
            ("eth0", "192.0.2.1/24")
        );
        assert!(parse_addresses(b"no JSON").is_empty());
    }
}
