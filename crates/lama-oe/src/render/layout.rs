// SPDX-License-Identifier: Apache-2.0
//! Layouts as wic's kickstart files
//! (<https://docs.yoctoproject.org/ref-manual/kickstart.html>).

use super::{Input, Rendered, Result, marked, word};
use lama_model::Layout;
use lama_model::layout::{ALIGNMENT, Partition, Role};
use std::path::PathBuf;

const WIC: &str = "meta-lamadist-bsp/files/wic";

pub(super) fn render(input: &Input<'_>, out: &mut Rendered) -> Result<()> {
    for (name, layout) in input.description.layouts() {
        let path = PathBuf::from(WIC).join(format!("lamadist-{}.wks.in", word("layout", name)?));
        out.insert(path, marked(&kickstart(layout)));
    }
    Ok(())
}

fn kickstart(layout: &Layout) -> String {
    let description = &layout.description;
    let mut text = format!("# short-description: {description}\n");
    if layout.partitions.iter().any(|p| p.slot.is_some()) {
        text +=
            "# long-description: Slots and data are empty: the installer encrypts and fills them\n";
    }
    text += "\n";
    for r in &layout.raw {
        text += &format!(
            "part --source rawcopy --sourceparams=\"file={}\" --offset {}s --no-table --fixed-size {}\n",
            r.file,
            r.sector.get_ref(),
            kib(r.max_size.0)
        );
    }
    for (p, at) in layout.partitions.iter().zip(layout.place(&[])) {
        text += &partition(
            p,
            (p.start.is_some() || !layout.raw.is_empty() && p.role == Role::Esp)
                .then_some(at.start),
        );
    }
    text + "\nbootloader --ptable gpt\n"
}

/// `offset` in bytes, where it is not simply after what stands before.
fn partition(p: &Partition, offset: Option<u64>) -> String {
    // A slot's content is the installer's.
    let raw = |file: &str| match p.slot {
        None => format!("--source rawcopy --sourceparams=\"file=${{{file}}}\""),
        Some(_) => "--source empty".to_owned(),
    };
    let (source, kind) = match p.role {
        Role::Esp => (
            "--source bootimg_partition --fstype=vfat --label ESP".to_owned(),
            p.role.type_uuid(lama_model::Arch::Amd64).to_string(),
        ),
        Role::Root => (raw("LAMA_ROOT_FILE"), "${LAMA_TYPE_ROOT}".to_owned()),
        Role::Verity => (raw("LAMA_VERITY_FILE"), "${LAMA_TYPE_VERITY}".to_owned()),
        Role::Var => (
            "--source empty".to_owned(),
            p.role.type_uuid(lama_model::Arch::Amd64).to_string(),
        ),
    };
    let mut text = format!(
        "part {source} --part-name {} --part-type {kind}",
        p.label.get_ref()
    );
    text += &match offset {
        Some(at) => format!(" --offset {}", kib(at)),
        None => format!(" --align {}", ALIGNMENT / 1024),
    };
    text += &match (p.size, p.role) {
        (Some(size), _) => format!(" --fixed-size {}", kib(size.0)),
        // wic has to know a size; the installer lets it grow.
        (None, Role::Var) => format!(" --fixed-size {}", kib(64 << 20)),
        // The unified kernel image, and room for addons.
        (None, Role::Esp) => " --extra-space 16M --overhead-factor 1.1".to_owned(),
        (None, _) => String::new(),
    };
    text + "\n"
}

/// Bytes as wic takes them.
fn kib(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) {
        format!("{}M", bytes >> 20)
    } else {
        format!("{}K", bytes.div_ceil(1024))
    }
}
