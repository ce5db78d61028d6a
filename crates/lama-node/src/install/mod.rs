// SPDX-License-Identifier: Apache-2.0
//! From the medium to an encrypted machine with two slots.
//!
//! Order is what makes it safe to interrupt: the disk is marked as being installed first (the ESP's
//! GPT name, [`crate::block::UNFINISHED`]) and loses that mark last, when everything else is on it.
//! An interrupted installation can be run again. What firmware could start is written when the
//! recovery key has been shown, just before that mark goes; where the power fails between, the machine
//! starts from a disk that lacks nothing but the mark's removal, and [`crate::repair`] does that.

pub mod answers;
pub mod console;
pub mod copy;
pub mod mount;
pub mod plan;
pub mod recovery;
pub mod repart;
pub mod source;
pub mod volume;

use crate::block::{self, Device, UNFINISHED};
use crate::kernel::{Cmdline, Slot};
use crate::loader::{self, Loader};
use crate::luks;
use crate::machine::{Machine, Partition, Role};
use crate::run::Run;
use crate::update::judge::boot_id;
use crate::{Error, Result, fs, ids};
use answers::{Answers, Finish};
use copy::Ahead;
use mount::Mounted;
use plan::Plan;
use repart::Blocks;
use source::Source;
use std::io::Write;
use std::path::{Path, PathBuf};
use volume::{Lock, Volumes};

/// Where the installer keeps what it works with.
const WORK: &str = "/run/lamadist/install";
/// Where the new disk's ESP is meanwhile.
const ESP: &str = "/run/lamadist/target-esp";

/// A live system, ready to install from.
pub struct Installer {
    /// What is installed.
    pub machine: Machine,
    /// Where from.
    pub source: Source,
    /// All block devices.
    pub devices: Vec<Device>,
    /// What was answered beforehand.
    pub answers: Answers,
}

/// A disk that lacks only what firmware could start.
pub struct Prepared {
    /// The disk.
    disk: String,
    /// Its ESP's UUID.
    esp: String,
    /// The recovery key, once.
    recovery: String,
    /// The file on the medium that holds it, encrypted.
    saved: Option<String>,
    /// What somebody should know.
    notes: Vec<String>,
    /// Nobody else installs before this is done with.
    _turn: fs::Lock,
}

impl Installer {
    /// Looks around: what was booted, from where, which disks there are, what was answered.
    ///
    /// # Errors
    /// This is not the live system, its medium cannot be read, an answer is wrong.
    pub fn new() -> Result<Self> {
        let cmdline = Cmdline::read()?;
        if cmdline.slot() != Some(Slot::Live) {
            return Err(Error::new("this is not the live system of a medium")
                .hint("boot the medium to install from it"));
        }
        let machine = Machine::read()?;
        // Nobody's while nobody installs; a disk in use would be refused.
        if let Ok(_lock) = alone() {
            mount::unmount_left(ESP)?;
            volume::close_left(&machine)?;
        }
        let devices = look()?;
        let source = Source::find(&cmdline, &devices)?;
        let mut answers = Answers::default();
        if let Some(m) = source.medium() {
            let path = m.at().join("lamadist/install.conf");
            if let Some(d) = fs::read_optional(&path)? {
                answers.read(&String::from_utf8_lossy(&d), "lamadist/install.conf")?;
            }
        }
        if let Some(text) = credential("lamadist.install")? {
            answers.read(&text, "credential lamadist.install")?;
        }
        answers.read_cmdline(&cmdline)?;
        // Whoever may log in may also have the recovery key.
        if answers.recipients.is_empty() {
            let keys = fs::read_optional("/run/lamadist/authorized_keys/root")?;
            let keys = String::from_utf8_lossy(&keys.unwrap_or_default()).into_owned();
            let fit = keys.lines().filter(|l| answers::is_recipient(l));
            answers.recipients = fit.map(str::to_owned).collect();
        }
        Ok(Self {
            machine,
            source,
            devices,
            answers,
        })
    }

    /// Looks for disks anew.
    ///
    /// # Errors
    /// lsblk's.
    pub fn look(&mut self) -> Result<()> {
        self.devices = look()?;
        Ok(())
    }

    /// The disks that might be installed to.
    pub fn disks(&self) -> Vec<Device> {
        let disks = self.devices.iter().filter(|d| d.is_disk());
        disks.cloned().collect()
    }

