// SPDX-License-Identifier: Apache-2.0
//! Which other files an ELF file needs to run.

use crate::Arch;
use goblin::elf::Elf;
use lama_tree::Tree;
use serde::Deserialize;

/// A library that a program opens by `dlopen`, as its note says (systemd: "ELF dlopen metadata").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Dlopen {
    /// What it is for.
    #[serde(default)]
    pub feature: String,
    /// `required`, `recommended` or `suggested`.
    #[serde(default)]
    pub priority: String,
    /// Names in order of preference; one is enough.
    pub soname: Vec<String>,
}

/// What an ELF file asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// The program interpreter (absolute path), for executables.
    pub interpreter: Option<String>,
    /// DT_NEEDED.
    pub needed: Vec<String>,
    /// DT_RUNPATH or DT_RPATH, split.
    pub runpath: Vec<String>,
    /// Records of `.note.dlopen`.
    pub dlopen: Vec<Dlopen>,
}

/// Reads an ELF file.
///
/// # Errors
/// Why it can't be read, in words.
pub fn inspect(data: &[u8]) -> Result<Info, String> {
    let elf = Elf::parse(data).map_err(|e| format!("not a readable ELF file: {e}"))?;
    let paths = if elf.runpaths.is_empty() {
        &elf.rpaths
    } else {
        &elf.runpaths
    };
    let mut dlopen = Vec::new();
    if let Some(notes) = elf.iter_note_sections(data, Some(".note.dlopen")) {
        for n in notes {
            let n = n.map_err(|e| format!("a damaged ELF note: {e}"))?;
            if n.n_type != 0x407c_0c0a {
                continue;
            }
            // The JSON text is a C string.
            let text = n.desc.split(|b| *b == 0).next().unwrap_or_default();
            let mut list: Vec<Dlopen> =
                serde_json::from_slice(text).map_err(|e| format!("a damaged dlopen note: {e}"))?;
            dlopen.append(&mut list);
        }
    }
    Ok(Info {
        interpreter: elf.interpreter.map(str::to_owned),
        needed: elf.libraries.iter().map(|s| (*s).to_owned()).collect(),
        runpath: paths
            .iter()
            .flat_map(|p| p.split(':'))
            .map(str::to_owned)
            .collect(),
        dlopen,
    })
}

/// The multiarch directory of the architecture.
pub fn triplet(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-linux-gnu",
        Arch::Arm64 => "aarch64-linux-gnu",
    }
}

/// Where the dynamic linker would find a library, as a path in the tree. `$ORIGIN` in a run path is
/// not expanded: nothing in an initrd uses it.
pub fn find(root: &Tree, arch: Arch, name: &str, runpath: &[String]) -> Option<String> {
    let multi = format!("usr/lib/{}", triplet(arch));
    // systemd's libraries need each other without a run path: the program, which has one, has
    // loaded them before.
    let private = format!("{multi}/systemd");
    runpath
        .iter()
        .map(|p| p.trim_start_matches('/'))
        .chain([multi.as_str(), "usr/lib", "usr/lib64", private.as_str()])
        .map(|d| format!("{d}/{name}"))
        .find(|p| root.follow(p).is_some())
}
