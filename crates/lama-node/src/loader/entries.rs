// SPDX-License-Identifier: Apache-2.0
//! systemd-boot's entries on the ESP, as BootOrder and BootNext are in firmware:
//!
//! | File in `/loader/entries` | |
//! |---|---|
//! | `lamadist-a.conf` | slot A is one to be started: it is good. The highest `version` comes first |
//! | `lamadist-once-b+1.conf` | slot B comes before those, once: systemd-boot counts down |
//! | `lamadist-once-b+0-1.conf` | it was: systemd-boot passes over it |
//!
//! They are entries of type #1 (Boot Loader Specification), small text files with `efi` and not the
//! UKIs themselves: what a UKI says of its version would decide the order, and a system that is not
//! newer could not be tried; and `default` of loader.conf does not look at the count (config_find_entry
//! in src/boot/boot.c of systemd 257). The UKIs beside them are entries by themselves (type #2), which
//! come after these: where all of these are lost, the newest version is started.

use crate::error::Context;
use crate::kernel::Slot;
use crate::loader::uki;
use crate::{Error, Result, fs};
use std::path::Path;

/// Where they lie on the ESP.
pub const DIR: &str = "loader/entries";
/// systemd-boot's configuration (loader.conf(5)) on the ESP.
pub const CONF: &str = "loader/loader.conf";
/// There once it was seen that systemd-boot counts here.
pub const COUNTS: &str = "loader/lamadist-counts";

/// Its content. No menu: a key pressed by noise on a serial line would stop the machine there.
pub const CONF_TEXT: &str = "# Written by lama-node. Which slot is started, the entries say.\n\
    timeout menu-disabled\neditor no\nauto-entries no\nauto-firmware no\n";

/// Digits that a version has at most.
const DIGITS: usize = 15;

/// An entry of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its slot.
    pub slot: Slot,
    /// What it is for.
    pub kind: Kind,
    /// Of several of a kind the highest comes first.
    pub version: u64,
    /// The boot in which it was written (`/proc/sys/kernel/random/boot_id`); empty where that is not
    /// known.
    pub boot: String,
}

/// What an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its slot is good.
    Good,
    /// Its slot is to be started as often as is left, before the good ones.
    Once {
        /// How often still; none where somebody took away the count, so that it is without end.
        left: Option<u64>,
        /// How often it was.
        done: u64,
    },
}

impl Entry {
    /// The name of its file, before any start was counted.
    pub fn name(&self) -> String {
        let slot = self.slot.name();
        match self.kind {
            Kind::Good => format!("lamadist-{slot}.conf"),
            Kind::Once { left: None, .. } => format!("lamadist-once-{slot}.conf"),
            Kind::Once {
                left: Some(l),
                done: 0,
            } => format!("lamadist-once-{slot}+{l}.conf"),
            Kind::Once {
                left: Some(l),
                done,
            } => format!("lamadist-once-{slot}+{l}-{done}.conf"),
        }
    }

    /// Its path on the ESP.
    pub fn path(&self) -> String {
        format!("{DIR}/{}", self.name())
    }

    /// The file's content.
    pub fn text(&self) -> String {
        let (slot, title) = (self.slot.name(), self.slot.name().to_uppercase());
        let once = if self.kind == Kind::Good {
            ""
        } else {
            ", once"
        };
        format!(
            "# Written by lama-node.\n# boot {}\ntitle LamaDist {title}{once}\nsort-key {}\n\
             version {}\nefi /{}\n",
            self.boot,
            self.sort_key(),
            self.version,
            uki(slot)
        )
    }

