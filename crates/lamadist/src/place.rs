// SPDX-License-Identifier: Apache-2.0
//! Where things are: the checkout, the cache, keys, deploy folder, virtual machines.

use crate::cli::Global;
use lama_exec::fs;
use miette::{Context, IntoDiagnostic, Result, miette};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The places that commands work in. All paths are absolute.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder around `distro/`, usually a git checkout.
    pub project: PathBuf,
    /// The description.
    pub distro: PathBuf,
    /// The cache: store, tools, intermediate results. Everything in it can be made again.
    pub cache: PathBuf,
    /// The folder of key sets.
    pub keys: PathBuf,
    /// Mirrors from the command line, the environment and the user's configuration, in that order.
    pub mirrors: Vec<String>,
}

/// The user's configuration, `$XDG_CONFIG_HOME/lamadist/config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct UserConfig {
    /// Package mirrors, as for `--mirror`.
    #[serde(default)]
    mirrors: Vec<String>,
}

impl Place {
    /// Finds them by options, environment and the working directory.
    pub fn find(global: &Global) -> Result<Self> {
        let cwd = std::env::current_dir()
            .into_diagnostic()
            .wrap_err("no working directory")?;
        let distro = match &global.distro {
            Some(d) => cwd.join(d),
            None => cwd
                .ancestors()
                .map(|d| d.join("distro"))
                .find(|d| d.join("lamadist.toml").is_file())
                .ok_or_else(|| {
                    miette!(
                        help = "run it inside a checkout of the project, or name the description with --distro DIR",
                        "there is no distro/lamadist.toml in {} or above it",
                        cwd.display()
                    )
                })?,
        };
        let project = distro.parent().unwrap_or(Path::new("/")).to_owned();
        let cache = match &global.cache {
            Some(d) => cwd.join(d),
            None => base_dir("XDG_CACHE_HOME", ".cache")?.join("lamadist"),
        };
        let keys = global
            .keys
            .as_ref()
            .map_or_else(|| project.join("keys"), |k| cwd.join(k));
        let mut mirrors = global.mirror.clone();
        let config = base_dir("XDG_CONFIG_HOME", ".config")?.join("lamadist/config.toml");
        if let Some(text) = fs::read_optional(&config)? {
            let text = String::from_utf8(text)
                .into_diagnostic()
                .wrap_err_with(|| format!("{} is not UTF-8", config.display()))?;
            mirrors.extend(lama_model::parse::<UserConfig>(&config, &text)?.mirrors);
        }
        Ok(Self {
            project,
            distro,
            cache,
            keys,
            mirrors,
        })
    }

    /// The lock file.
    pub fn lock(&self) -> PathBuf {
        self.distro.join("lamadist.lock")
    }

    /// The store of packages and results.
    pub fn store(&self) -> PathBuf {
        self.cache.join("store")
    }

    /// The folder of tools trees.
    pub fn tools(&self) -> PathBuf {
        self.cache.join("tools")
    }

    /// The folder of trees that the program on the node is compiled with.
    pub fn toolchains(&self) -> PathBuf {
        self.cache.join("toolchain")
    }

    /// The folder of what it was compiled to.
    pub fn node(&self) -> PathBuf {
        self.cache.join("node")
    }

    /// Where a build's artefacts go.
    pub fn deploy(&self, target: &crate::cli::Target) -> Result<PathBuf> {
        let base = match &target.deploy {
            Some(d) => std::path::absolute(d).into_diagnostic()?,
            None => self.project.join("deploy"),
        };
        Ok(base.join(&target.bsp).join(&target.image))
    }

    /// The folder that updates are served from.
    pub fn site(&self, output: Option<&Path>) -> Result<PathBuf> {
        output.map_or_else(
            || Ok(self.project.join("site")),
            |d| std::path::absolute(d).into_diagnostic(),
        )
    }

    /// The folder of virtual machines.
    pub fn vms(&self) -> Result<PathBuf> {
        Ok(base_dir("XDG_STATE_HOME", ".local/state")?.join("lamadist/vm"))
    }

    /// The development key set.
    pub fn development_keys(&self) -> PathBuf {
        self.keys.join("development")
    }

    /// The release key set.
    pub fn release_keys(&self) -> PathBuf {
        self.keys.join("release")
    }
}

/// A base directory of the XDG specification: the variable, or the default below the home folder.
fn base_dir(variable: &str, default: &str) -> Result<PathBuf> {
    match std::env::var_os(variable).map(PathBuf::from) {
        Some(d) if d.is_absolute() => return Ok(d),
        _ => {}
    }
    let home = std::env::home_dir().filter(|h| h.is_absolute());
    home.map(|h| h.join(default)).ok_or_else(|| {
        miette!(
            help = "set HOME, or {variable}",
            "there is no home folder to keep {default} in"
        )
    })
}
