// SPDX-License-Identifier: Apache-2.0
//! What a restore consists of, besides running restic.

use super::host::{self, Host};
use super::message::Snapshot;
use super::{ETC_UPPER, secret, swap};
use crate::error::{Context, Error, Result};
use crate::fs;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// In a directory whose restore is not finished: which snapshot.
pub const UNFINISHED: &str = ".lamadist-restore-unfinished";

/// Who the host is: changes of `/etc` (host keys, machine ID, accounts, configuration), its record,
/// and the key of credentials that are sealed to it.
pub const IDENTITY: &[&str] = &[ETC_UPPER, host::PATH, "lib/systemd/credential.secret"];

/// How much of a snapshot is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All that belongs on another machine.
    All,
    /// [`IDENTITY`].
    Identity,
}

/// Whether restic reads everything again after it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// restic's arguments.
///
/// # Errors
/// The snapshot is not one of a `/var`.
pub fn args(s: &Snapshot, part: Part, verify: Verify, target: &Path) -> Result<Vec<String>> {
    let var = s
        .var()
        .ok_or_else(|| Error::new(format!("there is nothing in snapshot {}", s.short())))?;
    let mut out = vec![
        "restore".to_owned(),
        format!("{}:{var}", s.id),
        format!("--target={}", target.display()),
        "--sparse".to_owned(),
    ];
    match part {
        Part::All => out.extend(
            super::scope::never()
                .chain([UNFINISHED])
                .map(|p| format!("--exclude=/{p}")),
        ),
        Part::Identity => out.extend(IDENTITY.iter().map(|p| format!("--include=/{p}"))),
    }
    if verify == Verify::Yes {
        out.push("--verify".to_owned());
    }
    Ok(out)
}

/// What of somebody's lies in a directory that shall become `/var`; `snapshot`'s own unfinished
/// restore does not count.
///
/// # Errors
/// The directory cannot be read.
pub fn occupied(dir: &Path, snapshot: &str) -> Result<Option<String>> {
    if unfinished(dir)?.as_deref() == Some(snapshot) {
        return Ok(None);
    }
    Ok(fs::names(dir)?
        .into_iter()
        .find(|n| !matches!(n.as_str(), "lost+found" | swap::STAGING)))
}

/// Which snapshot's restore into a directory was interrupted.
///
/// # Errors
/// The marker cannot be read.
pub fn unfinished(dir: &Path) -> Result<Option<String>> {
    let data = fs::read_optional(dir.join(UNFINISHED))?;
    Ok(data.map(|d| String::from_utf8_lossy(&d).trim().to_owned()))
}

/// Begins: an interrupted restore can be told from a whole one.
///
/// # Errors
/// The directory cannot be written to.
pub fn begin(dir: &Path, snapshot: &str) -> Result<()> {
    fs::create_dir(dir)?;
    fs::write(dir.join(UNFINISHED), snapshot, 0o600)
}

/// Makes what no snapshot holds: the places of the overlay, name and machine ID where only an addon
/// gave them, and the mode of the directory itself.
///
/// # Errors
/// Something cannot be written.
pub fn settle(dir: &Path, part: Part) -> Result<Option<Host>> {
    use std::os::unix::fs::PermissionsExt;
    let upper = dir.join(ETC_UPPER);
    fs::create_dir(&upper)?;
    let mode = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
            .context(format_args!("cannot set the mode of {}", path.display()))
    };
    if part == Part::All {
        fs::create_dir(dir.join("lib/lamadist/etc/work"))?;
        mode(dir)?;
    } else {
        // restic makes the directories above what it was asked for as secret ones.
        for p in ["lib", "lib/lamadist", "lib/lamadist/etc", "lib/systemd"] {
            if dir.join(p).is_dir() {
                mode(&dir.join(p))?;
            }
        }
    }
    let host = Host::load(dir)?;
    if let Some(host) = &host {
        host.settle(dir)?;
    }
    Ok(host)
}

/// A sealed credential that came with the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Credential {
    /// Its name.
    pub name: String,
    /// Where it lies, below `/etc`.
    pub path: String,
    /// Whether this machine can open it.
    pub opens: bool,
}

/// The sealed credentials below `dir`, and whether this machine opens them.
///
/// # Errors
/// A directory cannot be read.
pub fn credentials(dir: &Path) -> Result<Vec<Credential>> {
    let upper = dir.join(ETC_UPPER);
    let mut out = Vec::new();
    for store in [secret::STORE, "credstore"] {
        for name in fs::names(upper.join(store))? {
            let file = upper.join(store).join(&name);
            let regular = file.symlink_metadata().is_ok_and(|m| m.is_file());
            if !regular || store == "credstore" {
                // Plain ones open anywhere; a whiteout is none.
                continue;
            }
            out.push(Credential {
                opens: secret::unseal(dir, &name, &file).is_ok(),
                path: format!("{store}/{name}"),
                name,
            });
        }
    }
    Ok(out)
}

/// Seals the repository's password and environment to this machine in a restored `/var`, so that its
/// backups go on. Returns whether there were any.
///
/// # Errors
/// They cannot be sealed.
pub fn reseal(dir: &Path, password: &str, environment: &[(String, String)]) -> Result<bool> {
    let upper = dir.join(ETC_UPPER);
    if !upper.join("lamadist/backup.conf").is_file() {
        return Ok(false);
    }
    let path = |name: &str| -> PathBuf { upper.join(secret::STORE).join(name) };
    let line = format!("{password}\n");
    secret::seal(
        dir,
        secret::PASSWORD,
        line.as_bytes(),
        &path(secret::PASSWORD),
    )?;
    if !environment.is_empty() {
        let text: String = environment
            .iter()
            .map(|(k, v)| format!("{k}={v}\n"))
            .collect();
        secret::seal(
            dir,
            secret::ENVIRONMENT,
            text.as_bytes(),
            &path(secret::ENVIRONMENT),
        )?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(paths: &[&str]) -> Snapshot {
        Snapshot {
            id: "f91c04cc56682d5d".into(),
            time: String::new(),
            hostname: "nas".into(),
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
            tags: None,
            summary: None,
        }
    }

    #[test]
    fn restics_arguments() {
        let s = snapshot(&["/var", "/var/mnt/data"]);
        let a = args(&s, Part::All, Verify::Yes, Path::new("/t")).unwrap();
        assert_eq!(
            a[..4],
            [
                "restore",
                "f91c04cc56682d5d:/var",
                "--target=/t",
                "--sparse"
            ]
        );
        assert!(a.contains(&"--exclude=/lib/systemd/random-seed".to_owned()));
        assert!(a.contains(&"--verify".to_owned()));
        let a = args(&s, Part::Identity, Verify::No, Path::new("/t")).unwrap();
        assert!(a.contains(&"--include=/lib/lamadist/etc/upper".to_owned()));
        assert!(
            !a.iter()
                .any(|x| x.starts_with("--exclude") || x == "--verify")
        );
        assert!(args(&snapshot(&[]), Part::All, Verify::No, Path::new("/t")).is_err());
    }

    #[test]
    fn somebodys_data_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        fs::create_dir(d.join("lost+found")).unwrap();
        assert_eq!(occupied(d, "a").unwrap(), None);
        begin(d, "a").unwrap();
        fs::write(d.join("x"), "", 0o644).unwrap();
        assert_eq!(occupied(d, "a").unwrap(), None);
        assert_eq!(occupied(d, "b").unwrap().as_deref(), Some(UNFINISHED));
    }
}
