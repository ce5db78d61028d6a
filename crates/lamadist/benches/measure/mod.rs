// SPDX-License-Identifier: Apache-2.0
//! What the benchmarks have in common.
#![allow(dead_code)]

use lama_exec::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a command took.
#[derive(Clone, Copy)]
pub struct Cost {
    /// On the clock.
    pub wall: Duration,
    /// Of the process and all its children.
    pub cpu: Duration,
    /// The largest resident set of any of them, in bytes.
    pub memory: u64,
}

/// Runs a command to its end.
// wait4, which Child::wait hasn't the figures of, waits for it.
#[allow(clippy::zombie_processes)]
pub fn measure(mut command: Command) -> Cost {
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let child = child.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: rusage is plain data, for which zero is a value; wait4 fills it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::wait4(pid, &mut status, 0, &mut usage), pid);
        usage
    };
    let wall = start.elapsed();
    assert_eq!(status, 0, "{command:?} failed");
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec.unsigned_abs())
            + Duration::from_micros(t.tv_usec.unsigned_abs())
    };
    Cost {
        wall,
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        memory: usage.ru_maxrss.unsigned_abs() * 1024,
    }
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for e in fs::read_dir(from).unwrap() {
        let (from, to) = (e.path(), to.join(e.file_name()));
        let kind = e.file_type().unwrap();
        if kind.is_dir() {
            copy(&from, &to);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from).unwrap(), to).unwrap();
        } else {
            std::fs::copy(&from, to).unwrap();
        }
    }
}
