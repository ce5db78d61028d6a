// SPDX-License-Identifier: Apache-2.0
//! The OpenEmbedded layers are what the description says, and mistakes in its table are told.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::{lamadist, project};
use std::path::Path;
use std::process::{Command, Output};

/// A copy of what is rendered from and to.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["distro", "meta-lamadist", "meta-lamadist-bsp"] {
        let mut c = Command::new("cp");
        c.arg("-a").arg(project().join(name)).arg(dir.path());
        assert!(c.status().unwrap().success());
    }
    dir
}

fn render(project: &Path, args: &[&str]) -> Output {
    let mut c = lamadist(&["oe", "render"]);
    c.args(args).env("LAMADIST_DISTRO", project.join("distro"));
    c.output().unwrap()
}

fn edit(file: &Path, old: &str, new: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(old), "{}: {old}", file.display());
    std::fs::write(file, text.replacen(old, new, 1)).unwrap();
}

/// One truth: whoever changes distro/ renders, and nobody edits what is rendered.
#[test]
fn the_layers_are_what_the_description_says() {
    let out = render(&project(), &["--check"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let list = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{list}{said}");
}

#[test]
fn a_change_of_the_description_reaches_the_layers() {
    let dir = copy();
    let p = dir.path();
    for (file, old, new) in [
        ("distro/ids.toml", "messagebus = 200", "messagebus = 230"),
        ("distro/layouts/medium.toml", "\"esp\"", "\"boot\""),
        ("distro/machines/rk1.toml", "ttyS9", "ttyS8"),
        ("distro/packagegroups/core.toml", ", \"curl\",", ","),
        ("distro/oe.toml", "\"curl\",", ""),
        ("distro/files/core/etc/hosts", "localhost", "localhost l"),
    ] {
        edit(&p.join(file), old, new);
    }
    std::fs::write(p.join("meta-lamadist/files/left-over"), "x").unwrap();
    let out = render(p, &["--check"]);
    let list = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1), "{list}");
    for line in [
        "differs  meta-lamadist/files/lamadist-passwd",
        "differs  meta-lamadist-bsp/files/wic/lamadist-medium.wks.in",
        "differs  meta-lamadist-bsp/conf/machine/include/lamadist-rk1-rendered.inc",
        "differs  meta-lamadist/recipes-core/packagegroups/packagegroup-lamadist-core.bb",
        "differs  meta-lamadist/recipes-core/lamadist-config/files/core/etc/hosts",
        "stale    meta-lamadist/files/left-over",
    ] {
        assert!(list.lines().any(|l| l == line), "no `{line}`:\n{list}");
    }
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("hint: run `lamadist oe render`"), "{said}");
    assert!(render(p, &[]).status.success());
    assert!(render(p, &["--check"]).status.success());
    assert!(!p.join("meta-lamadist/files/left-over").exists());
}

/// Every package is decided on, every name exists, no number is given twice.
#[test]
fn mistakes_of_the_table_are_told_with_their_line() {
    for (file, old, new, words) in [
        (
            "distro/packagegroups/core.toml",
            "\"curl\"",
            "\"curl\", \"zsh\"",
            &["oe.toml:", "the package zsh", "`without`"][..],
        ),
        (
            "distro/oe.toml",
            "\"curl\"",
            "\"curl\", \"curll\"",
            &["did you mean \"curl\"?"],
        ),
        (
            "distro/oe.toml",
            "\"curl\"",
            "\"curl\", \"age\"",
            &["package age is in two tables"],
        ),
        (
            "distro/oe.toml",
            "rk1 = ",
            "rk2 = ",
            &["no machine \"rk2\""],
        ),
        (
            "distro/oe.toml",
            "\"statd\"",
            "\"stat\"",
            &["did you mean \"statd\"?"],
        ),
        (
            "distro/oe.toml",
            "empower = 280",
            "empower = 200",
            &["in conflict with messagebus"],
        ),
        ("distro/oe.toml", "series =", "serie =", &["unknown field"]),
        (
            "distro/oe.toml",
            "lamadist-rk1",
            "lama dist",
            &["machine \"lama dist\" cannot be written into a recipe"],
        ),
    ] {
        let dir = copy();
        edit(&dir.path().join(file), old, new);
        let out = render(dir.path(), &["--check"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{new}: {said}");
        for word in words {
            assert!(said.contains(word), "{new}: no `{word}`: {said}");
        }
        assert!(said.contains("hint:"), "{new}: {said}");
    }
}

/// What the program on the node is compiled from in its recipe compiles by itself.
#[test]
fn the_nodes_recipe_has_all_that_cargo_needs() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = project().join("meta-lamadist/recipes-core/lama-node");
    let from = project().join("crates/lama-node");
    let to = dir.path().join("crates");
    std::fs::create_dir_all(&to).unwrap();
    let mut c = Command::new("cp");
    assert!(c.arg("-a").arg(from).arg(&to).status().unwrap().success());
    // As do_configure lays them out.
    for (file, at) in [
        ("workspace.toml", "Cargo.toml"),
        ("Cargo.lock", "Cargo.lock"),
        ("lama-node.toml", "crates/lama-node/Cargo.toml"),
    ] {
        std::fs::copy(recipe.join("files").join(file), dir.path().join(at)).unwrap();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = |args: &[&str]| {
        let mut c = Command::new(&cargo);
        c.args(args).current_dir(dir.path());
        c.env("CARGO_TARGET_DIR", dir.path().join("target"));
        c.output().unwrap()
    };
    let out = run(&["metadata", "--offline", "--format-version", "1"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let crates = std::fs::read_to_string(recipe.join("lama-node-crates.inc")).unwrap();
    for p in metadata["packages"].as_array().unwrap() {
        let (name, version) = (p["name"].as_str().unwrap(), p["version"].as_str().unwrap());
        let listed = crates.contains(&format!("crate://crates.io/{name}/{version} "))
            && crates.contains(&format!("SRC_URI[{name}-{version}.sha256sum]"));
        assert!(listed || name == "lama-node", "{name} {version}");
    }
}
