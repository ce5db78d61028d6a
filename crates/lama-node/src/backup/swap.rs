// SPDX-License-Identifier: Apache-2.0
//! A restore into a running system: what was restored lies beside the data until the next boot, when
//! the initrd puts it in its place, before `/etc` is mounted from it.
//!
//! The upper layer of a mounted overlay must not be changed from below (the kernel's overlayfs
//! documentation), and files that programs hold open cannot be taken away from them. So there are
//! only renames, each of which is whole or not done; a marker says how far it is, and after a power
//! cut the next boot goes on.
//!
//! ```text
//! /var/.lamadist-restore/new    what was restored
//! /var/.lamadist-restore/old    what was there before
//! /var/.lamadist-restore/ready  1. everything goes to old
//! /var/.lamadist-restore/moved  2. new goes to its place
//! /var/.lamadist-restore/done   3. it is done; `restore --clean` removes old
//! ```

use super::{disk, scope};
use crate::error::{Context, Error, Result};
use crate::fs;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Below `/var`: beside all that is renamed.
pub const STAGING: &str = ".lamadist-restore";

/// What is kept of the running system besides what is the machine's.
const KEPT: &str = "log/journal";

/// What the next boot shall do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The snapshot.
    pub snapshot: String,
    /// The host it is of.
    pub host: String,
    /// What is put in place, below `/var`; everything where it is missing.
    pub paths: Option<Vec<String>>,
}

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is none.
    Nothing,
    /// It is still being written, or was interrupted.
    Writing,
    /// The next boot begins with it.
    Ready,
    /// A boot has begun with it.
    Moved,
    /// It is in place; what was there before is kept.
    Done,
}

/// Paths of the staging area of a `/var`.
#[derive(Debug, Clone)]
pub struct Staging {
    var: PathBuf,
    dir: PathBuf,
}

impl Staging {
    /// That of this `/var`.
    pub fn of(var: impl Into<PathBuf>) -> Self {
        let var = var.into();
        Self {
            dir: var.join(STAGING),
            var,
        }
    }

    /// Where the restored files are written.
    pub fn new_dir(&self) -> PathBuf {
        self.dir.join("new")
    }

    /// Where those from before are kept.
    pub fn old_dir(&self) -> PathBuf {
        self.dir.join("old")
    }

    fn marker(&self, phase: &str) -> PathBuf {
        self.dir.join(phase)
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        let is = |name: &str| self.marker(name).exists();
        if is("moved") {
            Phase::Moved
        } else if is("ready") {
            Phase::Ready
        } else if is("done") {
            Phase::Done
        } else if self.dir.exists() {
            Phase::Writing
        } else {
            Phase::Nothing
        }
    }

