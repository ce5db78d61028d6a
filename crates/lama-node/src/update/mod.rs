// SPDX-License-Identifier: Apache-2.0
//! Updates: which version there is, how it gets into the other slot, and whether it is kept.
//!
//! RAUC is the only installer, and the only one that trusts a bundle. Here is what it leaves to
//! others: the channel file that says which bundle ([`channel`]), how that gets here ([`obtain`]), when
//! ([`config`]), and the judgement of the new system ([`judge`]), whose reasons outlive a fallback
//! ([`trial`], [`book`]); and the way back by hand ([`rollback`]).

pub mod book;
pub mod channel;
pub mod config;
pub mod curl;
pub mod delta;
pub mod fetch;
pub mod flow;
pub mod index;
pub mod judge;
pub mod node;
pub mod obtain;
pub mod progress;
pub mod rauc;
pub mod rollback;
pub mod seen;
pub mod server;
pub mod source;
pub mod store;
pub mod trial;
pub mod version;

use crate::boot_count::GivenUp;
use crate::health::{self, Finding, Health, Verdict};
use crate::kernel::{Cmdline, Slot};
use crate::loader::Loader;
use crate::machine::{Machine, Migration, Partition, Role};
use crate::run::Run;
use crate::{Error, Result, clock, generator};
use book::{Book, DIR, Failed};
use config::Config;
use rauc::Failure;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use store::{Ahead, Store};
use trial::{Outcome, Stage, Trial};
use version::Version;

pub use server::{Found, check};
pub use source::{PATH, Source};

/// Where this machine is in its updates.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Standing {
    /// The slot that runs.
    pub slot: Slot,
    /// The version that runs.
    pub version: String,
    /// The version in the other slot, where RAUC knows it.
    pub other: Option<String>,
    /// How it updates itself.
    pub config: Config,
    /// A new slot on trial.
    pub trial: Option<Trial>,
    /// What came of the last one.
    pub last: Option<Outcome>,
    /// The installation that failed last, unless one has succeeded since.
    pub failed: Option<Failed>,
    /// The other slot, where it did not come up any more.
    pub given_up: Option<GivenUp>,
    /// What was loaded and not installed yet.
    pub ahead: Option<Ahead>,
}

/// The slot that runs, of an installed machine.
///
/// # Errors
/// This is none.
pub fn running() -> Result<Slot> {
    match Cmdline::read()?.slot() {
        Some(s @ (Slot::A | Slot::B)) => Ok(s),
        _ => Err(Error::new("this is not an installed machine")
            .hint("a medium is not updated: make a new one")),
    }
}

/// How this machine stands.
///
/// # Errors
/// Configuration or book cannot be read, RAUC does not answer.
pub fn standing() -> Result<Standing> {
    let slot = running()?;
    let book = Book::new(DIR);
    let trial = book.trial()?;
    let writing = trial.as_ref().is_some_and(|t| t.stage == Stage::Installing);
    let other = match rauc::Status::now() {
        Ok(status) => slot
            .other()
            .and_then(|s| status.version(s))
            .map(str::to_owned),
        // RAUC answers nobody while it writes.
        Err(_) if writing => None,
        Err(e) => return Err(e),
    };
    Ok(Standing {
        slot,
        version: Machine::read()?.version,
        other,
        config: Config::read()?,
        trial,
        last: book.last()?,
        failed: book.failure()?,
        given_up: GivenUp::read()?,
        // Who is not root may not look.
        ahead: Store::ahead(Path::new(DIR)).ok().flatten(),
    })
}

/// Which versions may be installed, of those that have not been revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allow {
    /// Newer ones.
    Newer,
    /// Any.
    Any,
}

/// Where a bundle comes from, for who judges it.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The version that it has to be.
    pub expected: Option<String>,
    /// The server, which has to be reachable from the new slot, too.
    pub server: Option<String>,
    /// Bytes that were loaded for it, and that the whole bundle has.
    pub loaded: Option<(u64, u64)>,
}

/// Whether this system is on trial itself.
fn judged(book: &Book, slot: Slot) -> Result<()> {
    match book.trial()?.filter(|t| t.to == slot) {
        Some(t) => Err(Error::new(format!("{} is on trial itself", t.version))
            .hint("wait until it is judged: lama-node update")),
        None => Ok(()),
    }
}

