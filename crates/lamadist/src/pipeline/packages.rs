// SPDX-License-Identifier: Apache-2.0
//! The packages of a build: from the lock where it pins them, else resolved and pinned.

use crate::App;
use lama_compose::PackageInput;
use lama_feed::{
    Arch, Dependencies, Feed, FeedConfig, Freshness, Lock, LockedPackage, Mirrors, Renew, Request,
    Store,
};
use lama_model::{Description, Machine};
use miette::{IntoDiagnostic, Result, miette};
use std::collections::BTreeSet;
use std::path::Path;

/// Whether a build may resolve what the lock does not pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It may, and writes the lock.
    Extend,
    /// It may not.
    Locked,
}

/// One set of packages in the lock.
#[derive(Debug, Clone)]
pub struct SetSpec {
    /// Its name: `MACHINE/IMAGE`, or `tools/`, `toolchain/`, `toolchain-std/` or `builder/` and an
    /// architecture.
    pub name: String,
    /// Its architecture.
    pub arch: Arch,
    /// What is asked for, sorted.
    pub request: Vec<String>,
    /// Feed components besides those of each feed.
    components: Vec<String>,
    essential: lama_feed::Essential,
    dependencies: Dependencies,
}

/// The architecture of this machine.
pub fn host_arch() -> Result<lama_model::Arch> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(lama_model::Arch::Amd64),
        "aarch64" => Ok(lama_model::Arch::Arm64),
        other => Err(miette!(
            help = "build on one of those",
            "builds run on amd64 and arm64 machines, not on {other}"
        )),
    }
}

impl SetSpec {
    /// The set of an image.
    pub fn image(description: &Description, bsp: &str, image: &str) -> Result<Self> {
        let s = description.select(bsp, image)?;
        supported(bsp, s.machine)?;
        Ok(Self {
            name: format!("{bsp}/{image}"),
            arch: s.machine.arch.as_str().parse().into_diagnostic()?,
            request: s.packages,
            components: s.machine.components.clone(),
            essential: lama_feed::Essential::Include,
            dependencies: Dependencies::Follow,
        })
    }

    /// The set of the tools tree, for this machine's architecture.
    pub fn tools(description: &Description) -> Result<Self> {
        let request = description.distro.tools.clone();
        Self::of_builds("tools", host_arch()?, request, Dependencies::Follow)
    }

    /// The set of the toolchain, for this machine's architecture.
    pub fn toolchain(description: &Description) -> Result<Self> {
        let arch = host_arch()?;
        let t = &description.distro.toolchain;
        let mut request = t.packages.clone();
        request.extend(t.arch_packages.get(&arch).into_iter().flatten().cloned());
        Self::of_builds("toolchain", arch, request, Dependencies::Follow)
    }

    /// The set of the container that BitBake runs in, for this machine's architecture.
    pub fn builder(description: &Description) -> Result<Self> {
        let request = description.distro.builder.clone();
        Ok(Self {
            essential: lama_feed::Essential::Include,
            ..Self::of_builds("builder", host_arch()?, request, Dependencies::Follow)?
        })
    }

    /// The set of the toolchain's libraries for machines of another architecture than this one's.
    ///
    /// Its packages are taken alone. What they depend on is the compiler of that architecture,
    /// a hundred megabytes of which nothing could run here; a program is linked with files of these
    /// packages only.
    pub fn toolchain_std(description: &Description, arch: lama_model::Arch) -> Result<Self> {
        let request = description.distro.toolchain.std.clone();
        Self::of_builds("toolchain-std", arch, request, Dependencies::Leave)
    }

    fn of_builds(
        kind: &str,
        arch: lama_model::Arch,
        mut request: Vec<String>,
        dependencies: Dependencies,
    ) -> Result<Self> {
        request.sort();
        request.dedup();
        Ok(Self {
            name: format!("{kind}/{arch}"),
            arch: arch.as_str().parse().into_diagnostic()?,
            request,
            components: Vec::new(),
            essential: lama_feed::Essential::Leave,
            dependencies,
        })
    }

    /// Whether a set of this name serves builds on one architecture, and so may have been pinned on
    /// another machine than this one.
    pub fn is_of_builds(name: &str) -> bool {
        let kind = name.split_once('/').map_or("", |(kind, _)| kind);
        matches!(kind, "tools" | "toolchain" | "toolchain-std" | "builder")
    }

    /// All sets that the lock should have.
    pub fn all(description: &Description) -> Result<Vec<Self>> {
        let mut out = vec![
            Self::tools(description)?,
            Self::toolchain(description)?,
            Self::builder(description)?,
        ];
        let mut foreign = BTreeSet::new();
        for (bsp, machine) in description.machines() {
            if supported(bsp, machine).is_ok() {
                foreign.insert(machine.arch);
                for (image, _) in description.images() {
                    out.push(Self::image(description, bsp, image)?);
                }
            }
        }
        foreign.remove(&host_arch()?);
        for arch in foreign {
            out.push(Self::toolchain_std(description, arch)?);
        }
        Ok(out)
    }
}

fn supported(bsp: &str, machine: &Machine) -> Result<()> {
    match &machine.debian {
        lama_model::Debian::Supported => Ok(()),
        lama_model::Debian::Unsupported(why) => Err(miette!(
            help = "the machines that it builds are those without `debian = { unsupported = … }` in distro/machines/",
            "the debian engine does not build {bsp}: {why}"
        )),
    }
}

