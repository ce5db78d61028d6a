// SPDX-License-Identifier: Apache-2.0
//! The commands, one a file.

pub mod build;
pub mod bundle;
pub mod channel;
pub mod clean;
pub mod host;
pub mod inspect;
pub mod keys;
pub mod lock;
pub mod netboot;
pub mod oe;
pub mod rpm;
pub mod schema;
pub mod scripts;
pub mod tools;
pub mod verify;
pub mod vm;
