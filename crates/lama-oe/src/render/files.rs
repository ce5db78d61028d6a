// SPDX-License-Identifier: Apache-2.0
//! Copies of `distro/files/` and `distro/initrd/`: a layer has to be whole by itself.
//!
//! Symbolic links are a list beside them, `PATH TARGET` a line: BitBake takes the checksum of what a
//! link leads to, and these lead to where things are on a node.

use super::{Error, Input, Item, Rendered, Result, word};
use lama_exec::fs::{self, AtPath};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const CONFIG: &str = "meta-lamadist/recipes-core/lamadist-config/files";
const INITRD: &str = "meta-lamadist/recipes-core/lamadist-initrd-config/files";

pub(super) fn render(input: &Input<'_>, out: &mut Rendered) -> Result<()> {
    let root = &input.description.root;
    for e in fs::read_dir(root.join("files"))? {
        let name = e.file_name();
        let folder = word("the folder files/", &name.to_string_lossy())?.to_owned();
        copy_with_links(&e.path(), CONFIG, &folder, out)?;
    }
    copy_with_links(&root.join("initrd"), INITRD, "initrd", out)
}

fn copy_with_links(from: &Path, to: &str, folder: &str, out: &mut Rendered) -> Result<()> {
    let mut links = Vec::new();
    copy(
        from,
        Path::new(""),
        &Path::new(to).join(folder),
        &mut links,
        out,
    )?;
    links.sort();
    let mut text = String::new();
    for (path, target) in links {
        text += &format!("{} {}\n", plain(&path)?, plain(&target)?);
    }
    let list = Path::new(to).join("links").join(folder);
    out.insert(list, Item::text(text));
    Ok(())
}

/// A path that can stand in a line with another one.
fn plain(path: &Path) -> Result<&str> {
    let text = path.to_str().filter(|t| !t.contains(char::is_whitespace));
    text.ok_or_else(|| Error::Name {
        what: format!("the link {}", path.display()),
        why: "there is a space in it, or it is not UTF-8".to_owned(),
    })
}

fn copy(
    from: &Path,
    below: &Path,
    to: &Path,
    links: &mut Vec<(PathBuf, PathBuf)>,
    out: &mut Rendered,
) -> Result<()> {
    for e in fs::read_dir(from)? {
        let (path, to) = (e.path(), to.join(e.file_name()));
        let below = below.join(e.file_name());
        let meta = e.metadata().at("look at", &path)?;
        if meta.is_dir() {
            copy(&path, &below, &to, links, out)?;
        } else if meta.is_symlink() {
            links.push((below, fs::read_link(&path)?));
        } else {
            let item = Item::File {
                content: fs::read(&path)?,
                executable: meta.permissions().mode() & 0o111 != 0,
            };
            out.insert(to, item);
        }
    }
    Ok(())
}
