// SPDX-License-Identifier: Apache-2.0
//! The whole way from packages to a root tree.

use crate::accounts::Accounts;
use crate::manifest::Entry;
use crate::review::Finding;
use crate::unpack::{Unpacked, unpack};
use crate::{
    Error, Excludes, PackageInput, Result, apparmor, effects, manifest, merge, modules, pam,
    presets, review, tool, var,
};
use lama_exec::progress::Unit;
use lama_exec::{Progress, Tools};
use lama_model::Arch;
use lama_model::files::FileRules;
use lama_model::ids::Ids;
use lama_model::scripts::{Scripts, Step};
use lama_tree::{Content, Kind, Node, Tree, TreePath};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a root tree is composed from.
pub struct ComposeInput<'a> {
    /// The packages, in any order.
    pub packages: &'a [PackageInput],
    /// The machine's architecture.
    pub arch: Arch,
    /// `distro/ids.toml`.
    pub ids: &'a Ids,
    /// `distro/scripts/`.
    pub scripts: &'a Scripts,
    /// `distro/files.toml`.
    pub file_rules: &'a FileRules,
    /// Folders of `distro/files/`, later ones over earlier ones.
    pub files: &'a [PathBuf],
    /// Units to enable; every other one is disabled.
    pub enable: &'a [String],
    /// Paths that packages ship and the image does without.
    pub exclude: &'a [String],
    /// Fields of os-release(5), in order.
    pub os_release: &'a [(String, String)],
    /// The time that everything carries, in seconds since 1970.
    pub epoch: u64,
    /// The store: unpacked packages and kept answers of tools.
    pub store: &'a Path,
    /// Where depmod and systemd-hwdb come from.
    pub tools: &'a Tools,
    /// Where progress is reported.
    pub progress: &'a dyn Progress,
}

/// A kernel that came with the packages; it is not part of the tree.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, the name of its folder in /usr/lib/modules.
    pub version: String,
    /// The image, a PE file with EFI stub.
    pub image: Content,
}

/// A composed root.
#[derive(Debug)]
pub struct Root {
    /// The tree.
    pub tree: Tree,
    /// Its kernel, where the packages have one.
    pub kernel: Option<Kernel>,
    /// The packages in it, sorted.
    pub manifest: Vec<Entry>,
}

/// Directories that an immutable root needs as mount points.
const MOUNT_POINTS: [(&str, u32); 10] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("efi", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
];

/// Composes a root tree.
///
/// # Errors
/// See [`Error`]; unreviewed scripts are all named in one.
pub fn compose(input: &ComposeInput<'_>) -> Result<Root> {
    let unpacked = unpack(input.store, input.packages, input.progress)?;
    let found = unreviewed(input.packages, &unpacked, input.scripts, input.file_rules);
    if !found.is_empty() {
        return Err(Error::Unreviewed(found));
    }
    let drop = &input.file_rules.drop;
    let excludes = Excludes::new(input.exclude);
    let mut tree = merge::merge(input.packages, &unpacked, input.scripts, &excludes, drop)?;
    let kernel = take_kernel(&mut tree)?;
    {
        let _t = input
            .progress
            .task("Decompressing kernel modules", Unit::Busy, 0);
        modules::decompress(&mut tree, input.store)?;
    }
    for (dir, mode) in MOUNT_POINTS {
        if tree.lookup(dir).is_none() {
            tree.add(dir, Node::dir(mode))?;
        }
    }

    let records = effects::records(input.packages, input.scripts, drop);
    let steps = effects::steps(&records);
    effects::apply(&mut tree, &records)?;
    let laid = effects::lay_in(&mut tree, input.files)?;
    effects::os_release(&mut tree, input.os_release)?;

    let accounts = Accounts::collect(&mut tree, input.ids)?;
    accounts.write(&mut tree, input.epoch)?;
    effects::modes(&mut tree, &records, &accounts)?;
    effects::file_modes(&mut tree, input.file_rules, &laid, &accounts)?;
    if steps.contains(&Step::Shells) {
        effects::shells(&mut tree)?;
    }
    if steps.contains(&Step::Pam) {
        pam::write(&mut tree)?;
    }
    if steps.contains(&Step::CaCertificates) {
        effects::ca_certificates(&mut tree)?;
    }
    if steps.contains(&Step::Presets) {
        preset_file(&mut tree, input.enable)?;
        presets::apply(&mut tree, input.enable)?;
    }
    apparmor::apply(&mut tree)?;
    effects::library_dirs(&tree, input.arch)?;
    let manifest = manifest::manifest(input.packages, &unpacked, drop);
    manifest::write(&mut tree, input.packages, &unpacked, &manifest)?;
    for answer in tool_steps(input, &tree, &steps, kernel.as_ref()) {
        tool::lay(&mut tree, answer?)?;
    }
    accounts.check_owners(&tree)?;
    var::empty(&mut tree)?;
    Ok(Root {
        tree,
        kernel,
        manifest,
    })
}

