// SPDX-License-Identifier: Apache-2.0
//! Unified kernel images and their addons.
//!
//! The parts are put together and signed for Secure Boot by [`crate::pe`], as `ukify` (systemd 257)
//! would; `systemd-measure` signs the PCR 11 policy. The kernel inside is signed, too, before it is
//! measured.
//!
//! Addons (systemd-stub(7)) are small signed PE files beside a UKI that add to its command line:
//! which slot it is booted from, or that it runs from a medium.

use crate::{Arch, Artifact, Error, Result, pe};
use lama_exec::Tools;
use lama_exec::fs::{self, AtPath};
use lama_keys::{CertificateInfo, KeySet, Signer, ToolArgs};
use lama_tree::Tree;
use std::path::Path;

/// With what is signed.
pub struct Signing<'a> {
    /// The current `db` key first, then those that it replaces.
    db: Vec<(CertificateInfo, Box<dyn Signer + 'a>)>,
    /// systemd-measure's options for the PCR policy, by key.
    pcr: Vec<ToolArgs>,
    /// The public key of the policy, PEM.
    pcr_public: Vec<u8>,
}

impl<'a> Signing<'a> {
    /// The `db` and `pcr` keys of a key set.
    pub fn new(keys: &'a KeySet, tools: &'a Tools) -> Result<Self> {
        Ok(Self {
            db: keys.db_signers(Some(tools))?,
            pcr: keys.measure_args()?,
            pcr_public: fs::read(keys.pcr_public_path())?,
        })
    }

    /// The PCR 11 policy of these sections, signed with each key: systemd-measure(1)'s JSON.
    fn policy(
        &self,
        tools: &Tools,
        sections: &[(&str, &[u8])],
        initrd: &Path,
        scratch: &Path,
    ) -> Result<Vec<u8>> {
        let dir = tempfile::tempdir_in(scratch).at("create a directory in", scratch)?;
        let dir = dir.path();
        let mut parts = Vec::new();
        for (name, data) in sections {
            let name = name.trim_start_matches('.');
            // The initrd is a file already.
            let path = if name == "initrd" {
                initrd.to_owned()
            } else {
                let path = dir.join(name);
                fs::write(&path, data)?;
                path
            };
            let mut option = std::ffi::OsString::from(format!("--{name}="));
            option.push(path);
            parts.push(option);
        }
        // By bank, what the keys have signed.
        let mut all = serde_json::Map::<String, serde_json::Value>::new();
        for key in &self.pcr {
            let cmd = tools
                .command("/usr/lib/systemd/systemd-measure")
                .args(["sign", "--bank=sha256"])
                .args(&parts)
                .bind_ro(dir)
                .bind_ro(initrd);
            let signed: serde_json::Map<String, serde_json::Value> = key.apply(cmd).json()?;
            for (bank, policies) in signed {
                let serde_json::Value::Array(mut policies) = policies else {
                    continue;
                };
                let to = all
                    .entry(bank)
                    .or_insert_with(|| serde_json::Value::Array(Vec::new()));
                if let Some(to) = to.as_array_mut() {
                    policies.retain(|p| !to.contains(p));
                    to.append(&mut policies);
                }
            }
        }
        Ok(serde_json::to_vec(&all).unwrap_or_default())
    }

    /// The public key of the PCR policy, PEM.
    pub(crate) fn pcr_public(&self) -> &[u8] {
        &self.pcr_public
    }

