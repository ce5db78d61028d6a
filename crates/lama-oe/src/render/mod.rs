// SPDX-License-Identifier: Apache-2.0
//! What `distro/` says, as files of the two layers. They are committed, so that BitBake finds them
//! without anything of ours; a test fails where they are not what would be rendered.
//!
//! A rendered file either begins with [`MARK`] or lies in one of the folders that hold nothing else,
//! so one that is no longer rendered is found.

mod accounts;
mod files;
mod layout;
mod machine;
mod node;
mod recipes;

pub use node::{Crate, NodeSource};

use lama_exec::fs::{self, AtPath, FsError};
use lama_model::files::FileRules;
use lama_model::ids::Ids;
use lama_model::oe::Oe;
use lama_model::{Description, Error as ModelError};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The line that tells a rendered file from one that is written by hand; a comment in all formats
/// that have some.
pub const MARK: &str = "# Rendered by `lamadist oe render` from distro/; change it there.";

/// The licence's line, the first of each file.
const SPDX: &str = "# SPDX-License-Identifier: Apache-2.0";

/// Folders, from the checkout, that hold rendered files only.
const OWN: [&str; 5] = [
    "meta-lamadist/files",
    "meta-lamadist/recipes-core/lamadist-config/files",
    "meta-lamadist/recipes-core/lamadist-initrd-config/files",
    "meta-lamadist/recipes-core/lama-node/files",
    "meta-lamadist-bsp/files",
];

/// The layers.
pub const LAYERS: [&str; 2] = ["meta-lamadist", "meta-lamadist-bsp"];

/// What is rendered from.
pub struct Input<'a> {
    /// `distro/`.
    pub description: &'a Description,
    /// `distro/ids.toml`.
    pub ids: &'a Ids,
    /// `distro/files.toml`.
    pub files: &'a FileRules,
    /// `distro/oe.toml`.
    pub oe: &'a Oe,
    /// The program on the node, as its recipe needs it.
    pub node: &'a NodeSource,
}

/// What one path holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A file.
    File {
        /// Its content.
        content: Vec<u8>,
        /// Whether it is a program.
        executable: bool,
    },
    /// A symbolic link with its target.
    Link(PathBuf),
}

impl Item {
    fn text(text: String) -> Self {
        Item::File {
            content: text.into_bytes(),
            executable: false,
        }
    }
}

/// Everything that is rendered, by path from the checkout.
pub type Rendered = BTreeMap<PathBuf, Item>;

/// Why nothing could be rendered.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// The description does not have it.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    /// Something of the description cannot be said in a recipe.
    #[error("{what} cannot be written into a recipe: {why}")]
    #[diagnostic(help("choose a name of letters, digits, `.`, `_`, `-` and `+`"))]
    Name {
        /// What, with its name.
        what: String,
        /// Why not.
        why: String,
    },
}

/// Result of rendering.
pub type Result<T> = std::result::Result<T, Error>;

/// Renders everything.
///
/// # Errors
/// A file of `distro/` cannot be read, or a name cannot be written into a recipe.
pub fn render(input: &Input<'_>) -> Result<Rendered> {
    let mut out = Rendered::new();
    recipes::render(input, &mut out)?;
    layout::render(input, &mut out)?;
    accounts::render(input, &mut out);
    machine::render(input, &mut out)?;
    files::render(input, &mut out)?;
    node::render(input, &mut out);
    Ok(out)
}

/// What a checkout's file has to do with what would be rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// It is not there.
    Missing,
    /// It is another one.
    Changed,
    /// Nothing renders it any more.
    Stale,
}

/// The files of the checkout that are not what would be rendered, sorted by path.
///
/// # Errors
/// A file cannot be read.
pub fn compare(checkout: &Path, rendered: &Rendered) -> Result<Vec<(PathBuf, Difference)>> {
    let mut out = Vec::new();
    for (path, item) in rendered {
        match read(&checkout.join(path))? {
            None => out.push((path.clone(), Difference::Missing)),
            Some(found) if found != *item => out.push((path.clone(), Difference::Changed)),
            Some(_) => {}
        }
    }
    for layer in LAYERS {
        stale(checkout, Path::new(layer), rendered, &mut out)?;
    }
    out.sort();
    Ok(out)
}

/// Brings the checkout in line: writes what is missing or changed, removes what is stale. Returns
/// what it did.
///
/// # Errors
/// A file cannot be read or written.
pub fn write(checkout: &Path, rendered: &Rendered) -> Result<Vec<(PathBuf, Difference)>> {
    let todo = compare(checkout, rendered)?;
    for (path, difference) in &todo {
        let at = checkout.join(path);
        if *difference != Difference::Missing {
            fs::remove_file(&at)?;
        }
        let Some(item) = rendered.get(path) else {
            continue;
        };
        if let Some(dir) = at.parent() {
            fs::create_dir_all(dir)?;
        }
        match item {
            Item::Link(target) => {
                std::os::unix::fs::symlink(target, &at).at("make the link", &at)?
            }
            Item::File {
                content,
                executable,
            } => {
                fs::write_atomic(&at, content)?;
                let mode = if *executable { 0o755 } else { 0o644 };
                std::fs::set_permissions(&at, PermissionsExt::from_mode(mode))
                    .at("set the mode of", &at)?;
            }
        }
    }
    Ok(todo)
}