/// Installs a bundle, a file or a URL, into the other slot. It is started once at the next restart.
///
/// # Errors
/// RAUC does not trust it, it is for other machines, older, or revoked, this system is on trial itself.
/// Whatever goes wrong, the system that runs is as before.
pub fn install(bundle: &str, allow: Allow, origin: &Origin) -> std::result::Result<Trial, Failure> {
    let slot = running()?;
    let to = slot.other().unwrap_or(slot);
    let machine = Machine::read()?;
    let book = Book::new(DIR);
    let boot = judge::boot_id();
    judged(&book, slot)?;
    machine.loader.can_try(&machine)?;
    let oldest = oldest()?;
    let manifest = rauc::info(bundle)?;
    let expected = origin.expected.as_deref();
    permitted(&manifest, &machine, allow, expected, oldest.as_ref())?;
    let crosses = |m: &&Migration| m.is_between(&machine.version, &manifest.version);
    if let Some(m) = manifest
        .migration
        .as_ref()
        .filter(|m| crosses(m).unwrap_or(true))
    {
        eprintln!(
            "note: {} changes data so that no version before {} can read it: {}",
            manifest.version, m.since, m.note
        );
    }
    open(&machine, to)?;
    let (ailing, networked) = before();
    let trial = Trial {
        from: slot,
        to,
        before: machine.version.clone(),
        version: manifest.version,
        boot,
        server: origin.server.clone(),
        loaded: origin.loaded.map(|l| l.0),
        size: origin.loaded.map(|l| l.1),
        uki: manifest.uki,
        ailing,
        networked,
        installed: clock::now(),
        stage: Stage::Installing,
    };
    if let Err(e) = index::prepare(&machine, &rauc::Status::now()?, slot) {
        eprintln!("warning: RAUC has to look through whole partitions first: {e}");
    }
    if machine.loader == Loader::Firmware && book.trial()?.is_some() {
        // What waits there for a restart is going to be written over, and BootNext names it.
        rauc::try_once(slot)?;
    }
    // Before it is written: RAUC's last act lets the firmware start it.
    book.begin(&trial)?;
    if let Err(failure) = rauc::install(bundle) {
        book.drop_trial()?;
        return Err(failure);
    }
    let trial = Trial {
        stage: Stage::Installed,
        ..trial
    };
    book.begin(&trial)?;
    Ok(trial)
}

/// What is not well before a trial, and whether there is a network; nothing where that cannot be told.
fn before() -> (Vec<Finding>, bool) {
    // In its own service, which is no part of whatever runs here and may see more.
    let run = Run::new("systemctl").args(["start", "lamadist-health.service"]);
    // Where it fails, what lies there is of an earlier look.
    let looked = run.run_within(Duration::from_secs(120));
    match looked.and_then(|_| Health::read(Path::new(health::PATH))) {
        Ok(h) => {
            let online = |c: &Finding| c.name == trial::NETWORK && c.result == Verdict::Ok;
            (h.failed().cloned().collect(), h.checks.iter().any(online))
        }
        Err(e) => {
            eprintln!("warning: whether the machine is well is not known: {e}");
            (Vec::new(), false)
        }
    }
}

/// The oldest version that may run here.
fn oldest() -> Result<Option<Version>> {
    match Config::read()?.source.track {
        Some(track) => seen::minimum(Path::new(DIR), &track),
        None => Ok(None),
    }
}

/// Opens the root's volume of a slot that does not run, which stays closed until it is needed.
fn open(machine: &Machine, slot: Slot) -> Result<()> {
    let of = |p: &&Partition| {
        p.role == Role::Root && p.encrypted && p.slot.as_deref() == Some(slot.name())
    };
    let Some(root) = machine.layout.iter().find(of) else {
        return Ok(());
    };
    let unit = format!(
        "systemd-cryptsetup@{}.service",
        generator::mapper(&root.label)
    );
    let run = Run::new("systemctl").args(["start", &unit]);
    run.run().map(|_| ()).map_err(|e| {
        Error::new(format!("slot {} cannot be opened: {e}", slot.name())).hint(format!(
            "see journalctl -u {unit}; lama-node enroll seals anew"
        ))
    })
}

