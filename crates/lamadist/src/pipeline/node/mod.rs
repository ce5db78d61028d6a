// SPDX-License-Identifier: Apache-2.0
//! The program on the node, compiled on the way: its source is in the checkout, its compiler comes
//! from the feeds, pinned like any other package. What it was compiled to is kept, by all that went
//! in; a build that finds it there needs no compiler.

mod lockfile;
mod manifest;
mod origin;
mod source;
mod vendor;

pub use origin::Origin;
pub use source::{CRATE, Source};

use super::Sources;
use super::packages::{self, Policy, SetSpec, host_arch};
use super::stamp::Inputs;
use crate::App;
use lama_exec::progress::Unit;
use lama_exec::{Progress, Tools, fs};
use lama_model::Arch;
use miette::{IntoDiagnostic, Result, miette};
use std::path::{Path, PathBuf};

/// Raised when the same input gives another program.
const FORMAT: &str = "2";

/// Where the copy of the source is while it is compiled. The same everywhere, since a program
/// remembers where it was compiled.
const BUILD: &str = "/build";
/// Where the foreign standard library is.
const STD: &str = "/std";

/// The program, and what it was made from.
pub struct Program {
    /// The program.
    pub bytes: Vec<u8>,
    /// What it was made from.
    pub origin: Origin,
}

impl Program {
    /// What was kept at `path`, and beside it; none where it was not, or not to its end.
    fn kept(path: &Path) -> Result<Option<Self>> {
        // Written before the program, so it is there where that is.
        let Some(origin) = fs::read_optional(beside(path))? else {
            return Ok(None);
        };
        let origin = serde_json::from_slice(&origin).ok();
        let bytes = fs::read_optional(path)?;
        Ok(bytes
            .zip(origin)
            .map(|(bytes, origin)| Self { bytes, origin }))
    }

    fn keep(&self, path: &Path) -> Result<()> {
        let origin = serde_json::to_vec_pretty(&self.origin).into_diagnostic()?;
        fs::write_atomic(beside(path), origin)?;
        let mut out = fs::Staged::new(path)?;
        std::io::Write::write_all(&mut out, &self.bytes)
            .map_err(|e| miette!("cannot write {}: {e}", path.display()))?;
        Ok(out.commit_synced(0o755)?)
    }
}

fn beside(program: &Path) -> PathBuf {
    program.with_extension("json")
}

/// The program for machines of this architecture, compiled where that has not been done yet.
///
/// # Errors
/// The source is not there or does not compile, a crate is missing or is not what is pinned, the
/// toolchain cannot be had.
pub fn node(
    app: &App,
    sources: &Sources,
    source: &Source,
    arch: Arch,
    policy: Policy,
) -> Result<Program> {
    let plan = Plan::new(app, sources, source, arch, policy)?;
    let kept = app.place.node().join(&plan.key);
    if let Some(program) = Program::kept(&kept)? {
        return Ok(program);
    }
    // Another build may be at it; whoever comes second finds the first one's result.
    let _lock = fs::FileLock::exclusive(app.place.node().join(".lock"))?;
    if let Some(program) = Program::kept(&kept)? {
        return Ok(program);
    }
    let program = plan.compile(app, sources, source, policy)?;
    program.keep(&kept)?;
    Ok(program)
}

/// What the recipe of the oe engine compiles it from: the same manifests and crates.
/// # Errors
/// A manifest or the lock cannot be read, or is stale.
pub fn for_recipe(source: &Source) -> Result<lama_oe::render::NodeSource> {
    let manifests = manifest::Manifests::new(source)?;
    let crates = lockfile::closure(source, &manifests.dependencies)?;
    Ok(lama_oe::render::NodeSource {
        version: manifests.version,
        lock: lockfile::reduced(source, &manifests.dependencies, &crates)?,
        crates: crates
            .into_iter()
            .map(|c| lama_oe::render::Crate {
                name: c.name,
                version: c.version,
                checksum: c.checksum,
            })
            .collect(),
        workspace: manifests.workspace,
        manifest: manifests.node,
    })
}

/// Everything that decides what the program becomes.
struct Plan {
    arch: Arch,
    toolchain: SetSpec,
    /// Where the machine is a foreign one.
    std: Option<SetSpec>,
    manifests: manifest::Manifests,
    crates: Vec<lockfile::Pinned>,
    flags: Vec<String>,
    /// A digest of all of it.
    key: String,
}