    /// All is written: the next boot shall put it in place.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn ready(&self, plan: &Plan) -> Result<()> {
        fs::create_dir(self.old_dir())?;
        // The marker must not reach the disk before what it speaks of.
        disk::sync(&self.dir)?;
        let json = serde_json::to_vec(plan).context("cannot write JSON")?;
        fs::write(self.marker("ready"), json, 0o600)
    }

    /// Removes what was restored and not put in place, or what was there before.
    ///
    /// # Errors
    /// It is half done, or cannot be removed.
    pub fn clean(&self) -> Result<()> {
        if self.phase() == Phase::Moved {
            return Err(Error::new("the restore is half done").hint("the next boot finishes it"));
        }
        // First the marker: a half removed tree must not be put in place.
        fs::remove(self.marker("ready"))?;
        disk::sync(&self.var)?;
        fs::remove_tree(&self.dir)
    }

    /// Puts in place what is ready, in the initrd. Returns nothing where there is nothing to do.
    ///
    /// # Errors
    /// Something cannot be renamed; a second call goes on.
    pub fn finish(&self) -> Result<Option<Plan>> {
        self.finish_by(&mut |from, to| fs::rename(from, to))
    }

    fn finish_by(
        &self,
        rename: &mut dyn FnMut(&Path, &Path) -> Result<()>,
    ) -> Result<Option<Plan>> {
        let marker = match self.phase() {
            Phase::Ready => "ready",
            Phase::Moved => "moved",
            _ => return Ok(None),
        };
        let marker = self.marker(marker);
        let plan: Plan = serde_json::from_slice(&fs::read(&marker)?).context(marker.display())?;
        for p in plan.paths.iter().flatten() {
            let normal = |c| matches!(c, Component::Normal(_));
            if p.is_empty() || !Path::new(p).components().all(normal) {
                return Err(Error::new(format!(
                    "{}: \"{p}\" is no path",
                    marker.display()
                )));
            }
        }
        let (new, old) = (self.new_dir(), self.old_dir());
        if self.phase() == Phase::Ready {
            self.all(&plan, &self.var, &old, rename)?;
            self.advance("ready", "moved", rename)?;
        }
        self.all(&plan, &new, &self.var, rename)?;
        if plan.paths.is_none() {
            for p in scope::MACHINE.iter().chain([&KEPT]) {
                let (from, to) = (old.join(p), self.var.join(p));
                if exists(&from) && (!exists(&to) || is_empty_dir(&to)) {
                    place(&from, &to, rename)?;
                }
            }
        }
        self.advance("moved", "done", rename)?;
        Ok(Some(plan))
    }

    /// Renames all that the plan speaks of from `from` to `to`, as far as it is still there.
    fn all(
        &self,
        plan: &Plan,
        from: &Path,
        to: &Path,
        rename: &mut dyn FnMut(&Path, &Path) -> Result<()>,
    ) -> Result<()> {
        let names: Vec<OsString> = match &plan.paths {
            Some(paths) => paths.iter().map(OsString::from).collect(),
            None => names(from)?
                .into_iter()
                .filter(|n| n != STAGING && n != "lost+found")
                .collect(),
        };
        for n in names {
            let (from, to) = (from.join(&n), to.join(&n));
            if exists(&from) {
                place(&from, &to, rename)?;
            }
        }
        Ok(())
    }

    fn advance(
        &self,
        from: &str,
        to: &str,
        rename: &mut dyn FnMut(&Path, &Path) -> Result<()>,
    ) -> Result<()> {
        disk::sync(&self.var)?;
        rename(&self.marker(from), &self.marker(to))?;
        disk::sync(&self.var)
    }
}

fn place(from: &Path, to: &Path, rename: &mut dyn FnMut(&Path, &Path) -> Result<()>) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir(dir)?;
    }
    rename(from, to)
}

/// Whether there is anything, be it a link that leads nowhere.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn is_empty_dir(path: &Path) -> bool {
    names(path).is_ok_and(|n| n.is_empty())
}

