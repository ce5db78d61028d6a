// SPDX-License-Identifier: Apache-2.0
//! Reading `distro/` and checking what one file says of another.

use crate::error::{Origin, parse_origin, suggest};
use crate::{Distro, Error, Image, Layout, Machine, PackageGroup, Result};
use lama_exec::fs;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Spanned;

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
        let this = Self {
            root: root.to_owned(),
            distro: item::<Distro>(&root.join("lamadist.toml"))?.value,
            machines: folder(root, "machines")?,
            images: folder(root, "images")?,
            groups: folder(root, "packagegroups")?,
            layouts: folder(root, "layouts")?,
        };
        this.check()?;
        Ok(this)
    }

    fn check(&self) -> Result<()> {
        for l in self.layouts.values() {
            l.value.check(&l.origin)?;
        }
        for m in self.machines.values() {
            refer(&m.origin, "layout", &m.value.layout, &self.layouts)?;
            refer(&m.origin, "layout", &m.value.medium, &self.layouts)?;
        }
        for g in self.groups.values() {
            for r in &g.value.groups {
                refer(&g.origin, "package group", r, &self.groups)?;
            }
        }
        for i in self.images.values() {
            if let Some(r) = &i.value.extends {
                refer(&i.origin, "image", r, &self.images)?;
            }
            for r in &i.value.groups {
                refer(&i.origin, "package group", r, &self.groups)?;
            }
            for f in &i.value.files {
                let dir = self.root.join("files").join(f.get_ref());
                if !dir.is_dir() {
                    let m = format!("there is no folder files/{}", f.get_ref());
                    let h = "make the folder or remove the name".to_owned();
                    return Err(i.origin.error(f.span(), m, h));
                }
            }
            if let Some(c) = &i.value.compression
                && (c.cluster % 4096 != 0 || !(4096..=1 << 20).contains(&c.cluster))
            {
                let m = "`cluster` is not a multiple of 4096 from 4096 to 1048576".to_owned();
                return Err(i.origin.error(i.origin.find("cluster"), m, None));
            }
        }
        acyclic("package group", &self.groups, |g| g.groups.iter().collect())?;
        acyclic("image", &self.images, |i| i.extends.iter().collect())
    }

    /// The names of all machines.
    pub fn machines(&self) -> impl Iterator<Item = (&str, &Machine)> {
        self.machines.iter().map(|(k, v)| (k.as_str(), &v.value))
    }

    /// The names of all images.
    pub fn images(&self) -> impl Iterator<Item = (&str, &Image)> {
        self.images.iter().map(|(k, v)| (k.as_str(), &v.value))
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

fn refer<T>(o: &Origin, kind: &str, name: &Spanned<String>, all: &Items<T>) -> Result<()> {
    if all.contains_key(name.get_ref()) {
        return Ok(());
    }
    let hint = suggest(name.get_ref(), all.keys().map(String::as_str));
    Err(o.error(
        name.span(),
        format!("there is no {kind} {:?}", name.get_ref()),
        hint,
    ))
}

/// Refuses cycles, naming the way round and pointing at the reference that closes it.
fn acyclic<T>(
    kind: &str,
    all: &Items<T>,
    next: impl Fn(&T) -> Vec<&Spanned<String>>,
) -> Result<()> {
    fn visit<'a, T>(
        name: &'a str,
        all: &'a Items<T>,
        next: &impl Fn(&'a T) -> Vec<&'a Spanned<String>>,
        way: &mut Vec<&'a str>,
        done: &mut std::collections::BTreeSet<&'a str>,
    ) -> std::result::Result<(), (&'a Origin, &'a Spanned<String>, String)> {
        let Some(item) = all.get(name) else {
            return Ok(());
        };
        if !done.insert(name) {
            return Ok(());
        }
        way.push(name);
        for r in next(&item.value) {
            if let Some(i) = way.iter().position(|w| w == r.get_ref()) {
                let round: Vec<&str> = way
                    .iter()
                    .skip(i)
                    .copied()
                    .chain([r.get_ref().as_str()])
                    .collect();
                return Err((&item.origin, r, round.join(" → ")));
            }
            visit(r.get_ref(), all, next, way, done)?;
        }
        way.pop();
        Ok(())
    }
    let mut done = std::collections::BTreeSet::new();
    for name in all.keys() {
        visit(name, all, &next, &mut Vec::new(), &mut done).map_err(|(o, r, round)| {
            let hint = "remove one of the references".to_owned();
            o.error(r.span(), format!("a cycle of {kind}s: {round}"), hint)
        })?;
    }
    Ok(())
}
