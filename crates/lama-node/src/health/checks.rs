// SPDX-License-Identifier: Apache-2.0
//! The checks of every machine. What concerns its disk is left out on the live medium.

use super::{Answer, Check, LIMIT, Verdict, copies, parse};
use crate::boot_count::GivenUp;
use crate::error::Context;
use crate::kernel::{Cmdline, Slot};
use crate::keys::{Standing, State};
use crate::machine::{Machine, Role};
use crate::run::Run;
use crate::update::book::DIR;
use crate::update::config::Config;
use crate::update::seen;
use crate::update::version::Version;
use crate::{Error, Result, block, etc, fs, ids, luks};
use std::ffi::CString;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// All of them, for this machine.
///
/// # Errors
/// The kernel command line or the machine's description cannot be read.
pub fn all() -> Result<Vec<Check>> {
    let slot = Cmdline::read()?.slot();
    let machine = Machine::read()?;
    let mut out = vec![
        Check::new("units", units),
        Check::new("system", system),
        Check::new("slot", move || Ok(booted(slot))),
        Check::new("verity", verity),
        Check::new("var", || space("/var")),
        Check::new("time", time),
        Check::new("network", network),
        Check::new("tpm", tpm),
        Check::new("secure-boot", secure_boot),
    ];
    if slot != Some(Slot::Live) {
        let sealed = |p: &crate::machine::Partition| p.role == Role::Var && p.encrypted;
        if machine.layout.iter().any(sealed) {
            out.push(Check::new("encryption", encryption));
        }
        let layout = machine.clone();
        out.push(Check::new("disks", move || disks(&layout)));
        out.push(Check::new("keys", || Ok(keys())));
        out.push(Check::new("filesystem", || filesystem("/var")));
        let version = machine.version.clone();
        out.push(Check::new("version", move || Ok(version_of(&version))));
        if Path::new(etc::UPPER).is_dir() {
            out.push(Check::new("etc", || Ok(hidden(etc::hidden()))));
        }
        if let Some(p) = machine.layout.into_iter().find(|p| p.role == Role::Esp) {
            let path = format!("/dev/lamadist/{}", p.label);
            out.push(Check::new("esp", move || esp(Path::new(&path))));
        }
    }
    Ok(out)
}

fn good(verdict: bool, otherwise: Verdict, yes: &str, no: &str) -> Answer {
    if verdict {
        (Verdict::Ok, yes.to_owned())
    } else {
        (otherwise, no.to_owned())
    }
}

fn units() -> Result<Answer> {
    let run = Run::new("systemctl").args(["--failed", "--plain", "--no-legend", "--no-pager"]);
    let out = run.run_within(LIMIT)?;
    Ok(parse::failed_units(&String::from_utf8_lossy(&out.stdout)))
}

fn system() -> Result<Answer> {
    // Its status is not 0 unless all is well.
    let out = Run::new("systemctl")
        .arg("is-system-running")
        .within(LIMIT)?;
    Ok(parse::system_state(&String::from_utf8_lossy(&out.stdout)))
}

fn booted(slot: Option<Slot>) -> Answer {
    match slot {
        Some(Slot::Live) => (Verdict::Ok, "the live medium is running".to_owned()),
        Some(s) => match GivenUp::read() {
            Ok(Some(g)) if g.slot != s => {
                let runs = format!("slot {} is running, since {}", s.name(), g.text());
                (Verdict::Warning, runs)
            }
            _ => (Verdict::Ok, format!("slot {} is running", s.name())),
        },
        None => (
            Verdict::Failed,
            "the kernel command line names no slot".to_owned(),
        ),
    }
}

/// Whether a change of keys is followed, by what the last run left.
fn keys() -> Answer {
    match State::last() {
        None => (
            Verdict::Ok,
            "nothing is known of a change of keys".to_owned(),
        ),
        Some(State { error: Some(e), .. }) => (Verdict::Warning, e),
        Some(s) if s.firmware == Standing::Stuck => (Verdict::Warning, s.firmware_note),
        Some(s)
            if !s.older.is_empty()
                || !matches!(s.firmware, Standing::Current | Standing::Unknown) =>
        {
            let text = "a change of keys is under way: see lama-node keys";
            (Verdict::Ok, text.to_owned())
        }
        Some(_) => (
            Verdict::Ok,
            "it is sealed to the keys that sign its systems".to_owned(),
        ),
    }
}