    fn sign(&self, pe: Vec<u8>, name: &str) -> Result<Vec<u8>> {
        let mut signers = self.db.iter();
        signers.try_fold(pe, |pe, (certificate, signer)| {
            pe::sign(pe, name, certificate, signer.as_ref())
        })
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
    let initrd = fs::read(options.initrd)?;
    let os_release = root
        .read("usr/lib/os-release")
        .or_else(|_| root.read("etc/os-release"))?;
    let stub_name = "the stub of systemd-boot-efi";
    let sbat = sbat([
        pe::section(stub, ".sbat", stub_name)?,
        pe::section(&linux, ".sbat", &format!("the kernel {release}"))?,
        Some(UKI_SBAT.as_bytes()),
    ]);
    let mut sections: Vec<(&str, &[u8])> = vec![
        (".osrel", os_release),
        (".cmdline", options.cmdline.as_bytes()),
        (".uname", release.as_bytes()),
    ];
    if let Some(s) = signing {
        sections.push((".pcrpkey", &s.pcr_public));
    }
    sections.push((".linux", &linux));
    sections.push((".initrd", &initrd));
    if let Some(m) = options.microcode {
        sections.push((".ucode", m));
    }
    sections.push((".sbat", &sbat));
    assemble(
        tools,
        &Parts {
            stub,
            stub_name,
            sections,
            initrd: options.initrd,
            scratch: options.scratch,
        },
        out,
        signing,
    )
}

/// What is put together to a UKI.
pub(crate) struct Parts<'a> {
    /// The stub, and what to call it in an error.
    pub stub: &'a [u8],
    /// What to call it in an error.
    pub stub_name: &'a str,
    /// All sections but the PCR policy.
    pub sections: Vec<(&'a str, &'a [u8])>,
    /// The content of `.initrd` as a file.
    pub initrd: &'a Path,
    /// A directory for intermediate files.
    pub scratch: &'a Path,
}

/// Adds the PCR policy, puts all together and signs it.
pub(crate) fn assemble(
    tools: &Tools,
    parts: &Parts<'_>,
    out: &Path,
    signing: Option<&Signing<'_>>,
) -> Result<Artifact> {
    let mut sections = parts.sections.clone();
    let policy = match signing {
        Some(s) => s.policy(tools, &sections, parts.initrd, parts.scratch)?,
        None => Vec::new(),
    };
    if !policy.is_empty() {
        sections.push((".pcrsig", &policy));
    }
    let made = pe::add_sections(parts.stub, &sections, parts.stub_name)?;
    finish(made, out, signing)
}

/// Signs what has been put together and gives it its final name.
fn finish(mut data: Vec<u8>, out: &Path, signing: Option<&Signing<'_>>) -> Result<Artifact> {
    if let Some(s) = signing {
        data = s.sign(data, &out.display().to_string())?;
    }
    fs::write_atomic(out, &data)?;
    Ok(Artifact::of(out, &data))
}

/// Signs the root tree's systemd-boot to `out`.
///
/// # Errors
/// The root has none (package systemd-boot-efi), or it cannot be signed.
pub fn systemd_boot(
    root: &Tree,
    out: &Path,
    arch: Arch,
    signing: Option<&Signing<'_>>,
) -> Result<Artifact> {
    let name = format!("usr/lib/systemd/boot/efi/systemd-boot{}.efi", arch.efi());
    let data = from_tree(root, &name, "systemd-boot-efi")?;
    finish(data.to_vec(), out, signing)
}

/// What every SBAT section begins with (shim's SBAT.md): CSV, the record of SBAT itself.
const SBAT: &str = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n";
/// The record of a UKI, as ukify writes it.
const UKI_SBAT: &str =
    "sbat\nuki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/\n";

/// One SBAT section of several: by each of them, what it is made of can be revoked.
fn sbat<const N: usize>(parts: [Option<&[u8]>; N]) -> Vec<u8> {
    let mut out = SBAT.as_bytes().to_vec();
    for part in parts.into_iter().flatten() {
        let text = part.split(|b| *b == 0).next().unwrap_or_default();
        // The first line is SBAT's own.
        for line in text.split(|b| *b == b'\n').skip(1) {
            if !line.is_empty() {
                out.extend_from_slice(line);
                out.push(b'\n');
            }
        }
    }
    out.push(0);
    out
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
    /// The addon's record.
    fn sbat(&self) -> String {
        format!(
            "sbat\n{name},{generation},LamaDist,{name},{version},https://github.com/lamadist/lamadist\n",
            name = self.name,
            generation = self.generation,
            version = self.version,
        )
    }
}

/// Makes a signed addon to `out`.
pub fn addon(
    root: &Tree,
    out: &Path,
    addon: &Addon<'_>,
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
    let sbat = sbat([Some(addon.sbat().as_bytes())]);
    let sections = [(".cmdline", addon.cmdline.as_bytes()), (".sbat", &*sbat)];
    let made = pe::add_sections(stub, &sections, "the addon stub of systemd-boot-efi")?;
    finish(made, out, signing)
}
