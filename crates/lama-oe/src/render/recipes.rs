// SPDX-License-Identifier: Apache-2.0
//! Recipes: a package group each, an image each, and each image's configuration.

use super::{Input, Rendered, Result, list, marked, quoted, word};
use lama_model::{Arch, Compression, Image, PackageGroup, Selection};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use uuid::Uuid;

const GROUPS: &str = "meta-lamadist/recipes-core/packagegroups";
const IMAGES: &str = "meta-lamadist/recipes-core/images";
const CONFIG: &str = "meta-lamadist/recipes-core/lamadist-config";

pub(super) fn render(input: &Input<'_>, out: &mut Rendered) -> Result<()> {
    for (name, group) in input.description.package_groups() {
        let recipe = package_group(input, word("package group", name)?, group)?;
        out.insert(
            PathBuf::from(GROUPS).join(format!("packagegroup-lamadist-{name}.bb")),
            marked(&recipe),
        );
    }
    // What is in an image does not depend on the machine but for its own packages, which have a
    // group of their own; so any machine serves to resolve it.
    let Some((bsp, _)) = input.description.machines().next() else {
        return Ok(());
    };
    for (name, _) in input.description.images() {
        let selection = input.description.select(bsp, word("image", name)?)?;
        out.insert(
            PathBuf::from(IMAGES).join(format!("lama-image-{name}.bb")),
            marked(&image(input, name, &selection)?),
        );
        out.insert(
            PathBuf::from(CONFIG).join(format!("lamadist-config-{name}.bb")),
            marked(&config(input, name, &selection)),
        );
        out.insert(
            PathBuf::from(CONFIG).join(format!("files/preset/{name}.preset")),
            marked(&preset(input, &selection.enable)),
        );
    }
    Ok(())
}

fn package_group(input: &Input<'_>, name: &str, group: &PackageGroup) -> Result<String> {
    let mut text = format!(
        "SUMMARY = \"LamaDist's package group {name}\"\nDESCRIPTION = \"{}\"\n\
         HOMEPAGE = \"${{LAMADIST_HOME_URL}}\"\nSECTION = \"base\"\n\n\
         inherit packagegroup features_check\n\n\
         # The packages are in layers that only this policy is sure of.\n\
         REQUIRED_DISTRO_FEATURES = \"lamadist\"\n\n",
        quoted(&group.description)
    );
    let inner = group.groups.iter();
    let inner = inner.map(|g| format!("packagegroup-lamadist-{}", g.get_ref()));
    let mut all: BTreeSet<String> = inner.collect();
    for p in input.oe.packages(&group.packages) {
        all.insert(word("package", p)?.to_owned());
    }
    text += &list("RDEPENDS:${PN}", all.iter().map(String::as_str));
    for (arch, packages) in &group.arch_packages {
        let names = input.oe.packages(packages);
        text += &list(
            &format!("RDEPENDS:${{PN}}:append:{}", override_of(*arch)),
            names,
        )
        .replacen("\"", "\" ", 1);
    }
    Ok(text)
}

/// BitBake's override for an architecture (`TRANSLATED_TARGET_ARCH`).
pub(super) fn override_of(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86-64",
        Arch::Arm64 => "aarch64",
    }
}

fn image(input: &Input<'_>, name: &str, selection: &Selection<'_>) -> Result<String> {
    let images: BTreeMap<&str, &Image> = input.description.images().collect();
    let mut chain = Vec::new();
    let mut at = images.get(name).copied();
    while let Some(i) = at {
        chain.push(i);
        at = i
            .extends
            .as_ref()
            .and_then(|e| images.get(e.get_ref().as_str()).copied());
    }
    let mut groups = BTreeSet::new();
    let mut packages = Vec::new();
    for i in &chain {
        groups.extend(
            i.groups
                .iter()
                .map(|g| format!("packagegroup-lamadist-{}", g.get_ref())),
        );
        packages.extend_from_slice(&i.packages);
    }
    for p in input.oe.packages(&packages) {
        groups.insert(word("package", p)?.to_owned());
    }
    let description = chain.first().map_or("", |i| i.description.as_str());
    let uuid = Uuid::new_v5(
        &Uuid::NAMESPACE_URL,
        format!("{}#{name}", input.description.distro.home_url).as_bytes(),
    );
    let mut text = format!(
        "SUMMARY = \"LamaDist's image {name}\"\nDESCRIPTION = \"{}\"\n\n",
        quoted(description)
    );
    text += &format!("LAMA_IMAGE = \"{name}\"\n");
    text += &list("LAMA_PACKAGES", groups.iter().map(String::as_str));
    text += &format!(
        "# mkfs.erofs(1)\nLAMA_EROFS_OPTIONS = \"{}\"\nLAMA_EROFS_UUID = \"{uuid}\"\n\n\
         require lama-image.inc\n",
        erofs_options(&selection.compression)
    );
    Ok(text)
}

fn erofs_options(c: &Compression) -> String {
    match c.algorithm.as_str() {
        "none" => String::new(),
        a => format!("-z{a} -C{}", c.cluster),
    }
}

fn config(input: &Input<'_>, name: &str, selection: &Selection<'_>) -> String {
    let modes = input.files.modes.iter();
    let modes: Vec<String> = modes
        .filter_map(|r| Some(format!("{}={}", r.path, r.mode.as_ref()?)))
        .collect();
    let mut text = format!(
        "SUMMARY = \"Configuration of LamaDist's image {name}\"\n\n\
         LAMA_FILES = \"{}\"\n",
        selection.files.join(" ")
    );
    text += &list("LAMA_MODES", modes.iter().map(String::as_str));
    text += &format!("LAMA_PRESET = \"{name}.preset\"\n\nrequire lamadist-config.inc\n");
    text
}

/// systemd.preset(5): what the image enables, and nothing else. Instances stand behind their
/// template.
fn preset(input: &Input<'_>, enable: &[String]) -> String {
    let mut units: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for unit in enable.iter().map(|u| input.oe.unit(u)) {
        let instance = unit.split_once('@').and_then(|(stem, rest)| {
            let (instance, suffix) = rest.rsplit_once('.')?;
            (!instance.is_empty()).then(|| (format!("{stem}@.{suffix}"), instance))
        });
        match instance {
            Some((template, i)) => units.entry(template).or_default().insert(i),
            None => {
                units.entry(unit.to_owned()).or_default();
                continue;
            }
        };
    }
    let mut text = String::new();
    for (unit, instances) in units {
        let words: Vec<&str> = [unit.as_str()].into_iter().chain(instances).collect();
        text += &format!("enable {}\n", words.join(" "));
    }
    text + "disable *\n"
}
