// SPDX-License-Identifier: Apache-2.0
//! RAUC's custom boot loader backend (RAUC 1.13, "Custom bootloader backend interface"), for machines
//! that systemd-boot starts: it asks and tells, and what is told is written as entries on the ESP.

use super::Loader;
use super::entries::{State, apply};
use crate::install::mount::Mounted;
use crate::kernel::Slot;
use crate::machine::Machine;
use crate::{Error, Result, fs, update};
use std::path::Path;

/// Where the ESP is mounted meanwhile.
const MOUNT: &str = "/run/lamadist/boot-esp";
/// One at a time.
const LOCK: &str = "/run/lamadist/boot-esp.lock";

/// What the ESP is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To look.
    Read,
    /// To change it.
    Write,
}

/// The machine's ESP, mounted as long as it is needed, by nobody else of us.
pub struct Esp {
    mounted: Mounted,
    _lock: Turn,
}

/// The right to mount the ESP.
pub struct Turn(#[allow(dead_code)] fs::Lock);

impl Turn {
    /// Waits for it.
    ///
    /// # Errors
    /// `/run` cannot be written.
    pub fn wait() -> Result<Self> {
        let lock = fs::lock(LOCK, fs::Busy::Wait)?;
        lock.map(Self)
            .ok_or_else(|| Error::new("the boot partition is in use"))
    }
}

impl Esp {
    /// Mounts it.
    ///
    /// # Errors
    /// mount(8)'s.
    pub fn open(machine: &Machine, access: Access) -> Result<Self> {
        let lock = Turn::wait()?;
        let device = format!("/dev/lamadist/{}", machine.esp_label());
        let mount = |how| Mounted::new(&device, "vfat", MOUNT, how);
        let mounted = match access {
            Access::Write => mount("rw")?,
            // The kernel mounts nothing read-only that is mounted for writing elsewhere.
            Access::Read => mount("ro").or_else(|_| mount("rw"))?,
        };
        Ok(Self {
            mounted,
            _lock: lock,
        })
    }

    /// Where.
    pub fn at(&self) -> &Path {
        self.mounted.at()
    }

    /// Unmounts it; what was written is on the disk then.
    ///
    /// # Errors
    /// umount(8)'s.
    pub fn close(self) -> Result<()> {
        self.mounted.close()
    }
}

/// What RAUC asks or tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Which slot is started next.
    GetPrimary,
    /// Which slot runs.
    GetCurrent,
    /// Whether a slot is good.
    GetState(Slot),
    /// To start a slot once.
    SetPrimary(Slot),
    /// Whether a slot is good from now on.
    SetState(Slot, bool),
}

impl Request {
    /// From the arguments of RAUC's call.
    ///
    /// # Errors
    /// There is no such request.
    pub fn parse(arguments: &[String]) -> Result<Self> {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok(match words.as_slice() {
            ["get-primary"] => Self::GetPrimary,
            ["get-current"] => Self::GetCurrent,
            ["get-state", slot] => Self::GetState(parse_slot(slot)?),
            ["set-primary", slot] => Self::SetPrimary(parse_slot(slot)?),
            ["set-state", slot, "good"] => Self::SetState(parse_slot(slot)?, true),
            ["set-state", slot, "bad"] => Self::SetState(parse_slot(slot)?, false),
            _ => {
                return Err(
                    Error::new(format!("there is no request {:?}", words.join(" ")))
                        .hint("see lama-node boot-backend --help"),
                );
            }
        })
    }

    /// Does it on this machine. Returns what RAUC is to read, where it asked.
    ///
    /// # Errors
    /// systemd-boot does not start this machine, the ESP cannot be read or written, or no slot could
    /// be started afterwards.
    pub fn run(self, machine: &Machine, boot: &str) -> Result<Option<String>> {
        if machine.loader != Loader::SystemdBoot {
            return Err(Error::new(
                "the firmware starts this machine's slots, and is told by its variables",
            )
            .hint("RAUC's system.conf and machine.json do not belong together"));
        }
        if self == Self::GetCurrent {
            return Ok(Some(bootname(update::running()?)));
        }
        let access = match self {
            Self::SetPrimary(_) | Self::SetState(..) => Access::Write,
            _ => Access::Read,
        };
        let esp = Esp::open(machine, access)?;
        let answer = self.run_at(esp.at(), boot)?;
        esp.close()?;
        Ok(answer)
    }