impl Plan {
    fn new(
        app: &App,
        sources: &Sources,
        source: &Source,
        arch: Arch,
        policy: Policy,
    ) -> Result<Self> {
        let d = &sources.description;
        let manifests = manifest::Manifests::new(source)?;
        let crates = lockfile::closure(source, &manifests.dependencies)?;
        let toolchain = SetSpec::toolchain(d)?;
        let std = (arch != host_arch()?)
            .then(|| SetSpec::toolchain_std(d, arch))
            .transpose()?;
        let flags = flags(std.is_some());
        let mut key = Inputs::default();
        key.value("format", FORMAT);
        key.value("arch", arch.as_str());
        key.value("epoch", d.distro.source_date_epoch.to_string());
        for set in [Some(&toolchain), std.as_ref()].into_iter().flatten() {
            key.value("set", &set.name);
            for digest in packages::digests(app, d, set, policy)? {
                key.value("package", digest);
            }
        }
        for flag in &flags {
            key.value("flag", flag);
        }
        for c in &crates {
            key.value("crate", c.to_string());
            key.value("checksum", &c.checksum);
        }
        key.value("workspace", &manifests.workspace);
        key.value("manifest", &manifests.node);
        for (path, content) in &source.files {
            key.value(&path.to_string_lossy(), content);
        }
        Ok(Self {
            arch,
            toolchain,
            std,
            manifests,
            crates,
            flags,
            key: key.finish(),
        })
    }

    fn compile(
        &self,
        app: &App,
        sources: &Sources,
        source: &Source,
        policy: Policy,
    ) -> Result<Program> {
        let d = &sources.description;
        let tree = |set: &SetSpec| -> Result<PathBuf> {
            let packages = packages::ensure(app, d, set, policy)?;
            Ok(lama_compose::tools_tree(
                &packages,
                &sources.scripts,
                &app.place.store(),
                &app.place.toolchains(),
                &*app.talk,
            )?)
        };
        let scratch = fs::Scratch::new_in(app.place.cache.join("tmp"))?;
        let build = scratch.path();
        let vendor = build.join("vendor");
        vendor::vendor(&source.project, &self.crates, &vendor)?;
        self.lay_out(source, build)?;
        let toolchain = tree(&self.toolchain)?;
        let std = self.std.as_ref().map(tree).transpose()?;

        let _t = app.talk.task("Compiling lama-node", Unit::Busy, 0);
        let target = triple(self.arch);
        let mut cargo = Tools::tree(toolchain)
            .command("cargo")
            .args(["build", "--offline", "--quiet", "--profile", "node"])
            .args(["--package", "lama-node", "--bin", "lama-node"])
            // On standard output, a line for each crate; what the compiler says stays readable.
            .arg("--message-format=json-render-diagnostics")
            // Named even where it is this machine: then the flags are those of the program alone,
            // not of what runs while it is compiled.
            .args(["--target", target])
            .env("CARGO_HOME", format!("{BUILD}/home"))
            .env("CARGO_TARGET_DIR", format!("{BUILD}/target"))
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags.join("\x1f"))
            .env("SOURCE_DATE_EPOCH", d.distro.source_date_epoch.to_string())
            .bind_at(build, BUILD)
            .cwd(BUILD);
        for arch in [host_arch()?, self.arch] {
            let name = triple(arch).to_uppercase().replace('-', "_");
            let linker = format!("{}-gcc", arch.multiarch());
            cargo = cargo.env(format!("CARGO_TARGET_{name}_LINKER"), linker);
        }
        if let Some(std) = std {
            cargo = cargo.bind_ro_at(std.join(format!("usr/lib/rustlib/{target}/lib")), STD);
        }
        let out = cargo.run().map_err(|e| {
            miette!(
                help = "it is compiled by the rustc that distro/lamadist.lock pins, which may be older than yours: `lamadist lock --print toolchain/ARCHITECTURE` tells its version",
                "crates/lama-node cannot be compiled for {}: {e}",
                self.arch
            )
        })?;
        let crates = &self.crates;
        Ok(Program {
            bytes: fs::read(build.join(format!("target/{target}/node/lama-node")))?,
            origin: Origin::of(&out.stdout, crates, &self.manifests, &vendor, target)?,
        })
    }

    /// Lays the workspace out in `build`, beside the crates.
    fn lay_out(&self, source: &Source, build: &Path) -> Result<()> {
        let write = |path: &Path, data: &[u8]| -> Result<()> {
            let path = build.join(path);
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            Ok(fs::write(path, data)?)
        };
        for (path, content) in &source.files {
            write(&Path::new(CRATE).join(path), content)?;
        }
        let manifest = Path::new(CRATE).join("Cargo.toml");
        write(&manifest, self.manifests.node.as_bytes())?;
        write(Path::new("Cargo.toml"), self.manifests.workspace.as_bytes())?;
        write(Path::new("Cargo.lock"), source.lock.as_bytes())?;
        let config = "[source.crates-io]\nreplace-with = \"vendored\"\n\
                      [source.vendored]\ndirectory = \"vendor\"\n";
        write(Path::new(".cargo/config.toml"), config.as_bytes())
    }
}

/// What rustc is told besides the profile.
fn flags(foreign: bool) -> Vec<String> {
    let mut flags = vec![format!("--remap-path-prefix={BUILD}/=")];
    if foreign {
        flags.push(format!("-L{STD}"));
    }
    flags
}

/// Rust's name of an architecture.
fn triple(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-unknown-linux-gnu",
        Arch::Arm64 => "aarch64-unknown-linux-gnu",
    }
}
