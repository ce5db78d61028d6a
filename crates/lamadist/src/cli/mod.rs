// SPDX-License-Identifier: Apache-2.0
//! The command line. Flags mean the same everywhere; every command shows an example.

mod channel;
mod host;
mod oe;
mod rpm;
mod vm;

pub use channel::*;
pub use host::*;
pub use oe::*;
pub use rpm::*;
pub use vm::*;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Builds, signs, boots and ships LamaDist: an immutable, encrypted, self-updating Linux
/// distribution for home-lab machines.
#[derive(Debug, Parser)]
#[command(name = "lamadist", version, max_term_width = 100, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  lamadist build                          the image base for x86_64, into deploy/
  lamadist vm boot --name demo            boot it under Secure Boot, console in this terminal
  lamadist vm shell --name demo -- uname -a";

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Say nothing but errors
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice: everything
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Print results as JSON on standard output, and errors as JSON on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// The description of the distribution [default: distro/ of the checkout around the working
    /// directory]
    #[arg(long, global = true, value_name = "DIR", env = "LAMADIST_DISTRO")]
    pub distro: Option<PathBuf>,
    /// Where packages, tools and intermediate results are kept [default: ~/.cache/lamadist]
    #[arg(long, global = true, value_name = "DIR", env = "LAMADIST_CACHE")]
    pub cache: Option<PathBuf>,
    /// Where key sets are kept [default: keys/ of the checkout]
    #[arg(long, global = true, value_name = "DIR", env = "LAMADIST_KEYS")]
    pub keys: Option<PathBuf>,
    /// A package mirror: URL, or ARCHIVE=URL (debian, debian-security); may be repeated
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LAMADIST_MIRROR",
        value_delimiter = ' '
    )]
    pub mirror: Vec<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image: packages to a signed, bootable disk
    Build(Build),
    /// Boot and use images in virtual machines
    #[command(subcommand)]
    Vm(Vm),
    /// Describe single machines, and sign what they are called and how they are reached
    #[command(subcommand)]
    Host(Host),
    /// Serve the installer for booting over the network: UEFI HTTP boot, iPXE and PXE
    Netboot(Netboot),
    /// Pin the packages of all images in distro/lamadist.lock
    Lock(Lock),
    /// Make, show and rotate the keys that sign images
    #[command(subcommand)]
    Keys(Keys),
    /// Build from source with OpenEmbedded: render, check, and drive the layers
    #[command(subcommand)]
    Oe(Oe),
    /// Sign and verify RPM packages and feeds
    #[command(subcommand)]
    Rpm(Rpm),
    /// Show or record the review of packages' maintainer scripts
    Scripts(Scripts),
    /// Print the JSON Schema of the description's files
    Schema(Schema),
    /// Print where the tools tree is, or run one of its programs in the working directory
    Tools(ToolsCmd),
    /// Make the update bundle of a build, or a delta bundle to it
    Bundle(Bundle),
    /// Publish a build's bundle: a signed channel file, and what it names, for any web server
    Channel(Channel),
    /// Tell what an artefact is: a build's index.json, a bundle, a delta bundle, a channel file
    Inspect(Inspect),
    /// Tell whether a bundle may be installed, or a channel file believed: signature, every byte
    Verify(Verify),
    /// Remove what can be made again
    Clean(Clean),
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Which engine makes the root tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Signed Debian packages, composed in seconds
    Debian,
    /// OpenEmbedded: everything from source, by kas and BitBake; takes hours
    Oe,
}

/// A machine and an image.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The machine (distro/machines/)
    #[arg(long, default_value = "x86_64", value_name = "MACHINE")]
    pub bsp: String,
    /// The image (distro/images/)
    #[arg(long, default_value = "base", value_name = "IMAGE")]
    pub image: String,
    /// Where artefacts go, below MACHINE/IMAGE [default: deploy/ of the checkout]
    #[arg(long, value_name = "DIR", env = "LAMADIST_DEPLOY")]
    pub deploy: Option<PathBuf>,
}

