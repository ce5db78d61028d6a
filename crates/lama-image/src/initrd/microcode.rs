// SPDX-License-Identifier: Apache-2.0
//! Processor microcode, in the archive that the kernel reads before anything else.

use crate::{Arch, Result};
use lama_tree::{Node, Tree, TreePath};

/// The early microcode archive: an uncompressed cpio with `kernel/x86/microcode/GenuineIntel.bin`
/// and `AuthenticAMD.bin`, concatenated from the root's firmware (kernel: arch/x86/microcode). None
/// where the root has no microcode, or the architecture has no such thing.
pub fn microcode(root: &Tree, arch: Arch, epoch: u32) -> Result<Option<Vec<u8>>> {
    if arch != Arch::Amd64 {
        return Ok(None);
    }
    let mut tree = Tree::new();
    for (dir, name) in [
        ("usr/lib/firmware/intel-ucode", "GenuineIntel.bin"),
        ("usr/lib/firmware/amd-ucode", "AuthenticAMD.bin"),
    ] {
        let at = TreePath::new(dir)?;
        let mut data = Vec::new();
        for (p, n) in root.children(&at) {
            // Intel: family-model-stepping; AMD: *.bin beside READMEs and signatures.
            let part = if name.starts_with('G') {
                !p.file_name().ends_with(".initramfs") && p.file_name().contains('-')
            } else {
                p.file_name().ends_with(".bin")
            };
            if let (true, Some(c)) = (part, n.content()) {
                data.extend_from_slice(c.bytes());
            }
        }
        if !data.is_empty() {
            tree.add(
                &format!("kernel/x86/microcode/{name}"),
                Node::file(data, 0o644),
            )?;
        }
    }
    if tree.is_empty() {
        return Ok(None);
    }
    let mut out = Vec::new();
    lama_tree::write_cpio(&tree, &mut out, epoch).map_err(|e| crate::Error::Format {
        path: "microcode".into(),
        reason: e.to_string(),
    })?;
    Ok(Some(out))
}
