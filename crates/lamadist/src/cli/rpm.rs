// SPDX-License-Identifier: Apache-2.0
//! The options of `lamadist rpm`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `lamadist rpm …`.
#[derive(Debug, Subcommand)]
pub enum Rpm {
    /// Sign packages in place; what the current key has signed already is left alone
    #[command(after_help = "Examples:
  lamadist rpm sign                            what BitBake left
  lamadist rpm sign packages/ --release")]
    Sign(RpmSign),
    /// Tell who signed packages and feeds: the current key, a previous one, or nobody that is trusted
    #[command(after_help = "Example:\n  lamadist rpm verify packages/ --json")]
    Verify(RpmPaths),
    /// Sign the index of a feed (repodata/), whose packages have to be signed
    #[command(after_help = "Examples:
  createrepo_c packages/
  lamadist rpm feed packages/")]
    Feed(RpmFeed),
    /// Print the public keys that packages are trusted by, the previous ones included
    #[command(after_help = "Example:\n  lamadist rpm key > RPM-GPG-KEY-lamadist")]
    Key {
        /// The release key set instead of the development set
        #[arg(long)]
        release: bool,
    },
}

/// Packages and folders.
#[derive(Debug, Clone, Args)]
pub struct RpmPaths {
    /// Packages, or folders with packages in them and below [default: tmp/deploy/rpm of BitBake]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The release key set instead of the development set
    #[arg(long)]
    pub release: bool,
}

/// `lamadist rpm sign`.
#[derive(Debug, Clone, Args)]
pub struct RpmSign {
    /// What.
    #[command(flatten)]
    pub what: RpmPaths,
    /// Replace signatures of keys that are not in the set, too
    #[arg(long)]
    pub replace: bool,
}

/// `lamadist rpm feed`.
#[derive(Debug, Clone, Args)]
pub struct RpmFeed {
    /// The feed's folder [default: tmp/deploy/rpm of BitBake]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The release key set instead of the development set
    #[arg(long)]
    pub release: bool,
}
