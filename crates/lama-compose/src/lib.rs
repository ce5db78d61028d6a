// SPDX-License-Identifier: Apache-2.0
//! Packages and rules become a root tree. No maintainer script runs, nothing needs root or the
//! architecture's own processor, and the same input gives the same tree.
//!
//! The order of [`compose`]:
//!
//! 1. [`unpack`]: every package's archive, decompressed once and mapped.
//! 2. [`review`]: no script that nobody has read.
//! 3. [`merge`]: one tree; merged /usr, path filters, diversions, conflicts. [`modules`]: the
//!    kernel's, decompressed.
//! 4. [`effects`]: what the reviewed scripts are replaced by; `distro/files/` laid over.
//! 5. [`accounts`], [`pam`], [`presets`], [`var`]: the pure steps.
//! 6. [`tool`]: the steps that external tools do, kept by the digest of their inputs.
//!
//! [`tools_tree`] makes the folder that those tools come from, of packages as well.

pub mod accounts;
pub mod apparmor;
mod builder;
mod compose;
mod dropins;
pub mod effects;
mod error;
mod glob;
pub mod manifest;
pub mod merge;
pub mod modules;
pub mod pam;
pub mod presets;
pub mod review;
pub mod tool;
mod tools;
pub mod unpack;
pub mod var;

pub use builder::{LOCALE, builder_name, builder_tree};
pub use compose::{ComposeInput, Kernel, Root, compose, findings};
pub use error::{Error, Result};
pub use glob::{Excludes, matches};
pub use tools::{tools_tree, tools_tree_path};

use std::path::PathBuf;

/// A package to compose from: where its file is and what the lock says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageInput {
    /// The `.deb`.
    pub deb: PathBuf,
    /// SHA-256 of the file, in lower-case hexadecimal, checked by whoever fetched it.
    pub sha256: String,
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub arch: String,
    /// The name of its source package.
    pub source: String,
}
