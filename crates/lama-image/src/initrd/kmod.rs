// SPDX-License-Identifier: Apache-2.0
//! Kernel modules for the initrd: selection by name, closure over dependencies, firmware.

use crate::{Error, Result};
use goblin::elf::Elf;
use lama_exec::Tools;
use lama_exec::fs::{self, AtPath};
use lama_tree::{Content, Node, Tree, TreePath};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

/// The modules that go into the initrd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The kernel release (`uname -r`).
    pub release: String,
    /// Paths below `usr/lib/modules/<release>`, sorted.
    pub files: Vec<String>,
}

/// Modules that systemd asks for by itself, or the kernel when it opens a root of ours, by whatever
/// name they go by in a kernel, as far as it has them.
const ALWAYS: &[&str] = &[
    // PID 1: mounts efivarfs (without it no measured boot is seen), reads credentials
    "efivarfs",
    "autofs4",
    "qemu_fw_cfg",
    "dmi_sysfs",
    "virtio_rng",
    "vmw_vsock_virtio_transport",
    "dm_mod",
    "dm_verity",
    "dm_crypt",
    "erofs",
    "overlay",
    "loop",
    // what verity, LUKS2 and checksums of file systems ask the crypto API for
    "crc32c*",
    "sha256*",
    "aes_*",
    "aesni_intel",
    "xts",
    "ecb",
    "cbc",
    "af_alg",
    "algif_*",
];

/// The one kernel release of the tree.
///
/// # Errors
/// None, or more than one.
pub fn release(root: &Tree) -> Result<String> {
    let dir = TreePath::new("usr/lib/modules")?;
    let all: Vec<&str> = root
        .children(&dir)
        .filter(|(_, n)| n.is_dir())
        .map(|(p, _)| p.file_name())
        .collect();
    match all.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(Error::Kernel {
            found: "no kernel".into(),
        }),
        many => Err(Error::Kernel {
            found: many.join(", "),
        }),
    }
}

/// Selects modules by name or pattern, with what they depend on (`modules.dep`) and what is to be
/// loaded before or along with them (`modules.softdep`).
pub fn select(root: &Tree, wanted: &[String]) -> Result<Selection> {
    let release = release(root)?;
    let base = format!("usr/lib/modules/{release}");
    let text = |name: &str| {
        root.read(&format!("{base}/{name}"))
            .map(|b| String::from_utf8_lossy(b).into_owned())
    };
    let deps = parse_dep(&text("modules.dep")?);
    let builtin: BTreeSet<String> = text("modules.builtin")
        .unwrap_or_default()
        .lines()
        .map(module_name)
        .collect();
    let soft = parse_softdep(&text("modules.softdep").unwrap_or_default());

    let aliases = parse_alias(&text("modules.alias").unwrap_or_default());

    let mut todo: Vec<String> = deps
        .keys()
        .filter(|m| ALWAYS.iter().any(|p| matches(p, m)))
        .cloned()
        .collect();
    for w in wanted {
        let pattern = w.replace('-', "_");
        let found: Vec<&String> = deps.keys().filter(|m| matches(&pattern, m)).collect();
        let exact = !pattern.contains(['*', '?']);
        if found.is_empty() && exact && !builtin.contains(&pattern) {
            return Err(Error::Module {
                name: w.clone(),
                release,
            });
        }
        todo.extend(found.into_iter().cloned());
    }
    let mut names = BTreeSet::new();
    let mut files = BTreeSet::new();
    while let Some(m) = todo.pop() {
        if !names.insert(m.clone()) {
            continue;
        }
        let Some((file, needs)) = deps.get(&m) else {
            // Built in; or a soft dependency on an alias such as crypto-crc32c.
            todo.extend(aliases.get(&m).into_iter().flatten().cloned());
            continue;
        };
        files.insert(file.clone());
        todo.extend(needs.iter().map(|f| module_name(f)));
        todo.extend(soft.get(&m).into_iter().flatten().cloned());
    }
    Ok(Selection {
        release,
        files: files.into_iter().collect(),
    })
}

