// SPDX-License-Identifier: Apache-2.0
//! The lamadist command line.
fn main() {}
