// SPDX-License-Identifier: Apache-2.0
//! Making a key set, so that half of one never stands under its name.

use crate::error::{Error, Result};
use crate::file::{Kind, Pkcs11Access};
use crate::release::Source;
use crate::role::Role;
use crate::set::{KeySet, absolute};
use lama_exec::fs;
use lama_exec::{Progress, Tools};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

impl KeySet {
    /// Opens the key set of a directory; where there is none yet, makes a development set first and
    /// says so once. Several processes may do so at a time: one makes it, the others wait.
    /// An interruption leaves nothing under the final name.
    pub fn open_or_create_development(
        dir: impl AsRef<Path>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let dir = absolute(dir.as_ref())?;
        let _lock = match Self::open(&dir) {
            Err(Error::NotAKeySet { .. }) => lock(&dir)?,
            Ok(set) if set.file.kind == Kind::Development && set.enrolment_problem().is_some() => {
                let _lock = lock(&dir)?;
                set.write_enrolment(None)?;
                return Ok(set);
            }
            other => return other,
        };
        match Self::open(&dir) {
            Err(Error::NotAKeySet { .. }) => {}
            other => return other,
        }
        let sources = Role::ALL.iter().map(|r| (*r, Source::Generate)).collect();
        Self::create(
            &dir,
            Kind::Development,
            "development",
            sources,
            None,
            None,
            progress,
        )?;
        progress.note(&format!(
            "made development keys in {} (NOT FOR RELEASE; a release needs `lamadist keys init --release`)",
            dir.display()
        ));
        Self::open(&dir)
    }

    /// Makes a set in a temporary sibling of `dir` and moves it there. The lock is held.
    pub(crate) fn create(
        dir: &Path,
        kind: Kind,
        name: &str,
        sources: BTreeMap<Role, Source>,
        pkcs11: Option<Pkcs11Access>,
        tools: Option<&Tools>,
        progress: &dyn Progress,
    ) -> Result<()> {
        use fs::AtPath;
        if fs::symlink_metadata(dir).is_ok() && !fs::read_dir(dir)?.is_empty() {
            return Err(match kind {
                Kind::Development => Error::NotAKeySet {
                    dir: dir.to_owned(),
                },
                Kind::Release => Error::Exists {
                    dir: dir.to_owned(),
                },
            });
        }
        let (parent, stem) = split(dir);
        fs::create_dir_all(parent)?;
        let prefix = format!(".{stem}.new-");
        // What an interrupted run left; nobody else is at it, for we hold the lock.
        for e in fs::read_dir(parent)? {
            if e.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir_all(e.path())?;
            }
        }
        // The mode before the first secret is in it.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let tmp = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(private)
            .tempdir_in(parent)
            .at("create a directory in", parent)?;
        let make = || {
            let set = crate::generate::key_set(tmp.path(), kind, name, sources, pkcs11, progress)?;
            set.write_enrolment(tools)?;
            set.check()?;
            match kind {
                Kind::Development => Ok(()),
                Kind::Release => set.require_release(),
            }
        };
        make().map_err(|e| relocated(e, tmp.path(), dir))?;
        crate::file::sync_dir(tmp.path())?;
        let made = tmp.keep();
        fs::rename(&made, dir).inspect_err(|_| {
            let _ = fs::remove_dir_all(&made);
        })?;
        crate::file::sync_dir(parent)
    }
}

/// An error about a set that was being made in `from`, told as one about where it should have gone.
fn relocated(e: Error, from: &Path, to: &Path) -> Error {
    let text = |s: String| s.replace(&*from.to_string_lossy(), &to.to_string_lossy());
    let path = |p: PathBuf| match p.strip_prefix(from) {
        Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
        Ok(rest) => to.join(rest),
        Err(_) => p,
    };
    match e {
        Error::Defective { dir, problems } => Error::Defective {
            dir: path(dir),
            problems: problems.into_iter().map(text).collect(),
        },
        Error::DevelopmentKeys { dir, role } => Error::DevelopmentKeys {
            dir: path(dir),
            role,
        },
        Error::PinValue { path: p, role } => Error::PinValue {
            path: path(p),
            role,
        },
        Error::Certificate { path: p, reason } => Error::Certificate {
            path: path(p),
            reason,
        },
        other => other,
    }
}

/// Takes the lock of the set that is or shall be at `dir`.
pub(crate) fn lock(dir: &Path) -> Result<fs::FileLock> {
    let (parent, stem) = split(dir);
    Ok(fs::FileLock::exclusive(
        parent.join(format!(".{stem}.lock")),
    )?)
}

fn split(dir: &Path) -> (&Path, String) {
    let stem = dir
        .file_name()
        .map_or_else(|| "keys".into(), |n| n.to_string_lossy().into_owned());
    (dir.parent().unwrap_or(Path::new("/")), stem)
}
