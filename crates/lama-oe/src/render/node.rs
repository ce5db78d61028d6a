// SPDX-License-Identifier: Apache-2.0
//! The program on the node as its recipe needs it: the manifests it is compiled with, and the crates
//! that `Cargo.lock` pins.

use super::{Input, Item, Rendered, marked};

const RECIPE: &str = "meta-lamadist/recipes-core/lama-node";

/// A crate of crates.io.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its `.crate` file, in hexadecimal.
    pub checksum: String,
}

/// What the program is compiled from, besides its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSource {
    /// Its version.
    pub version: String,
    /// The workspace's manifest, with this crate alone in it.
    pub workspace: String,
    /// The crate's manifest, without tests.
    pub manifest: String,
    /// `Cargo.lock`, with what the program is made of alone in it.
    pub lock: String,
    /// All crates it is made of.
    pub crates: Vec<Crate>,
}

pub(super) fn render(input: &Input<'_>, out: &mut Rendered) {
    let node = input.node;
    let mut text = format!("PV = \"{}\"\n\nSRC_URI += \" \\\n", node.version);
    for c in &node.crates {
        text += &format!("    crate://crates.io/{}/{} \\\n", c.name, c.version);
    }
    text += "\"\n\n";
    for c in &node.crates {
        text += &format!(
            "SRC_URI[{}-{}.sha256sum] = \"{}\"\n",
            c.name, c.version, c.checksum
        );
    }
    out.insert(
        format!("{RECIPE}/lama-node-crates.inc").into(),
        marked(&text),
    );
    for (name, text) in [
        ("workspace.toml", &node.workspace),
        ("lama-node.toml", &node.manifest),
    ] {
        out.insert(format!("{RECIPE}/files/{name}").into(), marked(text));
    }
    // cargo's own format, which has no place for a licence.
    out.insert(
        format!("{RECIPE}/files/Cargo.lock").into(),
        Item::text(node.lock.clone()),
    );
}
