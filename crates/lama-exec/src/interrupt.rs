// SPDX-License-Identifier: Apache-2.0
//! What has to go when the process is interrupted: temporary files and folders that no destructor
//! will remove, since a signal runs none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

static PENDING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Remembers a temporary path until [`forget`].
pub(crate) fn remember(path: &Path) {
    if let Ok(mut p) = PENDING.lock() {
        p.insert(path.to_owned());
    }
}

/// The path has been removed, or has its final name.
pub(crate) fn forget(path: &Path) {
    if let Ok(mut p) = PENDING.lock() {
        p.remove(path);
    }
}

/// Removes every temporary file and folder that is still there. For the thread that has received
/// an interrupt, right before it ends the process.
#[allow(clippy::disallowed_methods)]
pub fn clean_up() {
    let Ok(pending) = PENDING.lock() else { return };
    for p in pending.iter() {
        let _ = std::fs::remove_file(p).or_else(|_| std::fs::remove_dir_all(p));
    }
}
