// SPDX-License-Identifier: Apache-2.0
//! Checks across the files of `distro/`.

use crate::error::{Origin, suggest};
use crate::layout::{Role, Slot};
use crate::load::{Item, Items};
use crate::{Compression, Description, Distro, Layout, Machine, Result};
use std::collections::BTreeSet;
use std::path::Path;
use toml::Spanned;

/// Checks everything, the first mistake wins.
pub(crate) fn all(d: &Description, distro: &Origin) -> Result<()> {
    self::distro(&d.distro, distro, &d.root)?;
    for l in d.layouts.values() {
        l.value.check(&l.origin)?;
    }
    for m in d.machines.values() {
        machine(m, &d.layouts)?;
    }
    for g in d.groups.values() {
        for r in &g.value.groups {
            refer(&g.origin, "package group", r, &d.groups)?;
        }
        let all = g.value.arch_packages.values().flatten();
        packages(&g.origin, g.value.packages.iter().chain(all))?;
    }
    for i in d.images.values() {
        if let Some(r) = &i.value.extends {
            refer(&i.origin, "image", r, &d.images)?;
        }
        for r in &i.value.groups {
            refer(&i.origin, "package group", r, &d.groups)?;
        }
        for f in &i.value.files {
            let name = f.get_ref();
            if name.contains('/') || !d.root.join("files").join(name).is_dir() {
                let m = format!("there is no folder files/{name}");
                let h = "make the folder or remove the name".to_owned();
                return Err(i.origin.error(f.span(), m, h));
            }
        }
        packages(&i.origin, &i.value.packages)?;
        if let Some(c) = &i.value.compression {
            compression(c, &i.origin)?;
        }
    }
    acyclic("package group", &d.groups, |g| g.groups.iter().collect())?;
    acyclic("image", &d.images, |i| i.extends.iter().collect())
}

fn distro(d: &Distro, o: &Origin, root: &Path) -> Result<()> {
    let at = |value: &str| o.find_value(value);
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if d.id.is_empty() || !d.id.bytes().all(word) {
        let m = format!("the id {:?} is not one of os-release(5)", d.id);
        let h = "use lower-case letters, digits, `.`, `_` and `-`".to_owned();
        return Err(o.error(at(&d.id), m, h));
    }
    let number = |s: &str| s == "0" || (!s.starts_with('0') && s.parse::<u32>().is_ok());
    let numbers: Vec<&str> = d.version.split('.').collect();
    if numbers.len() != 3 || !numbers.into_iter().all(number) {
        let m = format!("the version {:?} is not MAJOR.MINOR.PATCH", d.version);
        let h = "write three numbers, such as \"1.4.0\"".to_owned();
        return Err(o.error(at(&d.version), m, h));
    }
    if let Some(m) = &d.migration {
        // A bundle's manifest has it as a value of GLib's key files.
        let plain = |c: char| !c.is_control() && c != '\\';
        if m.note.trim().is_empty() || m.note.len() > 300 || !m.note.chars().all(plain) {
            let h = "say in one line which data changes, and how".to_owned();
            let what =
                "the note of [migration] is not a line of at most 300 characters without `\\`";
            return Err(o.error(at(&m.note), what, h));
        }
    }
    if d.feeds.is_empty() {
        let h = "describe one as [feeds.NAME]".to_owned();
        return Err(o.error(0..0, "there is no package feed", h));
    }
    for (name, f) in &d.feeds {
        let moving = ["stable", "testing", "unstable", "oldstable"];
        if moving.iter().any(|s| f.suite.starts_with(s)) {
            let m = format!("the feed {name:?} follows {:?}, which moves", f.suite);
            let h = "name the release: trixie, trixie-updates …".to_owned();
            return Err(o.error(at(&f.suite), m, h));
        }
        if f.keys.is_empty() {
            let m = format!("the feed {name:?} names no keys, so nothing could be trusted");
            let h = "add the certificates that sign it, below keys/".to_owned();
            return Err(o.error(o.find(&format!("[feeds.{name}]")), m, h));
        }
        for k in &f.keys {
            if !root.join(k).is_file() {
                let m = format!("there is no file {k}");
                let h = "add the certificate or remove the name".to_owned();
                return Err(o.error(at(k), m, h));
            }
        }
    }
    let t = &d.toolchain;
    let of_toolchain = t.packages.iter().chain(t.arch_packages.values().flatten());
    let of_builds = d.tools.iter().chain(&d.builder);
    packages(o, of_builds.chain(of_toolchain).chain(&t.std))
}

