// SPDX-License-Identifier: Apache-2.0
//! The crates that the program on the node is made of, as a folder that cargo takes for a registry
//! (<https://doc.rust-lang.org/cargo/reference/source-replacement.html#directory-sources>). They
//! come from where the user's own cargo keeps its downloads; what counts is that each one is what
//! `Cargo.lock` pins.

use super::lockfile::Pinned;
use lama_exec::{Tools, fs};
use miette::{Result, miette};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Unpacks the crates to `to`. Where some are missing cargo is asked to fetch those of the project
/// first.
pub fn vendor(project: &Path, crates: &[Pinned], to: &Path) -> Result<()> {
    let home = cargo_home()?;
    let mut found = look(&home, crates)?;
    if found.iter().any(Option::is_none) {
        fetch(project)?;
        found = look(&home, crates)?;
    }
    let missing: Vec<String> = crates
        .iter()
        .zip(&found)
        .filter(|(_, f)| f.is_none())
        .map(|(c, _)| c.to_string())
        .collect();
    if !missing.is_empty() {
        return Err(miette!(
            help = "set CARGO_HOME to where cargo keeps its downloads",
            "`cargo fetch` succeeded, but {} has no {}",
            home.join("registry/cache").display(),
            missing.join(", ")
        ));
    }
    for (c, data) in crates.iter().zip(found) {
        unpack(c, &data.unwrap_or_default(), to)?;
    }
    Ok(())
}

/// Where the user's cargo keeps its downloads.
fn cargo_home() -> Result<PathBuf> {
    if let Some(d) = std::env::var_os("CARGO_HOME").filter(|d| !d.is_empty()) {
        return std::path::absolute(&d).map_err(|e| miette!("CARGO_HOME cannot be used: {e}"));
    }
    let home = std::env::home_dir().filter(|h| h.is_absolute());
    home.map(|h| h.join(".cargo")).ok_or_else(|| {
        miette!(
            help = "set HOME, or CARGO_HOME",
            "there is no home folder to look for cargo's downloads in"
        )
    })
}

/// Has cargo fetch what the project's lock pins.
fn fetch(project: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = Tools::host().command(cargo).args(["fetch", "--locked"]);
    run.cwd(project).run().map_err(|e| {
        miette!(
            help = "run `cargo fetch --locked` there, with a network",
            "the crates of the program on the node cannot be fetched in {}: {e}",
            project.display()
        )
    })?;
    Ok(())
}

/// The `.crate` files, in the order of `crates`; none where one is not there.
fn look(home: &Path, crates: &[Pinned]) -> Result<Vec<Option<Vec<u8>>>> {
    let cache = home.join("registry/cache");
    let registries = if cache.is_dir() {
        fs::read_dir(&cache)?
    } else {
        Vec::new()
    };
    let one = |c: &Pinned| -> Result<Option<Vec<u8>>> {
        let mut wrong = None;
        for r in &registries {
            let path = r.path().join(format!("{c}.crate"));
            let Some(data) = fs::read_optional(&path)? else {
                continue;
            };
            let digest = hex::encode(Sha256::digest(&data));
            if digest == c.checksum {
                return Ok(Some(data));
            }
            wrong = Some((path, digest));
        }
        match wrong {
            None => Ok(None),
            Some((path, digest)) => Err(miette!(
                help = "remove it; cargo fetches it again",
                "{} is not the crate that Cargo.lock pins: its SHA-256 is {digest}, not {}",
                path.display(),
                c.checksum
            )),
        }
    };
    crates.iter().map(one).collect()
}

/// Unpacks one crate, whose checksum was right, into a folder of `to`.
fn unpack(c: &Pinned, data: &[u8], to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let dir = to.join(c.to_string());
    let unpacked = tar::Archive::new(flate2::read::GzDecoder::new(data)).unpack(to);
    unpacked.map_err(|e| miette!("{c} cannot be unpacked to {}: {e}", to.display()))?;
    let sums = serde_json::json!({ "files": {}, "package": c.checksum });
    Ok(fs::write(
        dir.join(".cargo-checksum.json"),
        sums.to_string(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A home of cargo's with one crate in it, and how that is pinned.
    fn home(dir: &Path) -> Pinned {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
            Vec::new(),
            flate2::Compression::fast(),
        ));
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o644);
        let name = "a-1.0.0/src/lib.rs";
        tar.append_data(&mut header, name, &b"//"[..]).unwrap();
        let data = tar.into_inner().unwrap().finish().unwrap();
        let cache = dir.join("registry/cache/index-1");
        fs::create_dir_all(&cache).unwrap();
        fs::write(cache.join("a-1.0.0.crate"), &data).unwrap();
        Pinned {
            name: "a".into(),
            version: "1.0.0".into(),
            checksum: hex::encode(Sha256::digest(&data)),
        }
    }

    #[test]
    fn a_crate_becomes_a_folder_with_its_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let a = home(dir.path());
        let found = look(dir.path(), std::slice::from_ref(&a)).unwrap();
        let data = found.into_iter().next().unwrap().unwrap();
        let to = dir.path().join("vendor");
        unpack(&a, &data, &to).unwrap();
        assert_eq!(fs::read(to.join("a-1.0.0/src/lib.rs")).unwrap(), b"//");
        let sums = fs::read_to_string(to.join("a-1.0.0/.cargo-checksum.json")).unwrap();
        let sums: serde_json::Value = serde_json::from_str(&sums).unwrap();
        assert_eq!(sums["package"], *a.checksum);
    }

    #[test]
    fn another_crate_under_its_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut a = home(dir.path());
        a.checksum = "00".repeat(32);
        let e = look(dir.path(), &[a.clone()]).unwrap_err();
        let text = e.to_string();
        for word in ["a-1.0.0.crate", "Cargo.lock", &a.checksum] {
            assert!(text.contains(word), "no {word}: {text}");
        }
        assert!(e.help().is_some());
        // One registry that has the right one is enough.
        let right = home(dir.path());
        let bad = dir.path().join("registry/cache/another");
        fs::create_dir_all(&bad).unwrap();
        fs::write(bad.join("a-1.0.0.crate"), "bad").unwrap();
        assert!(look(dir.path(), &[right]).unwrap()[0].is_some());
    }

    #[test]
    fn a_missing_crate_is_no_error_yet() {
        let dir = tempfile::tempdir().unwrap();
        let mut a = home(dir.path());
        a.version = "2.0.0".into();
        let found = look(dir.path(), std::slice::from_ref(&a)).unwrap();
        assert_eq!(found, [None]);
        assert_eq!(look(&dir.path().join("none"), &[a]).unwrap(), [None]);
    }
}
