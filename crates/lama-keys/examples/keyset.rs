// SPDX-License-Identifier: Apache-2.0
//! Makes or opens a development set: `cargo run -p lama-keys --example keyset -- DIR`.

use lama_exec::Quiet;

fn main() -> miette::Result<()> {
    let dir = std::env::args_os().nth(1).unwrap_or_else(|| "keys".into());
    let set = lama_keys::KeySet::open_or_create_development(dir, &Quiet)?;
    println!("{:#?}", set.status());
    println!("{:?}", set.ukify_args()?);
    Ok(())
}