/// The steps of external tools, at the same time: none reads what another writes.
fn tool_steps(
    input: &ComposeInput<'_>,
    tree: &Tree,
    steps: &BTreeSet<Step>,
    kernel: Option<&Kernel>,
) -> Vec<Result<tool::Answer>> {
    let task = input
        .progress
        .task("Indexing modules and hardware", Unit::Busy, 0);
    let (store, tools) = (input.store, input.tools);
    std::thread::scope(|s| {
        let kernel = kernel.filter(|_| steps.contains(&Step::Depmod));
        let modules = kernel.map(|k| s.spawn(move || tool::depmod(tree, store, tools, &k.version)));
        let mut out = Vec::new();
        if steps.contains(&Step::Hwdb) {
            out.push(tool::hwdb(tree, store, tools));
        }
        match modules.map(std::thread::ScopedJoinHandle::join) {
            Some(Ok(answer)) => out.push(answer),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => {}
        }
        drop(task);
        out
    })
}

/// Scripts and triggers of these packages that nobody has reviewed.
///
/// # Errors
/// A package cannot be read.
pub fn findings(
    store: &Path,
    packages: &[PackageInput],
    scripts: &Scripts,
    rules: &FileRules,
    progress: &dyn Progress,
) -> Result<Vec<Finding>> {
    Ok(unreviewed(
        packages,
        &unpack(store, packages, progress)?,
        scripts,
        rules,
    ))
}

fn unreviewed(
    packages: &[PackageInput],
    unpacked: &[Unpacked],
    scripts: &Scripts,
    rules: &FileRules,
) -> Vec<Finding> {
    let all: Vec<_> = packages
        .iter()
        .zip(unpacked)
        // What is not laid into the root has no effect on it either.
        .filter(|(p, _)| !rules.drop.contains_key(&p.name))
        .map(|(p, u)| (p, &u.control))
        .collect();
    review::review(&all, scripts)
}

/// The image's own preset: first by name, and ending in `disable *`, so that no package's counts.
fn preset_file(tree: &mut Tree, enable: &[String]) -> Result<()> {
    let mut text = String::from("# The units this image enables; made when it was composed.\n");
    // Instances stand behind their template (systemd.preset(5)).
    let mut units = BTreeMap::<String, BTreeSet<String>>::new();
    for u in enable {
        match presets::split_instance(u) {
            Some((template, i)) => units.entry(template).or_default().insert(i),
            None => units.entry(u.clone()).or_default().insert(String::new()),
        };
    }
    for (unit, instances) in units {
        let instances: Vec<String> = instances.into_iter().collect();
        text += format!("enable {unit} {}", instances.join(" ")).trim_end();
        text.push('\n');
    }
    text += "disable *\n";
    tree.add(
        "usr/lib/systemd/system-preset/00-lamadist.preset",
        Node::file(text, 0o644),
    )?;
    let none = "# No user unit is enabled unless an administrator does.\ndisable *\n";
    tree.add(
        "usr/lib/systemd/user-preset/00-lamadist.preset",
        Node::file(none, 0o644),
    )?;
    Ok(())
}

/// Takes the kernel image out of /boot, which stays empty: the kernel is booted from a UKI. Its
/// configuration goes to its modules.
fn take_kernel(tree: &mut Tree) -> Result<Option<Kernel>> {
    let boot = TreePath::new("boot")?;
    let mut kernels: Vec<(String, Content)> = Vec::new();
    let mut configs = Vec::new();
    for (p, n) in tree.children(&boot) {
        if let Kind::File(c) = &n.kind {
            if let Some(v) = p.file_name().strip_prefix("vmlinuz-") {
                kernels.push((v.to_owned(), c.clone()));
            } else if let Some(v) = p.file_name().strip_prefix("config-") {
                configs.push((format!("usr/lib/modules/{v}/config"), n.clone()));
            }
        }
    }
    tree.remove(&boot);
    tree.add("boot", Node::dir(0o755))?;
    for (p, n) in configs {
        tree.add(&p, n)?;
    }
    if kernels.len() > 1 {
        let names: Vec<&str> = kernels.iter().map(|(v, _)| v.as_str()).collect();
        return Err(Error::Effect {
            origin: "/boot".to_owned(),
            what: format!(
                "an image has one kernel, but there are {}",
                names.join(", ")
            ),
        });
    }
    Ok(kernels
        .pop()
        .map(|(version, image)| Kernel { version, image }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_leaves_the_tree() {
        let mut t = Tree::new();
        for p in ["boot/vmlinuz-6.1", "boot/config-6.1", "boot/System.map-6.1"] {
            t.add(p, Node::file(p, 0o644)).unwrap();
        }
        let k = take_kernel(&mut t).unwrap().unwrap();
        assert_eq!(
            (k.version.as_str(), k.image.bytes()),
            ("6.1", &b"boot/vmlinuz-6.1"[..])
        );
        assert_eq!(
            t.read("usr/lib/modules/6.1/config").unwrap(),
            b"boot/config-6.1"
        );
        assert!(t.lookup("boot/System.map-6.1").is_none());
        for p in ["boot/vmlinuz-6.1", "boot/vmlinuz-6.2"] {
            t.add(p, Node::file(p, 0o644)).unwrap();
        }
        assert!(
            take_kernel(&mut t)
                .unwrap_err()
                .to_string()
                .contains("6.1, 6.2")
        );
    }
}