/// The modules decompressed (the initrd is compressed as a whole, which packs them better), the
/// firmware they name as far as the root has it, and the indexes that `depmod` makes of just these.
pub fn install(tools: &Tools, root: &Tree, selection: &Selection) -> Result<Tree> {
    let base = format!("usr/lib/modules/{}", selection.release);
    let mut tree = Tree::new();
    for l in ["lib"] {
        if let Some(n) = root.lookup(l).filter(|n| !n.is_dir()) {
            tree.add(l, n.clone())?;
        }
    }
    let mut firmware = BTreeSet::new();
    for f in &selection.files {
        let path = format!("{base}/{f}");
        let (name, data) = decompress(&path, root.read(&path)?)?;
        firmware.extend(firmware_of(&data));
        tree.add(&name, Node::file(data, 0o644))?;
    }
    for f in [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        if let Ok(data) = root.read(&format!("{base}/{f}")) {
            tree.add(&format!("{base}/{f}"), Node::file(data.to_vec(), 0o644))?;
        }
    }
    let scratch = tempfile::tempdir().at(
        "create a directory in",
        Path::new("the temporary directory"),
    )?;
    lama_tree::write_dir(&tree, scratch.path())?;
    tools
        .command("depmod")
        .arg("-b")
        .arg(scratch.path())
        .arg(&selection.release)
        .bind(scratch.path())
        .run()?;
    for e in fs::read_dir(scratch.path().join(&base))? {
        let name = e.file_name();
        let Some(name) = name.to_str() else { continue };
        // Read by kmod: the binary indexes and softdep; the rest is for people.
        let wanted = (name.ends_with(".bin") && name != "modules.symbols.bin")
            || matches!(name, "modules.softdep" | "modules.devname" | "modules.dep");
        if wanted {
            let data = fs::read(e.path())?;
            tree.add(&format!("{base}/{name}"), Node::file(data, 0o644))?;
        }
    }
    for f in firmware {
        for ending in ["", ".xz", ".zst"] {
            let path = format!("usr/lib/firmware/{f}{ending}");
            if let Some((p, n)) = root.follow(&path) {
                let content: Content = match n.content() {
                    Some(c) => c.clone(),
                    None => continue,
                };
                tracing::debug!("initrd: firmware {p}");
                tree.add(&path, Node::file(content, 0o644))?;
                break;
            }
        }
    }
    Ok(tree)
}

/// `modules.dep`: name → (file, files it depends on).
fn parse_dep(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    text.lines()
        .filter_map(|l| l.split_once(':'))
        .map(|(file, needs)| {
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            (module_name(file), (file.to_owned(), needs))
        })
        .collect()
}

/// `modules.softdep`: `softdep NAME pre: A B post: C`.
fn parse_softdep(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for l in text.lines() {
        let mut words = l.split_whitespace();
        if words.next() != Some("softdep") {
            continue;
        }
        let Some(name) = words.next() else { continue };
        out.entry(name.replace('-', "_")).or_default().extend(
            words
                .filter(|w| !w.ends_with(':'))
                .map(|w| w.replace('-', "_")),
        );
    }
    out
}

/// `modules.alias`: the aliases without wildcards (those with are for devices).
fn parse_alias(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for l in text.lines() {
        if let Some((alias, module)) = l
            .strip_prefix("alias ")
            .and_then(|l| l.rsplit_once(' '))
            .filter(|(a, _)| !a.contains(['*', '[', '?', ':']))
        {
            out.entry(alias.replace('-', "_"))
                .or_default()
                .push(module.replace('-', "_"));
        }
    }
    out
}

/// `kernel/drivers/block/virtio-blk.ko.xz` → `virtio_blk`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split_once(".ko")
        .map_or(name, |n| n.0)
        .replace('-', "_")
}

/// Shell-style wildcards `*` and `?`.
fn matches(pattern: &str, name: &str) -> bool {
    let (p, n) = (pattern.as_bytes(), name.as_bytes());
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < n.len() {
        match p.get(i) {
            Some(b'*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(c) if *c == b'?' || Some(c) == n.get(j) => {
                i += 1;
                j += 1;
            }
            _ => match star {
                Some((si, sj)) => {
                    star = Some((si, sj + 1));
                    i = si + 1;
                    j = sj + 1;
                }
                None => return false,
            },
        }
    }
    p.iter().skip(i).all(|c| *c == b'*')
}

