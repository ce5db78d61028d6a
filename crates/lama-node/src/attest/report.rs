// SPDX-License-Identifier: Apache-2.0
//! What attestation found: for programs as JSON, for people as text.

use super::evidence::Claims;
use super::pcr;
use serde::Serialize;
use std::fmt::Write;

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Whether there is no problem.
    pub ok: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What somebody should know, but is not wrong by itself.
    pub notes: Vec<String>,
    /// What the node says of itself.
    pub claims: Claims,
    /// `image version for machine` of the baseline.
    pub baseline: Option<String>,
    /// The TPM's signature.
    pub quote: Option<QuoteReport>,
    /// The registers.
    pub pcrs: Vec<Register>,
    /// Secure Boot, as it was measured.
    pub secure_boot: SecureBoot,
    /// What the firmware started.
    pub images: Vec<Image>,
    /// Whether the logs prove the command line among the claims; nothing where they say nothing of it.
    pub cmdline_proven: Option<bool>,
    /// What addons and others added to the command line.
    pub cmdline_added: Vec<String>,
    /// The phases of the boot that have been reached.
    pub phases: Vec<String>,
    /// IMA's log.
    pub ima: Option<ImaReport>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What was seen.
    pub what: String,
    /// What it means.
    pub means: String,
}

/// A verified quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct QuoteReport {
    /// The fingerprint of the key.
    pub key: String,
    /// Whether it is a key that the administrator gave.
    pub pinned: bool,
    /// The nonce in it, in hexadecimal.
    pub nonce: String,
    /// How often the TPM was reset: it grows with every boot.
    pub resets: u32,
}

/// A register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Register {
    /// Its number.
    pub pcr: u32,
    /// Its value, in hexadecimal.
    pub value: String,
    /// Whether the logs explain it.
    pub state: State,
    /// How many measurements explain it.
    pub events: usize,
}

/// Whether logs explain a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// They give its value.
    Ok,
    /// Nothing was measured.
    Unused,
    /// They do not give its value.
    Mismatch,
}

/// Secure Boot. Keys are fingerprints of certificates, or what else an entry is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SecureBoot {
    /// Whether it was on; nothing where the log does not say.
    pub enabled: Option<bool>,
    /// Platform key.
    pub pk: Vec<String>,
    /// Key exchange keys.
    pub kek: Vec<String>,
    /// Keys of what may be started.
    pub db: Vec<String>,
    /// Those of them by which something was started.
    pub used: Vec<String>,
}

/// A program or driver that the firmware started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// The register it was measured into.
    pub pcr: u32,
    /// Its Authenticode digest.
    pub authenticode: String,
    /// Its file, as the firmware says.
    pub path: Option<String>,
    /// What of the baseline it is; nothing where there is no baseline or it is not in it.
    pub known: Option<String>,
}

/// IMA's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImaReport {
    /// Entries that the register proves.
    pub entries: usize,
    /// Entries that came after the register was read.
    pub later: usize,
    /// Files that were changed while they were measured, or the other way about.
    pub violations: usize,
    /// What was measured, in order, each with its digest.
    pub files: Vec<(String, String)>,
}

impl Report {
    /// Adds a problem.
    pub fn problem(&mut self, what: impl Into<String>, means: impl Into<String>) {
        self.problems.push(Problem {
            what: what.into(),
            means: means.into(),
        });
    }

    /// Decides whether all is right, once everything has been looked at.
    #[must_use]
    pub fn finish(mut self) -> Self {
        self.ok = self.problems.is_empty();
        self
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut o = String::new();
        let c = &self.claims;
        let said = |s: &Option<String>| s.clone().unwrap_or_else(|| "?".to_owned());
        let _ = writeln!(
            o,
            "node         {} {}, as it says",
            said(&c.image),
            said(&c.version)
        );
        let baseline = self.baseline.as_deref();
        let none = "none: only whether logs and PCRs agree was checked";
        let _ = writeln!(o, "baseline     {}", baseline.unwrap_or(none));
        if let Some(q) = &self.quote {
            let pinned = if q.pinned {
                ""
            } else {
                ", which nobody has pinned"
            };
            let _ = writeln!(o, "signed by    {}{pinned}", q.key);
            let _ = writeln!(o, "             nonce {}, boot {}", q.nonce, q.resets);
        }
        self.secure_boot(&mut o);
        for i in &self.images {
            let path = i.path.as_deref().unwrap_or("(no file)");
            let known = i
                .known
                .as_deref()
                .map(|k| format!(": {k}"))
                .unwrap_or_default();
            let _ = writeln!(
                o,
                "started      {path}{known}\n             {}",
                i.authenticode
            );
        }
        for c in &self.cmdline_added {
            let _ = writeln!(o, "command line + {c}");
        }
        let _ = writeln!(o, "boot         {}", self.phases.join(", "));
        if let Some(i) = &self.ima {
            let _ = writeln!(
                o,
                "IMA          {} entries, {} violations",
                i.entries, i.violations
            );
            // What is below /usr came from the initrd, or is a kernel module.
            for (path, digest) in &i.files {
                if !path.starts_with("/usr/") && path != "boot_aggregate" {
                    let _ = writeln!(o, "             {path} {digest}");
                }
            }
        }
        for r in &self.pcrs {
            let state = match r.state {
                State::Ok => "ok",
                State::Unused => "unused",
                State::Mismatch => "MISMATCH",
            };
            let about = pcr::about(r.pcr);
            let _ = writeln!(
                o,
                "PCR {:2}       {state:8} {:3} events  {about}",
                r.pcr, r.events
            );
        }
        for n in &self.notes {
            let _ = writeln!(o, "note: {n}");
        }
        for p in &self.problems {
            let _ = writeln!(o, "PROBLEM: {}\n  {}", p.what, p.means);
        }
        let _ = writeln!(o, "{}", self.verdict());
        o
    }

    fn verdict(&self) -> &'static str {
        let pinned = self.quote.as_ref().map(|q| q.pinned);
        match (self.ok, self.baseline.is_some(), pinned) {
            (false, ..) => "this is not what it should be",
            (true, false, _) => "logs and PCRs agree",
            (true, true, None) => "this node booted what the baseline says",
            (true, true, Some(true)) => "the owner of the key booted what the baseline says",
            (true, true, Some(false)) => "somebody booted what the baseline says: no key was given",
        }
    }

    fn secure_boot(&self, o: &mut String) {
        let s = &self.secure_boot;
        let state = match s.enabled {
            Some(true) => "on",
            Some(false) => "OFF",
            None => "?",
        };
        let setup = match self.claims.setup_mode {
            Some(true) => ", in SETUP MODE: whoever comes may enroll keys",
            _ => "",
        };
        let _ = writeln!(o, "Secure Boot  {state}{setup}");
        for (name, keys) in [("PK", &s.pk), ("KEK", &s.kek), ("db", &s.db)] {
            for k in keys {
                let used = if s.used.contains(k) { " (used)" } else { "" };
                let _ = writeln!(o, "  {name:10} {k}{used}");
            }
        }
    }
}
