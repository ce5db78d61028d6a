// SPDX-License-Identifier: Apache-2.0
//! The description of the distribution: `distro/` parsed, checked and resolved.
//!
//! No network, no process. Every file is TOML; unknown keys, missing references, cycles and
//! partitions that overlap are errors that name file and line (see [`Error`]). What a build needs of
//! one machine and image is a [`Selection`].

mod check;
mod distro;
mod error;
pub mod files;
#[cfg(feature = "host")]
pub mod host;
pub mod ids;
mod image;
pub mod layout;
mod load;
mod machine;
pub mod node;
pub mod oe;
pub mod rauc;
mod schema;
pub mod scripts;
mod select;

pub use distro::{Distro, Feed, Migration, Toolchain, Track};
pub use error::{Error, Result, parse};
pub use image::{Compression, Image, PackageGroup};
pub use layout::Layout;
pub use load::Description;
pub use machine::{Arch, Boot, Debian, Loader, Machine, Version};
pub use schema::{SCHEMAS, schema};
pub use select::Selection;