/// What is at `path`; none where nothing is.
fn read(path: &Path) -> Result<Option<Item>> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(None);
    };
    if meta.is_symlink() {
        return Ok(Some(Item::Link(fs::read_link(path)?)));
    }
    Ok(Some(Item::File {
        content: fs::read(path)?,
        executable: meta.permissions().mode() & 0o111 != 0,
    }))
}

/// Rendered files below `dir` that nothing renders any more.
fn stale(
    checkout: &Path,
    dir: &Path,
    rendered: &Rendered,
    out: &mut Vec<(PathBuf, Difference)>,
) -> Result<()> {
    let at = checkout.join(dir);
    if !at.is_dir() {
        return Ok(());
    }
    for e in fs::read_dir(&at)? {
        let path = dir.join(e.file_name());
        let kind = e.file_type().at("look at", &e.path())?;
        if kind.is_dir() {
            stale(checkout, &path, rendered, out)?;
        } else if !rendered.contains_key(&path)
            && (OWN.iter().any(|d| path.starts_with(d)) || is_marked(&e.path())?)
        {
            out.push((path, Difference::Stale));
        }
    }
    Ok(())
}

/// Whether a file says of itself that it is rendered.
fn is_marked(path: &Path) -> Result<bool> {
    if fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) {
        return Ok(false);
    }
    let content = fs::read(path)?;
    let head = String::from_utf8_lossy(content.get(..400).unwrap_or(&content));
    Ok(head.lines().take(3).any(|l| l == MARK))
}

/// A file with the two first lines that each rendered one has.
fn marked(body: &str) -> Item {
    Item::text(format!("{SPDX}\n{MARK}\n{body}"))
}

/// `NAME = "a b c"` of BitBake, a value a line.
fn list<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = format!("{name} = \"");
    let mut any = false;
    for v in values {
        out += &format!(" \\\n    {v}");
        any = true;
    }
    out += if any { " \\\n\"\n" } else { "\"\n" };
    out
}

/// A text as a value of BitBake between double quotes.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Refuses what would not be one word of a recipe.
fn word<'a>(what: &str, name: &'a str) -> Result<&'a str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(Error::Name {
            what: format!("{what} {name:?}"),
            why: "it is no plain word".to_owned(),
        });
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_and_mended() {
        let d = tempfile::tempdir().unwrap();
        let own = "meta-lamadist/files/x";
        let by_hand = "meta-lamadist/conf/layer.conf";
        let stale = "meta-lamadist/conf/old.inc";
        let rendered = Rendered::from([
            (own.into(), Item::text("1\n".into())),
            ("meta-lamadist/conf/new.inc".into(), marked("A = \"1\"\n")),
            (
                "meta-lamadist/files/link".into(),
                Item::Link("/dev/null".into()),
            ),
        ]);
        for (path, text) in [
            (own, "2\n"),
            (by_hand, "B = \"1\"\n"),
            (stale, &format!("{SPDX}\n{MARK}\n")),
            ("meta-lamadist/files/gone", "3\n"),
        ] {
            let at = d.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, text).unwrap();
        }
        let found = compare(d.path(), &rendered).unwrap();
        let expected = [
            ("meta-lamadist/conf/new.inc", Difference::Missing),
            (stale, Difference::Stale),
            ("meta-lamadist/files/gone", Difference::Stale),
            ("meta-lamadist/files/link", Difference::Missing),
            (own, Difference::Changed),
        ]
        .map(|(p, d)| (PathBuf::from(p), d));
        assert_eq!(found, expected);
        assert_eq!(write(d.path(), &rendered).unwrap(), expected);
        assert_eq!(compare(d.path(), &rendered).unwrap(), []);
        assert!(d.path().join(by_hand).exists() && !d.path().join(stale).exists());
    }

    #[test]
    fn an_execute_bit_counts() {
        let d = tempfile::tempdir().unwrap();
        let path = PathBuf::from("meta-lamadist/files/x");
        let item = |executable| Item::File {
            content: b"#!/bin/sh\n".to_vec(),
            executable,
        };
        write(d.path(), &[(path.clone(), item(true))].into()).unwrap();
        assert_eq!(
            compare(d.path(), &[(path.clone(), item(true))].into()).unwrap(),
            []
        );
        let other = compare(d.path(), &[(path.clone(), item(false))].into()).unwrap();
        assert_eq!(other, [(path, Difference::Changed)]);
    }

    #[test]
    fn values_are_quoted() {
        assert_eq!(list("A", ["b", "c"]), "A = \" \\\n    b \\\n    c \\\n\"\n");
        assert_eq!(list("A", []), "A = \"\"\n");
        assert_eq!(quoted(r#"a "b" \c"#), r#"a \"b\" \\c"#);
        assert!(word("package", "libstdc++6").is_ok());
        for bad in ["", "a b", "a\"", "${X}"] {
            assert!(word("package", bad).is_err(), "{bad}");
        }
    }
}
