// SPDX-License-Identifier: Apache-2.0
//! What the checks read, as text.

use super::{Answer, Verdict};
use std::collections::BTreeSet;

/// What comes before the units that have failed.
const FAILED: &str = "failed: ";
/// Share of space or inodes below which /var is worth a look, in percent.
const FEW: u64 = 10;
/// Share below which the machine is not well.
const TOO_FEW: u64 = 3;

/// One line without control characters, of a reasonable length.
pub fn line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty())
        .collect();
    words.join(" ").chars().take(500).collect()
}

/// What `systemctl --failed --plain --no-legend` says. Passed over are our own unit, which runs this,
/// and logins: their scope fails where the connection breaks before they are complete
/// (systemd.scope(5)), which anybody's network can do and says nothing about the machine.
pub fn failed_units(text: &str) -> Answer {
    let units: Vec<&str> = text
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .filter(|u| *u != "lamadist-health.service" && !login(u))
        .collect();
    if units.is_empty() {
        return (Verdict::Ok, "no unit has failed".to_owned());
    }
    (Verdict::Failed, format!("{FAILED}{}", units.join(", ")))
}

/// The units that [`failed_units`] names in its reason.
pub fn named_units(reason: &str) -> BTreeSet<&str> {
    let units = reason.strip_prefix(FAILED).unwrap_or_default();
    units.split(", ").filter(|u| !u.is_empty()).collect()
}

/// Whether a unit is that of a session by systemd-logind, session-NUMBER.scope.
fn login(unit: &str) -> bool {
    unit.starts_with("session-") && unit.ends_with(".scope")
}

/// What `systemctl is-system-running` says. That units failed is another check's.
pub fn system_state(text: &str) -> Answer {
    let verdict = match text.trim() {
        "running" | "degraded" => Verdict::Ok,
        "initializing" | "starting" | "stopping" => Verdict::Warning,
        _ => Verdict::Failed,
    };
    (verdict, format!("the system is {}", text.trim()))
}

/// Free of all, in percent rounded down.
pub fn space(what: &str, free: u64, all: u64) -> Answer {
    // File systems without a fixed number of inodes tell of none.
    let Some(percent) = free.saturating_mul(100).checked_div(all) else {
        return (Verdict::Ok, format!("{what} without limit"));
    };
    let verdict = match percent {
        p if p < TOO_FEW => Verdict::Failed,
        p if p < FEW => Verdict::Warning,
        _ => Verdict::Ok,
    };
    (verdict, format!("{percent} % of the {what} are free"))
}

/// Whether `/proc/net/route` and `/proc/net/ipv6_route` have a default route that is up and leads
/// somewhere.
pub fn default_route(v4: &str, v6: &str) -> bool {
    // RTF_UP, RTF_REJECT (linux/route.h).
    let good = |flags: &str| {
        u32::from_str_radix(flags, 16).is_ok_and(|f| f & 0x0001 != 0 && f & 0x0200 == 0)
    };
    let column = |l: &str, n: usize| l.split_whitespace().nth(n).unwrap_or("").to_owned();
    let zero = |s: &str| !s.is_empty() && s.bytes().all(|b| b == b'0');
    let four = v4
        .lines()
        .any(|l| zero(&column(l, 1)) && zero(&column(l, 7)) && good(&column(l, 3)));
    let six = v6.lines().any(|l| {
        zero(&column(l, 0)) && zero(&column(l, 1)) && good(&column(l, 8)) && column(l, 9) != "lo"
    });
    four || six
}

/// The worst of some answers, with the reasons of all that are as bad.
pub fn worst(answers: Vec<Answer>) -> Answer {
    let verdict = answers.iter().map(|a| a.0).max().unwrap_or(Verdict::Ok);
    let reasons: Vec<String> = answers
        .into_iter()
        .filter(|a| a.0 == verdict)
        .map(|a| a.1)
        .collect();
    (verdict, reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemctl() {
        assert_eq!(failed_units("").0, Verdict::Ok);
        assert_eq!(failed_units("lamadist-health.service x\n").0, Verdict::Ok);
        assert_eq!(
            failed_units("session-c1.scope loaded failed\n").0,
            Verdict::Ok
        );
        let (v, why) = failed_units("a.service loaded failed failed A\nb.mount loaded failed\n");
        assert_eq!(
            (v, why.as_str()),
            (Verdict::Failed, "failed: a.service, b.mount")
        );
        assert_eq!(system_state("running\n").0, Verdict::Ok);
        assert_eq!(system_state("starting").0, Verdict::Warning);
        assert_eq!(system_state("maintenance").0, Verdict::Failed);
        assert_eq!(system_state("").0, Verdict::Failed);
    }

    #[test]
    fn thresholds() {
        for (free, all, verdict) in [
            (10, 100, Verdict::Ok),
            (9, 100, Verdict::Warning),
            (2, 100, Verdict::Failed),
            (0, 0, Verdict::Ok),
            (u64::MAX, u64::MAX, Verdict::Failed),
        ] {
            // An absurd size overflows nothing.
            assert_eq!(space("inodes", free, all).0, verdict, "{free} of {all}");
        }
        let all = vec![space("space", 50, 100), space("inodes", 1, 100)];
        assert_eq!(
            worst(all),
            (Verdict::Failed, "1 % of the inodes are free".to_owned())
        );
    }

    #[test]
    fn routes() {
        let head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
        let four = format!("{head}eth0 00000000 0102A8C0 0003 0 0 0 00000000 0 0 0\n");
        assert!(default_route(&four, ""));
        let local = format!("{head}eth0 0002A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n");
        let zero = "0".repeat(32);
        let six = |flags: &str, dev: &str| {
            format!("{zero} 00 {zero} 00 {zero} 00000400 1 0 {flags} {dev}\n")
        };
        assert!(default_route(&local, &six("00000003", "eth0")));
        assert!(!default_route(&local, &six("00200200", "lo")));
        assert!(!default_route(&local, &six("00000201", "eth0")));
        assert!(!default_route("", "\n"));
    }
}
