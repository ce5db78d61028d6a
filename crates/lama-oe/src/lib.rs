// SPDX-License-Identifier: Apache-2.0
//! The oe engine: the layers' files that repeat the description, and BitBake driven by kas.
//!
//! - [`render`]: what `distro/` says, as files of `meta-lamadist` and `meta-lamadist-bsp`.
//! - [`host`], [`kas`], [`events`]: what the machine must have, which layers there are, how a build
//!   goes on.
//! - [`build`]: a build, followed by its events.
//! - [`container`]: kas in a container, by podman.
//! - [`check`]: the layers with their upstream, without building anything.
//! - [`packages`]: recipes of files alone, really built.
//! - [`import`]: what BitBake made, as a root tree.

pub mod build;
pub mod check;
pub mod container;
pub mod events;
pub mod host;
pub mod import;
pub mod kas;
pub mod packages;
pub mod render;
