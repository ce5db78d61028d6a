// SPDX-License-Identifier: Apache-2.0
//! Delta bundles: what a machine that runs an earlier version needs of a bundle.
//!
//! Their format, and how a bundle is made out of one, is `lama_node::delta`'s.

pub mod diff;
mod make;

pub use make::{Made, make, rebuild};
