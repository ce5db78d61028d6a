// SPDX-License-Identifier: Apache-2.0
//! The program on the node: it installs, tells how the machine is, and keeps it.
//!
//! One program with few dependencies, blocking, and single-threaded but for time limits; what systemd, cryptsetup, RAUC
//! and restic do well is left to them and run as programs. Parsing works on text and bytes and is
//! tested anywhere; what touches a machine is thin. Results go to standard output (`--json` for
//! programs), talk to standard error.

pub mod attest;
pub mod backup;
pub mod block;
pub mod boot_count;
pub mod cli;
pub mod clock;
pub mod cmd;
pub mod delta;
pub mod efivar;
pub mod error;
pub mod etc;
pub mod fs;
pub mod generator;
pub mod grow;
pub mod health;
pub mod ids;
pub mod install;
pub mod kernel;
pub mod keys;
pub mod loader;
pub mod luks;
pub mod machine;
pub mod node_key;
pub mod repair;
pub mod report;
pub mod run;
pub mod secret;
pub mod slot;
pub mod stream;
pub mod update;
pub mod volumes;

pub use cli::main;
pub use error::{Context, Error, Result};
