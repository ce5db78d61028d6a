// SPDX-License-Identifier: Apache-2.0
//! The JSON Schemas in `distro/schema/` are what the code renders.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_exec::fs;
use std::path::Path;

/// `LAMADIST_BLESS=1 cargo test -p lama-model` rewrites them.
#[test]
fn the_committed_schemas_are_current() {
    let distro = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../distro");
    let bless = std::env::var_os("LAMADIST_BLESS").is_some_and(|v| v == "1");
    for (name, _) in lama_model::SCHEMAS {
        let schema = lama_model::schema(name).unwrap_or_else(|| panic!("no schema {name}"));
        let rendered = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = distro.join("schema").join(format!("{name}.json"));
        if bless {
            fs::write_atomic(&path, &rendered).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == rendered,
            "distro/schema/{name}.json is not what the code renders\n\
             hint: LAMADIST_BLESS=1 cargo test -p lama-model --test schema"
        );
    }
    assert!(lama_model::schema("nonsense").is_none());
}

/// Editors find the schema of every file, and none of a file that isn't there.
#[test]
fn editors_know_which_schema_is_whose() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let taplo = fs::read_to_string(root.join(".taplo.toml")).unwrap();
    for (name, files) in lama_model::SCHEMAS {
        assert!(taplo.contains(&format!("distro/{files}")), "{files}");
        assert!(
            taplo.contains(&format!("./distro/schema/{name}.json")),
            "{name}"
        );
    }
}
