// SPDX-License-Identifier: Apache-2.0
//! Serves a fixed set of files for booting over the network: by HTTP (UEFI HTTP boot, iPXE) and by
//! TFTP (PXE), read-only.
//!
//! - [`Files`] is what there is: names and open files, or short texts. A name is looked up and
//!   never made into a path, so no request reaches anything else.
//! - [`Server`] answers; what happens is told as [`Event`]s.
//! - [`render`] writes the iPXE script, and what a network's DHCP server has to be told.
//!
//! It knows nothing of how the files came about. HTTP is hyper's, TFTP is async-tftp's.

mod error;
mod event;
mod files;
mod http;
pub mod render;
mod server;
mod tftp;

pub use error::{Error, Result};
pub use event::{Event, Protocol};
pub use files::{Entry, Files};
pub use render::{Architecture, Place};
pub use server::{Options, Server, Stopper};
