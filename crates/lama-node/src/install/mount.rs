// SPDX-License-Identifier: Apache-2.0
//! A file system that is mounted as long as it is needed.

use crate::run::Run;
use crate::{Result, fs};
use std::path::{Path, PathBuf};

/// A mount; dropping it unmounts.
pub struct Mounted {
    at: PathBuf,
    done: bool,
}

impl Mounted {
    /// Mounts `device` at `at`, a directory that is made.
    ///
    /// # Errors
    /// mount(8)'s.
    pub fn new(device: &str, fstype: &str, at: &str, options: &str) -> Result<Self> {
        fs::create_dir(at)?;
        Run::new("mount")
            .args([
                "-t",
                fstype,
                "-o",
                &format!("{options},nosuid,nodev,noexec"),
            ])
            .args([device, at])
            .run()?;
        Ok(Self {
            at: at.into(),
            done: false,
        })
    }

    /// Where.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Makes it writable.
    ///
    /// # Errors
    /// mount(8)'s: the medium is write-protected.
    pub fn writable(&self) -> Result<()> {
        let run = Run::new("mount").args(["-o", "remount,rw"]);
        run.arg(&self.at).run().map(|_| ())
    }

    /// Unmounts it; what was written is on the disk then.
    ///
    /// # Errors
    /// umount(8)'s.
    pub fn close(mut self) -> Result<()> {
        self.done = true;
        Run::new("umount").arg(&self.at).run().map(|_| ())
    }

    /// Takes it out of sight: files that are open on it can be read, and with the last of them, or the
    /// end of this process, it is gone.
    ///
    /// # Errors
    /// umount(8)'s.
    pub fn detach(mut self) -> Result<()> {
        self.done = true;
        let run = Run::new("umount").arg("--lazy").arg(&self.at);
        run.run().map(|_| ())
    }
}

/// Unmounts what a process has left mounted here that was killed.
///
/// # Errors
/// umount(8)'s: it is in use.
pub fn unmount_left(at: &str) -> Result<()> {
    let mounts = fs::text("/proc/self/mounts")?;
    match mounts.lines().any(|l| l.split(' ').nth(1) == Some(at)) {
        true => Run::new("umount").arg(at).run().map(|_| ()),
        false => Ok(()),
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.done {
            let _ = Run::new("umount").arg(&self.at).any();
        }
    }
}