    /// Before that of the UKIs' own entries, which is the distribution's ID.
    fn sort_key(&self) -> &'static str {
        match self.kind {
            Kind::Once { .. } => "0-lamadist",
            Kind::Good => "1-lamadist",
        }
    }

    /// The entry that a file is, by its name and content; none where it is not one of ours, an error
    /// where it has our name and is damaged.
    fn parse(name: &str, text: &str) -> Option<std::result::Result<Self, ()>> {
        let (slot, kind) = parse_name(name)?;
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|l| l.trim().split_once(' '));
            lines.find_map(|(k, v)| (k == key).then(|| v.trim()))
        };
        let boot = text.lines().find_map(|l| l.strip_prefix("# boot "));
        let version = value("version").and_then(number);
        let entry = version.map(|version| Self {
            slot,
            kind,
            version,
            boot: boot.unwrap_or("").trim().to_owned(),
        });
        let path = format!("/{}", uki(slot.name()));
        let whole = entry.filter(|e| {
            value("sort-key") == Some(e.sort_key()) && value("efi") == Some(path.as_str())
        });
        Some(whole.ok_or(()))
    }

    /// Whether systemd-boot would start it.
    pub fn is_pending(&self) -> bool {
        matches!(self.kind, Kind::Once { left, .. } if left != Some(0))
    }
}

fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= DIGITS;
    let digits = plain && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// `lamadist-a.conf`, `lamadist-once-b+1.conf`, `lamadist-once-b+0-1.conf`.
fn parse_name(name: &str) -> Option<(Slot, Kind)> {
    let rest = name.strip_prefix("lamadist-")?.strip_suffix(".conf")?;
    let slot = |s: &str| match s {
        "a" => Some(Slot::A),
        "b" => Some(Slot::B),
        _ => None,
    };
    let Some(once) = rest.strip_prefix("once-") else {
        return Some((slot(rest)?, Kind::Good));
    };
    let Some((s, counts)) = once.split_once('+') else {
        let left = None;
        return Some((slot(once)?, Kind::Once { left, done: 0 }));
    };
    let (left, done) = counts.split_once('-').unwrap_or((counts, "0"));
    let kind = Kind::Once {
        left: Some(number(left)?),
        done: number(done)?,
    };
    Some((slot(s)?, kind))
}

/// What lies on an ESP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Entries of ours, in the order in which systemd-boot puts them.
    pub entries: Vec<Entry>,
    /// Files of ours, by their path on the ESP, that are damaged or were left by a write that was cut
    /// off.
    pub junk: Vec<String>,
    /// Slots that have a UKI.
    pub ukis: Vec<Slot>,
    /// Whether it was seen that systemd-boot counts here.
    pub counts: bool,
    /// Whether its configuration is ours.
    pub configured: bool,
}

impl State {
    /// Reads it from a mounted ESP.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(esp: &Path) -> Result<Self> {
        let dir = esp.join(DIR);
        let mut this = Self::default();
        for name in fs::names(&dir)? {
            let path = format!("{DIR}/{name}");
            if name.starts_with("lamadist-") && name.ends_with(".conf.new") {
                this.junk.push(path);
            } else if parse_name(&name).is_some() {
                match Entry::parse(&name, &fs::text(dir.join(&name))?) {
                    Some(Ok(e)) => this.entries.push(e),
                    _ => this.junk.push(path),
                }
            }
        }
        this.entries.sort_by(|a, b| {
            let key = |e: &Entry| {
                let used = e.kind != Kind::Good && !e.is_pending();
                (used, e.sort_key(), std::cmp::Reverse((e.version, e.slot)))
            };
            key(a).cmp(&key(b))
        });
        let has = |s: &Slot| esp.join(uki(s.name())).is_file();
        this.ukis = [Slot::A, Slot::B].into_iter().filter(has).collect();
        this.counts = esp.join(COUNTS).is_file();
        let conf = fs::read_optional(esp.join(CONF))?;
        this.configured = conf.as_deref() == Some(CONF_TEXT.as_bytes());
        Ok(this)
    }

    /// That systemd-boot counts here.
    ///
    /// # Errors
    /// It has not been seen to.
    pub fn counting(&self) -> Result<()> {
        if self.counts {
            return Ok(());
        }
        Err(Error::new(
            "this machine's firmware has not been seen to rename files on the boot partition, so that \
             systemd-boot could not count attempts, and a system that is not well would be started for \
             ever",
        )
        .hint(
            "restart, then see what lama-node repair says; U-Boot can from 2025.04 on, with \
             CONFIG_FAT_RENAME",
        ))
    }
}

/// One change of the ESP: it is done or it is not, also where the power fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This file with this content: written beside its place, and renamed.
    Write(String, String),
    /// No such file.
    Remove(String),
}

