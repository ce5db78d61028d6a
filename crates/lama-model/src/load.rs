// SPDX-License-Identifier: Apache-2.0
//! Reading `distro/` and checking what one file says of another.

use crate::error::{Origin, parse_origin, suggest};
use crate::{Distro, Error, Image, Layout, Machine, PackageGroup, Result};
use lama_exec::fs;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A described thing and the file it stands in.
#[derive(Debug, Clone)]
pub(crate) struct Item<T> {
    pub value: T,
    pub origin: Origin,
}

pub(crate) type Items<T> = BTreeMap<String, Item<T>>;

/// All of `distro/`, checked: every reference resolves, nothing is cyclic, nothing overlaps.
#[derive(Debug, Clone)]
pub struct Description {
    /// The folder it was read from.
    pub root: PathBuf,
    /// `lamadist.toml`.
    pub distro: Distro,
    pub(crate) machines: Items<Machine>,
    pub(crate) images: Items<Image>,
    pub(crate) groups: Items<PackageGroup>,
    pub(crate) layouts: Items<Layout>,
}

impl Description {
    /// Reads and checks the folder.
    ///
    /// # Errors
    /// The first mistake, with its file and line.
    pub fn load(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let distro = item::<Distro>(&root.join("lamadist.toml"))?;
        let this = Self {
            root: root.to_owned(),
            distro: distro.value,
            machines: folder(root, "machines")?,
            images: folder(root, "images")?,
            groups: folder(root, "packagegroups")?,
            layouts: folder(root, "layouts")?,
        };
        crate::check::all(&this, &distro.origin)?;
        Ok(this)
    }

    /// The names of all machines.
    pub fn machines(&self) -> impl Iterator<Item = (&str, &Machine)> {
        self.machines.iter().map(|(k, v)| (k.as_str(), &v.value))
    }

    /// The names of all images.
    pub fn images(&self) -> impl Iterator<Item = (&str, &Image)> {
        self.images.iter().map(|(k, v)| (k.as_str(), &v.value))
    }

    /// The names of all package groups.
    pub fn package_groups(&self) -> impl Iterator<Item = (&str, &PackageGroup)> {
        self.groups.iter().map(|(k, v)| (k.as_str(), &v.value))
    }

    /// The names of all layouts.
    pub fn layouts(&self) -> impl Iterator<Item = (&str, &Layout)> {
        self.layouts.iter().map(|(k, v)| (k.as_str(), &v.value))
    }

    /// The layout of this name.
    ///
    /// # Errors
    /// There is none; machines' layouts always exist.
    pub fn layout(&self, name: &str) -> Result<&Layout> {
        named("layout", name, &self.layouts)
    }
}

pub(crate) fn named<'a, T>(kind: &'static str, name: &str, all: &'a Items<T>) -> Result<&'a T> {
    all.get(name)
        .map(|i| &i.value)
        .ok_or_else(|| Error::Unknown {
            kind,
            name: name.to_owned(),
            hint: suggest(name, all.keys().map(String::as_str)),
        })
}

fn item<T: DeserializeOwned>(path: &Path) -> Result<Item<T>> {
    let origin = Origin {
        path: path.to_owned(),
        text: fs::read_to_string(path)?,
    };
    Ok(Item {
        value: parse_origin(&origin)?,
        origin,
    })
}

fn folder<T: DeserializeOwned>(root: &Path, name: &str) -> Result<Items<T>> {
    let mut out = BTreeMap::new();
    for e in fs::read_dir(root.join(name))? {
        let path = e.path();
        if path.extension().is_some_and(|x| x == "toml")
            && let Some(stem) = path.file_stem().and_then(|s| s.to_str())
        {
            out.insert(stem.to_owned(), item(&path)?);
        }
    }
    Ok(out)
}