/// Names as they are: what cannot be renamed for its name would stop the boot.
fn names(dir: &Path) -> Result<Vec<OsString>> {
    let what = format!("cannot list {}", dir.display());
    let mut out = Vec::new();
    for e in dir.read_dir().context(&what)? {
        out.push(e.context(&what)?.file_name());
    }
    out.sort();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn write(dir: &Path, files: &[&str]) {
        for f in files {
            fs::write(dir.join(f), *f, 0o644).unwrap();
        }
    }

    /// A `/var` with something old in it, and a restore that is ready.
    fn staged(paths: Option<&[&str]>) -> (tempfile::TempDir, Staging) {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                "lib/old",
                "lib/rauc/central.raucs",
                "lib/systemd/random-seed",
                "lib/lamadist/etc/upper/old",
                "log/journal/id/system.journal",
                "only-old/x",
                "lost+found/x",
            ],
        );
        let s = Staging::of(dir.path());
        write(
            &s.new_dir(),
            &[
                "lib/new",
                "lib/lamadist/etc/upper/new",
                "log/other",
                "home/x",
            ],
        );
        fs::create_dir(s.new_dir().join("log/journal")).unwrap();
        let plan = Plan {
            snapshot: "abcd".into(),
            host: "nas".into(),
            paths: paths.map(|p| p.iter().map(|s| (*s).to_owned()).collect()),
        };
        s.ready(&plan).unwrap();
        (dir, s)
    }

    fn tree(dir: &Path) -> BTreeMap<String, bool> {
        let mut out = BTreeMap::new();
        let mut todo = vec![dir.to_owned()];
        while let Some(d) = todo.pop() {
            for n in names(&d).unwrap() {
                let p = d.join(n);
                let is_dir = p.symlink_metadata().unwrap().is_dir();
                let name = p.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                if is_dir {
                    todo.push(p);
                }
                out.insert(name, is_dir);
            }
        }
        out
    }

    #[test]
    fn all_is_put_in_place_and_what_is_the_machines_stays() {
        let (dir, s) = staged(None);
        assert_eq!(s.finish().unwrap().unwrap().host, "nas");
        let t = tree(dir.path());
        for there in [
            "lib/new",
            "lib/lamadist/etc/upper/new",
            "home/x",
            "log/other",
            "log/journal/id/system.journal",
            "lib/rauc/central.raucs",
            "lib/systemd/random-seed",
            "lost+found/x",
            ".lamadist-restore/old/lib/old",
            ".lamadist-restore/old/only-old/x",
            ".lamadist-restore/done",
        ] {
            assert!(t.contains_key(there), "{there}: {t:#?}");
        }
        for gone in ["lib/old", "only-old", "lib/lamadist/etc/upper/old"] {
            assert!(!t.contains_key(gone), "{gone}");
        }
        assert_eq!((s.phase(), s.finish().unwrap()), (Phase::Done, None));
        s.clean().unwrap();
        assert_eq!(s.phase(), Phase::Nothing);
    }

    #[test]
    fn parts_leave_the_rest_alone() {
        let (dir, s) = staged(Some(&["lib/lamadist/etc/upper"]));
        s.finish().unwrap().unwrap();
        let t = tree(dir.path());
        assert!(t.contains_key("lib/lamadist/etc/upper/new") && t.contains_key("lib/old"));
        assert!(t.contains_key("only-old/x") && !t.contains_key("lib/new"));
        assert!(!t.contains_key("lib/lamadist/etc/upper/old"));
    }

    /// Stops before each rename and after it; whatever was done, the next call finishes.
    #[test]
    fn a_power_cut_at_any_point_changes_nothing() {
        for paths in [None, Some(&["lib/lamadist/etc/upper", "home"][..])] {
            let (dir, s) = staged(paths);
            s.finish().unwrap();
            let want = tree(dir.path());
            let mut stops = 0;
            loop {
                let (dir, s) = staged(paths);
                let mut left = stops;
                let cut = s.finish_by(&mut |from, to| {
                    if left == 0 {
                        return Err(Error::new("power cut"));
                    }
                    left -= 1;
                    fs::rename(from, to)
                });
                // A second cut, two renames later.
                let mut left = 2;
                let _ = s.finish_by(&mut |from, to| {
                    if left == 0 {
                        return Err(Error::new("power cut"));
                    }
                    left -= 1;
                    fs::rename(from, to)
                });
                s.finish().unwrap();
                assert_eq!(tree(dir.path()), want, "cut before rename {stops}");
                if cut.is_ok() {
                    break;
                }
                stops += 1;
            }
            assert!(stops > 4, "{stops}");
        }
    }

    #[test]
    fn a_plan_that_leads_out_is_refused_and_a_half_done_one_not_removed() {
        let (_dir, s) = staged(Some(&["../x"]));
        assert!(s.finish().unwrap_err().to_string().contains("is no path"));
        s.clean().unwrap();
        let (_dir, s) = staged(None);
        fs::rename(s.marker("ready"), s.marker("moved")).unwrap();
        assert!(s.clean().is_err());
    }
}