fn machine(m: &Item<Machine>, layouts: &Items<Layout>) -> Result<()> {
    let (v, o) = (&m.value, &m.origin);
    let roots = |l: &Layout| -> BTreeSet<Option<Slot>> {
        let roots = l.partitions.iter().filter(|p| p.role == Role::Root);
        roots.map(|p| p.slot).collect()
    };
    let slots = [Some(Slot::A), Some(Slot::B)].into();
    let cases = [
        (&v.layout, slots, "a root in slot a and one in slot b"),
        (&v.medium, [None].into(), "one root, in no slot"),
    ];
    for (name, expected, what) in cases {
        let layout = refer(o, "layout", name, layouts)?;
        if roots(layout) != expected {
            let m = format!("the layout {:?} does not fit here", name.get_ref());
            return Err(o.error(name.span(), m, format!("it has to have {what}")));
        }
    }
    let installed = refer(o, "layout", &v.layout, layouts)?;
    if let Some(p) = installed
        .partitions
        .iter()
        .find(|p| p.size.is_none() && !p.grow)
    {
        let label = p.label.get_ref();
        let m = format!(
            "in the layout {:?} the partition {label:?} has no size",
            v.layout.get_ref()
        );
        let h = "give it a `size`, or let the last one `grow`".to_owned();
        return Err(o.error(v.layout.span(), m, h));
    }
    packages(o, &v.packages)
}

/// Checks package names against the Debian policy manual, section 5.6.1.
fn packages<'a>(o: &Origin, names: impl IntoIterator<Item = &'a String>) -> Result<()> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    for n in names {
        let first = n.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !first || n.len() < 2 || !n.bytes().all(inner) {
            let m = format!("{n:?} is not a package name");
            let h = "lower-case letters, digits, `+`, `-` and `.`; without version or architecture";
            return Err(o.error(o.find_value(n), m, h.to_owned()));
        }
    }
    Ok(())
}

fn compression(c: &Compression, o: &Origin) -> Result<()> {
    let (algorithm, level) = c.algorithm.split_once(',').unwrap_or((&c.algorithm, "0"));
    let most = match algorithm {
        "none" | "lz4" => Some(0),
        "lz4hc" => Some(12),
        "lzma" => Some(109),
        "deflate" => Some(9),
        "zstd" => Some(22),
        _ => None,
    };
    if !most.is_some_and(|most| level.parse::<u8>().is_ok_and(|l| l <= most)) {
        let m = format!("{:?} is not a compression of mkfs.erofs(1)", c.algorithm);
        let h = "none, lz4, or lz4hc, lzma, deflate, zstd with a level, such as \"lz4hc,9\"";
        return Err(o.error(o.find_value(&c.algorithm), m, h.to_owned()));
    }
    if !c.cluster.is_multiple_of(4096) || !(4096..=1 << 20).contains(&c.cluster) {
        let m = "`cluster` is not a multiple of 4096 from 4096 to 1048576";
        let h = "larger ones compress better, smaller ones read less; 65536 is usual";
        return Err(o.error(o.find("cluster"), m, h.to_owned()));
    }
    Ok(())
}

fn refer<'a, T>(
    o: &Origin,
    kind: &str,
    name: &Spanned<String>,
    all: &'a Items<T>,
) -> Result<&'a T> {
    if let Some(item) = all.get(name.get_ref()) {
        return Ok(&item.value);
    }
    let hint = suggest(name.get_ref(), all.keys().map(String::as_str));
    Err(o.error(
        name.span(),
        format!("there is no {kind} {:?}", name.get_ref()),
        hint,
    ))
}

type Closing<'a> = (&'a Origin, &'a Spanned<String>, String);

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
        done: &mut BTreeSet<&'a str>,
    ) -> std::result::Result<(), Closing<'a>> {
        let Some(item) = all.get(name) else {
            return Ok(());
        };
        if !done.insert(name) {
            return Ok(());
        }
        way.push(name);
        for r in next(&item.value) {
            if let Some(i) = way.iter().position(|w| w == r.get_ref()) {
                let end = [r.get_ref().as_str()];
                let round: Vec<&str> = way.iter().skip(i).copied().chain(end).collect();
                return Err((&item.origin, r, round.join(" → ")));
            }
            visit(r.get_ref(), all, next, way, done)?;
        }
        way.pop();
        Ok(())
    }
    let mut done = BTreeSet::new();
    for name in all.keys() {
        visit(name, all, &next, &mut Vec::new(), &mut done).map_err(|(o, r, round)| {
            let hint = "remove one of the references".to_owned();
            o.error(r.span(), format!("a cycle of {kind}s: {round}"), hint)
        })?;
    }
    Ok(())
}