fn decompress(path: &str, data: &[u8]) -> Result<(String, Vec<u8>)> {
    let bad = |e: std::io::Error| Error::Format {
        path: path.to_owned(),
        reason: format!("cannot be decompressed: {e}"),
    };
    let mut out = Vec::new();
    let name = if let Some(n) = path.strip_suffix(".xz") {
        liblzma::read::XzDecoder::new(data)
            .read_to_end(&mut out)
            .map_err(bad)?;
        n
    } else if let Some(n) = path.strip_suffix(".zst") {
        zstd::stream::copy_decode(data, &mut out).map_err(bad)?;
        n
    } else {
        out.extend_from_slice(data);
        path
    };
    Ok((name.to_owned(), out))
}

/// The `firmware=` entries of a module's `.modinfo`.
fn firmware_of(module: &[u8]) -> Vec<String> {
    let Ok(elf) = Elf::parse(module) else {
        return Vec::new();
    };
    let info = elf
        .section_headers
        .iter()
        .find(|s| elf.shdr_strtab.get_at(s.sh_name) == Some(".modinfo"))
        .and_then(|s| s.file_range())
        .and_then(|r| module.get(r))
        .unwrap_or_default();
    info.split(|b| *b == 0)
        .filter_map(|e| std::str::from_utf8(e).ok())
        .filter_map(|e| e.strip_prefix("firmware="))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (p, n, yes) in [
            ("virtio_*", "virtio_blk", true),
            ("virtio_*", "virtio", false),
            ("*", "x", true),
            ("a?c*", "abcdef", true),
            ("*blk", "virtio_blk", true),
            ("*b*k", "virtio_blk_x", false),
            ("ext4", "ext4", true),
            ("ext4", "ext", false),
            ("", "", true),
        ] {
            assert_eq!(matches(p, n), yes, "{p} {n}");
        }
    }

    fn tree() -> Tree {
        let mut t = Tree::new();
        let base = "usr/lib/modules/6.1";
        t.add(
            &format!("{base}/modules.dep"),
            Node::file(
                "kernel/a-b.ko.xz: kernel/c.ko kernel/d.ko.zst\nkernel/c.ko:\nkernel/d.ko.zst:\nkernel/e.ko:\n",
                0o644,
            ),
        )
        .unwrap();
        t.add(
            &format!("{base}/modules.softdep"),
            Node::file("# c\nsoftdep c pre: crypto-e\n", 0o644),
        )
        .unwrap();
        t.add(
            &format!("{base}/modules.alias"),
            Node::file("alias pci:v* x\nalias crypto-e e\n", 0o644),
        )
        .unwrap();
        t.add(
            &format!("{base}/modules.builtin"),
            Node::file("kernel/drivers/vi-o.ko\n", 0o644),
        )
        .unwrap();
        t
    }

    #[test]
    fn a_selection_is_closed_over_dependencies() {
        let s = select(&tree(), &["a_b".into(), "vi-o".into()]).unwrap();
        assert_eq!(s.release, "6.1");
        assert_eq!(
            s.files,
            [
                "kernel/a-b.ko.xz",
                "kernel/c.ko",
                "kernel/d.ko.zst",
                "kernel/e.ko"
            ]
        );
    }

    #[test]
    fn unknown_modules_are_named_but_patterns_may_be_empty() {
        let e = select(&tree(), &["nope".into()]).unwrap_err().to_string();
        assert!(e.contains("`nope`") && e.contains("6.1"), "{e}");
        assert!(select(&tree(), &["no*".into()]).unwrap().files.is_empty());
        let mut t = tree();
        t.add("usr/lib/modules/6.2/x", Node::file("", 0o644))
            .unwrap();
        assert!(matches!(select(&t, &[]), Err(Error::Kernel { .. })));
    }
}