/// `lamadist build`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  lamadist build --bsp x86_64 --image homelab")]
pub struct Build {
    /// What to build.
    #[command(flatten)]
    pub target: Target,
    /// The engine that makes the root tree
    #[arg(long, value_enum, default_value = "debian")]
    pub engine: Engine,
    /// An extra of the oe engine (kas/extras/); may be repeated
    #[arg(long, value_name = "EXTRA")]
    pub extra: Vec<String>,
    /// Run the oe engine's kas in the builder container, by podman
    #[arg(long)]
    pub container: bool,
    /// Fail where distro/lamadist.lock does not pin every package
    #[arg(long)]
    pub locked: bool,
    /// A release: refuses development keys, uncommitted changes and an unlocked build
    #[arg(long)]
    pub release: bool,
    /// Stop after this stage and write its result
    #[arg(long, value_enum, default_value = "bundle")]
    pub until: Until,
}

/// The stages that `build --until` can stop after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Until {
    /// The root tree, as root.tar in the deploy folder
    Root,
    /// The disk, its parts, and what describes them
    Disk,
    /// Everything: the update bundle as well
    Bundle,
}

/// `lamadist lock`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  lamadist lock                      pin what is missing
  lamadist lock --update             renew everything, and show what changes
  lamadist lock --update openssl     renew one source package's packages")]
pub struct Lock {
    /// Renew all packages, or the named ones
    #[arg(long, num_args = 0.., value_name = "PACKAGE")]
    pub update: Option<Vec<String>>,
    /// Show what would change; write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the packages of a set: MACHINE/IMAGE, or tools/, toolchain/ or toolchain-std/ARCHITECTURE
    #[arg(long, value_name = "SET", conflicts_with = "update")]
    pub print: Option<String>,
}

/// `lamadist keys …`.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key set: development keys, or with --release a release set
    #[command(after_help = "Example:\n  lamadist keys init --release --name lamadist-2026")]
    Init {
        /// A release set instead of development keys
        #[arg(long)]
        release: bool,
        /// Its name
        #[arg(long, default_value = "lamadist")]
        name: String,
        /// Private keys that live elsewhere: ROLE=FILE with ROLE.crt beside, or ROLE=pkcs11:… with
        /// ROLE.crt in the working directory
        #[arg(long, value_name = "ROLE=KEY")]
        key: Vec<String>,
        /// The PKCS#11 module, as the tools see it [default: the one of p11-kit]
        #[arg(long, value_name = "FILE")]
        pkcs11_module: Option<PathBuf>,
        /// What the module needs of this machine, such as /run/pcscd; may be repeated
        #[arg(long, value_name = "PATH")]
        pkcs11_path: Vec<PathBuf>,
    },
    /// Show a key set's roles, fingerprints and problems
    Status {
        /// The release set instead of the development set
        #[arg(long)]
        release: bool,
    },
    /// Replace a role's key; the old public part stays valid beside the new one
    #[command(after_help = "Examples:
  lamadist keys rotate db             a new db key, the old one still honoured
  lamadist keys rotate --finish db    the old one is honoured no longer")]
    Rotate {
        /// pk, kek, db, pcr, rauc-ca, rauc-signing, rauc-encryption or openpgp
        role: String,
        /// End the change: forget the previous key
        #[arg(long)]
        finish: bool,
        /// The new key, where it is not to be generated: FILE, or pkcs11:…; with ROLE.crt as for init
        #[arg(long, value_name = "KEY", conflicts_with = "finish")]
        key: Option<String>,
        /// rauc-ca, where the old one's private key is not at hand: a certificate of the new CA's key by
        /// the old CA
        #[arg(long, value_name = "FILE", conflicts_with = "finish")]
        cross: Option<PathBuf>,
        /// The release set instead of the development set
        #[arg(long)]
        release: bool,
    },
    /// Write the files that a firmware enrolls (enroll/ of the set) anew
    Enroll {
        /// The release set instead of the development set
        #[arg(long)]
        release: bool,
    },
}

/// `lamadist netboot`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  lamadist netboot --no-tftp                       for any machine, by HTTP only
  lamadist netboot --host nas --answer disk=/dev/nvme0n1 --answer wipe=yes --once")]
pub struct Netboot {
    /// The image that is served.
    #[command(flatten)]
    pub target: Target,
    /// A machine that gets an installer of its own (see `lamadist host`); may be repeated
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// Where hosts are described.
    #[command(flatten)]
    pub hosts: Hosts,
    /// An answer for the installer, in place of the host's own; without --host for any machine; may
    /// be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub answer: Vec<String>,
    /// The address to listen on [default: all]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<std::net::IpAddr>,
    /// The port for HTTP; 0 for any
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub http_port: u16,
    /// The port for TFTP; 0 for any. PXE asks at 69 only
    #[arg(long, value_name = "PORT", default_value_t = 69)]
    pub tftp_port: u16,
    /// No TFTP, and so no PXE without iPXE
    #[arg(long, conflicts_with = "tftp_port")]
    pub no_tftp: bool,
    /// Which DHCP server to print the lines for
    #[arg(long, value_enum, default_value = "dnsmasq")]
    pub dhcp: Dhcp,
    /// Stop after so many complete downloads of an installer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Stop after the first complete download of an installer
    #[arg(long, conflicts_with = "count")]
    pub once: bool,
}

