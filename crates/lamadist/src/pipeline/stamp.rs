// SPDX-License-Identifier: Apache-2.0
//! Whether there is anything to do: a digest over all that a build depends on, kept beside its
//! result.

use lama_exec::fs::{self, AtPath};
use miette::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file in the deploy folder.
const NAME: &str = ".stamp.json";

/// What a finished build was made from and left behind.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stamp {
    /// Digest of the inputs.
    inputs: String,
    /// The artefacts: name, size in bytes, modification time in nanoseconds since 1970.
    files: Vec<(String, u64, i128)>,
}

/// Collects the inputs of a build.
#[derive(Default)]
pub struct Inputs(Sha256);

impl Inputs {
    /// Starts with the program itself: another lamadist may build differently.
    pub fn new() -> Result<Self> {
        let mut this = Self(Sha256::new());
        this.file(Path::new("/proc/self/exe"))?;
        Ok(this)
    }

    /// A value.
    pub fn value(&mut self, name: &str, value: impl AsRef<[u8]>) {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    /// A file's content.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        let data = fs::read(path)?;
        self.0.update((data.len() as u64).to_le_bytes());
        self.0.update(&data);
        Ok(())
    }

    /// Everything below a folder, but for one file in it.
    pub fn folder_without(mut self, dir: &Path, file: &Path) -> Result<Self> {
        self.folder(dir, file)?;
        Ok(self)
    }

    /// Names, kinds, whether executable, contents.
    fn folder(&mut self, dir: &Path, without: &Path) -> Result<()> {
        for e in fs::read_dir(dir)? {
            let path = e.path();
            if path == without {
                continue;
            }
            let meta = e.metadata().at("look at", &path)?;
            self.value("path", e.file_name().to_string_lossy().as_bytes());
            if meta.is_dir() {
                self.value("kind", "folder");
                self.folder(&path, without)?;
                self.value("kind", "end");
            } else if meta.is_symlink() {
                self.value("link", fs::read_link(&path)?.to_string_lossy().as_bytes());
            } else {
                let exec = meta.permissions().mode() & 0o111 != 0;
                self.value("kind", if exec { "program" } else { "file" });
                self.file(&path)?;
            }
        }
        Ok(())
    }

    /// The digest of all.
    pub fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

fn look(dir: &Path, name: &str) -> Result<(String, u64, i128)> {
    let m = fs::metadata(dir.join(name))?;
    let time = i128::from(m.mtime()) * 1_000_000_000 + i128::from(m.mtime_nsec());
    Ok((name.to_owned(), m.size(), time))
}

/// The stamp in `dir`, where its files are as it says.
fn untouched(dir: &Path) -> Option<Stamp> {
    let data = fs::read_optional(dir.join(NAME)).ok()??;
    let stamp: Stamp = serde_json::from_slice(&data).ok()?;
    let mut files = stamp.files.iter();
    let same = files.all(|f| look(dir, &f.0).is_ok_and(|now| now == *f));
    same.then_some(stamp)
}

/// Whether `dir` holds the finished result of these inputs, untouched.
pub fn fresh(dir: &Path, inputs: &str) -> bool {
    untouched(dir).is_some_and(|s| s.inputs == inputs)
}

/// Changes something in `dir` that is its result afterwards as much as before: what was up to date
/// stays so.
pub fn keep<T>(dir: &Path, change: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = untouched(dir);
    let done = change()?;
    if let Some(stamp) = before {
        let files: Vec<PathBuf> = stamp.files.into_iter().map(|f| f.0.into()).collect();
        record(dir, stamp.inputs, &files)?;
    }
    Ok(done)
}

/// Forgets the result in `dir` before it is overwritten.
pub fn forget(dir: &Path) -> Result<()> {
    Ok(fs::remove_file(dir.join(NAME))?)
}

/// Records that `dir` holds the result of these inputs.
pub fn record(dir: &Path, inputs: String, files: &[PathBuf]) -> Result<()> {
    let files = files
        .iter()
        .filter_map(|f| f.file_name().and_then(|n| n.to_str()))
        .map(|n| look(dir, n))
        .collect::<Result<_>>()?;
    let text = serde_json::to_vec(&Stamp { inputs, files }).unwrap_or_default();
    Ok(fs::write_atomic(dir.join(NAME), text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(dir: &Path) -> String {
        let lock = dir.join("lock");
        let i = Inputs::default().folder_without(dir, &lock).unwrap();
        i.finish()
    }

    #[test]
    fn every_change_of_a_folder_counts() {
        let d = tempfile::tempdir().unwrap();
        let p = d.path();
        fs::write(p.join("a"), "1").unwrap();
        let mut seen = vec![digest(p)];
        let mut changed = |what: &str| {
            let now = digest(p);
            assert!(!seen.contains(&now), "{what} was not noticed");
            seen.push(now);
        };
        fs::write(p.join("a"), "2").unwrap();
        changed("other content");

        fs::rename(p.join("a"), p.join("b")).unwrap();
        changed("another name");
        std::fs::set_permissions(p.join("b"), PermissionsExt::from_mode(0o755)).unwrap();
        changed("the execute bit");
        fs::create_dir_all(p.join("c")).unwrap();
        changed("a new folder");
        fs::rename(p.join("b"), p.join("c/b")).unwrap();
        changed("a move into a folder");
        let before = digest(p);
        fs::write(p.join("lock"), "2").unwrap();
        assert_eq!(digest(p), before, "the lock counts apart");
    }

    #[test]
    fn a_touched_artefact_is_no_longer_fresh() {
        let d = tempfile::tempdir().unwrap();
        let p = d.path();
        assert!(!fresh(p, "x"));
        fs::write(p.join("disk"), "1").unwrap();
        record(p, "x".into(), &[p.join("disk")]).unwrap();
        assert!(fresh(p, "x") && !fresh(p, "y"));
        fs::write(p.join("disk"), "22").unwrap();
        assert!(!fresh(p, "x"));
        // Done again by us, it is; but not where somebody else had been there before.
        keep(p, || Ok(fs::write(p.join("disk"), "333")?)).unwrap();
        assert!(!fresh(p, "x"));
        record(p, "x".into(), &[p.join("disk")]).unwrap();
        keep(p, || Ok(fs::write(p.join("disk"), "4444")?)).unwrap();
        assert!(fresh(p, "x") && !fresh(p, "y"));
        fs::write(p.join(NAME), "{broken").unwrap();
        assert!(!fresh(p, "x"));
    }
}
