// SPDX-License-Identifier: Apache-2.0
//! The layers checked with their upstream: parsed, resolved to a task graph, run dry, and looked
//! over by yocto-check-layer. Nothing is fetched or built, and no network is used.

use crate::events::State;
use crate::kas::{Config, Kas};
use lama_exec::fs::{self, FsError};
use lama_exec::progress::Unit;
use lama_exec::tool::{Output, ToolError};
use lama_exec::{Progress, Tools};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a build without a network needs in local.conf.
pub(crate) const LOCAL_CONF: &str = "\
BB_NO_NETWORK = \"1\"
CONNECTIVITY_CHECK_URIS = \"\"
INHERIT_DISTRO:remove = \"uninative\"
BB_NUMBER_THREADS = \"2\"
BB_NUMBER_PARSE_THREADS = \"2\"
";

/// The folder of OE-Core among the layers, and that of BitBake.
pub(crate) const CORE: &str = "openembedded-core";
const BITBAKE: &str = "bitbake";

/// Why a step could not even be run.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// A program could not be started, or kas refused a configuration.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tool(#[from] ToolError),
    /// Checkouts are missing.
    #[error("{} has no {}", dir.display(), missing.join(", "))]
    #[diagnostic(help(
        "check them out there, each at the revision that kas/main.lock.yml pins; `kas checkout kas/bsp/MACHINE.yml` does it where there is a network"
    ))]
    Layers {
        /// Where they are looked for.
        dir: PathBuf,
        /// Their names.
        missing: Vec<String>,
    },
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was done, and with which machine or layer.
    pub name: String,
    /// What came out, or what was wrong.
    pub outcome: std::result::Result<String, String>,
    /// How long it took.
    pub took: Duration,
}

/// Who starts the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// UEFI firmware that keeps its variables.
    Uefi,
    /// A boot loader of ours.
    Loader,
}

/// What is checked.
pub struct Check<'a> {
    /// The checkout.
    pub project: &'a Path,
    /// Upstream's checkouts, a folder a repository.
    pub layers: &'a Path,
    /// Where BitBake may write.
    pub work: &'a Path,
    /// kas.
    pub kas: &'a Kas,
    /// Images that are resolved for each machine.
    pub targets: &'a [String],
    /// The recipe of the bundle, which machines without UEFI firmware do not have.
    pub bundle: &'a str,
    /// Where progress is reported.
    pub progress: &'a dyn Progress,
}