    /// The plan that the answers lead to.
    ///
    /// # Errors
    /// They name no disk that may be overwritten, or it is too small.
    pub fn plan(&self) -> Result<Plan> {
        let disks = self.disks();
        let disk = plan::choose(&disks, &self.machine, &self.answers)?;
        plan::plan(
            disk,
            &self.machine,
            self.source.content(self.machine.loader)?,
        )
    }

    /// What keeps this machine from being installed as it should be.
    ///
    /// # Errors
    /// No TPM, or Secure Boot off, and nobody said that this is fine.
    pub fn ready(&self) -> Result<Lock> {
        if !ids::secure_boot() && !self.answers.secure_boot_off {
            return Err(Error::new(
                "Secure Boot is off: whatever is started on this machine could open its disk",
            )
            .hint(
                "enroll the keys from the medium's loader/keys/ in the firmware and switch Secure \
                 Boot on, or answer secure-boot=off",
            ));
        }
        match (luks::has_tpm(), self.answers.without_tpm) {
            (_, true) => Ok(Lock::Passphrase),
            (true, false) => Ok(Lock::Tpm),
            (false, false) => Err(Error::new(
                "this machine has no TPM 2.0 that could keep its disk's key",
            )
            .hint(
                "switch it on in the firmware (fTPM, PTT), or answer without-tpm=passphrase: \
                 then somebody has to type a passphrase at every boot",
            )),
        }
    }

    /// Does what the plan says, but for what makes the disk one that a firmware starts.
    /// `passphrase` opens the disk of a machine without TPM.
    ///
    /// # Errors
    /// Whatever goes wrong; the disk is marked as unfinished then.
    pub fn prepare(&self, plan: &Plan, lock: Lock, passphrase: Option<&str>) -> Result<Prepared> {
        let turn = alone()?;
        same(&plan.disk, &look()?)?;
        let disk = plan.disk.path.as_str();
        let esp = ids::random()?;
        let mut notes = Vec::new();
        let recovery = recovery::generate()?;
        let volumes = Volumes::new(&recovery, lock, passphrase)?;

        let is_root = |p: &&Partition| p.role == Role::Root && p.slot.as_deref() == Some("a");
        let encrypted = self.machine.layout.iter().filter(|p| p.encrypted);
        let (first, others): (Vec<_>, Vec<_>) = encrypted.partition(is_root);
        // systemd-repart copies what is not encrypted.
        let ahead = || first.first().map(|_| Ahead::read(&self.source.root));
        // cryptsetup measures how much work a passphrase is going to be: nothing runs beside that.
        let quiet = lock == Lock::Passphrase;
        let early = if quiet { None } else { ahead().transpose()? };

        say(&format!("Marking {disk} as being installed"));
        self.mark(disk)?;
        say("Partitioning");
        self.partition(disk, &esp)?;
        Run::new("udevadm").args(["settle", "--timeout=30"]).run()?;

        say("Encrypting, copying and writing the boot files");
        let device = |p: &Partition| by_uuid(&ids::partition(&esp, &p.label));
        let mut made = Vec::new();
        for p in first.iter().chain(&others).copied().filter(|_| quiet) {
            made.push(volumes.make(p, device(p))?);
        }
        let mut made = made.into_iter();
        let mut root = match early {
            Some(root) => Some(root),
            None => ahead().transpose()?,
        };
        // All at once: keys wait for the TPM most of the time, files for the disk, and the root for
        // a processor. None of these files is one that firmware starts.
        std::thread::scope(|s| {
            let files = s.spawn(|| {
                let target = target_esp(&esp)?;
                self.boot_files(target.at())?;
                target.close()
            });
            let volumes = &volumes;
            let mut all = vec![files];
            // The one that is copied to takes longest, so nothing else is made before it.
            for p in first {
                let new = made.next().map_or_else(|| volumes.make(p, device(p)), Ok)?;
                let root = root.take();
                all.push(s.spawn(move || volumes.finish(new, root)));
            }
            for p in others {
                let (new, device) = (made.next(), device(p));
                all.push(s.spawn(move || {
                    let new = new.map_or_else(|| volumes.make(p, device), Ok)?;
                    volumes.finish(new, None)
                }));
            }
            // The first error is the one to be told; the others come to their end meanwhile.
            let ended: Vec<_> = all.into_iter().map(|t| t.join()).collect();
            ended.into_iter().try_for_each(|r| {
                let panicked = |_| Err(Error::new("a part of the installation came to no end"));
                r.unwrap_or_else(panicked)
            })
        })?;
        let saved = self.save(&recovery, &esp, &mut notes);
        Ok(Prepared {
            disk: plan.disk.line().trim().to_owned(),
            esp,
            recovery,
            saved,
            notes,
            _turn: turn,
        })
    }