impl SetSpec {
    /// Whether the lock answers exactly this: the same packages asked for, of the same
    /// architecture, from the same feeds.
    pub fn is_pinned(&self, lock: &Lock, description: &Description) -> bool {
        lock.set(&self.name).is_some_and(|s| {
            s.request == self.request
                && s.architecture == self.arch.as_str()
                && s.feeds == self.feeds(description)
        })
    }

    /// What the lock records of where it was asked.
    fn feeds(&self, description: &Description) -> Vec<String> {
        let line = |c: FeedConfig| {
            let components = c.components.join(" ");
            format!("{} {} {} {components}", c.name, c.archive, c.suite)
        };
        let mut all: Vec<String> = configs(description, self).map(line).collect();
        all.sort();
        all
    }
}

/// The feeds as one set sees them.
fn configs(description: &Description, spec: &SetSpec) -> impl Iterator<Item = FeedConfig> {
    description.distro.feeds.iter().map(|(name, f)| {
        let mut components = f.components.clone();
        components.extend(
            spec.components
                .iter()
                .filter(|c| !f.components.contains(c))
                .cloned(),
        );
        FeedConfig {
            name: name.clone(),
            archive: f.archive.clone(),
            suite: f.suite.clone(),
            components,
            keys: f.keys.iter().map(|k| description.root.join(k)).collect(),
        }
    })
}

fn feed(app: &App, description: &Description, spec: &SetSpec) -> Result<Feed> {
    let mirrors = Mirrors::discover(&app.place.mirrors, Path::new("/"))?;
    let store = Store::open(app.place.store())?;
    Ok(Feed::new(
        configs(description, spec).collect(),
        mirrors,
        store,
        app.talk.clone(),
    )
    .with_freshness(Freshness::Enforce))
}

/// Held by who changes the lock, from reading to writing it.
pub fn guard(app: &App) -> Result<lama_exec::fs::FileLock> {
    Ok(lama_exec::fs::FileLock::folder(&app.place.distro)?)
}

/// Resolves a set anew and puts it into the lock.
pub fn resolve(
    app: &App,
    description: &Description,
    spec: &SetSpec,
    lock: &mut Lock,
    renew: &Renew,
) -> Result<()> {
    let feed = feed(app, description, spec)?;
    let universe = feed.refresh(&spec.arch)?;
    let request = Request {
        packages: spec.request.clone(),
        dependencies: spec.dependencies,
        essential: spec.essential,
        recommends: lama_feed::Recommends::Ignore,
        prefer: lock.prefer(&spec.name, renew),
    };
    let records = universe.resolve(&request)?;
    let pinned = feed.pin(&records)?;
    lock.replace_set(&spec.name, spec.arch.as_str(), &spec.request, pinned);
    lock.record_feeds(&spec.name, spec.feeds(description));
    Ok(())
}

/// The lock, with this set in it: resolved and pinned now where it was not and the policy allows it.
fn locked(app: &App, description: &Description, spec: &SetSpec, policy: Policy) -> Result<Lock> {
    let path = app.place.lock();
    let mut lock = Lock::load(&path)?;
    if spec.is_pinned(&lock, description) {
        return Ok(lock);
    }
    if policy == Policy::Locked {
        let what = if lock.set(&spec.name).is_some() {
            "was made for another description"
        } else {
            "does not pin"
        };
        return Err(miette!(
            help = "run `lamadist lock` and commit the lock",
            "{} {what} {}",
            path.display(),
            spec.name
        ));
    }
    app.talk
        .say(&format!("{}: resolving {}", path.display(), spec.name));
    // Another build may be at it; whoever comes second finds the first one's result.
    let _guard = guard(app)?;
    lock = Lock::load(&path)?;
    if !spec.is_pinned(&lock, description) {
        resolve(app, description, spec, &mut lock, &Renew::Nothing)?;
        lock.save(&path)?;
    }
    Ok(lock)
}

/// The packages of a set, fetched.
pub fn ensure(
    app: &App,
    description: &Description,
    spec: &SetSpec,
    policy: Policy,
) -> Result<Vec<PackageInput>> {
    let lock = locked(app, description, spec, policy)?;
    let packages: Vec<&LockedPackage> = lock.packages_of(&spec.name).unwrap_or_default();
    let files = feed(app, description, spec)?.fetch(packages.iter().copied())?;
    Ok(packages
        .into_iter()
        .zip(files)
        .map(|(p, deb)| PackageInput {
            deb,
            sha256: p.sha256.to_string(),
            name: p.name().to_owned(),
            version: p.version().to_owned(),
            arch: p.architecture().to_owned(),
            source: p.source.clone(),
        })
        .collect())
}

/// The digests of a set's packages, sorted; nothing is fetched.
pub fn digests(
    app: &App,
    description: &Description,
    spec: &SetSpec,
    policy: Policy,
) -> Result<Vec<String>> {
    let lock = locked(app, description, spec, policy)?;
    let packages = lock.packages_of(&spec.name).unwrap_or_default();
    let mut all: Vec<String> = packages.iter().map(|p| p.sha256.to_string()).collect();
    all.sort();
    Ok(all)
}