impl Check<'_> {
    /// The configuration of a machine, all of whose layers are there.
    ///
    /// # Errors
    /// kas refuses it, or a layer is missing.
    pub fn configuration(&self, bsp: &str) -> Result<Config> {
        let config = self.kas.dump(bsp, &[])?;
        let mut missing: Vec<String> = config
            .repositories()
            .filter(|r| !self.layers.join(r).is_dir())
            .map(str::to_owned)
            .collect();
        for layer in config.layers() {
            let at = layer.at(self.project, self.layers);
            let name = layer.repo.map(|r| format!("{r}/{}", layer.path));
            if let Some(name) = name
                && !at.join("conf/layer.conf").is_file()
                && !missing.iter().any(|m| name.starts_with(&format!("{m}/")))
            {
                missing.push(name);
            }
        }
        if missing.is_empty() {
            return Ok(config);
        }
        Err(Error::Layers {
            dir: self.layers.to_owned(),
            missing,
        })
    }

    /// Parses everything for a machine; a warning that names our layers is an error.
    ///
    /// # Errors
    /// BitBake could not be run.
    pub fn parse(&self, bsp: &str, config: &Config) -> Result<Step> {
        self.write_conf(config)?;
        self.step(&format!("parse {bsp}"), || {
            let (ok, out, state) = self.bitbake(&["-p"])?;
            let text = words(&out);
            Ok(verdict(ok && state.parse_errors == 0, &text, || {
                let others = text.lines().filter(|l| l.starts_with("WARNING:")).count();
                format!(
                    "{} recipes, {others} warnings of other layers",
                    state.parsed.1
                )
            }))
        })
    }

    /// Resolves the task graph of all targets for a machine that has been parsed.
    ///
    /// # Errors
    /// BitBake could not be run.
    pub fn graph(&self, bsp: &str, uefi: Firmware) -> Result<Step> {
        self.step(&format!("graph {bsp}"), || {
            let mut targets: Vec<&str> = self.targets.iter().map(String::as_str).collect();
            if uefi == Firmware::Uefi {
                targets.push(self.bundle);
            }
            let args = [&["-g"], targets.as_slice()].concat();
            let (ok, out, _) = self.bitbake(&args)?;
            let graph = fs::read_optional(self.build().join("task-depends.dot"))?;
            let graph = String::from_utf8_lossy(&graph.unwrap_or_default()).into_owned();
            let tasks = graph.lines().filter(|l| l.contains("[label=")).count();
            Ok(verdict(ok && tasks > 0, &words(&out), || {
                format!("{tasks} tasks of {}", targets.join(", "))
            }))
        })
    }

    /// Goes through all tasks of a target without running them.
    ///
    /// # Errors
    /// BitBake could not be run.
    pub fn dry_run(&self, bsp: &str, target: &str) -> Result<Step> {
        self.step(&format!("dry run {bsp} {target}"), || {
            let (ok, out, state) = self.bitbake(&["-n", target])?;
            Ok(verdict(ok, &words(&out), || {
                format!("{} tasks", state.tasks.1)
            }))
        })
    }

    /// yocto-check-layer on one of our layers, in a build of OE-Core alone: it passes over a layer
    /// that is there already.
    ///
    /// # Errors
    /// It could not be run.
    pub fn layer(&self, layer: &str, machines: &[&str]) -> Result<Step> {
        let build = self.work.join("check-layer");
        let core = self.layers.join(CORE).join("meta");
        write_build(
            &build,
            &[core],
            &format!("MACHINE ??= \"qemux86-64\"\n{LOCAL_CONF}"),
        )?;
        self.step(&format!("yocto-check-layer {layer}"), || {
            let mut c = self
                .environment("yocto-check-layer", &build)
                .arg(self.project.join(layer));
            if !machines.is_empty() {
                c = c.arg("--machines").args(machines);
            }
            let (_, out) = c.run_any()?;
            let text = words(&out);
            // It ends with 0 where it has tested nothing.
            let passed = text
                .lines()
                .any(|l| l.ends_with(&format!("{layer} ... PASS")));
            Ok(verdict(passed, &text, || "passed".to_owned()))
        })
    }

    fn build(&self) -> PathBuf {
        self.work.join("build")
    }

    fn write_conf(&self, config: &Config) -> Result<()> {
        let mut layers: Vec<PathBuf> = config
            .layers()
            .iter()
            .map(|l| l.at(self.project, self.layers))
            .collect();
        layers.sort();
        let local = format!(
            "MACHINE = \"{}\"\nDISTRO = \"{}\"\n{}\n{LOCAL_CONF}",
            config.machine,
            config.distro,
            config.local_conf()
        );
        write_build(&self.build(), &layers, &local)
    }

    /// A program of BitBake's or OE-Core's, as after `oe-init-build-env`.
    pub(crate) fn environment(&self, program: &str, build: &Path) -> lama_exec::Cmd {
        let dirs = [
            self.layers.join(CORE).join("scripts"),
            self.layers.join(BITBAKE).join("bin"),
        ];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = dirs.iter().cloned().chain(std::env::split_paths(&path));
        let path = std::env::join_paths(all).unwrap_or(path);
        let at = dirs.iter().map(|d| d.join(program)).find(|p| p.is_file());
        Tools::host()
            .command(at.unwrap_or_else(|| PathBuf::from(program)))
            .env("PATH", path)
            .env("BUILDDIR", build)
            .env("BBPATH", build)
            .env("LANG", "en_US.UTF-8")
            .env("LC_ALL", "en_US.UTF-8")
            .env("BB_ENV_PASSTHROUGH_ADDITIONS", "LAMA_EVENTS")
            .cwd(build)
    }

    fn bitbake(&self, args: &[&str]) -> Result<(bool, Output, State)> {
        let events = self.work.join("events");
        fs::remove_file(&events)?;
        let command = self.environment("bitbake", &self.build());
        let command = command.args(args).env("LAMA_EVENTS", &events);
        let (status, out) = command.run_any()?;
        let mut state = State::default();
        let lines = fs::read_optional(&events)?.unwrap_or_default();
        String::from_utf8_lossy(&lines)
            .lines()
            .for_each(|l| state.take(l));
        Ok((status.success(), out, state))
    }

    pub(crate) fn step(
        &self,
        name: &str,
        run: impl FnOnce() -> Result<std::result::Result<String, String>>,
    ) -> Result<Step> {
        let _t = self.progress.task(name, Unit::Busy, 0);
        let start = Instant::now();
        let outcome = run()?;
        Ok(Step {
            name: name.to_owned(),
            outcome,
            took: start.elapsed(),
        })
    }
}