/// The device mapper's UUID of what `path` lies on; it begins with the kind of mapping.
fn mapping(path: &str) -> Result<Option<String>> {
    let device = std::fs::metadata(path).context(path)?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    Ok(fs::line(format!("/sys/dev/block/{major}:{minor}/dm/uuid")))
}

fn verity() -> Result<Answer> {
    let active = mapping("/")?.is_some_and(|u| u.starts_with("CRYPT-VERITY"));
    Ok(good(
        active,
        Verdict::Failed,
        "every block of the root is checked when it is read",
        "the root is not on dm-verity",
    ))
}

fn encryption() -> Result<Answer> {
    let active = mapping("/var")?.is_some_and(|u| u.starts_with("CRYPT-LUKS2"));
    Ok(good(
        active,
        Verdict::Failed,
        "/var is encrypted",
        "/var is not on an encrypted volume",
    ))
}

/// statvfs(3).
///
/// # Errors
/// There is no such path.
pub fn statvfs(path: &str) -> Result<libc::statvfs> {
    let name = CString::new(path).map_err(|e| Error::new(e.to_string()))?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: a NUL-terminated path and a structure of the right size.
    let r = unsafe { libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) };
    if r != 0 {
        return Err(std::io::Error::last_os_error()).context(path);
    }
    // SAFETY: zeroed is a valid value of plain numbers, and the kernel filled it.
    Ok(unsafe { stat.assume_init() })
}

/// Free space and inodes of a file system; what only root may use counts as used.
fn space(path: &str) -> Result<Answer> {
    let s = statvfs(path)?;
    let mut all = vec![
        parse::space("space", s.f_bavail, s.f_blocks),
        parse::space("inodes", s.f_favail, s.f_files),
    ];
    if s.f_flag & libc::ST_RDONLY != 0 {
        all.push((Verdict::Failed, format!("{path} cannot be written")));
    }
    Ok(parse::worst(all))
}

/// The first sector of a FAT file system ends with 55 AA (FAT specification, section 3.1).
fn esp(path: &Path) -> Result<Answer> {
    let mut sector = [0; 512];
    let what = format!("cannot read {}", path.display());
    fs::open(path)?.read_exact(&mut sector).context(what)?;
    Ok(good(
        sector.ends_with(&[0x55, 0xaa]),
        Verdict::Failed,
        "the boot partition can be read",
        "there is no FAT file system on the boot partition",
    ))
}

fn disks(machine: &Machine) -> Result<Answer> {
    let esp = ids::booted_esp();
    Ok(copies::check(&block::devices()?, machine, esp.as_deref()))
}

/// What the kernel has found wrong in the file system of `path`: ext4 counts it, across restarts, until
/// it is repaired (`Documentation/ABI/testing/sysfs-fs-ext4` of Linux).
fn filesystem(path: &str) -> Result<Answer> {
    let device = std::fs::metadata(path).context(path)?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let link = format!("/sys/dev/block/{major}:{minor}");
    let device = std::fs::canonicalize(&link).context(link)?;
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    let count = fs::line(format!("/sys/fs/ext4/{name}/errors_count"));
    Ok(errors(path, count.as_deref()))
}

fn errors(path: &str, count: Option<&str>) -> Answer {
    match count {
        None | Some("0") => (
            Verdict::Ok,
            format!("the kernel has found nothing wrong in {path}"),
        ),
        Some(n) => (
            Verdict::Warning,
            format!(
                "the kernel has found {n} errors in the file system of {path}: see its log, and the disk"
            ),
        ),
    }
}

/// Whether the version that runs was revoked.
fn version_of(version: &str) -> Answer {
    let look = || {
        let Some(track) = Config::read()?.source.track else {
            return Ok(None);
        };
        seen::minimum(Path::new(DIR), &track)
    };
    match look() {
        Ok(oldest) => outdated(version, oldest.as_ref()),
        Err(e) => (Verdict::Warning, e.to_string()),
    }
}