/// DHCP servers that can be told where the installer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dhcp {
    /// dnsmasq, as the network's DHCP server
    Dnsmasq,
    /// dnsmasq beside another DHCP server, which stays as it is
    Proxy,
    /// ISC dhcpd
    Isc,
    /// Kea
    Kea,
}

/// `lamadist scripts`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  lamadist scripts                                  what waits for a review
  lamadist scripts --record less --why 'alternatives of pager; links in our files'")]
pub struct Scripts {
    /// What to look at.
    #[command(flatten)]
    pub target: Target,
    /// Record that this package's scripts have been reviewed
    #[arg(long, value_name = "PACKAGE", requires = "why")]
    pub record: Option<String>,
    /// What was found, and why it is handled so
    #[arg(long, value_name = "REASON")]
    pub why: Option<String>,
}

/// `lamadist tools`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  lamadist tools -- fsck.erofs deploy/x86_64/base/root.erofs")]
pub struct ToolsCmd {
    /// The program and its arguments
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// `lamadist schema`.
#[derive(Debug, Clone, Args)]
pub struct Schema {
    /// Which one: distro, machine, image, packagegroup, layout
    pub name: Option<String>,
}

/// `lamadist bundle`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  lamadist bundle --host nas
  lamadist bundle --from older/lamadist.raucb --output from-1.4.0.delta")]
pub struct Bundle {
    /// What it is of; built where it is not there
    #[command(flatten)]
    pub target: Target,
    /// A machine's certificate (PEM) to encrypt it to, besides the key set's; may be repeated
    #[arg(long, value_name = "FILE")]
    pub to: Vec<PathBuf>,
    /// A machine whose certificate `lamadist host certificate` has taken up; may be repeated
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// Where hosts are described.
    #[command(flatten)]
    pub hosts: Hosts,
    /// Make a delta bundle from this version: its bundle, or the folder of its build
    #[arg(long, value_name = "OLD")]
    pub from: Option<PathBuf>,
    /// Where the delta bundle goes [default: from-VERSION.delta beside the bundle]
    #[arg(long, short, value_name = "FILE", requires = "from")]
    pub output: Option<PathBuf>,
}

/// `lamadist inspect`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  lamadist inspect deploy/x86_64/base/lamadist.raucb --json")]
pub struct Inspect {
    /// An index.json, or the folder it is in; a bundle; a delta bundle; a channel file
    pub file: PathBuf,
    /// Open it with the release key set instead of the development set
    #[arg(long)]
    pub release: bool,
}

/// `lamadist verify`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  lamadist verify deploy/x86_64/base/lamadist.raucb
  lamadist verify from-1.4.0.delta --from older/lamadist.raucb")]
pub struct Verify {
    /// The bundle, a delta bundle, or a channel file with what it names beside it
    pub file: PathBuf,
    /// Of a delta bundle: the version that it begins with, its bundle or the folder of its build. The
    /// bundle is made out of both, as a machine does it, and checked
    #[arg(long, value_name = "OLD")]
    pub from: Option<PathBuf>,
    /// Certificates to trust (PEM) [default: those of the key set]
    #[arg(long, value_name = "FILE")]
    pub keyring: Option<PathBuf>,
    /// The release key set instead of the development set
    #[arg(long)]
    pub release: bool,
}

/// `lamadist clean`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  lamadist clean --tools")]
pub struct Clean {
    /// The tools tree, the toolchain of the node's program, and the builder container
    #[arg(long)]
    pub tools: bool,
    /// Downloaded and unpacked packages
    #[arg(long)]
    pub packages: bool,
    /// What packages were unpacked to; downloads stay
    #[arg(long)]
    pub unpacked: bool,
    /// Intermediate results that a build goes on from
    #[arg(long)]
    pub results: bool,
    /// Everything in the cache, and deploy/
    #[arg(long)]
    pub all: bool,
}
