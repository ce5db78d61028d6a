// SPDX-License-Identifier: Apache-2.0
//! The options of `lamadist vm`.

use super::Target;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `lamadist vm …`.
#[derive(Debug, Subcommand)]
pub enum Vm {
    /// Start a machine from a built image, Secure Boot on, with a TPM
    #[command(after_help = "Example:\n  lamadist vm boot --name demo --display vnc")]
    Boot(VmBoot),
    /// Install a machine from the medium to a disk of its own, as on hardware
    #[command(
        after_help = "Example:\n  lamadist vm install --name node1 && lamadist vm shell --name node1"
    )]
    Install(VmInstall),
    /// Open a root shell by SSH, or run a command; starts the machine if it is not running
    #[command(after_help = "Example:\n  lamadist vm shell --name demo -- systemctl --failed")]
    Shell(VmShell),
    /// Shut a machine down
    Stop(VmName),
    /// List machines
    List,
    /// Remove a machine and its disks
    Rm(VmName),
}

/// A machine's name.
#[derive(Debug, Clone, Args)]
pub struct VmName {
    /// The machine's name
    #[arg(long, default_value = "default")]
    pub name: String,
}

/// How a machine's screen is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Display {
    /// Console in this terminal
    Console,
    /// SPICE on a local port
    Spice,
    /// VNC on a local port
    Vnc,
    /// In the background, console in a file
    None,
}

/// `lamadist vm boot`.
#[derive(Debug, Clone, Args)]
pub struct VmBoot {
    /// The machine's name.
    #[command(flatten)]
    pub name: VmName,
    /// The image it is made from.
    #[command(flatten)]
    pub target: Target,
    /// Where to see its screen
    #[arg(long, value_enum, default_value = "console")]
    pub display: Display,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    pub memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2)]
    pub cpus: u32,
}

/// `lamadist vm install`.
#[derive(Debug, Clone, Args)]
pub struct VmInstall {
    /// The machine's name.
    #[command(flatten)]
    pub name: VmName,
    /// The image it is made from.
    #[command(flatten)]
    pub target: Target,
    /// The host it becomes (hosts/NAME.toml); its addon is put on the medium
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Where host descriptions are
    #[arg(long, value_name = "DIR", env = "LAMADIST_HOSTS")]
    pub hosts: Option<PathBuf>,
    /// The size of its disk in GiB
    #[arg(long, default_value_t = 16, value_name = "GIB", value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub disk_size: u64,
    /// Answer a question of the installer (docs/INSTALL.md), as KEY=VALUE
    #[arg(long = "answer", value_name = "KEY=VALUE")]
    pub answers: Vec<String>,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    pub memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2)]
    pub cpus: u32,
}

/// `lamadist vm shell`.
#[derive(Debug, Clone, Args)]
pub struct VmShell {
    /// The machine's name.
    #[command(flatten)]
    pub name: VmName,
    /// The image it is made from, if it is not there yet.
    #[command(flatten)]
    pub target: Target,
    /// The command to run instead of a shell
    #[arg(last = true)]
    pub command: Vec<String>,
}
