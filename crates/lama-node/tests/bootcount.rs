// SPDX-License-Identifier: Apache-2.0
//! A machine that systemd-boot starts, on a random walk through updates, restarts, rollbacks and power
//! cuts: entries on a real folder, what the firmware does with them by rules of its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use lama_node::kernel::Slot;
use lama_node::loader::entries::{COUNTS, DIR, State, Step, apply};
use lama_node::loader::{plan, uki};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What may happen. `cut` is the step before which the power fails; more steps than there are, and it
/// does not.
#[derive(Debug, Clone)]
enum Event {
    /// A new version is installed to the slot that does not run, as RAUC does it.
    Update { cut: usize },
    /// The system that runs is well: marked good.
    Judge { cut: usize },
    /// The administrator goes back.
    Rollback { cut: usize },
    /// `rauc status mark-active booted` or `other`.
    Activate { other: bool, cut: usize },
    /// `rauc status mark-bad booted` or `other`.
    Bad { other: bool, cut: usize },
    /// The power fails while systemd-boot renames: the entry is as it was, or lost.
    CutWhileCounting { lost: bool },
    /// It restarts; `lama-node repair` runs, unless the system does not come that far.
    Restart { comes_up: bool, cut: usize },
}

fn event() -> impl Strategy<Value = Event> {
    // About as many cuts as not.
    let cut = || 0..8usize;
    prop_oneof![
        4 => cut().prop_map(|cut| Event::Update { cut }),
        3 => cut().prop_map(|cut| Event::Judge { cut }),
        1 => cut().prop_map(|cut| Event::Rollback { cut }),
        1 => (any::<bool>(), cut()).prop_map(|(other, cut)| Event::Activate { other, cut }),
        1 => (any::<bool>(), cut()).prop_map(|(other, cut)| Event::Bad { other, cut }),
        1 => any::<bool>().prop_map(|lost| Event::CutWhileCounting { lost }),
        6 => (any::<bool>(), cut()).prop_map(|(comes_up, cut)| Event::Restart { comes_up, cut }),
    ]
}

/// An entry as systemd-boot sees it.
#[derive(Debug)]
struct Seen {
    name: String,
    left: Option<u64>,
    sort_key: String,
    version: u64,
    efi: String,
}

/// What systemd-boot 257 makes of the folder (src/boot/boot.c: boot_entry_add_type1,
/// boot_entry_parse_tries, boot_entry_compare): its own reading, not ours.
fn systemd_boot(esp: &Path) -> Vec<Seen> {
    let mut all = Vec::new();
    for e in fs::read_dir(esp.join(DIR)).unwrap() {
        let name = e.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_suffix(".conf") else {
            continue;
        };
        let text = fs::read_to_string(esp.join(DIR).join(&name)).unwrap();
        let value = |key: &str| {
            let line = text.lines().find(|l| l.starts_with(&format!("{key} ")));
            line.map(|l| l[key.len() + 1..].to_owned())
                .unwrap_or_default()
        };
        let efi = value("efi");
        // What is not there is no entry.
        if efi.is_empty() || !esp.join(&efi[1..]).is_file() {
            continue;
        }
        let left = stem.rsplit_once('+').map(|(_, c)| {
            let left = c.split_once('-').map_or(c, |(l, _)| l);
            left.parse().unwrap()
        });
        all.push(Seen {
            left,
            sort_key: value("sort-key"),
            version: value("version").parse().unwrap_or(0),
            efi,
            name,
        });
    }
    all.sort_by(|a, b| {
        let key = |s: &Seen| (s.left == Some(0), s.sort_key.clone(), u64::MAX - s.version);
        key(a).cmp(&key(b)).then(b.name.cmp(&a.name))
    });
    all
}

