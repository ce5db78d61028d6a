// SPDX-License-Identifier: Apache-2.0
//! The reviewed-script rule: no package gets in whose scripts nobody has read.

use crate::PackageInput;
use crate::unpack::Control;
use lama_exec::fs;
use lama_model::scripts::{Kind, Package, Scripts, record_path};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const BEGIN: &str = "# Automatically added by ";
const END: &str = "# End automatically added section";

/// A script or trigger that stops the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// `postinst`, `triggers` …
    pub script: String,
    /// The digest to record; none for a trigger.
    pub digest: Option<String>,
    /// What has to be reviewed: the script without the sections whose kind is reviewed.
    pub text: String,
    /// Whether another text of this script was reviewed before.
    pub changed: Change,
}

/// Why something has to be reviewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nobody has seen it.
    Unknown,
    /// It is not the one that was reviewed.
    Changed,
}

/// Findings as text, each with the script.
pub(crate) fn describe(findings: &[Finding]) -> String {
    let mut out = format!(
        "{} maintainer script(s) or trigger(s) are not reviewed",
        findings.len()
    );
    for f in findings.iter().take(5) {
        let what = match f.changed {
            Change::Unknown => "nobody has reviewed it",
            Change::Changed => "it differs from the one that was reviewed",
        };
        out += &format!("\n\n{} {}: {}: {what}", f.package, f.version, f.script);
        if let Some(d) = &f.digest {
            out += &format!("\n  sha256 {d}");
        }
        for (i, l) in f.text.lines().enumerate() {
            if i == 120 {
                out += "\n  | … (cut here)";
                break;
            }
            out += &format!("\n  | {l}");
        }
    }
    if findings.len() > 5 {
        let rest: Vec<String> = findings
            .iter()
            .skip(5)
            .map(|f| format!("{} {}", f.package, f.script))
            .collect();
        out += &format!("\n\nand: {}", rest.join(", "));
    }
    out
}

/// Everything in these packages that is not reviewed, sorted by package.
pub fn review(packages: &[(&PackageInput, &Control)], scripts: &Scripts) -> Vec<Finding> {
    let mut out = Vec::new();
    for (p, control) in packages {
        let record = scripts.package(&p.name);
        for (name, data) in control.scripts() {
            if name == "conffiles" || scripts.never.contains_key(name) {
                continue;
            }
            let finding = |digest, text, changed| Finding {
                package: p.name.clone(),
                version: p.version.clone(),
                script: name.to_owned(),
                digest,
                text,
                changed,
            };
            if name == "triggers" {
                for t in triggers(&String::from_utf8_lossy(&data)) {
                    if !scripts.triggers.contains_key(&t) {
                        out.push(finding(None, t, Change::Unknown));
                    }
                }
                continue;
            }
            let residue = residue(&data, &scripts.kinds, record.and_then(|(_, star)| star));
            if residue.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let digest = hex::encode(Sha256::digest(&residue));
            let known = record.and_then(|(r, _)| r.scripts.get(name));
            if known.is_some_and(|k| k.contains(&digest)) {
                continue;
            }
            let change = if known.is_some() {
                Change::Changed
            } else {
                Change::Unknown
            };
            let text = String::from_utf8_lossy(&residue).into_owned();
            out.push(finding(Some(digest), text, change));
        }
    }
    out.sort_by(|a, b| (&a.package, &a.script).cmp(&(&b.package, &b.script)));
    out.dedup();
    out
}

/// The names of triggers that a `triggers` file is interested in or activates (deb-triggers(5)).
fn triggers(text: &str) -> Vec<String> {
    text.lines()
        .map(|l| l.split('#').next().unwrap_or("").split_whitespace())
        .filter_map(|mut w| (w.next().is_some()).then(|| w.next()).flatten())
        .map(str::to_owned)
        .collect()
}

