// SPDX-License-Identifier: Apache-2.0
//! What of the system has to be asked by C's functions.

use crate::error::{Context, Error, Result};
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that root can still write to the file system at `path`.
///
/// # Errors
/// It cannot be told.
pub fn free(path: &Path) -> Result<u64> {
    let what = format!("cannot tell the free space of {}", path.display());
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(format!("{what}: a zero byte in its name")))?;
    let mut s = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: both pointers are valid for the call.
    if unsafe { libc::statvfs(name.as_ptr(), s.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error()).context(what);
    }
    // SAFETY: statvfs filled it in.
    let s = unsafe { s.assume_init() };
    #[allow(clippy::useless_conversion)] // 32 bits on some machines
    Ok(u64::from(s.f_bfree).saturating_mul(u64::from(s.f_frsize)))
}

/// Writes all of the file system at `path` to its disk (syncfs(2)).
///
/// # Errors
/// The disk does not take it.
pub fn sync(path: &Path) -> Result<()> {
    let dir = crate::fs::open(path)?;
    // SAFETY: the descriptor is open.
    if unsafe { libc::syncfs(dir.as_raw_fd()) } != 0 {
        return Err(std::io::Error::last_os_error())
            .context(format_args!("cannot write {} to its disk", path.display()));
    }
    Ok(())
}

/// Whether this process is root's.
pub fn is_root() -> bool {
    // SAFETY: it takes and changes nothing.
    unsafe { libc::geteuid() == 0 }
}
