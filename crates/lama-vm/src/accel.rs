// SPDX-License-Identifier: Apache-2.0
//! Whether KVM really runs a guest here. A `/dev/kvm` that exists may still not do so (no
//! permission, nested virtualisation switched off), so it is tried: a machine whose firmware is a
//! handful of instructions that end QEMU with a status no failure has.

use crate::config::Arch;
use crate::error::Result;
use lama_exec::{Tools, fs};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How the guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By QEMU's translator, one thread a virtual processor.
    Tcg,
}

impl Accel {
    /// A time that suits KVM, stretched for this accelerator.
    pub fn scale(self, under_kvm: Duration) -> Duration {
        match self {
            Self::Kvm => under_kvm,
            Self::Tcg => under_kvm * 4,
        }
    }

    /// How long a boot may take: 60 s under KVM, 240 s under emulation.
    pub fn boot_timeout(self) -> Duration {
        self.scale(Duration::from_secs(60))
    }
}

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The accelerator to use.
    pub accel: Accel,
    /// Why it is that one, as a sentence for the user.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct Cached {
    boot_id: String,
    probe: Probe,
}

type Known = HashMap<(Option<PathBuf>, Arch), Probe>;

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// Finds out whether KVM runs a guest of `arch`. The answer is kept in this process and, where
/// `cache` names a directory, in a file there until the machine is rebooted.
///
/// # Errors
/// A missing QEMU, or a file that cannot be written. KVM that fails is an answer, not an error.
pub fn probe(tools: &Tools, arch: Arch, cache: Option<&Path>) -> Result<Probe> {
    let key = (tools.root().map(Path::to_owned), arch);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(p) = known.get(&key) {
        return Ok(p.clone());
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|s| s.trim().to_owned())
        .unwrap_or_default();
    let file = cache.map(|d| d.join(format!("kvm-{}.json", arch.name())));
    let stored = file
        .as_ref()
        .and_then(|f| fs::read_optional(f).ok().flatten())
        .and_then(|b| serde_json::from_slice::<Cached>(&b).ok())
        .filter(|c| !boot_id.is_empty() && c.boot_id == boot_id);
    let found = match stored {
        Some(c) => c.probe,
        None => {
            let probe = try_kvm(tools, arch)?;
            if let Some(f) = &file {
                let c = Cached {
                    boot_id,
                    probe: probe.clone(),
                };
                fs::write_atomic(f, serde_json::to_vec(&c).unwrap_or_default())?;
            }
            probe
        }
    };
    tracing::debug!(?found, "accelerator");
    known.insert(key, found.clone());
    Ok(found)
}

fn try_kvm(tools: &Tools, arch: Arch) -> Result<Probe> {
    let tcg = |reason: String| {
        Ok(Probe {
            accel: Accel::Tcg,
            reason,
        })
    };
    if Arch::host() != Some(arch) {
        return tcg(format!("this machine's processor is not {}", arch.name()));
    }
    let kvm = Path::new("/dev/kvm");
    if fs::symlink_metadata(kvm).is_err() {
        return tcg("there is no /dev/kvm".into());
    }
    if rustix::fs::access(
        kvm,
        rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
    )
    .is_err()
    {
        return tcg("this user may not open /dev/kvm".into());
    }
    let tmp = tempfile::tempdir().map_err(|source| fs::FsError {
        action: "create a directory in",
        path: std::env::temp_dir(),
        source,
    })?;
    let rom = tmp.path().join("probe.rom");
    let log = tmp.path().join("log");
    fs::write(&rom, probe_rom(arch))?;
    let err = fs::create(&log)?;
    let cmd = tools
        .command(arch.qemu())
        .bind(tmp.path())
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-m",
            "16",
        ])
        .args(["-accel", "kvm", "-cpu", "host", "-bios"])
        .arg(&rom)
        .args(match arch {
            Arch::X86_64 => {
                ["-M", "pc", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"].as_slice()
            }
            Arch::Arm64 => ["-M", "virt"].as_slice(),
        });
    let wanted = match arch {
        Arch::X86_64 => Some(33),
        Arch::Arm64 => Some(0),
    };
    let mut run = cmd.spawn(Stdio::null(), Stdio::from(err))?;
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        match run.try_wait() {
            Ok(Some(s)) if s.code() == wanted => {
                return Ok(Probe {
                    accel: Accel::Kvm,
                    reason: "KVM runs a guest".into(),
                });
            }
            Ok(Some(s)) => {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let said = said.lines().last().unwrap_or_default().to_owned();
                return tcg(format!("/dev/kvm exists but runs no guest ({s}: {said})"));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(e) => return tcg(format!("/dev/kvm could not be tried: {e}")),
        }
    }
    tcg("/dev/kvm exists but a guest hangs in it".into())
}

/// 64 KiB of firmware that ends QEMU.
fn probe_rom(arch: Arch) -> Vec<u8> {
    let (at, code): (usize, &[u8]) = match arch {
        // At the reset vector: mov al,0x10; out 0xf4,al; hlt. isa-debug-exit makes it 0x10*2+1.
        Arch::X86_64 => (0xfff0, &[0xb0, 0x10, 0xe6, 0xf4, 0xf4]),
        // movz w0,#0x8; movk w0,#0x8400,lsl#16 (PSCI SYSTEM_OFF); hvc #0; b .
        Arch::Arm64 => (
            0,
            &[
                0x00, 0x01, 0x80, 0x52, 0x00, 0x80, 0xb0, 0x72, 0x02, 0x00, 0x00, 0xd4, 0x00, 0x00,
                0x00, 0x14,
            ],
        ),
    };
    let mut rom = vec![0xf4; 0x10000];
    for (place, byte) in rom.iter_mut().skip(at).zip(code) {
        *place = *byte;
    }
    rom
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rom_has_its_code_at_the_reset_vector() {
        let rom = probe_rom(Arch::X86_64);
        assert_eq!(rom.len(), 65536);
        assert_eq!(rom[0xfff0..0xfff5], [0xb0, 0x10, 0xe6, 0xf4, 0xf4]);
        assert_eq!(probe_rom(Arch::Arm64)[..4], 0x5280_0100_u32.to_le_bytes());
        assert_eq!(probe_rom(Arch::Arm64)[4..8], 0x72b0_8000_u32.to_le_bytes());
    }

    #[test]
    fn emulation_gets_more_time() {
        assert_eq!(Accel::Kvm.boot_timeout(), Duration::from_secs(60));
        assert!(Accel::Tcg.boot_timeout() >= Duration::from_secs(180));
    }
}
