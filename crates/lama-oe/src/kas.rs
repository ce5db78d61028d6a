// SPDX-License-Identifier: Apache-2.0
//! kas (<https://kas.readthedocs.io/>): which layers a configuration has, and BitBake run with them.

use crate::container::Container;
use lama_exec::tool::{Cmd, ToolError};
use lama_exec::{Tools, fs};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What kas and the configuration are told by the environment, and how the network is reached.
const ENVIRONMENT: [&str; 9] = [
    "KAS_WORK_DIR",
    "KAS_PREMIRRORS",
    "LAMA_KEYS",
    "LAMA_VERSION_SUFFIX",
    "LAMA_EVENTS",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
];

/// A configuration as kas resolves it.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// `MACHINE`.
    pub machine: String,
    /// `DISTRO`.
    pub distro: String,
    /// Repositories by name.
    repos: BTreeMap<String, Option<Repo>>,
    /// Parts of local.conf by name.
    #[serde(default)]
    local_conf_header: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Repo {
    url: Option<String>,
    layers: Option<BTreeMap<String, Option<String>>>,
}

/// A layer of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The repository; none for the checkout's own.
    pub repo: Option<String>,
    /// The folder in it; `.` for all of it.
    pub path: String,
}

impl Layer {
    /// Where it is, with the repositories in `layers` and the checkout at `project`.
    pub fn at(&self, project: &Path, layers: &Path) -> PathBuf {
        let base = match &self.repo {
            Some(r) => layers.join(r),
            None => project.to_owned(),
        };
        if self.path == "." {
            base
        } else {
            base.join(&self.path)
        }
    }
}

impl Config {
    /// Its layers.
    pub fn layers(&self) -> Vec<Layer> {
        let mut out = Vec::new();
        for (name, repo) in &self.repos {
            let url = repo.as_ref().and_then(|r| r.url.as_ref());
            let own = url.map(|_| name.clone());
            let layer = |path: &str| Layer {
                repo: own.clone(),
                path: path.to_owned(),
            };
            match repo.as_ref().and_then(|r| r.layers.as_ref()) {
                None => out.push(layer(".")),
                Some(layers) => out.extend(
                    layers
                        .iter()
                        .filter(|(_, state)| {
                            // kas takes any of these for "not a layer".
                            !matches!(
                                state.as_deref(),
                                Some("disabled" | "excluded" | "n" | "no" | "0" | "false")
                            )
                        })
                        .map(|(path, _)| layer(path)),
                ),
            }
        }
        out
    }

    /// The repositories it is from, but for the checkout itself.
    pub fn repositories(&self) -> impl Iterator<Item = &str> {
        let url = |r: &Option<Repo>| r.as_ref().is_some_and(|r| r.url.is_some());
        let all = self.repos.iter();
        all.filter(move |(_, r)| url(r)).map(|(n, _)| n.as_str())
    }

    /// What it adds to local.conf.
    pub fn local_conf(&self) -> String {
        let parts: Vec<&str> = self
            .local_conf_header
            .values()
            .map(String::as_str)
            .collect();
        parts.join("\n")
    }
}

/// Where kas is.
#[derive(Debug, Clone)]
pub enum Where {
    /// On this machine: the program.
    Here(PathBuf),
    /// In the builder container.
    Inside(Container),
}

/// kas with a checkout.
#[derive(Debug, Clone)]
pub struct Kas {
    /// The program.
    program: Where,
    /// The checkout, whose kas/ has the configurations.
    project: PathBuf,
    /// Where it clones layers to and builds.
    work: PathBuf,
}

impl Kas {
    /// `program` is where kas is, `work` where it may write.
    pub fn new(program: Where, project: &Path, work: &Path) -> Self {
        Self {
            program,
            project: project.to_owned(),
            work: work.to_owned(),
        }
    }

    /// The machines that there are configurations for, sorted.
    ///
    /// # Errors
    /// kas/bsp cannot be read.
    pub fn machines(&self) -> fs::Result<Vec<String>> {
        names(&self.project.join("kas/bsp"))
    }

    /// The extras that there are configurations for, sorted.
    ///
    /// # Errors
    /// kas/extras cannot be read.
    pub fn extras(&self) -> fs::Result<Vec<String>> {
        names(&self.project.join("kas/extras"))
    }

    /// `kas SUBCOMMAND`, to be given options and, last, [`Kas::files`].
    pub fn command(&self, subcommand: &str) -> Cmd {
        let kas = match &self.program {
            Where::Here(program) => Tools::host().command(program),
            Where::Inside(c) => c.run(&self.project, &self.work, &ENVIRONMENT).arg("kas"),
        };
        kas.arg(subcommand)
            .cwd(&self.project)
            .env("KAS_WORK_DIR", &self.work)
    }

    /// The configuration files of a machine with extras, as one argument.
    pub fn files(bsp: &str, extras: &[String]) -> String {
        let mut out = format!("kas/bsp/{bsp}.yml");
        for e in extras {
            out += &format!(":kas/extras/{e}.yml");
        }
        out
    }

    /// What kas makes of a machine with extras; nothing is fetched.
    ///
    /// # Errors
    /// kas refuses the configuration.
    pub fn dump(&self, bsp: &str, extras: &[String]) -> Result<Config, ToolError> {
        self.command("dump")
            .args(["--format", "json"])
            .args(["--skip", "repo_setup_loop", "--skip", "repos_checkout"])
            .args(["--skip", "finish_setup_repos"])
            .arg(Self::files(bsp, extras))
            .json()
    }
}

fn names(dir: &Path) -> fs::Result<Vec<String>> {
    let mut out: Vec<String> = fs::read_dir(dir)?
        .iter()
        .filter_map(|e| {
            let name = e.file_name();
            let name = name.to_str()?.strip_suffix(".yml")?;
            (!name.ends_with(".lock")).then(|| name.to_owned())
        })
        .collect();
    out.sort();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_a_configuration() {
        let config: Config = serde_json::from_str(
            r#"{
                "machine": "m", "distro": "d",
                "repos": {
                    "own": {"layers": {"meta-a": null}},
                    "bitbake": {"url": "x", "layers": {".": "disabled"}},
                    "meta-r": {"url": "x", "branch": "b"},
                    "oe": {"url": "x", "layers": {"meta": null, "sub": null}}
                },
                "local_conf_header": {"a": "A = 1\n", "b": "B = 1\n"}
            }"#,
        )
        .unwrap();
        let at: Vec<PathBuf> = config
            .layers()
            .iter()
            .map(|l| l.at(Path::new("/p"), Path::new("/l")))
            .collect();
        let expected = ["/l/meta-r", "/l/oe/meta", "/l/oe/sub", "/p/meta-a"].map(PathBuf::from);
        let mut sorted = at.clone();
        sorted.sort();
        assert_eq!(sorted, expected);
        let repos: Vec<&str> = config.repositories().collect();
        assert_eq!(repos, ["bitbake", "meta-r", "oe"]);
        assert!(config.local_conf().contains("A = 1\n\nB = 1"));
    }
}
