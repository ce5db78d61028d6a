// SPDX-License-Identifier: Apache-2.0
//! The options of `lamadist host`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `lamadist host …`.
#[derive(Debug, Subcommand)]
pub enum Host {
    /// Describe a machine in hosts/NAME.toml, and sign its addon
    #[command(after_help = "Example:
  lamadist host add nas --ssh-key ~/.ssh/id_ed25519.pub --time-zone Europe/Berlin \\
      --interface 'en*' --address 192.168.1.5/24 --gateway 192.168.1.1 --dns 192.168.1.1")]
    Add(Box<HostAdd>),
    /// List the machines that are described
    List(Hosts),
    /// Print the kernel parameters that a machine's addon holds, and those of its installer
    Show(HostName),
    /// Sign a machine's addon anew, after its file was edited
    #[command(after_help = "Example:\n  lamadist host addon nas --output nas.addon.efi")]
    Addon(HostAddon),
    /// Take up the certificate that bundles are encrypted to for this machine
    #[command(after_help = "Example:
  ssh root@nas lama-node key > nas.crt && lamadist host certificate nas nas.crt")]
    Certificate(HostCertificate),
    /// Put a machine's addon on a medium, and the installer's answers, in place of those there
    #[command(after_help = "Example:
  cp deploy/x86_64/base/disk.raw nas.raw && lamadist host put nas nas.raw")]
    Put(HostPut),
    /// Forget a machine
    Rm(HostName),
}

/// Where hosts are described.
#[derive(Debug, Clone, Args)]
pub struct Hosts {
    /// Where hosts are described [default: hosts/ of the checkout]
    #[arg(long, value_name = "DIR", env = "LAMADIST_HOSTS")]
    pub hosts: Option<PathBuf>,
}

/// One host.
#[derive(Debug, Clone, Args)]
pub struct HostName {
    /// Its name: the name of its file
    pub name: String,
    /// Where it is described.
    #[command(flatten)]
    pub hosts: Hosts,
}

/// `lamadist host add`.
#[derive(Debug, Clone, Args)]
pub struct HostAdd {
    /// Which one.
    #[command(flatten)]
    pub host: HostName,
    /// The machine it is (distro/machines/)
    #[arg(long, default_value = "x86_64", value_name = "MACHINE")]
    pub bsp: String,
    /// Its host name [default: NAME]
    #[arg(long)]
    pub hostname: Option<String>,
    /// Its machine ID, 32 hexadecimal digits [default: a random one]
    #[arg(long, value_name = "ID")]
    pub machine_id: Option<String>,
    /// Its time zone, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// A file of SSH public keys that may log in as root; may be repeated
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Vec<PathBuf>,
    /// One more console, such as ttyS1,115200; may be repeated
    #[arg(long)]
    pub console: Vec<String>,
    /// The network interface to configure, by name, with wildcards
    #[arg(long, value_name = "NAME", conflicts_with = "mac")]
    pub interface: Option<String>,
    /// The network interface to configure, by hardware address
    #[arg(long, value_name = "ADDRESS")]
    pub mac: Option<String>,
    /// An address with prefix length; without one DHCP is asked; may be repeated
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    pub address: Vec<String>,
    /// A default gateway; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Vec<String>,
    /// A DNS server; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<String>,
    /// A search domain; may be repeated
    #[arg(long)]
    pub domain: Vec<String>,
    /// A time server; may be repeated
    #[arg(long, value_name = "SERVER")]
    pub ntp: Vec<String>,
    /// The server that its updates come from, http or https
    #[arg(long, value_name = "URL")]
    pub update_url: Option<String>,
    /// The line of releases that it follows (tracks in distro/lamadist.toml)
    #[arg(long, value_name = "TRACK")]
    pub track: Option<String>,
    /// Answer a question of the installer (docs/INSTALL.md), as KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub answer: Vec<String>,
    /// Sign with the release key set instead of the development set
    #[arg(long)]
    pub release: bool,
}

/// `lamadist host addon`.
#[derive(Debug, Clone, Args)]
pub struct HostAddon {
    /// Which one.
    #[command(flatten)]
    pub host: HostName,
    /// Where the addon goes [default: deploy/hosts/NAME.addon.efi]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Sign with the release key set instead of the development set
    #[arg(long)]
    pub release: bool,
}

/// `lamadist host certificate`.
#[derive(Debug, Clone, Args)]
pub struct HostCertificate {
    /// Which one.
    #[command(flatten)]
    pub host: HostName,
    /// What `lama-node key` printed on the machine (PEM); without it, show the one that was taken up
    pub file: Option<PathBuf>,
    /// Take it in place of another one
    #[arg(long)]
    pub replace: bool,
}

/// `lamadist host put`.
#[derive(Debug, Clone, Args)]
pub struct HostPut {
    /// Which one.
    #[command(flatten)]
    pub host: HostName,
    /// The medium: a disk image, or a device such as /dev/sdX
    pub disk: PathBuf,
    /// Sign with the release key set instead of the development set
    #[arg(long)]
    pub release: bool,
}