    /// Makes the disk one that the firmware starts, and takes the mark away: from here on the machine
    /// is installed.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn activate(&self, plan: &Plan, ready: &mut Prepared) -> Result<()> {
        let disk = plan.disk.path.as_str();
        let target = target_esp(&ready.esp)?;
        match self.machine.loader {
            // For the day when the firmware has forgotten its entries.
            Loader::Firmware => {
                let path = target.at().join(loader::boot_path());
                fs::rename(waiting(target.at()), path)?;
            }
            Loader::SystemdBoot => {
                let boot = boot_id();
                loader::install_systemd_boot(target.at(), &self.source.systemd_boot(), &boot)?;
            }
        }
        target.close()?;
        let number = self.machine.esp_number();
        if let Err(e) = self.machine.loader.introduce(disk, number) {
            ready.notes.push(format!(
                "The firmware takes no boot entries ({e}); it will start {} instead.",
                loader::boot_path()
            ));
        }
        block::set_name(disk, number, self.machine.esp_label())?;
        Run::new("sync").run().map(|_| ())
    }

    /// A table with one partition that says what is going on. All that was on the disk is lost from
    /// here on.
    fn mark(&self, disk: &str) -> Result<()> {
        let esp = self.machine.esp().map_or("", |p| p.r#type.as_str());
        let script = format!("label: gpt\nsize=1MiB, type={esp}, name={UNFINISHED}\n");
        let run = Run::new("sfdisk").args(["--quiet", "--wipe=always", "--wipe-partitions=always"]);
        run.arg(disk).stdin(script).run().map(|_| ())
    }

    fn partition(&self, disk: &str, esp: &str) -> Result<()> {
        let blocks = Blocks {
            root: &self.source.root,
            verity: &self.source.verity,
        };
        let dir = Path::new(WORK).join("repart.d");
        for name in fs::names(&dir)? {
            fs::remove(dir.join(name))?;
        }
        for (name, text) in repart::definitions(&self.machine, esp, blocks) {
            fs::write(dir.join(name), text, 0o644)?;
        }
        let mut run = Run::new("systemd-repart");
        run = run.args([
            "--empty=force",
            "--dry-run=no",
            "--discard=yes",
            "--no-pager",
        ]);
        run = run.arg(format!("--definitions={}", dir.display()));
        run = run.arg(format!("--seed={}", ids::random()?));
        run.arg(disk).run().map(|_| ())
    }

    fn boot_files(&self, esp: &Path) -> Result<()> {
        self.uki(esp, &loader::uki("a"), "a")?;
        if self.machine.loader == Loader::Firmware {
            // Under its own name firmware would start it.
            let addon = loader::slot_addon(loader::boot_path());
            source::copy(&self.source.slot_addon("a"), &esp.join(addon))?;
            source::copy(&self.source.uki(), &waiting(esp))?;
        }
        // The other slot gets its UKI with its first update.
        let addon = loader::slot_addon(&loader::uki("b"));
        source::copy(&self.source.slot_addon("b"), &esp.join(addon))?;
        if let Some(host) = self.source.host_addon() {
            source::copy(&host, &esp.join("loader/addons/host.addon.efi"))?;
        }
        Ok(())
    }

    /// The UKI at this path, with the addon of a slot before it.
    fn uki(&self, esp: &Path, path: &str, slot: &str) -> Result<()> {
        source::copy(
            &self.source.slot_addon(slot),
            &esp.join(loader::slot_addon(path)),
        )?;
        source::copy(&self.source.uki(), &esp.join(path))
    }

    /// Writes the recovery key, encrypted, to the medium. That it can't is no reason to fail.
    fn save(&self, key: &str, esp: &str, notes: &mut Vec<String>) -> Option<String> {
        if self.answers.recipients.is_empty() {
            return None;
        }
        let Some(medium) = self.source.medium() else {
            notes.push("There is no medium to write the recovery key to.".to_owned());
            return None;
        };
        let write = || -> Result<String> {
            let mut run = Run::new("age").arg("--armor");
            for r in &self.answers.recipients {
                run = run.arg("--recipient").arg(r);
            }
            let host = fs::line("/proc/sys/kernel/hostname").unwrap_or_default();
            let text = format!("LamaDist recovery key of {host}, ESP {esp}:\n{key}\n");
            let sealed = run.stdin(text).run()?.stdout;
            let short = esp.get(..8).unwrap_or(esp);
            let name = format!("lamadist/recovery-{host}-{short}.age");
            medium.writable()?;
            fs::write(medium.at().join(&name), sealed, 0o644)?;
            Ok(name)
        };
        write()
            .map_err(|e| notes.push(format!("The recovery key is not on the medium: {e}.")))
            .ok()
    }
}

