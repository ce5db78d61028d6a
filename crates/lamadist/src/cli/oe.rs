// SPDX-License-Identifier: Apache-2.0
//! The options of `lamadist oe`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `lamadist oe …`.
#[derive(Debug, Subcommand)]
pub enum Oe {
    /// Write the files of the layers that repeat what distro/ says
    #[command(after_help = "Example:\n  lamadist oe render --check")]
    Render(OeRender),
    /// Check the layers with checkouts of their upstream: parse, task graph, yocto-check-layer
    #[command(after_help = "Example:\n  lamadist oe check --layers ~/oe --bsp x86_64 --step parse")]
    Check(OeCheck),
    /// Open a shell with BitBake's environment, or run a command in it
    #[command(after_help = "Example:\n  lamadist oe shell --bsp rk1 -- bitbake -e virtual/kernel")]
    Shell(OeShell),
    /// Print the configuration that kas makes of a machine and extras
    #[command(after_help = "Example:\n  lamadist oe dump --bsp rk1 --extra k3s")]
    Dump(OeTarget),
    /// Compose the container that BitBake can run in, as an OCI archive
    #[command(
        after_help = "Example:\n  lamadist oe container --output builder.oci.tar && podman load -i builder.oci.tar"
    )]
    Container(OeContainer),
    /// Let BitBake read every recipe
    #[command(after_help = "Example:\n  lamadist oe parse --bsp x86_64")]
    Parse(OeTarget),
}

/// `lamadist oe render`.
#[derive(Debug, Clone, Args)]
pub struct OeRender {
    /// Write nothing; fail where a file is not what would be rendered
    #[arg(long)]
    pub check: bool,
}

/// A machine and extras.
#[derive(Debug, Clone, Args)]
pub struct OeTarget {
    /// The machine (kas/bsp/)
    #[arg(long, default_value = "x86_64", value_name = "MACHINE")]
    pub bsp: String,
    /// An extra (kas/extras/); may be repeated
    #[arg(long, value_name = "EXTRA")]
    pub extra: Vec<String>,
    /// Run kas in the builder container, by podman
    #[arg(long)]
    pub container: bool,
}

/// `lamadist oe container`.
#[derive(Debug, Clone, Args)]
pub struct OeContainer {
    /// Where the archive goes [default: builder/ in the cache]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `lamadist oe shell`.
#[derive(Debug, Clone, Args)]
pub struct OeShell {
    /// With which configuration.
    #[command(flatten)]
    pub target: OeTarget,
    /// The command to run instead of a shell
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OeStep {
    /// Every recipe is read, once a machine
    Parse,
    /// All tasks of all images, the installer and the bundle are resolved, once a machine
    Graph,
    /// All tasks of the image base are gone through without running one, for the first machine
    DryRun,
    /// yocto-check-layer on both layers
    Layers,
    /// Our recipes of files alone are built to packages and signed; only where it is asked for, with
    /// programs of this machine in place of natives (apt-get install pseudo rpm debugedit)
    Packages,
}

/// `lamadist oe check`.
#[derive(Debug, Clone, Args)]
pub struct OeCheck {
    /// Where upstream's layers are checked out, a folder a repository of kas/main.lock.yml
    #[arg(long, value_name = "DIR")]
    pub layers: PathBuf,
    /// A machine (kas/bsp/); may be repeated [default: all]
    #[arg(long, value_name = "MACHINE")]
    pub bsp: Vec<String>,
    /// What to check; may be repeated [default: all but packages]
    #[arg(long, value_enum, value_name = "STEP")]
    pub step: Vec<OeStep>,
    /// Where BitBake may write [default: oe-check in the cache]
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
}