/// Does them, each on the disk before the next one.
///
/// # Errors
/// The ESP cannot be written; what was done before stays.
pub fn apply(esp: &Path, steps: &[Step]) -> Result<()> {
    for step in steps {
        match step {
            Step::Write(path, text) => fs::write(esp.join(path), text, 0o644)?,
            Step::Remove(path) => {
                let path = esp.join(path);
                fs::remove(&path)?;
                let dir = path.parent().unwrap_or(esp);
                fs::sync(dir).context("the boot partition")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn once(left: u64, done: u64) -> Kind {
        let left = Some(left);
        Kind::Once { left, done }
    }

    fn entry(slot: Slot, kind: Kind, version: u64) -> Entry {
        let boot = "5f0c".to_owned();
        Entry {
            slot,
            kind,
            version,
            boot,
        }
    }

    #[test]
    fn an_entry_is_what_systemd_boot_reads() {
        let e = entry(Slot::B, once(1, 0), 7);
        assert_eq!(e.name(), "lamadist-once-b+1.conf");
        assert_eq!(
            e.text(),
            "# Written by lama-node.\n# boot 5f0c\ntitle LamaDist B, once\nsort-key 0-lamadist\n\
             version 7\nefi /EFI/Linux/lamadist-b.efi\n"
        );
        // As systemd-boot renames it.
        let used = entry(Slot::B, once(0, 1), 7);
        assert_eq!(used.name(), "lamadist-once-b+0-1.conf");
        assert!(e.is_pending() && !used.is_pending());
        let good = entry(Slot::A, Kind::Good, 7);
        assert_eq!(good.name(), "lamadist-a.conf");
        assert!(good.text().contains("sort-key 1-lamadist\n"));
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for name in [
            "lamadist-c.conf",
            "lamadist-a+1.conf",
            "lamadist-once-a+x.conf",
            "lamadist-once-a+1-.conf",
            "lamadist-once-a+1-2-3.conf",
            "lamadist-once-a+9999999999999999.conf",
            "lamadist-a.conf.new",
            "debian.conf",
            "lamadist-.conf",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_damaged_is_junk() {
        let esp = tempfile::tempdir().unwrap();
        let at = |n: &str| esp.path().join(DIR).join(n);
        let good = entry(Slot::A, Kind::Good, 2);
        for (n, bad) in [
            String::new(),
            good.text().replace("version 2", "version two"),
            good.text().replace("version 2", "version 1234567890123456"),
            good.text().replace("1-lamadist", "lamadist"),
            good.text().replace("lamadist-a.efi", "lamadist-b.efi"),
        ]
        .iter()
        .enumerate()
        {
            fs::write(at("lamadist-a.conf"), bad, 0o644).unwrap();
            let s = State::read(esp.path()).unwrap();
            assert_eq!((s.entries.len(), s.junk.len()), (0, 1), "{n}");
        }
        fs::write(at("lamadist-a.conf"), good.text(), 0o644).unwrap();
        fs::write(at("lamadist-b.conf.new"), "half", 0o644).unwrap();
        fs::write(at("other.conf"), "theirs", 0o644).unwrap();
        let s = State::read(esp.path()).unwrap();
        assert_eq!(s.entries, [good]);
        assert_eq!(s.junk, ["loader/entries/lamadist-b.conf.new"]);
        assert_eq!(State::read(Path::new("/nonexistent")).unwrap().entries, []);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            b: bool, good: bool, left in prop::option::of(0u64..5), done in 0u64..5,
            version in 0u64..1_000_000_000_000_000, boot in "[0-9a-f-]{0,36}",
        ) {
            let slot = if b { Slot::B } else { Slot::A };
            let done = if left.is_some() { done } else { 0 };
            let kind = if good { Kind::Good } else { Kind::Once { left, done } };
            let e = Entry { slot, kind, version, boot };
            prop_assert_eq!(Entry::parse(&e.name(), &e.text()), Some(Ok(e)));
        }

        #[test]
        fn no_file_makes_it_panic(name in "lamadist-(once-)?[ab]?[+0-9-]{0,20}(.conf)?", text: String) {
            let _ = Entry::parse(&name, &text);
        }
    }
}
