// SPDX-License-Identifier: Apache-2.0
//! A UKI that carries its root with it, for booting over the network.
//!
//! systemd-stub finds addons beside a UKI on a file system only, and there is none when a firmware
//! has fetched it by HTTP or TFTP. So what the addons would say is said on the command line, and the
//! files that a medium would hold are in a second archive of the initrd. All of it is one signed
//! file: nothing in it can be changed on its way.
//!
//! It is made of the image's own UKI, of which stub, kernel, microcode and names stay as they are.

use crate::uki::{self, Parts, Signing};
use crate::{Artifact, Error, Result, pe};
use lama_exec::Tools;
use lama_exec::fs::{self, AtPath};
use lama_tree::Tree;
use std::path::Path;

/// Bytes of command line that a kernel reads: COMMAND_LINE_SIZE of x86-64 and arm64, without the
/// closing NUL.
pub const CMDLINE: usize = 2047;

/// The sections of a UKI after those of its stub, in their order.
const SECTIONS: &[&str] = &[
    ".osrel", ".cmdline", ".uname", ".pcrpkey", ".linux", ".initrd", ".ucode", ".pcrsig",
];

/// What it is made of.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// The image's UKI.
    pub uki: &'a Path,
    /// What is added to its command line.
    pub cmdline: &'a str,
    /// What is added to its initrd.
    pub files: &'a Tree,
    /// Modification time of those, seconds since 1970.
    pub epoch: u32,
    /// A directory for intermediate files.
    pub scratch: &'a Path,
}

/// Makes it to `out`.
///
/// # Errors
/// A file that is no UKI, a command line that no kernel would read to its end, and what tools and
/// keys say.
pub fn make(
    tools: &Tools,
    out: &Path,
    options: &Options<'_>,
    signing: Option<&Signing<'_>>,
) -> Result<Artifact> {
    let name = options.uki.display().to_string();
    let old = fs::read(options.uki)?;
    let part = |section: &str| {
        pe::section(&old, section, &name)?.ok_or_else(|| Error::Format {
            path: name.clone(),
            reason: format!("it is no UKI: it has no section {section}"),
        })
    };
    let cmdline = String::from_utf8_lossy(part(".cmdline")?);
    let cmdline = format!("{} {}", cmdline.trim_end_matches('\0'), options.cmdline);
    if cmdline.len() > CMDLINE {
        return Err(Error::Cmdline {
            length: cmdline.len(),
            most: CMDLINE,
        });
    }
    let mut initrd = part(".initrd")?.to_vec();
    // The kernel looks for an archive's magic at multiples of four
    // (driver-api/early-userspace/buffer-format).
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    lama_tree::write_cpio(options.files, &mut initrd, options.epoch).at("pack", out)?;
    let file =
        tempfile::NamedTempFile::new_in(options.scratch).at("create a file in", options.scratch)?;
    fs::write(file.path(), &initrd)?;

    let stub = pe::remove_sections(&old, SECTIONS, &name)?;
    let sbat = pe::section(&stub, ".sbat", &name)?.unwrap_or_default();
    let mut sections: Vec<(&str, &[u8])> = vec![
        (".osrel", part(".osrel")?),
        (".cmdline", cmdline.as_bytes()),
        (".uname", part(".uname")?),
    ];
    if let Some(s) = signing {
        sections.push((".pcrpkey", s.pcr_public()));
    }
    sections.push((".linux", part(".linux")?));
    sections.push((".initrd", &initrd));
    if let Some(m) = pe::section(&old, ".ucode", &name)? {
        sections.push((".ucode", m));
    }
    sections.push((".sbat", sbat));
    let parts = Parts {
        stub: &stub,
        stub_name: &name,
        sections,
        initrd: file.path(),
        scratch: options.scratch,
    };
    uki::assemble(tools, &parts, out, signing)
}
