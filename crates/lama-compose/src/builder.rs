// SPDX-License-Identifier: Apache-2.0
//! The root of the container that BitBake runs in: as the tools tree, and what a system has besides.

use crate::tool::{ToolStep, lay, run};
use crate::{PackageInput, Result, tools};
use lama_exec::{Progress, Tools};
use lama_model::scripts::Scripts;
use lama_tree::{Node, Tree};
use std::io::Read;
use std::path::Path;

/// Raised when the tree of the same packages looks different.
const FORMAT: u32 = 1;
/// The locale that BitBake asks for.
pub const LOCALE: &str = "en_US.UTF-8";
/// Where its files are; `locale -a` tells it so.
const LOCALE_DIR: &str = "usr/lib/locale/en_US.utf8";
const CHARMAP: &str = "usr/share/i18n/charmaps/UTF-8";

/// What tells the container of these packages from others.
pub fn builder_name(packages: &[PackageInput]) -> String {
    tools::name(packages, FORMAT)
}

/// Composes it. Programs that help come from `tools`.
///
/// # Errors
/// A damaged package, two packages with the same file; the locale's sources are missing.
pub fn builder_tree(
    packages: &[PackageInput],
    scripts: &Scripts,
    store: &Path,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<Tree> {
    let mut tree = tools::merged(packages, scripts, store, progress)?;
    for (path, mode) in [
        ("dev", 0o755),
        ("proc", 0o555),
        ("sys", 0o555),
        ("run", 0o755),
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
    ] {
        tree.add(path, Node::dir(mode))?;
    }
    // What update-alternatives(1) would link.
    for (name, program) in [("awk", "gawk"), ("cc", "gcc"), ("c++", "g++")] {
        let path = format!("usr/bin/{name}");
        if tree.lookup(&path).is_none() {
            tree.add(&path, Node::symlink(program))?;
        }
    }
    // Whoever runs in it owns the checkout, by whichever number; what the administrator set is not
    // there.
    let git = "[safe]\n\tdirectory = *\n";
    tree.add("etc/gitconfig", Node::file(git, 0o644))?;
    locale(&mut tree, store, tools)?;
    Ok(tree)
}

/// Compiles the locale (localedef(1)).
fn locale(tree: &mut Tree, store: &Path, tools: &Tools) -> Result<()> {
    // localedef would start gzip.
    let mut charmap = Vec::new();
    let packed = tree.read(&format!("{CHARMAP}.gz"))?;
    let read = flate2::read::GzDecoder::new(packed).read_to_end(&mut charmap);
    read.map_err(|e| crate::effects::wrong("locales", format!("{CHARMAP}.gz: {e}")))?;
    tree.add(CHARMAP, Node::file(charmap, 0o644))?;
    let command = |t: &Tools, root: &Path| {
        t.command("localedef")
            .env("I18NPATH", root.join("usr/share/i18n"))
            .args(["--no-archive", "-i", "en_US", "-f", "UTF-8"])
            .arg(root.join(LOCALE_DIR))
    };
    let step = ToolStep {
        name: "locale",
        // The folder that it is made in has to be there.
        reads: &["usr/share/i18n", "usr/lib/locale"],
        writes: &[LOCALE_DIR],
        command: &command,
    };
    lay(tree, run(tree, store, tools, &step)?)
}
