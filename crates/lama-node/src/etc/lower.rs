// SPDX-License-Identifier: Apache-2.0
//! The image's /etc, which the overlay hides.

use crate::error::Context;
use crate::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// `OPEN_TREE_CLONE` of open_tree(2): a copy of the mount that is attached nowhere.
const CLONE: libc::c_uint = 1;
const CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;

/// The root file system alone, without what is mounted on it; gone when this is dropped.
pub struct Lower(OwnedFd);

impl Lower {
    /// A copy of the mount at `/`, not recursive: below it /etc is the image's.
    ///
    /// # Errors
    /// The kernel refuses: this needs CAP_SYS_ADMIN.
    pub fn open() -> Result<Self> {
        // SAFETY: a system call on a constant, NUL-terminated path; it writes nothing.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_tree,
                libc::AT_FDCWD,
                c"/".as_ptr(),
                CLONE | CLOEXEC,
            )
        };
        if fd < 0 {
            return Err::<Self, _>(std::io::Error::last_os_error())
                .context("cannot look below the overlay of /etc")
                .map_err(|e| e.hint("run this as root"));
        }
        let fd = i32::try_from(fd).map_err(|_| Error::new("open_tree gave no descriptor"))?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Its /etc, as long as this lives; for programs that are started, too.
    pub fn etc(&self) -> PathBuf {
        let (pid, fd) = (std::process::id(), self.0.as_raw_fd());
        PathBuf::from(format!("/proc/{pid}/fd/{fd}/etc"))
    }
}
