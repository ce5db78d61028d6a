// SPDX-License-Identifier: Apache-2.0
//! Compares what a node measured with what the build predicted, and says in words what differs.

use super::baseline::{Addon, Baseline};
use super::bytes::{hex, sha256, utf16};
use super::eventlog::{Kind, Signer, Variable, image_path, signature_lists};
use super::evidence::Evidence;
use super::ima;
use super::logs::{Logs, proven};
use super::report::{Image, Report};

/// The phases of a boot and of a shutdown, in order (systemd-pcrphase.service(8)).
const PHASES: &[&str] = &[
    "enter-initrd",
    "leave-initrd",
    "sysinit",
    "ready",
    "shutdown",
    "final",
];
/// Entries of IMA's log from which on somebody should look at what measures so much: they take about
/// half a kilobyte of kernel memory each, until the next boot.
const MANY: usize = 100_000;
/// What systemd-stub measures into PCR 12 besides command lines: archives of credentials and
/// configuration, of which the log has no more than a name (systemd-stub(7)).
const ARCHIVES: &[&str] = &[
    "Credentials initrd",
    "Global credentials initrd",
    "Configuration extension initrd",
];

/// Checks evidence: against itself, and where there is a baseline against that. `addons` are those
/// of this host, which no build knows.
pub fn check(evidence: &Evidence, baseline: Option<&Baseline>, addons: &[Addon]) -> Report {
    let mut report = Report {
        claims: evidence.claims.clone(),
        baseline: baseline.map(|b| format!("{} {} for {}", b.image, b.version, b.bsp)),
        ..Report::default()
    };
    if let Some(b) = baseline {
        claims(evidence, b, &mut report);
    }
    let logs = Logs::of(evidence, &mut report);
    let check = Check {
        logs: &logs,
        baseline,
        addons,
    };
    check.secure_boot(&mut report);
    check.images(&mut report);
    check.uki(&mut report);
    check.added(&mut report);
    check.cmdline(&mut report);
    check.ima(&mut report);
    report
}

/// A baseline of another build would make everything look wrong: that comes first.
fn claims(evidence: &Evidence, b: &Baseline, report: &mut Report) {
    let c = &evidence.claims;
    for (what, said, is) in [
        ("machine", &c.bsp, &b.bsp),
        ("image", &c.image, &b.image),
        ("version", &c.version, &b.version),
    ] {
        if let Some(said) = said.as_ref().filter(|s| *s != is) {
            report.problem(
                format!("the baseline is of {what} {is}, and the node says it runs {said}"),
                format!("compare it with the baseline.json of the build of {what} {said}"),
            );
        }
    }
}

struct Check<'a> {
    logs: &'a Logs,
    baseline: Option<&'a Baseline>,
    addons: &'a [Addon],
}

