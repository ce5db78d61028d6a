// SPDX-License-Identifier: Apache-2.0
//! RAUC, by its command rauc(1), which talks to its service. It alone installs, verifies, and tells
//! the firmware what to start.

mod bus;
mod manifest;
mod status;
mod watch;

use crate::kernel::Slot;
use crate::run::Run;
use crate::{Error, Result, fs, slot};
use std::time::{Duration, Instant};
use watch::Watch;

pub use manifest::{Manifest, info};
pub use status::Status;
pub use watch::settle;

/// How often an installation is begun whose device went away.
const ATTEMPTS: u32 = 5;

/// Why a bundle was not installed.
#[derive(Debug)]
pub struct Failure {
    /// In words.
    pub why: Error,
    /// Whether the bundle was not refused: the way to it broke off, or RAUC failed at something else.
    pub broke: bool,
}

impl From<Error> for Failure {
    fn from(why: Error) -> Self {
        Self { why, broke: false }
    }
}

impl From<Failure> for Error {
    fn from(f: Failure) -> Self {
        f.why
    }
}

impl Failure {
    /// With no verdict of RAUC's.
    fn broke(why: Error) -> Self {
        Self { why, broke: true }
    }
}

/// Installs a bundle, with RAUC's own progress on this terminal.
///
/// # Errors
/// RAUC refuses it, or fails: the slot that runs is as before.
pub fn install(bundle: &str) -> std::result::Result<(), Failure> {
    let mut left = ATTEMPTS;
    loop {
        fs::remove(slot::WHY)?;
        let run = Run::new("rauc").args(["install", "--progress"]).arg(bundle);
        let mut watch = Watch::default();
        let Err(e) = run.show_while(watch::LOOK, || {
            watch.moves(watch::progress(), Instant::now())
        }) else {
            return Ok(());
        };
        if watch.stalled {
            let what = format!("the installation of {bundle}");
            return Err(Failure::broke(watch::end(&what, watch::STALLED)));
        }
        if let Some(why) = fs::line(slot::WHY) {
            let why = Error::new(format!("the bundle was not installed: {why}"))
                .hint("the running system is as before; journalctl -u rauc tells more");
            return Err(why.into());
        }
        left -= 1;
        if left > 0 && bus::last_error().is_some_and(|why| lost_its_device(bundle, &why)) {
            eprintln!("the device that RAUC streams from went away as it came; once more");
            std::thread::sleep(Duration::from_secs(1));
            continue;
        }
        let why = Error::new(format!("the bundle was not installed: {e}")).hint(
            "what RAUC said is above, and in journalctl -u rauc; the running system is as before",
        );
        return Err(Failure::broke(why));
    }
}

/// Whether nothing was written, since the network block device ended as it began. It does when udev
/// was the first to open it and to close it: RAUC before 1.15 tells it to end with its last user, and
/// is not one yet (rauc commit cfe93c93).
fn lost_its_device(bundle: &str, why: &str) -> bool {
    bundle.contains("://") && why.starts_with("Failed mounting bundle: Failed to load dm table")
}

/// Puts a slot first in the firmware's boot order.
///
/// # Errors
/// RAUC's.
pub fn keep(slot: Slot) -> Result<()> {
    mark("mark-good", slot)
}

/// Has a slot started once, at the next restart.
///
/// # Errors
/// RAUC's.
pub fn try_once(slot: Slot) -> Result<()> {
    mark("mark-active", slot)
}

fn mark(how: &str, slot: Slot) -> Result<()> {
    let which = match slot {
        Slot::A => "rootfs.0",
        Slot::B => "rootfs.1",
        Slot::Live => return Err(Error::new("a medium has no slots")),
    };
    let run = Run::new("rauc").args(["status", how, which]);
    match run.run_within(bus::ANSWER) {
        Ok(_) => Ok(()),
        Err(e) => Err(e.hint("see journalctl -u rauc")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_that_went_away_is_tried_again() {
        let gone = "Failed mounting bundle: Failed to load dm table: Argument list too long, check \
                    DM_VERITY, DM_CRYPT or CRYPTO_AES kernel options.";
        assert!(lost_its_device("https://u.example/x.raucb", gone));
        assert!(!lost_its_device("/var/x.raucb", gone));
        for why in [
            "",
            "Failed mounting bundle: no",
            "signature verification failed",
        ] {
            assert!(!lost_its_device("https://u.example/x.raucb", why), "{why}");
        }
    }
}
