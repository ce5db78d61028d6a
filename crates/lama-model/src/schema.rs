// SPDX-License-Identifier: Apache-2.0
//! JSON Schemas of the description's files, for editors.

use crate::{Distro, Image, Layout, Machine, PackageGroup};
use schemars::{Schema, schema_for};

/// The names of all schemas, and which files each one is for.
pub const SCHEMAS: &[(&str, &str)] = &[
    ("distro", "lamadist.toml"),
    ("machine", "machines/*.toml"),
    ("image", "images/*.toml"),
    ("packagegroup", "packagegroups/*.toml"),
    ("layout", "layouts/*.toml"),
    ("scripts", "scripts/*.toml"),
    ("ids", "ids.toml"),
    ("files", "files.toml"),
    ("oe", "oe.toml"),
];

/// The JSON Schema (draft 2020-12) of this name.
pub fn schema(name: &str) -> Option<Schema> {
    Some(match name {
        "distro" => schema_for!(Distro),
        "machine" => schema_for!(Machine),
        "image" => schema_for!(Image),
        "packagegroup" => schema_for!(PackageGroup),
        "layout" => schema_for!(Layout),
        "scripts" => schema_for!(crate::scripts::Scripts),
        "ids" => schema_for!(crate::ids::Ids),
        "files" => schema_for!(crate::files::FileRules),
        "oe" => schema_for!(crate::oe::Oe),
        _ => return None,
    })
}