/// What is left of a script to review: without sections of kinds that need no review of their own,
/// comments, blank lines and `set -e`; the tool's version in the heading of the others goes too. With
/// `star`, that text is replaced by `*`.
pub fn residue(script: &[u8], kinds: &BTreeMap<String, Kind>, star: Option<&str>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(script) else {
        // A program: all of it counts.
        return script.to_owned();
    };
    let mut out = String::new();
    let mut lines = text.lines();
    // Inside a reviewed section, its end is waited for; inside another, its lines are kept.
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if let Some(rest) = trimmed.strip_prefix(BEGIN) {
            let tool = rest.split(['/', ' ']).next().unwrap_or("");
            match kinds.get(tool) {
                Some(k) if !k.review => {
                    let ended = lines.by_ref().any(|l| l.trim() == END);
                    if ended {
                        continue;
                    }
                    // Without an end all the rest was swallowed: nothing of it counts as reviewed.
                    return script.to_owned();
                }
                _ => {
                    out.push_str(&format!("{BEGIN}{tool}\n"));
                    continue;
                }
            }
        }
        let idle = trimmed.is_empty()
            || trimmed.starts_with('#')
            || matches!(trimmed, "set -e" | "set -eu" | "exit 0" | ":");
        if !idle {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    if let Some(s) = star {
        out = out.replace(s, "*");
    }
    out.into_bytes()
}

/// Records findings of one package as reviewed, with the reason, in a file of `dir`; the digests
/// join those already there. Returns the file.
///
/// # Errors
/// The folder cannot be read or written.
pub fn record(
    dir: &Path,
    name: &str,
    why: &str,
    findings: &[Finding],
) -> lama_model::Result<PathBuf> {
    let path = record_path(dir, name);
    let mut all = match fs::read_optional(&path)? {
        Some(data) => lama_model::parse(&path, &String::from_utf8_lossy(&data))?,
        None => Scripts::default(),
    };
    let p = all
        .packages
        .entry(name.to_owned())
        .or_insert_with(Package::default);
    if !why.is_empty() || p.why.is_empty() {
        p.why = why.to_owned();
    }
    for f in findings
        .iter()
        .filter(|f| f.package == name || name.ends_with('*'))
    {
        if let Some(d) = &f.digest {
            let digests = p.scripts.entry(f.script.clone()).or_default();
            if !digests.contains(d) {
                digests.push(d.clone());
                digests.sort();
            }
        }
    }
    let text = toml::to_string(&all).unwrap_or_default();
    fs::write_atomic(
        &path,
        format!("# SPDX-License-Identifier: Apache-2.0\n{text}"),
    )?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> BTreeMap<String, Kind> {
        let k = |review| Kind {
            why: "x".into(),
            review,
        };
        BTreeMap::from([
            ("dh_installsystemd".to_owned(), k(false)),
            ("dh_installalternatives".to_owned(), k(true)),
        ])
    }

    const SCRIPT: &str = "#!/bin/sh\nset -e\n\n\
        # Automatically added by dh_installsystemd/13.24\nfoo\n# End automatically added section\n\
        # Automatically added by dh_installalternatives/13.24\nbar 1\n# End automatically added section\n\
        mine 6.12.1-amd64\nexit 0\n";

    #[test]
    fn only_what_needs_review_is_left() {
        let text =
            |s: &str, star| String::from_utf8(residue(s.as_bytes(), &kinds(), star)).unwrap();
        let want = "# Automatically added by dh_installalternatives\nbar 1\nmine 6.12.1-amd64\n";
        assert_eq!(text(SCRIPT, None), want);
        // A new debhelper asks for no new review.
        assert_eq!(text(&SCRIPT.replace("13.24", "13.99"), None), want);
        assert!(text(SCRIPT, Some("6.12.1-amd64")).ends_with("mine *\n"));
        let endless = "# Automatically added by dh_installsystemd/1\nrm -rf /\n";
        assert_eq!(text(endless, None), endless);
    }

    #[test]
    fn unknown_changed_and_known() {
        let dir = tempfile::tempdir().unwrap();
        let p = PackageInput {
            name: "a".into(),
            version: "1".into(),
            ..PackageInput::default()
        };
        let control = |s: &str, t: &str| {
            let scripts = BTreeMap::from([
                ("postinst".to_owned(), s.as_bytes().to_vec()),
                ("triggers".to_owned(), t.as_bytes().to_vec()),
            ]);
            Control::new(vec![], &scripts)
        };
        let load = || Scripts {
            kinds: kinds(),
            ..Scripts::load(dir.path()).unwrap()
        };
        let c = control(SCRIPT, "# x\ninterest-noawait new\n");
        let found = review(&[(&p, &c)], &load());
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].text, "new");
        assert!(
            describe(&found).contains("  | bar 1\n"),
            "{}",
            describe(&found)
        );
        record(dir.path(), "a", "nothing to do", &found).unwrap();
        let c = control(SCRIPT, "");
        assert_eq!(review(&[(&p, &c)], &load()), []);
        let c = control(&SCRIPT.replace("bar 1", "bar 2"), "");
        assert_eq!(review(&[(&p, &c)], &load())[0].changed, Change::Changed);
    }

    proptest! {
        #[test]
        fn never_panics(s in "(# Automatically added by [a-z_/ ]{0,6}\n|# End automatically added section\n|[a-z #]{0,6}\n){0,8}") {
            let _ = residue(s.as_bytes(), &kinds(), Some("a"));
        }
    }
}
