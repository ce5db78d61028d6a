// SPDX-License-Identifier: Apache-2.0
//! Unified kernel images and their addons.
//!
//! `ukify` (systemd 257) puts the parts together and signs the PCR 11 policy; the Secure Boot
//! signatures are made by [`crate::pe`]. The kernel inside is signed, too, before it is measured.
//!
//! Addons (systemd-stub(7)) are small signed PE files beside a UKI that add to its command line:
//! which slot it is booted from, or that it runs from a medium.

use crate::{Arch, Artifact, Error, Result, pe};
use lama_exec::Tools;
use lama_exec::fs::{self, AtPath};
use lama_keys::{CertificateInfo, KeySet, Role, Signer, ToolArgs};
use lama_tree::Tree;
use std::path::Path;

/// With what is signed.
pub struct Signing<'a> {
    certificate: CertificateInfo,
    signer: Box<dyn Signer + 'a>,
    /// ukify's options for the PCR policy.
    pcr: ToolArgs,
}

impl<'a> Signing<'a> {
    /// The `db` and `pcr` keys of a key set.
    pub fn new(keys: &'a KeySet, tools: &'a Tools) -> Result<Self> {
        let mut pcr = keys.ukify_args()?;
        // The Secure Boot signature is not ukify's here: its tools sign the time along.
        pcr.args.retain(|a| {
            let a = a.to_string_lossy();
            !a.starts_with("--secureboot-") && !a.starts_with("--signtool=")
        });
        Ok(Self {
            certificate: CertificateInfo::read(&keys.db_cert_path())?,
            signer: keys.signer(Role::Db, Some(tools))?,
            pcr,
        })
    }

    fn sign(&self, pe: Vec<u8>, name: &str) -> Result<Vec<u8>> {
        pe::sign(pe, name, &self.certificate, self.signer.as_ref())
    }
}

/// What a UKI is made of.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// The architecture.
    pub arch: Arch,
    /// The initrd.
    pub initrd: &'a Path,
    /// The kernel command line.
    pub cmdline: &'a str,
    /// Early microcode archive, from [`crate::initrd::microcode()`].
    pub microcode: Option<&'a [u8]>,
    /// A directory for intermediate files.
    pub scratch: &'a Path,
}

/// The kernel and stub of a root tree.
fn from_tree<'t>(root: &'t Tree, path: &str, package: &'static str) -> Result<&'t [u8]> {
    root.read(path).map_err(|_| Error::InitrdNeeds {
        path: path.to_owned(),
        by: "the unified kernel image".to_owned(),
        package: Some(package),
    })
}

fn kernel<'t>(root: &'t Tree, release: &str) -> Result<&'t [u8]> {
    let inside = format!("usr/lib/modules/{release}/vmlinuz");
    match root.read(&inside) {
        Ok(d) => Ok(d),
        Err(_) => from_tree(root, &format!("boot/vmlinuz-{release}"), "linux-image-…"),
    }
}

