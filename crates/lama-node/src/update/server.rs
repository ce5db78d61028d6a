// SPDX-License-Identifier: Apache-2.0
//! What the server says: its channel file, looked at, and believed or not.

use super::book::DIR;
use super::channel::{self, Channel, Known};
use super::config::Config;
use super::fetch::{Kind, Want};
use super::obtain::Offer;
use super::seen;
use super::version::Version;
use crate::machine::Machine;
use crate::run::Run;
use crate::{Error, Result, clock};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What a look at the server found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Found {
    /// The channel file's URL.
    pub channel: String,
    /// The version that the track is at.
    pub version: String,
    /// The version that runs.
    pub running: String,
    /// Whether it is newer.
    pub newer: bool,
    /// Whether the version that runs is one that must not run any more.
    pub revoked: bool,
    /// The bundle's URL.
    pub bundle: String,
    /// Its bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// A delta bundle from the version that runs, with its whole URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<channel::File>,
    /// Where the channel file lies here.
    #[serde(skip)]
    pub file: PathBuf,
}

impl Found {
    /// What is offered for this machine.
    pub fn offer(&self) -> Offer<'_> {
        Offer {
            version: &self.version,
            bundle: Want {
                url: &self.bundle,
                size: self.size,
                sha256: &self.sha256,
                kind: Kind::Bundle,
            },
            delta: self.delta.as_ref().map(|d| Want {
                url: &d.url,
                size: d.size,
                sha256: &d.sha256,
                kind: Kind::Delta,
            }),
        }
    }
}

/// Asks the server which version there is.
///
/// # Errors
/// No server is configured, it cannot be reached, or its channel file must not be believed.
pub fn check(config: &Config) -> Result<Found> {
    find(config, None)
}

/// Reads the channel file, from the server or from here.
pub(super) fn find(config: &Config, kept: Option<&Path>) -> Result<Found> {
    let machine = Machine::read()?;
    let hint = "say it in /etc/lamadist/update.conf (url=, track=), or in the host's description";
    let none = |what: &str| Error::new(format!("no {what} for updates is set")).hint(hint);
    let base = config.source.url.as_deref().ok_or_else(|| none("server"))?;
    let track = config
        .source
        .track
        .as_deref()
        .ok_or_else(|| none("track"))?;
    let url = format!(
        "{}/{track}/{}-{}.channel",
        base.trim_end_matches('/'),
        machine.compatible,
        machine.image
    );
    let file = match kept {
        Some(file) => file.to_owned(),
        None => {
            let file = Path::new("/run/lamadist").join("update.channel");
            fetch(&url, &file)?;
            file
        }
    };
    let channel = Channel::open(&file, Path::new(channel::KEYRING))?;
    let dir = Path::new(DIR);
    let offer = channel.judge(&Known {
        machine: &machine,
        track,
        serial: seen::serial(dir, track)?,
        now: &clock::now(),
    })?;
    seen::note(dir, track, &channel)?;
    // Also by an earlier file: one that names no oldest version lifts nothing.
    let revoked = match seen::minimum(dir, track)? {
        Some(oldest) => Version::parse(&machine.version)? < oldest,
        None => false,
    };
    let delta = channel.delta(&machine.version).map(|d| channel::File {
        url: channel::resolve(&url, &d.file.url),
        ..d.file.clone()
    });
    Ok(Found {
        bundle: channel::resolve(&url, &channel.bundle.url),
        size: channel.bundle.size,
        sha256: channel.bundle.sha256,
        delta,
        file,
        version: channel.version,
        running: machine.version,
        newer: offer == channel::Offer::Newer,
        revoked,
        channel: url,
    })
}

/// Gets a small file.
fn fetch(url: &str, to: &Path) -> Result<()> {
    Run::new("curl")
        .args(["--fail", "--silent", "--show-error", "--location"])
        .args(["--proto", "=https,http", "--max-time", "60"])
        .args(["--max-filesize", &channel::LIMIT.to_string(), "--output"])
        .arg(to)
        .arg(url)
        .run()
        .map(|_| ())
        .map_err(|e| {
            Error::new(format!("cannot get {url}: {e}"))
                .hint("is the server there, and is its address right? (lama-node update)")
        })
}