pub(crate) fn write_build(build: &Path, layers: &[PathBuf], local: &str) -> Result<()> {
    let mut text = String::from("BBPATH = \"${TOPDIR}\"\nBBFILES ?= \"\"\nBBLAYERS = \" \\\n");
    for l in layers {
        text += &format!("    {} \\\n", l.display());
    }
    text += "\"\n";
    fs::create_dir_all(build.join("conf"))?;
    // BitBake parses anew what has changed by time.
    for (name, text) in [("bblayers.conf", text.as_str()), ("local.conf", local)] {
        let path = build.join("conf").join(name);
        if fs::read_optional(&path)?.as_deref() != Some(text.as_bytes()) {
            fs::write_atomic(path, text)?;
        }
    }
    Ok(())
}

pub(crate) fn words(out: &Output) -> String {
    let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
    text += &String::from_utf8_lossy(&out.stderr);
    text
}

/// A step's outcome: what it found, or the lines that say what is wrong.
pub(crate) fn verdict(
    ok: bool,
    text: &str,
    found: impl FnOnce() -> String,
) -> std::result::Result<String, String> {
    let ours =
        |l: &&str| l.starts_with("WARNING:") && (l.contains("lamadist") || l.contains("lama-"));
    let warnings: Vec<&str> = text.lines().filter(ours).collect();
    if ok && warnings.is_empty() {
        return Ok(found());
    }
    if ok {
        return Err(warnings.join("\n"));
    }
    let wrong = |l: &&str| {
        ["ERROR", "FAIL", "AssertionError"]
            .iter()
            .any(|w| l.contains(w))
    };
    let mut lines: Vec<&str> = text.lines().filter(wrong).take(40).collect();
    if lines.is_empty() {
        let all: Vec<&str> = text.lines().collect();
        lines = all
            .get(all.len().saturating_sub(20)..)
            .unwrap_or(&all)
            .to_vec();
    }
    Err(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_comes_to() {
        let found = || "found".to_owned();
        let upstream = "WARNING: meta-x: y\n";
        assert_eq!(verdict(true, upstream, found), Ok("found".into()));
        let ours = "WARNING: /p/meta-lamadist/a.bb: y\nother\n";
        assert_eq!(
            verdict(true, ours, found),
            Err("WARNING: /p/meta-lamadist/a.bb: y".into())
        );
        let e = verdict(false, "NOTE: a\nERROR: b\nNOTE: c\n", found);
        assert_eq!(e, Err("ERROR: b".into()));
        assert_eq!(verdict(false, "a\nb\n", found), Err("a\nb".into()));
        assert_eq!(verdict(false, "", found), Err(String::new()));
    }
}
