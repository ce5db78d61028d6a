// SPDX-License-Identifier: Apache-2.0
//! UEFI firmware: its files in the tools tree, and variable stores with our keys enrolled.

use crate::config::{Arch, Smm};
use crate::disk::absolute;
use crate::error::{Error, Result};
use lama_exec::{Tools, fs};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Whether enrolled keys are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureBoot {
    /// Only signed programs start.
    On,
    /// The keys are there, but not enforced.
    Off,
}

/// A variable store to be made: our keys and no others (none of Microsoft's).
#[derive(Debug, Clone)]
pub struct VariableStore {
    /// The architecture of the machine.
    pub arch: Arch,
    /// The signature owner GUID that is written beside every certificate.
    pub owner: Uuid,
    /// The platform key's certificate (PEM).
    pub pk: PathBuf,
    /// Key exchange keys' certificates (PEM).
    pub kek: Vec<PathBuf>,
    /// Certificates (PEM) whose signatures are accepted.
    pub db: Vec<PathBuf>,
    /// Enforcement.
    pub secure_boot: SecureBoot,
    /// What is fetched by HTTP and started at the first start, before anything else.
    pub boot_uri: Option<String>,
}

impl VariableStore {
    /// Makes the store with `virt-fw-vars`, in `cache`, unless it is there already, and returns its
    /// path. Its name contains a hash of everything it is made from.
    ///
    /// # Errors
    /// Missing firmware or certificates, and what `virt-fw-vars` says.
    pub fn make(&self, tools: &Tools, cache: &Path) -> Result<PathBuf> {
        let template = variables(self.arch);
        let mut hash = Sha256::new();
        hash.update(b"lamadist variable store 1\0");
        hash.update(fs::read(seen_from_here(tools, &template, self.arch)?)?);
        hash.update(self.owner.as_bytes());
        hash.update([u8::from(self.secure_boot == SecureBoot::On)]);
        if let Some(uri) = &self.boot_uri {
            hash.update(b"uri\0");
            hash.update(uri);
        }
        let certs = [
            ("pk", vec![&self.pk]),
            ("kek", self.kek.iter().collect()),
            ("db", self.db.iter().collect()),
        ];
        for (kind, files) in &certs {
            for f in files {
                let data = fs::read(f)?;
                hash.update(kind);
                hash.update((data.len() as u64).to_le_bytes());
                hash.update(data);
            }
        }
        let hash = hex::encode(hash.finalize());
        let short = hash.get(..32).unwrap_or(&hash);
        let cache = absolute(cache);
        let target = cache.join(format!("vars-{}-{short}.fd", self.arch.name()));
        if fs::symlink_metadata(&target).is_ok() {
            return Ok(target);
        }
        let new = fs::Staged::new(&target)?;
        let owner = self.owner.to_string();
        let mut c = tools
            .command("virt-fw-vars")
            .bind(&cache)
            .arg("--input")
            .arg(&template)
            .arg("--output")
            .arg(new.path());
        for (kind, files) in &certs {
            let option = if *kind == "pk" {
                "--set-pk".to_owned()
            } else {
                format!("--add-{kind}")
            };
            for f in files {
                let f = absolute(f);
                c = c.bind_ro(&f).arg(&option).arg(&owner).arg(f);
            }
        }
        if self.secure_boot == SecureBoot::On {
            c = c.arg("--secure-boot");
        }
        if let Some(uri) = &self.boot_uri {
            c = c.arg("--set-boot-uri").arg(uri);
        }
        c.run()?;
        new.commit(0o644)?;
        Ok(target)
    }
}

/// The firmware's code, as QEMU sees it.
pub(crate) fn code(arch: Arch, smm: Smm) -> PathBuf {
    PathBuf::from(match (arch, smm) {
        (Arch::X86_64, Smm::On) => "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
        // Without SMM and without Secure Boot; `VmConfig::check` keeps enrolled keys away from it.
        (Arch::X86_64, Smm::Off) => "/usr/share/OVMF/OVMF_CODE_4M.fd",
        (Arch::Arm64, _) => "/usr/share/AAVMF/AAVMF_CODE.secboot.fd",
    })
}

/// The firmware's empty variable store, as QEMU sees it.
pub(crate) fn variables(arch: Arch) -> PathBuf {
    PathBuf::from(match arch {
        Arch::X86_64 => "/usr/share/OVMF/OVMF_VARS_4M.fd",
        Arch::Arm64 => "/usr/share/AAVMF/AAVMF_VARS.fd",
    })
}

/// Where a firmware file of the tools is for us.
pub(crate) fn seen_from_here(tools: &Tools, file: &Path, arch: Arch) -> Result<PathBuf> {
    let path = match tools.root() {
        Some(r) => r.join(file.strip_prefix("/").unwrap_or(file)),
        None => file.to_owned(),
    };
    if fs::metadata(&path).is_err() {
        return Err(Error::NoFirmware {
            path,
            arch: arch.name(),
            package: match arch {
                Arch::X86_64 => "ovmf",
                Arch::Arm64 => "qemu-efi-aarch64",
            },
        });
    }
    Ok(path)
}