    /// As [`Request::run`], on an ESP that is mounted here.
    ///
    /// # Errors
    /// As there.
    pub fn run_at(self, esp: &Path, boot: &str) -> Result<Option<String>> {
        let state = State::read(esp)?;
        let steps = match self {
            Self::GetPrimary => {
                let slot = state.primary().ok_or_else(|| {
                    Error::new("no entry of systemd-boot's leads to a slot")
                        .hint("lama-node repair")
                })?;
                return Ok(Some(bootname(slot)));
            }
            Self::GetState(slot) => {
                let word = if state.is_good(slot) { "good" } else { "bad" };
                return Ok(Some(word.to_owned()));
            }
            Self::SetPrimary(slot) => state.set_primary(slot, boot)?,
            Self::SetState(slot, true) => state.set_good(slot, boot)?,
            Self::SetState(slot, false) => state.set_bad(slot)?,
            Self::GetCurrent => Vec::new(),
        };
        apply(esp, &steps)?;
        Ok(None)
    }
}

fn bootname(slot: Slot) -> String {
    slot.name().to_uppercase()
}

fn parse_slot(name: &str) -> Result<Slot> {
    match name {
        "A" => Ok(Slot::A),
        "B" => Ok(Slot::B),
        _ => Err(Error::new(format!("there is no slot {name:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::{entries, plan, uki};

    fn ask(esp: &Path, words: &str) -> Result<Option<String>> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        Request::parse(&words)?.run_at(esp, "now")
    }

    #[test]
    fn an_installation_as_rauc_does_it() {
        let esp = tempfile::tempdir().unwrap();
        let esp = esp.path();
        fs::write(esp.join(uki("a")), "a", 0o644).unwrap();
        apply(esp, &plan::first(Slot::A, "before")).unwrap();
        let entry = |n: &str| esp.join(entries::DIR).join(n);
        let said = |words: &str| ask(esp, words).unwrap().unwrap_or_default();
        // The first start, counted.
        fs::rename(
            entry("lamadist-once-a+1.conf"),
            entry("lamadist-once-a+0-1.conf"),
        )
        .unwrap();
        let m = State::read(esp).unwrap().mend(Slot::A, "now");
        apply(esp, &m.steps).unwrap();
        assert_eq!(
            (
                &*said("get-primary"),
                &*said("get-state A"),
                &*said("get-state B")
            ),
            ("A", "good", "bad")
        );
        assert_eq!(said("set-state B bad"), "");
        assert!(ask(esp, "set-primary B").is_err(), "it has no UKI");
        fs::write(esp.join(uki("b")), "b", 0o644).unwrap();
        for _ in 0..2 {
            said("set-primary B");
            assert_eq!((&*said("get-primary"), &*said("get-state B")), ("B", "bad"));
        }
        fs::rename(
            entry("lamadist-once-b+1.conf"),
            entry("lamadist-once-b+0-1.conf"),
        )
        .unwrap();
        assert_eq!(said("get-primary"), "A");
        assert!(ask(esp, "set-state A bad").is_err(), "nothing else is good");
        said("set-state B good");
        assert_eq!(
            (&*said("get-primary"), &*said("get-state B")),
            ("B", "good")
        );
        assert_eq!(
            fs::names(esp.join(entries::DIR)).unwrap(),
            ["lamadist-a.conf", "lamadist-b.conf"]
        );
        // Back, as `lama-node rollback` does it, and the judge after it.
        said("set-primary A");
        assert_eq!(
            (&*said("get-primary"), &*said("get-state B")),
            ("A", "good")
        );
        fs::rename(
            entry("lamadist-once-a+1.conf"),
            entry("lamadist-once-a+0-1.conf"),
        )
        .unwrap();
        assert_eq!(said("get-primary"), "B");
        said("set-state A good");
        assert_eq!(
            (&*said("get-primary"), &*said("get-state B")),
            ("A", "good")
        );
    }

    #[test]
    fn other_requests_are_refused() {
        for words in [
            "",
            "get-primary A",
            "get-state",
            "get-state C",
            "set-state A",
            "set-state A fine",
            "set-primary a",
            "reboot",
        ] {
            let e = ask(Path::new("/nonexistent"), words).unwrap_err();
            assert!(e.to_string().starts_with("there is no "), "{words}: {e}");
        }
    }
}
