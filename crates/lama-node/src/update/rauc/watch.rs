// SPDX-License-Identifier: Apache-2.0
//! Whether what RAUC is at comes any further.

use super::bus;
use crate::run::Run;
use crate::{Error, Result, fs};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long an installation may come no further. A stream that stalls in the middle ends before, by the
/// time limit of RAUC's network block device (1.13: 300 s); RAUC waits for ever for one that does not
/// begin.
pub const STALLED: Duration = Duration::from_secs(15 * 60);
/// The processes of RAUC's service (cgroups(7)).
const PROCESSES: &str = "/sys/fs/cgroup/system.slice/rauc.service/cgroup.procs";
/// Bytes that count as some way.
const STEP: u64 = 1 << 16;
/// Between two looks at that.
pub const LOOK: Duration = Duration::from_secs(20);

/// Waits for an installation that nobody waits for any more, whose `lama-node` was killed. One that
/// comes no further is ended: RAUC does nothing else before.
///
/// # Errors
/// It was ended.
pub fn settle() -> Result<()> {
    let mut watch = Watch::default();
    loop {
        match bus::property("Operation") {
            Some(o) if o.as_str() != Some("installing") => return Ok(()),
            // It does not run, and cannot be started; whoever needs it will say so.
            None if bus::pid().is_none() => return Ok(()),
            // While it looks at a bundle it answers nobody.
            Some(_) | None => {}
        }
        if !watch.moves(progress(), Instant::now()) {
            return Err(end("what RAUC was at before", STALLED));
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends something of RAUC's that came no further for so long.
pub fn end(what: &str, time: Duration) -> Error {
    let minutes = time.as_secs() / 60;
    let stop = Run::new("systemctl").args(["stop", "rauc.service"]);
    let stopped = stop.run_within(Duration::from_secs(300));
    let how = match stopped {
        Ok(_) => "RAUC was stopped".to_owned(),
        Err(e) => format!("RAUC does not stop: {e}"),
    };
    Error::new(format!(
        "{what} came no further for {minutes} minutes; {how}"
    ))
    .hint("the running system is as before; the server or the way to it is gone, or the disk is")
}

/// Whether an installation comes further.
#[derive(Debug, Default)]
pub struct Watch {
    last: Option<(Value, Instant)>,
    /// Whether it does not any more.
    pub stalled: bool,
}

impl Watch {
    /// Whether it has within [`STALLED`], with what RAUC tells of it now; none where it tells nothing.
    pub fn moves(&mut self, progress: Option<Value>, now: Instant) -> bool {
        let known = self.last.as_ref().map(|(p, _)| p);
        match progress {
            Some(p) if known != Some(&p) => self.last = Some((p, now)),
            _ => {
                let since = self.last.get_or_insert((Value::Null, now)).1;
                self.stalled = now.duration_since(since) >= STALLED;
            }
        }
        !self.stalled
    }
}

/// How far RAUC is: percent, in words, and how deep in its steps; and, since RAUC 1.13 says nothing of
/// that while it writes an image by its index, how much its processes have read and written
/// (proc_pid_io(5)): the service, what streams for it, and the hook.
pub fn progress() -> Option<Value> {
    bus::pid()?;
    let all = fs::text(PROCESSES).ok()?;
    // One that ends takes its share along, which is something new, too.
    let moved = all.lines().map(|pid| {
        let io = fs::text(format!("/proc/{pid}/io"));
        io.map_or(0, |io| moved(&io))
    });
    let moved: u64 = moved.sum();
    Some(serde_json::json!([bus::property("Progress"), moved]))
}

/// How often [`STEP`] bytes were read and written: less than that it does to wake itself.
fn moved(io: &str) -> u64 {
    let of = |l: &str| match l.split_once(": ")? {
        ("rchar" | "wchar", n) => n.trim().parse::<u64>().ok(),
        _ => None,
    };
    io.lines().filter_map(of).sum::<u64>() / STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_no_further_is_noticed() {
        let mut w = Watch::default();
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(minutes * 60);
        let io = |n: u32| moved(&format!("rchar: {}\nwchar: 9\nsyscr: 900000\n", n << 16));
        // RAUC 1.13 stays at the same percent.
        let progress = |n| {
            Some(serde_json::json!([
                [40, "Copying image to rootfs.1", 3],
                io(n)
            ]))
        };
        assert!(w.moves(None, at(0)) && w.moves(progress(1), at(14)));
        assert!(w.moves(progress(1), at(28)) && w.moves(progress(2), at(29)));
        assert!(w.moves(None, at(43)) && !w.moves(progress(2), at(44)));
        assert!(w.stalled);
        let mut silent = Watch::default();
        assert!(silent.moves(None, at(0)) && !silent.moves(None, at(15)));
    }
}
