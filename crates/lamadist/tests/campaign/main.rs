// SPDX-License-Identifier: Apache-2.0
//! What takes too long for every change: `mise run campaign`, or
//! `cargo test -p lamadist -- --ignored --nocapture --test-threads 1`. docs/CONTRIBUTING.md has what was
//! seen of each.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod bootcount;
#[path = "../common/mod.rs"]
mod common;
mod failing;
mod install;
mod mute;
mod refused;
mod rotation;
mod secret;
mod update;