/// Renames the entry as systemd-boot does; false where firmware refuses that.
fn count(esp: &Path, entry: &Seen) -> bool {
    let Some(left) = entry.left else { return true };
    let stem = entry.name.strip_suffix(".conf").unwrap();
    let (prefix, counts) = stem.rsplit_once('+').unwrap();
    let done: u64 = counts
        .split_once('-')
        .map_or(0, |(_, d)| d.parse().unwrap());
    let to = format!("{prefix}+{}-{}.conf", left.saturating_sub(1), done + 1);
    let to = esp.join(DIR).join(to);
    if to.exists() {
        // UEFI specification 2.10, section 13.5: EFI_ACCESS_DENIED.
        return false;
    }
    fs::rename(esp.join(DIR).join(&entry.name), to).unwrap();
    true
}

/// The machine, and what is true of it.
struct Machine {
    esp: tempfile::TempDir,
    running: Slot,
    boot: u32,
    /// The version in each slot; none while one is being written.
    content: BTreeMap<Slot, Option<u32>>,
    versions: u32,
    /// Versions that somebody has marked good.
    marked: BTreeSet<u32>,
    /// How often each was started before that.
    starts: BTreeMap<u32, u32>,
    /// Whether the power has failed, so that the next thing is a start.
    off: bool,
}

impl Machine {
    fn new() -> Self {
        // In memory, where a thousand syncs take no time.
        let memory = Path::new("/dev/shm");
        let esp = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let esp = esp.unwrap();
        fs::create_dir_all(esp.path().join("EFI/Linux")).unwrap();
        fs::write(esp.path().join(uki("a")), "0").unwrap();
        apply(esp.path(), &plan::first(Slot::A, "installer")).unwrap();
        let mut this = Self {
            esp,
            running: Slot::A,
            boot: 0,
            content: [(Slot::A, Some(0)), (Slot::B, None)].into(),
            versions: 0,
            marked: [0].into(),
            starts: BTreeMap::new(),
            off: true,
        };
        this.restart(true, usize::MAX);
        assert!(this.esp.path().join(COUNTS).exists());
        this
    }

    fn state(&self) -> State {
        State::read(self.esp.path()).unwrap()
    }

    fn boot_id(&self) -> String {
        format!("boot{}", self.boot)
    }

    fn other(&self) -> Slot {
        self.running.other().unwrap()
    }

    /// Does the steps up to the cut; false where the power fails. What is left of what is cut off is
    /// the file that was written beside.
    fn apply(&mut self, steps: &[Step], cut: &mut usize) -> bool {
        for step in steps {
            if *cut == 0 {
                if let Step::Write(path, text) = step {
                    let half = &text[..text.len() / 2];
                    fs::write(self.esp.path().join(format!("{path}.new")), half).unwrap();
                }
                self.off = true;
                return false;
            }
            *cut = cut.saturating_sub(1);
            apply(self.esp.path(), std::slice::from_ref(step)).unwrap();
            self.check();
        }
        true
    }

    /// What holds at every moment: systemd-boot finds something to start, of which it is known that it
    /// is good, or which has not been started yet.
    fn check(&self) {
        let seen = systemd_boot(self.esp.path());
        let next = seen.first().expect("nothing to start");
        let slot = if next.efi.ends_with("-a.efi") {
            Slot::A
        } else {
            Slot::B
        };
        let version = self.content[&slot].expect("what is half-written would be started");
        let fresh = next.left == Some(1) && !self.starts.contains_key(&version);
        assert!(
            self.marked.contains(&version) || fresh,
            "version {version} would be started again: {seen:?}"
        );
        // The backend says what systemd-boot does.
        assert_eq!(self.state().primary(), Some(slot), "{seen:?}");
    }

    fn restart(&mut self, comes_up: bool, mut cut: usize) {
        self.off = false;
        self.boot += 1;
        let seen = systemd_boot(self.esp.path());
        let next = seen.first().expect("nothing to start");
        assert!(count(self.esp.path(), next), "it was not counted: {next:?}");
        self.running = if next.efi.ends_with("-a.efi") {
            Slot::A
        } else {
            Slot::B
        };
        let version = self.content[&self.running].expect("half a system");
        if !self.marked.contains(&version) {
            *self.starts.entry(version).or_default() += 1;
            assert_eq!(self.starts[&version], 1, "version {version}");
        }
        self.check();
        if comes_up {
            let m = self.state().mend(self.running, &self.boot_id());
            self.apply(&m.steps, &mut cut);
        }
    }

