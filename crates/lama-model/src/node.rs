// SPDX-License-Identifier: Apache-2.0
//! What the program on the node is told of the image and of the machine it is for: a file, so that
//! the node needs neither the description nor its parser.

use crate::distro::Migration;
use crate::layout::{Encryption, FileSystem, Partition, Role, Slot};
use crate::machine::Loader;
use crate::{Arch, Selection};
use serde::Serialize;

/// Where it lies in the root.
pub const PATH: &str = "usr/lib/lamadist/machine.json";
/// What adds the certificates of `db` to a firmware in use, signed by `kek`
/// (`EFI_VARIABLE_AUTHENTICATION_2`, UEFI specification 8.2.2).
pub const DB_APPEND: &str = "usr/lib/lamadist/secure-boot/db-append.auth";
/// The same, in place of all others.
pub const DB_REPLACE: &str = "usr/lib/lamadist/secure-boot/db.auth";

/// The file. `lama_node::machine` reads it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Machine<'a> {
    bsp: &'a str,
    image: &'a str,
    version: &'a str,
    compatible: &'a str,
    loader: Loader,
    #[serde(skip_serializing_if = "Option::is_none")]
    migration: Option<&'a Migration>,
    layout: Vec<Part<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Part<'a> {
    label: &'a str,
    r#type: String,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<Slot>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    encrypted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    filesystem: Option<FileSystem>,
}

impl Selection<'_> {
    /// The content of `/usr/lib/lamadist/machine.json`: machine, image, and the layout of an
    /// installed disk.
    pub fn machine_json(&self, version: &str) -> String {
        let arch = self.machine.arch;
        let machine = Machine {
            bsp: &self.bsp,
            image: &self.image,
            version,
            compatible: &self.machine.compatible,
            loader: self.machine.boot.loader,
            migration: self.migration,
            layout: self
                .layout
                .partitions
                .iter()
                .map(|p| part(p, arch))
                .collect(),
        };
        // Strings and numbers only: nothing that JSON could not say.
        let mut text = serde_json::to_string_pretty(&machine).unwrap_or_default();
        text.push('\n');
        text
    }
}

fn part(p: &Partition, arch: Arch) -> Part<'_> {
    Part {
        label: p.label.get_ref(),
        r#type: p.role.type_uuid(arch).to_string(),
        role: p.role,
        slot: p.slot,
        size: p.size.map(|s| s.0),
        encrypted: p.encryption == Encryption::Luks2,
        filesystem: p.filesystem,
    }
}
