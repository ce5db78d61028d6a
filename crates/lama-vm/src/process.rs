// SPDX-License-Identifier: Apache-2.0
//! Processes that outlive us, told apart from others that got the same number later.

use lama_exec::fs;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A process, by number and start time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The number.
    pub pid: u32,
    /// When it was started, in clock ticks since the system was booted (proc_pid_stat(5), field 22).
    pub start: u64,
    /// The system's boot ID.
    pub boot: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    start: u64,
}

/// Parses `/proc/PID/stat`. The command's name, in parentheses, may contain anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let rest = text.rsplit_once(')')?.1;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start })
}

fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .map(|s| s.trim().to_owned())
}

fn pid(n: u32) -> Option<Pid> {
    i32::try_from(n).ok().and_then(Pid::from_raw)
}

impl ProcessId {
    /// The identity of a process that exists now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        Some(Self {
            pid,
            start: stat.start,
            boot: boot_id()?,
        })
    }

    /// Whether that very process still runs. One that has ended and waits to be
    /// reaped does not.
    pub fn is_alive(&self) -> bool {
        let Some(s) = stat(self.pid).filter(|s| s.start == self.start) else {
            return false;
        };
        if boot_id().as_deref() != Some(&self.boot) {
            return false;
        }
        !matches!(s.state, b'Z' | b'X')
    }

    /// Waits for its end; whether it came.
    pub fn wait_end(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while self.is_alive() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Kills it with SIGKILL and waits up to 5 s; whether it is gone.
    pub fn kill(&self) -> bool {
        if let Some(p) = pid(self.pid)
            && let Ok(fd) = rustix::process::pidfd_open(p, PidfdFlags::empty())
            && self.is_alive()
        {
            // The descriptor was open before the identity was checked, so it is the right one.
            let _ = rustix::process::pidfd_send_signal(&fd, Signal::KILL);
        }
        self.wait_end(Duration::from_secs(5))
    }

    /// How long it has been running.
    pub fn uptime(&self) -> Option<Duration> {
        let text = fs::read_to_string("/proc/uptime").ok()?;
        let up: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
        // USER_HZ: 100 on both architectures, whatever the kernel's own clock.
        let start = self.start as f64 / 100.0;
        Duration::try_from_secs_f64((up - start).max(0.0)).ok()
    }
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        let ok = Some(Stat {
            state: b'S',
            start: 4711,
        });
        for (line, want) in [
            (format!("12 (qemu) {tail}"), ok),
            (
                format!("12 (a) S 1) b) {tail}"),
                Some(Stat {
                    state: b'S',
                    start: 4711,
                }),
            ),
            ("12 (qemu) S 1 2".to_owned(), None),
            ("12 qemu".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse_stat(&line), want, "{line}");
        }
    }

    #[test]
    fn another_process_of_the_same_number_is_not_alive() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(
            !ProcessId {
                start: me.start + 1,
                ..me.clone()
            }
            .is_alive()
        );
        assert!(
            !ProcessId {
                boot: "other".into(),
                ..me.clone()
            }
            .is_alive()
        );
        assert!(me.uptime().unwrap() < Duration::from_secs(3600));
    }

    #[test]
    fn an_ended_child_is_not_alive() {
        let mut c = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let p = ProcessId::of(c.id()).unwrap();
        assert!(p.is_alive());
        c.kill().unwrap();
        assert!(p.wait_end(Duration::from_secs(5)));
        c.wait().unwrap();
    }

    #[test]
    fn killing() {
        let mut c = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let p = ProcessId::of(c.id()).unwrap();
        assert!(p.kill());
        assert!(!p.is_alive());
        c.wait().unwrap();
    }
}