    fn happen(&mut self, event: &Event) {
        // Without power nothing happens but a start.
        let event = match event {
            e @ (Event::Restart { .. } | Event::CutWhileCounting { .. }) => e,
            _ if self.off => &Event::Restart {
                comes_up: true,
                cut: usize::MAX,
            },
            e => e,
        };
        let boot = self.boot_id();
        match *event {
            Event::Restart { comes_up, cut } => self.restart(comes_up, cut),
            Event::CutWhileCounting { lost } => {
                let seen = systemd_boot(self.esp.path());
                if lost && seen[0].left.is_some() {
                    fs::remove_file(self.esp.path().join(DIR).join(&seen[0].name)).unwrap();
                }
                self.off = true;
                self.check();
            }
            Event::Update { mut cut } => {
                let to = self.other();
                // Refused on a system that is on trial itself, or was marked bad by hand.
                let Ok(steps) = self.state().set_bad(to) else {
                    assert!(!self.state().is_good(self.running));
                    return;
                };
                if !self.apply(&steps, &mut cut) {
                    return;
                }
                // Root and hash tree, then the UKI.
                self.content.insert(to, None);
                self.check();
                if cut == 0 {
                    self.off = true;
                    return;
                }
                cut -= 1;
                self.versions += 1;
                fs::write(self.esp.path().join(uki(to.name())), "uki").unwrap();
                self.content.insert(to, Some(self.versions));
                self.check();
                let state = self.state();
                match state.set_primary(to, &boot) {
                    Ok(steps) => {
                        self.apply(&steps, &mut cut);
                    }
                    Err(_) => assert!(!state.counts),
                }
            }
            Event::Judge { mut cut } => self.keep(self.running, &mut cut),
            Event::Rollback { mut cut } => {
                // RAUC knows of no system where one was not written whole.
                if self.content[&self.other()].is_some() {
                    self.keep(self.other(), &mut cut);
                }
            }
            Event::Activate { other, mut cut } => {
                let slot = if other { self.other() } else { self.running };
                let whole = self.content[&slot];
                // By hand, what was tried before is tried again.
                if let (Some(v), Ok(steps)) = (whole, self.state().set_primary(slot, &boot)) {
                    self.starts.remove(&v);
                    self.apply(&steps, &mut cut);
                }
            }
            Event::Bad { other, mut cut } => {
                let slot = if other { self.other() } else { self.running };
                if let Ok(steps) = self.state().set_bad(slot) {
                    self.apply(&steps, &mut cut);
                }
            }
        }
        self.check();
    }

    fn keep(&mut self, slot: Slot, cut: &mut usize) {
        let Ok(steps) = self.state().set_good(slot, &self.boot_id()) else {
            panic!("a whole system cannot be kept");
        };
        self.marked.insert(self.content[&slot].unwrap());
        let done = self.apply(&steps, cut);
        if done {
            assert!(self.state().is_good(slot));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn a_walk_always_leads_to_a_system(events in prop::collection::vec(event(), 1..40)) {
        let mut m = Machine::new();
        for e in &events {
            m.happen(e);
        }
        // And at its end to one that is good: of what is on trial one start is all there is.
        m.restart(false, usize::MAX);
        m.restart(false, usize::MAX);
        prop_assert!(m.marked.contains(&m.content[&m.running].unwrap()));
    }
}

/// The rules of the model do fail: firmware that does not rename would start a slot again and again.
#[test]
#[should_panic(expected = "it was not counted")]
fn a_firmware_that_does_not_count_is_seen_by_the_model() {
    let mut m = Machine::new();
    m.happen(&Event::Update { cut: usize::MAX });
    let used = m.esp.path().join(DIR).join("lamadist-once-b+0-1.conf");
    fs::write(used, "").unwrap();
    m.restart(true, usize::MAX);
}