fn permitted(
    m: &rauc::Manifest,
    machine: &Machine,
    allow: Allow,
    expected: Option<&str>,
    oldest: Option<&Version>,
) -> Result<()> {
    if m.compatible != machine.compatible {
        return Err(Error::new(format!(
            "the bundle is for {}, and this machine is {}",
            m.compatible, machine.compatible
        ))
        .hint("build one with --bsp and --image of this machine"));
    }
    if let Some(v) = expected.filter(|v| *v != m.version) {
        return Err(Error::new(format!(
            "the server's bundle is {}, and its channel file says {v}",
            m.version
        ))
        .hint("the server is being changed just now, or lies; nothing was installed"));
    }
    // By hand, a machine may be made another image.
    if let Some(i) = m
        .image
        .as_deref()
        .filter(|i| expected.is_some() && *i != machine.image)
    {
        return Err(Error::new(format!(
            "the server's bundle has the image {i}, and this machine is {}",
            machine.image
        ))
        .hint("the server is being changed just now, or lies; nothing was installed"));
    }
    let version = Version::parse(&m.version)?;
    if let Some(oldest) = oldest.filter(|o| version < **o) {
        return Err(Error::new(format!(
            "the bundle's version {version} has been revoked: the server has said that none before {oldest} may run"
        ))
        .hint("install a newer one; --force does not help here, only a channel file that allows it again"));
    }
    let newer = version > Version::parse(&machine.version)?;
    if !newer && allow == Allow::Newer {
        return Err(Error::new(format!(
            "the bundle's version {} is not newer than {}, which runs",
            m.version, machine.version
        ))
        .hint("--force installs it all the same"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_has_to_be_this_machines_and_newer() {
        let machine = Machine::parse(
            br#"{"bsp":"x","image":"base","version":"1.2.0","compatible":"c","layout":[]}"#,
        )
        .unwrap();
        let bundle = |compatible: &str, version: &str| rauc::Manifest {
            compatible: compatible.into(),
            version: version.into(),
            image: Some("base".into()),
            uki: None,
            migration: None,
        };
        let ok =
            |b: &rauc::Manifest, allow, expected| permitted(b, &machine, allow, expected, None);
        assert!(ok(&bundle("c", "1.2.1"), Allow::Newer, None).is_ok());
        assert!(ok(&bundle("c", "1.2.0"), Allow::Any, None).is_ok());
        assert!(ok(&bundle("c", "1.2.1"), Allow::Newer, Some("1.2.1")).is_ok());
        for (b, allow, expected, says) in [
            (bundle("d", "1.2.1"), Allow::Any, None, "is for d"),
            (
                bundle("c", "1.2.0"),
                Allow::Newer,
                None,
                "not newer than 1.2.0",
            ),
            (
                bundle("c", "1.1.9"),
                Allow::Newer,
                None,
                "1.1.9 is not newer",
            ),
            (
                bundle("c", "1.2.1"),
                Allow::Any,
                Some("1.2.2"),
                "channel file says 1.2.2",
            ),
            (bundle("c", "x"), Allow::Any, None, "is no version"),
        ] {
            let e = ok(&b, allow, expected).unwrap_err();
            assert!(e.to_string().contains(says) && e.help().is_some(), "{e}");
        }
        let other = rauc::Manifest {
            image: Some("dev".into()),
            ..bundle("c", "1.2.1")
        };
        let e = ok(&other, Allow::Newer, Some("1.2.1")).unwrap_err();
        assert!(e.to_string().contains("has the image dev"), "{e}");
        assert!(ok(&other, Allow::Newer, None).is_ok());
        // What was revoked is not installed, whatever is allowed; what comes after it is.
        let revoked = |version: &str, oldest: &str| {
            let oldest = Version::parse(oldest).unwrap();
            permitted(
                &bundle("c", version),
                &machine,
                Allow::Any,
                None,
                Some(&oldest),
            )
        };
        for (version, oldest) in [
            ("1.1.9", "1.2.0"),
            ("1.3.0", "1.3.1"),
            ("1.3.0-rc.1", "1.3.0"),
        ] {
            let e = revoked(version, oldest).unwrap_err();
            assert!(
                e.to_string().contains("revoked") && e.help().is_some(),
                "{e}"
            );
        }
        assert!(revoked("1.2.0", "1.2.0").is_ok() && revoked("1.1.0", "1.0").is_ok());
    }
}
