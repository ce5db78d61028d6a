// SPDX-License-Identifier: Apache-2.0
//! What the tests of all crates share: the tools tree, from which other people's programs come as
//! oracles.
//!
//! The tree is that of a build: `LAMADIST_TOOLS` names one, else the `lamadist` program that lies
//! beside the test (`cargo test --workspace` builds it first) makes it from the lock.

pub mod http;

use lama_exec::Tools;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The tools tree, or why there is none here.
pub fn tools() -> Result<&'static Tools, &'static str> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    TOOLS.get_or_init(find).as_ref().map_err(String::as_str)
}

/// The tools tree, if it has all of `needed`: names of programs, or paths below the tree's root or
/// its `usr/share`. Otherwise the reason is printed, and the test has to return; where there is no
/// tree at all and `LAMADIST_TEST_ALL` is set (as `.ci/run` does), it fails.
pub fn tools_with(needed: &[&str]) -> Option<&'static Tools> {
    let why = match tools() {
        Ok(t) => match needed.iter().find(|n| !has(t, n)) {
            None => return Some(t),
            Some(n) => format!("the tools tree has no {n}"),
        },
        Err(why) => why.to_owned(),
    };
    assert!(
        std::env::var_os("LAMADIST_TEST_ALL").is_none() || tools().is_ok(),
        "LAMADIST_TEST_ALL is set, but there are no tools: {why}"
    );
    eprintln!("SKIP: {why}");
    None
}

/// [`tools_with`], or the machine's own programs where the tree lacks one that the machine has.
pub fn tools_or_host(needed: &[&str]) -> Option<Tools> {
    if let Ok(t) = tools()
        && needed.iter().all(|n| has(t, n))
    {
        return Some(t.clone());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_host = |n: &str| {
        std::path::Path::new(n).is_absolute() && PathBuf::from(n).exists()
            || std::env::split_paths(&path).any(|d| d.join(n).is_file())
    };
    if needed.iter().all(|n| on_host(n)) {
        return Some(Tools::host());
    }
    tools_with(needed).cloned()
}

fn has(tools: &Tools, needed: &str) -> bool {
    let Some(root) = tools.root() else {
        return false;
    };
    let below = |dir: &str| {
        let at = root.join(dir).join(needed.trim_start_matches('/'));
        lama_exec::fs::symlink_metadata(at).is_ok()
    };
    ["", "usr/bin", "usr/sbin", "usr/lib/systemd", "usr/share"]
        .into_iter()
        .any(below)
}

fn find() -> Result<Tools, String> {
    if let Some(tree) = std::env::var_os("LAMADIST_TOOLS") {
        return Ok(Tools::tree(PathBuf::from(tree)));
    }
    let program = program().ok_or("the lamadist program is not built; `cargo build` makes it")?;
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../distro");
    let tree = Tools::host()
        .command(&program)
        .args(["--quiet", "--distro", root, "tools"])
        .text()
        .map_err(|e| e.to_string())?;
    Ok(Tools::tree(tree))
}

/// The `lamadist` program of the same build as this test.
pub fn program() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    // target/PROFILE/deps/TEST-HASH
    let program = test.parent()?.parent()?.join("lamadist");
    program.is_file().then_some(program)
}