impl Prepared {
    /// The recovery key for whoever sees the console, where `show` says so, and where else it is.
    pub fn key(&self, show: bool) -> String {
        let mut s = String::new();
        if show {
            s += "  The recovery key opens the disk when the TPM does not: after a change of\n  \
                  firmware or board, or in another machine. It is shown this once. Keep it\n  \
                  somewhere else than on this machine:\n\n";
            s += &format!("    {}\n\n", self.recovery);
            s += &recovery::qr(&self.recovery).unwrap_or_default();
        }
        if let Some(f) = &self.saved {
            s += &format!(
                "  The recovery key is on the medium, encrypted: {f}\n  (age --decrypt)\n"
            );
        }
        s
    }

    /// Whether the recovery key is on the medium.
    pub fn is_saved(&self) -> bool {
        self.saved.is_some()
    }

    /// What is said at the end.
    pub fn summary(&self) -> String {
        let mut s = format!("LamaDist is installed on {}\n", self.disk);
        for n in &self.notes {
            s += &format!("  {n}\n");
        }
        s
    }
}

/// Ends as the answers say.
///
/// # Errors
/// systemctl's.
pub fn finish(how: Finish) -> Result<()> {
    let verb = match how {
        Finish::Stay => return Ok(()),
        Finish::Reboot => "reboot",
        Finish::PowerOff => "poweroff",
    };
    Run::new("systemctl")
        .args(["--no-block", verb])
        .run()
        .map(|_| ())
}

/// Where what firmware finds without a boot entry waits for the disk to become one that it starts.
fn waiting(esp: &Path) -> PathBuf {
    let mut name = esp.join(loader::boot_path()).into_os_string();
    name.push(".wait");
    name.into()
}

fn target_esp(uuid: &str) -> Result<Mounted> {
    Mounted::new(&by_uuid(uuid), "vfat", ESP, "rw")
}

fn by_uuid(uuid: &str) -> String {
    format!("/dev/disk/by-partuuid/{uuid}")
}

/// A system credential (systemd.system-credentials(7)) that PID 1 has taken.
///
/// # Errors
/// It cannot be read.
pub fn credential(name: &str) -> Result<Option<String>> {
    // The service's own first; PID 1's are seen where there is no service.
    let mut places: Vec<String> = std::env::var("CREDENTIALS_DIRECTORY").into_iter().collect();
    places.push("/run/credentials/@system".to_owned());
    for dir in places {
        if let Some(d) = fs::read_optional(Path::new(&dir).join(name))? {
            return Ok(Some(String::from_utf8_lossy(&d).into_owned()));
        }
    }
    Ok(None)
}

/// All block devices, those that are still being found too.
fn look() -> Result<Vec<Device>> {
    Run::new("udevadm").args(["settle", "--timeout=30"]).run()?;
    block::devices()
}

/// Whether a disk is what it was when it was chosen: its name may be another's by now, and somebody may
/// have installed to it.
fn same(chosen: &Device, now: &[Device]) -> Result<()> {
    let of = |d: &Device| {
        let parts: Vec<_> = d.children.iter().map(|c| c.partuuid.clone()).collect();
        let (model, serial) = (d.model.clone(), d.serial.clone());
        (model, serial, d.size, d.ro, d.ptuuid.clone(), parts)
    };
    let there = now.iter().find(|d| d.path == chosen.path);
    if there.is_some_and(|d| of(d) == of(chosen)) {
        return Ok(());
    }
    Err(Error::new(format!(
        "{} is not what it was when it was looked at; nothing was written",
        chosen.path
    ))
    .hint("begin once more, and look at the plan again"))
}

/// One installation at a time; the lock ends with this process.
fn alone() -> Result<fs::Lock> {
    fs::lock("/run/lamadist/install.lock", fs::Busy::Leave)?.ok_or_else(|| {
        Error::new("an installation is running already").hint("watch the other console")
    })
}

/// What is being done, for whoever looks at the console.
pub fn say(what: &str) {
    // Who has hung up is no reason to leave a disk half made.
    let _ = writeln!(std::io::stderr(), "lamadist-install> {what}");
}
