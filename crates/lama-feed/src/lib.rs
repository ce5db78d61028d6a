// SPDX-License-Identifier: Apache-2.0
//! NOTE (lead): solver lives in crates/lama-solver, by another helper; read README-SOLVER-MOVED.txt in this crate.
//! Debian package feeds: signatures, indexes, solver, lock, download, store.

pub mod deb;
pub mod deb822;
