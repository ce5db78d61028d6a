// SPDX-License-Identifier: Apache-2.0
//! Debian package feeds: from a mirror that nobody has to trust to files that can be.
//!
//! ```text
//! InRelease ─ signature ─▶ Release ─ hash ─▶ Packages ─▶ records ─▶ lama_solver::Universe
//!                                                             │
//!              LockedPackage ◀── pin ── resolved records ◀────┘
//!                    └─ fetch ─▶ store ─▶ Deb
//! ```
//!
//! - [`mirror`]: which servers have an archive; the administrator's word, else apt's.
//! - [`release`] (with [`openpgp`]) and [`index`]: what the archive's keys vouch for.
//! - [`store`] and [`download`]: files by their hash.
//! - [`lock`]: the pinned packages of every image.
//! - [`deb`], [`deb822`]: the formats.
//! - [`Feed`]: all of it behind one door.

mod aptconf;
mod config;
pub mod deb;
pub mod deb822;
pub mod download;
mod feed;
pub mod hash;
pub mod index;
pub mod lock;
mod lockdiff;
pub mod mirror;
pub mod openpgp;
pub mod release;
pub mod store;
mod transport;

pub use config::{Arch, FeedConfig, NoArch};
pub use deb::{Control, Deb};
pub use download::Options;
pub use feed::{Error, Feed, Result};
pub use hash::Sha256;
pub use lama_solver::{Dependencies, Essential, Recommends, Record, Request, Universe};
pub use lock::{Change, Id, Lock, LockedPackage, Renew};
pub use lockdiff::Direction;
pub use mirror::Mirrors;
pub use release::Freshness;
pub use store::Store;