/// Makes a signed UKI of the root tree's kernel, stub and os-release to `out`.
///
/// The tools come from `tools`; where they lack the stub of the root's architecture the root has to
/// have it (package systemd-boot-efi).
pub fn make(
    tools: &Tools,
    root: &Tree,
    out: &Path,
    options: &Options<'_>,
    signing: Option<&Signing<'_>>,
) -> Result<Artifact> {
    let release = crate::initrd::kmod::release(root)?;
    let efi = options.arch.efi();
    let stub = from_tree(
        root,
        &format!("usr/lib/systemd/boot/efi/linux{efi}.efi.stub"),
        "systemd-boot-efi",
    )?;
    let mut linux = kernel(root, &release)?.to_vec();
    if let Some(s) = signing {
        linux = s.sign(linux, &format!("the kernel {release}"))?;
    }
    let dir = tempfile::tempdir_in(options.scratch).at("create a directory in", options.scratch)?;
    let dir = dir.path();
    let mut args = Vec::new();
    let mut option = |flag: &str, path: &Path| {
        let mut a = std::ffi::OsString::from(flag);
        a.push(path);
        args.push(a);
    };
    let mut part = |flag: &str, name: &str, data: &[u8]| -> Result<()> {
        let p = dir.join(name);
        fs::write(&p, data)?;
        option(flag, &p);
        Ok(())
    };
    part("--stub=", "stub", stub)?;
    part("--linux=", "linux", &linux)?;
    part("--cmdline=@", "cmdline", options.cmdline.as_bytes())?;
    let os_release = root
        .read("usr/lib/os-release")
        .or_else(|_| root.read("etc/os-release"))?;
    part("--os-release=@", "os-release", os_release)?;
    if let Some(m) = options.microcode {
        part("--microcode=", "microcode", m)?;
    }
    option("--initrd=", options.initrd);
    let made = dir.join("uki.efi");
    option("--output=", &made);
    let mut cmd = tools
        .command("ukify")
        .args(["build", "--efi-arch", efi])
        .arg(format!("--uname={release}"))
        .args(args)
        .bind(dir)
        .bind_ro(options.initrd);
    if let Some(s) = signing {
        cmd = s.pcr.apply(cmd.arg("--pcr-banks=sha256"));
    }
    cmd.run()?;
    finish(&made, out, signing)
}

/// Signs what ukify has made and gives it its final name.
fn finish(made: &Path, out: &Path, signing: Option<&Signing<'_>>) -> Result<Artifact> {
    let mut data = fs::read(made)?;
    if let Some(s) = signing {
        data = s.sign(data, &out.display().to_string())?;
    }
    fs::write_atomic(out, &data)?;
    Ok(Artifact::of(out, &data))
}

/// What an addon is made of.
#[derive(Debug, Clone)]
pub struct Addon<'a> {
    /// The architecture.
    pub arch: Arch,
    /// What is added to the command line.
    pub cmdline: &'a str,
    /// The name in its SBAT record (`lamadist.slot-a`), by which it could be revoked.
    pub name: &'a str,
    /// The generation in its SBAT record: raised when older addons must no longer be accepted.
    pub generation: u32,
    /// The version in its SBAT record.
    pub version: &'a str,
}

impl Addon<'_> {
    /// The SBAT metadata (shim's SBAT.md): CSV, the record of SBAT itself and that of the addon.
    fn sbat(&self) -> String {
        format!(
            "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n\
             {name},{generation},LamaDist,{name},{version},https://github.com/lamadist/lamadist\n",
            name = self.name,
            generation = self.generation,
            version = self.version,
        )
    }
}

/// Makes a signed addon to `out`.
pub fn addon(
    tools: &Tools,
    root: &Tree,
    out: &Path,
    addon: &Addon<'_>,
    scratch: &Path,
    signing: Option<&Signing<'_>>,
) -> Result<Artifact> {
    if addon.name.contains([',', '\n']) || addon.version.contains([',', '\n']) {
        return Err(Error::Option {
            what: format!("the addon `{}`", addon.name),
            reason: "name and version go into a CSV record: no commas or line breaks".into(),
        });
    }
    let efi = addon.arch.efi();
    let stub = from_tree(
        root,
        &format!("usr/lib/systemd/boot/efi/addon{efi}.efi.stub"),
        "systemd-boot-efi",
    )?;
    let dir = tempfile::tempdir_in(scratch).at("create a directory in", scratch)?;
    let dir = dir.path();
    for (name, data) in [
        ("stub", stub),
        ("cmdline", addon.cmdline.as_bytes()),
        ("sbat", addon.sbat().as_bytes()),
    ] {
        fs::write(dir.join(name), data)?;
    }
    tools
        .command("ukify")
        .args(["build", "--efi-arch", efi])
        .args([
            "--stub=stub",
            "--cmdline=@cmdline",
            "--sbat=@sbat",
            "--output=addon",
        ])
        .bind(dir)
        .cwd(dir)
        .run()?;
    finish(&dir.join("addon"), out, signing)
}