fn outdated(version: &str, oldest: Option<&Version>) -> Answer {
    match (oldest, Version::parse(version)) {
        (Some(oldest), Ok(v)) if v < *oldest => (
            Verdict::Warning,
            format!("{version} was revoked, {oldest} is the oldest one that may run: update"),
        ),
        _ => (Verdict::Ok, format!("{version} may run")),
    }
}

/// What of the image's /etc this host hides unknowingly.
fn hidden(files: Result<Vec<String>>) -> Answer {
    match files {
        Ok(files) if files.is_empty() => (
            Verdict::Ok,
            "no change of this host hides a new file of the image".to_owned(),
        ),
        Ok(files) => (
            Verdict::Warning,
            format!(
                "the image brings another {} than this host changed: see lama-node etc",
                files.join(", ")
            ),
        ),
        Err(e) => (Verdict::Warning, e.to_string()),
    }
}

fn time() -> Result<Answer> {
    let mut yes = Path::new("/run/systemd/timesync/synchronized").exists();
    if !yes {
        let run = Run::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]);
        let out = run.within(LIMIT);
        yes = out.is_ok_and(|o| o.stdout.starts_with(b"yes"));
    }
    Ok(good(
        yes,
        Verdict::Warning,
        "the clock is synchronised",
        "the clock is not synchronised: no time server answered since the boot",
    ))
}

fn network() -> Result<Answer> {
    let text = |p| Ok::<_, Error>(fs::read_optional(p)?.unwrap_or_default());
    let (v4, v6) = (text("/proc/net/route")?, text("/proc/net/ipv6_route")?);
    let (v4, v6) = (String::from_utf8_lossy(&v4), String::from_utf8_lossy(&v6));
    Ok(good(
        parse::default_route(&v4, &v6),
        Verdict::Warning,
        "there is a default route",
        "there is no default route",
    ))
}

// A machine without these two works; whether it may be trusted is attestation's question.

fn tpm() -> Result<Answer> {
    Ok(good(
        luks::has_tpm(),
        Verdict::Warning,
        "there is a TPM 2.0",
        "there is no TPM 2.0 that the kernel drives",
    ))
}

fn secure_boot() -> Result<Answer> {
    Ok(good(
        ids::secure_boot(),
        Verdict::Warning,
        "the firmware checks signatures",
        "the firmware checks no signatures: Secure Boot is off or in setup mode",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_should_look_at_is_a_warning() {
        assert_eq!(errors("/var", None).0, Verdict::Ok);
        assert_eq!(errors("/var", Some("0")).0, Verdict::Ok);
        assert_eq!(errors("/var", Some("3")).0, Verdict::Warning);
        let oldest = Version::parse("1.2.0").unwrap();
        for (version, want) in [
            ("1.1.9", Verdict::Warning),
            ("1.2.0", Verdict::Ok),
            ("?", Verdict::Ok),
        ] {
            assert_eq!(outdated(version, Some(&oldest)).0, want, "{version}");
        }
        assert_eq!(outdated("1.0.0", None).0, Verdict::Ok);
        assert_eq!(hidden(Ok(Vec::new())).0, Verdict::Ok);
        let (verdict, why) = hidden(Ok(vec!["a".into(), "ssh/b".into()]));
        assert_eq!(verdict, Verdict::Warning);
        assert!(why.contains("another a, ssh/b than"), "{why}");
        assert_eq!(hidden(Err(Error::new("x"))).0, Verdict::Warning);
    }

    #[test]
    fn disks() {
        let t = tempfile::tempdir().unwrap();
        let f = t.path().join("esp");
        fs::write(&f, [0; 511], 0o600).unwrap();
        assert!(esp(&f).is_err());
        let mut sector = [0; 1024];
        fs::write(&f, sector, 0o600).unwrap();
        assert_eq!(esp(&f).unwrap().0, Verdict::Failed);
        (sector[510], sector[511]) = (0x55, 0xaa);
        fs::write(&f, sector, 0o600).unwrap();
        assert_eq!(esp(&f).unwrap().0, Verdict::Ok);
        // procfs lies on nothing, and is never full.
        assert_eq!(mapping("/proc").unwrap(), None);
        assert_eq!(space("/proc").unwrap().0, Verdict::Ok);
        assert!(space("/nonexistent").is_err());
    }
}
