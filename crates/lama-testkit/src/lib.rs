// SPDX-License-Identifier: Apache-2.0
//! What the tests of all crates share: the tools tree, from which other people's programs come as
//! oracles.
//!
//! The tree is that of a build: `LAMADIST_TOOLS` names one, else the `lamadist` program that lies
//! beside the test (`cargo test --workspace` builds it first) makes it from the lock.

use lama_exec::Tools;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The tools tree, or why there is none here.
pub fn tools() -> Result<&'static Tools, &'static str> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    TOOLS.get_or_init(find).as_ref().map_err(String::as_str)
}

/// The tools tree; without one the reason is printed, and the test has to return.
pub fn tools_or_skip(test: &str) -> Option<&'static Tools> {
    match tools() {
        Ok(t) => Some(t),
        Err(why) => {
            eprintln!("SKIP: {test}: {why}");
            None
        }
    }
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