impl Check<'_> {
    fn secure_boot(&self, report: &mut Report) {
        for e in self.logs.firmware.of(7).filter(|e| proven(e)) {
            let Ok(v) = Variable::parse(&e.data) else {
                continue;
            };
            let s = &mut report.secure_boot;
            let list = match (e.kind, v.name.as_str()) {
                (Kind::VARIABLE_AUTHORITY, _) => {
                    // One entry: the owner's GUID, then the certificate.
                    if let Some(c) = v.data.get(16..) {
                        s.used.push(hex(&sha256(c)));
                    }
                    continue;
                }
                (Kind::VARIABLE_DRIVER_CONFIG, "SecureBoot") => {
                    s.enabled = Some(v.data == [1]);
                    continue;
                }
                (Kind::VARIABLE_DRIVER_CONFIG, "PK") => &mut s.pk,
                (Kind::VARIABLE_DRIVER_CONFIG, "KEK") => &mut s.kek,
                (Kind::VARIABLE_DRIVER_CONFIG, "db") => &mut s.db,
                _ => continue,
            };
            match signature_lists(v.data) {
                Ok(keys) => list.extend(keys.iter().map(Signer::hex)),
                Err(e) => report.notes.push(format!("the variable {}: {e}", v.name)),
            }
        }
        let Some(b) = self.baseline else { return };
        let s = report.secure_boot.clone();
        if s.enabled != Some(true) {
            report.problem(
                "Secure Boot is off, or the log does not say that it is on",
                "the firmware starts whatever it finds, without looking at a signature",
            );
        } else if !s.used.iter().any(|k| b.db.contains(k)) {
            report.problem(
                "nothing was started by a key of the baseline",
                "what runs was signed by somebody else",
            );
        }
        if report.claims.setup_mode == Some(true) {
            report.problem(
                "the firmware is in setup mode",
                "whoever gets to it may enroll keys of their own",
            );
        }
        for k in s.db.iter().filter(|k| !b.db.contains(k)) {
            report.notes.push(format!(
                "db has a key that is not the build's, {k}: whoever owns it can sign what this firmware starts"
            ));
        }
    }

    /// What a digest is by the baseline.
    fn known(&self, authenticode: &str) -> Option<String> {
        let b = self.baseline?;
        if authenticode == b.uki.authenticode {
            return Some(format!("the UKI of {} {}", b.image, b.version));
        }
        if authenticode == b.uki.kernel_authenticode {
            return Some("the kernel in the UKI".to_owned());
        }
        if let Some(l) = b.loader.as_ref().filter(|l| l.authenticode == authenticode) {
            return Some(format!("the boot loader {}", l.file));
        }
        let mut all = b.addons.iter().chain(self.addons);
        let addon = all.find(|a| a.authenticode == authenticode)?;
        Some(format!("the addon {}", addon.file))
    }

    fn images(&self, report: &mut Report) {
        for e in &self.logs.firmware.events {
            let driver = matches!(
                e.kind,
                Kind::BOOT_SERVICES_DRIVER | Kind::RUNTIME_SERVICES_DRIVER
            );
            if driver || e.kind == Kind::BOOT_SERVICES_APPLICATION {
                let authenticode = hex(&e.digest);
                report.images.push(Image {
                    pcr: e.pcr,
                    known: self.known(&authenticode),
                    authenticode,
                    path: image_path(&e.data),
                });
            }
        }
        let Some(b) = self.baseline else { return };
        let unknown: Vec<Image> = report
            .images
            .iter()
            .filter(|i| i.pcr == 4 && i.known.is_none())
            .cloned()
            .collect();
        if !report
            .images
            .iter()
            .any(|i| i.authenticode == b.uki.authenticode)
        {
            report.problem(
                format!(
                    "the UKI of the baseline, {}, was not started",
                    b.uki.authenticode
                ),
                "this node booted something else: another version, or something that is not ours",
            );
        }
        for i in unknown {
            let path = i.path.as_deref().unwrap_or("something without a file");
            report.problem(
                format!("the firmware started {path}, {}, which is not in the baseline", i.authenticode),
                "another boot loader or UKI, or this host's own addon: that one can be given with --addon FILE",
            );
        }
    }

    /// The UKI and the phases, PCR 11.
    fn uki(&self, report: &mut Report) {
        let phases: Vec<&str> = self
            .logs
            .userspace
            .iter()
            .filter(|r| r.pcr == 11 && r.kind == "phase")
            .map(|r| r.text.as_str())
            .collect();
        report.phases = phases.iter().map(|p| (*p).to_owned()).collect();
        if !PHASES.starts_with(&phases) {
            report.problem(
                format!("the phases of the boot were {}", phases.join(", ")),
                format!(
                    "they should be {}: something measured phases by itself",
                    PHASES.join(", ")
                ),
            );
        }
        let Some(b) = self.baseline else { return };
        // Each is measured twice: its name, then its content.
        let events: Vec<_> = self.logs.firmware.of(11).collect();
        let mut measured = Vec::new();
        for two in events.chunks(2) {
            if let [name, content] = two {
                measured.push((utf16(&name.data), hex(&content.digest)));
            }
        }
        let mut differ: Vec<&str> = Vec::new();
        for s in &b.uki.sections {
            if !measured.iter().any(|(n, d)| *n == s.name && *d == s.sha256) {
                differ.push(&s.name);
            }
        }
        for (n, _) in &measured {
            if !b.uki.sections.iter().any(|s| s.name == *n) {
                differ.push(n);
            }
        }
        if b.pcr11(phases) != self.logs.values.get(&11).copied() {
            let which = if differ.is_empty() {
                "though its sections are those of the baseline".to_owned()
            } else {
                format!("by its sections {}", differ.join(" "))
            };
            report.problem(
                format!("PCR 11 is not what the baseline predicts, {which}"),
                "kernel, initrd or command line are not those of the build; keys sealed to it stay closed",
            );
        }
    }

    /// What was added to the UKI: PCR 12 and 13.
    fn added(&self, report: &mut Report) {
        let mut rest = String::new();
        for e in self.logs.firmware.of(12) {
            let text = utf16(&e.data);
            if proven(e) {
                rest = format!("{rest} {text}");
                report.cmdline_added.push(text);
            } else if !ARCHIVES.contains(&text.as_str()) {
                report.problem(
                    format!(
                        "event {} ({}, PCR 12) says something that was not measured: {text}",
                        e.number, e.kind
                    ),
                    "the log was changed, or something unknown was added to the UKI",
                );
            } else if self.baseline.is_some() {
                report.problem(
                    format!("{text} was added to the UKI (PCR 12)"),
                    "credentials or settings from the EFI partition, which no signature protects, reach the system",
                );
            } else {
                report
                    .notes
                    .push(format!("{text} was added to the UKI (PCR 12)"));
            }
        }
        for e in self.logs.firmware.of(13) {
            let text = utf16(&e.data);
            report
                .notes
                .push(format!("{text} was added to the UKI (PCR 13)"));
        }
        let Some(b) = self.baseline else { return };
        for a in b.addons.iter().chain(self.addons) {
            if report
                .images
                .iter()
                .any(|i| i.authenticode == a.authenticode)
            {
                rest = rest.replacen(&a.cmdline, "", 1);
            }
        }
        let rest = rest.trim();
        if !rest.is_empty() {
            report.problem(
                format!("the command line got more than known addons say: {rest}"),
                "an addon that is not known (this host's own can be given with --addon FILE), or the virtual machine's owner",
            );
        }
    }

    /// The whole command line, as the kernel itself measured it (PCR 9).
    fn cmdline(&self, report: &mut Report) {
        let said = report.claims.cmdline.clone();
        let utf16: Vec<u8> = said
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect();
        let tag = b"LOADED_IMAGE::LoadOptions";
        let events =
            self.logs.firmware.of(9).filter(|e| {
                e.kind == Kind::EVENT_TAG && e.data.windows(tag.len()).any(|w| w == tag)
            });
        report.cmdline_proven = events.last().map(|e| e.digest == sha256(&utf16));
        if report.cmdline_proven == Some(false) {
            report.problem(
                format!("the kernel measured another command line than the node says: {said}"),
                "the node does not tell the truth",
            );
        }
        if let (Some(b), Some(true)) = (self.baseline, report.cmdline_proven) {
            if !said.starts_with(&b.uki.cmdline.text) {
                report.problem(
                    format!("the kernel's command line is not the UKI's: {said}"),
                    format!(
                        "another root may run than the one of root hash {}",
                        b.root_hash
                    ),
                );
            }
        }
    }

    fn ima(&self, report: &mut Report) {
        let Some(entries) = &self.logs.ima else {
            report
                .notes
                .push("this kernel has no IMA: nobody knows what ran after the boot".to_owned());
            return;
        };
        let found = report.ima.get_or_insert_default();
        found.entries = entries.len();
        found.violations = entries.iter().filter(|e| e.violation).count();
        found.files = entries
            .iter()
            .map(|e| (e.path.clone(), e.file.clone()))
            .collect();
        let violations = found.violations;
        let first = entries.first().filter(|e| e.path == "boot_aggregate");
        match first {
            Some(e) if e.file.starts_with("sha256:") => {
                if e.file != ima::boot_aggregate(&self.logs.values) {
                    report.problem(
                        "IMA's log belongs to another boot: its boot_aggregate is not over these PCRs 0 to 9",
                        "it was taken from elsewhere, or something was measured into them since the kernel started",
                    );
                }
            }
            Some(_) => report.notes.push(
                "IMA's boot_aggregate is not SHA-256 and was not checked: boot with ima_hash=sha256".to_owned(),
            ),
            None => report.problem(
                "IMA's log does not begin with boot_aggregate",
                "nothing ties it to this boot",
            ),
        }
        if violations > 0 {
            report.notes.push(format!(
                "{violations} files were written to while they ran or were measured, so that it is not known what ran"
            ));
        }
        if entries.len() > MANY {
            report.notes.push(format!(
                "IMA's log has {} entries and stays in memory until the next boot: find out what keeps making programs",
                entries.len()
            ));
        }
    }
}
