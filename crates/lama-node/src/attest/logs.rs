// SPDX-License-Identifier: Apache-2.0
//! The logs of some evidence, and whether they explain the registers.

use super::bytes::{Digest, hex, sha256};
use super::eventlog::{Event, EventLog, Kind};
use super::evidence::Evidence;
use super::report::{Register, Report, State};
use super::userspace::Record;
use super::{ima, pcr};
use crate::Result;

/// What the registers prove of the logs. Where one does not agree, a problem says so.
#[derive(Debug, Default)]
pub struct Logs {
    /// The registers.
    pub values: pcr::Values,
    /// The firmware's events.
    pub firmware: EventLog,
    /// systemd's.
    pub userspace: Vec<Record>,
    /// IMA's; none where the kernel has no IMA.
    pub ima: Option<Vec<ima::Entry>>,
}

fn understood<T: Default>(result: Result<T>, report: &mut Report) -> T {
    result.unwrap_or_else(|e| {
        report.problem(
            e.to_string(),
            "the log is damaged or was changed; what it should explain is not proven",
        );
        T::default()
    })
}

/// Whether an event's data is all that was measured, so that it can be believed.
pub fn proven(e: &Event) -> bool {
    sha256(&e.data) == e.digest
}

impl Logs {
    /// Parses the logs, replays them, and leaves out what came after the registers were read.
    pub fn of(evidence: &Evidence, report: &mut Report) -> Self {
        let mut logs = Self {
            values: understood(evidence.values(), report),
            firmware: understood(evidence.firmware(), report),
            userspace: understood(evidence.userspace(), report),
            ima: understood(evidence.ima(), report),
        };
        for n in pcr::ALL {
            logs.register(n, report);
        }
        logs.texts(report);
        logs
    }

    /// Replays a register.
    fn register(&mut self, n: u32, report: &mut Report) {
        let Some(value) = self.values.get(&n).copied() else {
            report.problem(
                format!("there is no value of PCR {n}"),
                "nothing is known of what is measured into it",
            );
            return;
        };
        let mut digests: Vec<Digest> = self.firmware.of(n).map(|e| e.digest).collect();
        let firmware = digests.len();
        let of = |r: &&Record| r.pcr == n;
        digests.extend(self.userspace.iter().filter(of).map(|r| r.digest));
        let userspace = digests.len() - firmware;
        if let (ima::PCR, Some(entries)) = (n, &self.ima) {
            digests.extend(entries.iter().map(|e| e.digest));
        }
        let taken = pcr::replay(self.firmware.start(n), &digests, &value, firmware);
        let state = match taken {
            Some(_) if digests.is_empty() => State::Unused,
            Some(_) => State::Ok,
            None => State::Mismatch,
        };
        report.pcrs.push(Register {
            pcr: n,
            value: hex(&value),
            state,
            events: taken.unwrap_or(digests.len()),
        });
        let Some(taken) = taken else {
            let about = pcr::about(n);
            report.problem(
                format!("PCR {n} ({about}) does not have the value that its log gives"),
                if digests.is_empty() {
                    "something was measured that no log tells of"
                } else {
                    "the log leaves something out or was changed: what it tells of this is not proven"
                },
            );
            return;
        };
        let mut left = taken - firmware;
        self.userspace.retain(|r| {
            let keep = r.pcr != n || left > 0;
            left -= usize::from(r.pcr == n && keep);
            keep
        });
        if let (ima::PCR, Some(entries)) = (n, &mut self.ima) {
            let proven = taken.saturating_sub(firmware + userspace);
            report.ima.get_or_insert_default().later = entries.len() - proven;
            entries.truncate(proven);
        }
    }

    /// Checks what logs say in words against what was measured: a replay looks at digests only.
    fn texts(&self, report: &mut Report) {
        let means = "somebody changed the log to make it say something else";
        for e in &self.firmware.events {
            // Some firmware measures variables of other registers in another way.
            let variable = matches!(
                e.kind,
                Kind::VARIABLE_DRIVER_CONFIG | Kind::VARIABLE_AUTHORITY
            );
            if e.kind.measures_its_data() && (e.pcr == 7 || !variable) && !proven(e) {
                report.problem(
                    format!(
                        "event {} of the firmware's log ({}, PCR {}) says something that was not measured",
                        e.number, e.kind, e.pcr
                    ),
                    means,
                );
            }
        }
        for r in self.userspace.iter().filter(|r| r.proven() == Some(false)) {
            report.problem(
                format!(
                    "record {} of systemd's log ({} {:?}, PCR {}) says something that was not measured",
                    r.number, r.kind, r.text, r.pcr
                ),
                means,
            );
        }
        for e in self.ima.iter().flatten().filter(|e| !e.intact) {
            report.problem(
                format!(
                    "entry {} of IMA's log ({}) says something that was not measured",
                    e.number, e.path
                ),
                means,
            );
        }
    }
}
