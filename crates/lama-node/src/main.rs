// SPDX-License-Identifier: Apache-2.0
//! `lama-node`: see the library.

fn main() -> std::process::ExitCode {
    lama_node::main()
}
