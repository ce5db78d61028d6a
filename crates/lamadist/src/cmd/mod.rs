// SPDX-License-Identifier: Apache-2.0
//! The commands, one a file.

pub mod clean;
pub mod keys;
pub mod schema;
