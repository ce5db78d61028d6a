// SPDX-License-Identifier: Apache-2.0
//! What machines, the version and RAUC's configuration repeat of the description.

use super::{Input, Item, Rendered, Result, marked, quoted, word};
use lama_model::Selection;
use lama_model::layout::Role;
use std::path::PathBuf;

/// Where the files of rauc-conf are, a folder a machine.
const RAUC: &str = "meta-lamadist/dynamic-layers/rauc/recipes-core/rauc/files";

pub(super) fn render(input: &Input<'_>, out: &mut Rendered) -> Result<()> {
    out.insert(
        "meta-lamadist/conf/distro/include/lamadist-version.inc".into(),
        marked(&version(input)),
    );
    for (machine, bsp) in input.oe.all_machines() {
        word("machine", machine)?;
        let mut any = None;
        for (image, _) in input.description.images() {
            let s = input.description.select(bsp, image)?;
            out.insert(
                format!("meta-lamadist/files/machine/{machine}/{image}.json").into(),
                Item::text(s.machine_json("@VERSION@")),
            );
            any = Some(s);
        }
        let Some(s) = any else { continue };
        out.insert(
            PathBuf::from("meta-lamadist-bsp/conf/machine/include")
                .join(format!("{machine}-rendered.inc")),
            marked(&include(&s)),
        );
        if let Some(conf) = s.rauc_conf() {
            let path = format!("{RAUC}/{machine}/system.conf");
            out.insert(path.into(), marked(&format!("\n{conf}")));
        }
    }
    Ok(())
}

fn version(input: &Input<'_>) -> String {
    let d = &input.description.distro;
    format!(
        "DISTRO_NAME = \"{}\"\n\
         # A release is built with LAMA_VERSION_SUFFIX empty.\n\
         LAMA_VERSION_SUFFIX ?= \"-dev\"\n\
         DISTRO_VERSION = \"{}${{LAMA_VERSION_SUFFIX}}\"\n\
         DISTRO_CODENAME = \"{}\"\n\
         LAMADIST_HOME_URL = \"{}\"\n\
         # Seconds since 1970 that everything built carries.\n\
         LAMADIST_SOURCE_DATE_EPOCH = \"{}\"\n",
        quoted(&d.name),
        quoted(&d.version),
        quoted(&input.oe.series),
        quoted(&d.home_url),
        d.source_date_epoch
    )
}

fn include(s: &Selection<'_>) -> String {
    let arch = s.machine.arch;
    let consoles: Vec<String> = s
        .machine
        .consoles
        .iter()
        .filter_map(|c| serial(c))
        .collect();
    let mut text = format!(
        "# {}\nLAMA_BSP = \"{}\"\nLAMA_COMPATIBLE = \"{}\"\n",
        s.machine.description,
        s.bsp,
        quoted(&s.machine.compatible)
    );
    text += &format!(
        "# Partition types of the Discoverable Partitions Specification.\n\
         LAMA_TYPE_ROOT = \"{}\"\nLAMA_TYPE_VERITY = \"{}\"\n",
        Role::Root.type_uuid(arch),
        Role::Verity.type_uuid(arch)
    );
    text += &format!(
        "LAMA_CMDLINE = \"{}\"\nSERIAL_CONSOLES = \"{}\"\n",
        quoted(&s.cmdline("${LAMA_ROOT_HASH}")),
        consoles.join(" ")
    );
    text += &format!(
        "WKS_FILE = \"lamadist-{}.wks.in\"\n",
        s.machine.medium.get_ref()
    );
    text
}

/// `ttyS0,115200` as `115200;ttyS0`; none for a screen, which has no speed.
fn serial(console: &str) -> Option<String> {
    let (device, speed) = console.split_once(',')?;
    Some(format!("{speed};{device}"))
}
