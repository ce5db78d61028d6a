// SPDX-License-Identifier: Apache-2.0
//! Programs in the builder container, by podman(1). What is special about a machine (another runtime,
//! limits) is podman's to know: containers.conf(5).

use crate::host::program;
use lama_exec::fs::{self, AtPath};
use lama_exec::tool::ToolError;
use lama_exec::{Cmd, Tools};
use std::io::IsTerminal;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

/// The account in the container where podman runs as root, which BitBake refuses to be.
pub const ACCOUNT: u32 = 1000;

/// Makes the folder that programs in the container may write to, and their home in it.
///
/// # Errors
/// It cannot be made, or given to the container's account.
pub fn prepare(work: &Path) -> fs::Result<()> {
    for dir in [work, &work.join("home")] {
        fs::create_dir_all(dir)?;
        if rustix::process::geteuid().is_root() {
            chown(dir, Some(ACCOUNT), Some(ACCOUNT)).at("give away", dir)?;
        }
    }
    Ok(())
}

/// There is no podman.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("podman is not installed")]
#[diagnostic(help(
    "on Debian: apt-get install podman; or leave --container out, and BitBake runs on this machine"
))]
pub struct NoPodman;

/// The container.
#[derive(Debug, Clone)]
pub struct Container {
    podman: PathBuf,
    /// The image: `localhost/NAME:TAG`.
    image: String,
}

impl Container {
    /// By podman, from the image of this name.
    ///
    /// # Errors
    /// There is no podman.
    pub fn new(image: String) -> Result<Self, NoPodman> {
        let podman = program("podman").ok_or(NoPodman)?;
        Ok(Self { podman, image })
    }

    fn podman(&self) -> Cmd {
        Tools::host().command(&self.podman)
    }

    /// Whether podman has the image.
    ///
    /// # Errors
    /// podman cannot be run.
    pub fn is_loaded(&self) -> Result<bool, ToolError> {
        let exists = self.podman().args(["image", "exists", &self.image]);
        Ok(exists.run_any()?.0.success())
    }

    /// Loads it from an archive.
    ///
    /// # Errors
    /// podman refuses it.
    pub fn load(&self, archive: &Path) -> Result<(), ToolError> {
        let load = self.podman().args(["load", "--quiet", "--input"]);
        load.arg(archive).run().map(drop)
    }

    /// `podman run`, to be given a command: with the checkout read-only, `work` to write, this machine's
    /// network, so that a display that is opened in it is seen from here, and these variables.
    pub fn run(&self, project: &Path, work: &Path, environment: &[&str]) -> Cmd {
        let at = |path: &Path, how: &str| format!("{0}:{0}{how}", path.display());
        let mut cmd = self.podman().args([
            "run",
            "--rm",
            "--interactive",
            "--pull=never",
            "--network=host",
            "--security-opt=label=disable",
        ]);
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            cmd = cmd.arg("--tty");
        }
        cmd = match rustix::process::geteuid().is_root() {
            true => cmd.arg(format!("--user={ACCOUNT}:{ACCOUNT}")),
            false => cmd.arg("--userns=keep-id"),
        };
        if std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
        {
            cmd = cmd.arg("--device=/dev/kvm");
        }
        for name in environment {
            cmd = cmd.args(["--env", name]);
        }
        cmd.arg(format!("--env=HOME={}", work.join("home").display()))
            .arg(format!("--volume={}", at(project, ":ro")))
            .arg(format!("--volume={}", at(work, "")))
            .arg(format!("--workdir={}", project.display()))
            .arg(&self.image)
    }
}
