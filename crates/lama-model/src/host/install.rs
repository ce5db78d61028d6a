// SPDX-License-Identifier: Apache-2.0
//! `[install]`: what the installer would ask on this machine, answered beforehand.
//!
//! The answers become kernel parameters of the installer alone: of an addon of the medium's UKI, which
//! is not copied to the machine, or of the file that is served over the network. What an answer may be
//! is decided by `lama_node::install::answers`; these rules let through nothing that it refuses, which
//! a test shows, and nothing that a command line cannot carry.

use super::Check;
use super::rules::*;
use crate::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use toml::Spanned;

/// The prefix of the kernel parameters.
pub const PREFIX: &str = "lamadist.install.";

type Test = fn(&str) -> bool;

/// The keys, what each value is to be, and how it is written.
const RULES: [(&str, Test, Rule); 8] = [
    (
        "disk",
        is_disk,
        (
            "is no disk to install to",
            "write any, serial:NUMBER, model:NAME, or a path such as /dev/disk/by-id/…",
        ),
    ),
    ("wipe", is_yes_or_no, YES_OR_NO),
    (
        "reinstall",
        is_uuid,
        (
            "is no UUID of a partition table",
            "write the one that the installer prints when it refuses the disk",
        ),
    ),
    (
        "finish",
        |v| matches!(v, "reboot" | "poweroff" | "stay"),
        (
            "is no end of an installation",
            "write reboot, poweroff or stay",
        ),
    ),
    (
        "recovery-to",
        is_recipient,
        (
            "is nobody that a key can be encrypted to",
            "write an age recipient (age1…) or an SSH public key of type ssh-ed25519 or ssh-rsa",
        ),
    ),
    ("recovery-show", is_yes_or_no, YES_OR_NO),
    (
        "secure-boot",
        |v| matches!(v, "required" | "off"),
        (
            "does not say what Secure Boot is to be",
            "write required or off",
        ),
    ),
    (
        "without-tpm",
        |v| v == "passphrase",
        (
            "is not what opens a disk without a TPM",
            "write passphrase, or leave it out",
        ),
    ),
];

const YES_OR_NO: Rule = ("is neither yes nor no", "write yes or no");
/// systemd takes both quotes and the backslash of a command line for its own.
const CARRIED: Rule = (
    "cannot stand on a command line",
    "printable ASCII without quotes and backslashes; the comment of an SSH key can be left out",
);

/// `[install]`: the installer's answers (docs/INSTALL.md).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Install {
    /// Where to install: `any`, `serial:NUMBER`, `model:NAME`, `path:/dev/…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Spanned<String>>,
    /// `yes`: a disk with data may be overwritten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wipe: Option<Spanned<String>>,
    /// UUID of the partition table of the installed machine that may be erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reinstall: Option<Spanned<String>>,
    /// What happens at the end: `reboot`, `poweroff`, `stay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish: Option<Spanned<String>>,
    /// Who the recovery key is encrypted to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recovery_to: Vec<Spanned<String>>,
    /// `no`: the recovery key is not shown on the console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_show: Option<Spanned<String>>,
    /// `off`: a machine whose Secure Boot is off may be installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<Spanned<String>>,
    /// `passphrase`: a machine without TPM may be installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_tpm: Option<Spanned<String>>,
}

impl Install {
    /// With these answers; of two to one question the later one counts.
    pub fn of(answers: &[Answer]) -> Self {
        let mut i = Self::default();
        for a in answers {
            let value = Spanned::new(0..0, a.value.clone());
            let place = match a.key {
                "disk" => &mut i.disk,
                "wipe" => &mut i.wipe,
                "reinstall" => &mut i.reinstall,
                "finish" => &mut i.finish,
                "recovery-show" => &mut i.recovery_show,
                "secure-boot" => &mut i.secure_boot,
                "without-tpm" => &mut i.without_tpm,
                _ => {
                    i.recovery_to.push(value);
                    continue;
                }
            };
            *place = Some(value);
        }
        i
    }

    pub(super) fn answers(&self, check: &Check<'_>) -> Result<Vec<Answer>> {
        let one = [
            ("disk", &self.disk),
            ("wipe", &self.wipe),
            ("reinstall", &self.reinstall),
            ("finish", &self.finish),
            ("recovery-show", &self.recovery_show),
            ("secure-boot", &self.secure_boot),
            ("without-tpm", &self.without_tpm),
        ];
        let one = one.into_iter().filter_map(|(k, v)| Some((k, v.as_ref()?)));
        let many = self.recovery_to.iter().map(|v| ("recovery-to", v));
        one.chain(many)
            .map(|(key, v)| {
                Answer::new(key, v.get_ref()).map_err(|w| check.error(v, w.message, w.hint))
            })
            .collect()
    }
}

/// An answer that the installer understands, and a command line carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    key: &'static str,
    value: String,
}

/// Why a text is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: &'static str,
}

impl Answer {
    /// All keys.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        RULES.iter().map(|r| r.0)
    }

    /// This value for this key.
    ///
    /// # Errors
    /// There is no such key, or it cannot have this value.
    pub fn new(key: &str, value: &str) -> std::result::Result<Self, Wrong> {
        let wrong = |(what, hint): Rule| Wrong {
            message: format!("{value:?} {what}"),
            hint,
        };
        let Some((key, test, rule)) = RULES.iter().find(|r| r.0 == key) else {
            return Err(Wrong {
                message: format!("there is no answer {key:?}"),
                hint: "docs/INSTALL.md lists the keys",
            });
        };
        let carried = |b: u8| (b.is_ascii_graphic() || b == b' ') && !b"\"'\\".contains(&b);
        if !value.bytes().all(carried) {
            return Err(wrong(CARRIED));
        }
        if value.trim() != value || !test(value) {
            return Err(wrong(*rule));
        }
        Ok(Self {
            key,
            value: value.to_owned(),
        })
    }

    /// Parses `KEY=VALUE`.
    ///
    /// # Errors
    /// It is none, or see [`Answer::new`].
    pub fn parse(text: &str) -> std::result::Result<Self, Wrong> {
        let (key, value) = text.split_once('=').ok_or_else(|| Wrong {
            message: format!("{text:?} is no answer"),
            hint: "write KEY=VALUE, such as disk=any; docs/INSTALL.md lists the keys",
        })?;
        Self::new(key.trim(), value.trim())
    }

    /// The question.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// It as a kernel parameter.
    pub fn parameter(&self) -> String {
        // The kernel's own quoting is around all of it (Documentation/admin-guide/kernel-parameters).
        let quote = if self.value.contains(' ') { "\"" } else { "" };
        format!("{quote}{PREFIX}{self}{quote}")
    }
}

/// `KEY=VALUE`, as in a file.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// What is described, and what is said on top of it: an answer there replaces all that are described
/// to its question.
pub fn merge(described: &[Answer], over: &[Answer]) -> Vec<Answer> {
    let kept = described
        .iter()
        .filter(|d| over.iter().all(|o| o.key != d.key));
    kept.chain(over).cloned().collect()
}

/// The answers as kernel parameters, in one line.
pub fn cmdline(answers: &[Answer]) -> String {
    let words: Vec<String> = answers.iter().map(Answer::parameter).collect();
    words.join(" ")
}

fn is_disk(s: &str) -> bool {
    let rest = |kind: &str| Some(s.strip_prefix(kind)?.strip_prefix(':')?.trim());
    let named = |kind: &str| rest(kind).is_some_and(|r| !r.is_empty());
    let path = rest("path").unwrap_or(s);
    s == "any" || named("serial") || named("model") || path.starts_with("/dev/")
}

fn is_yes_or_no(s: &str) -> bool {
    matches!(s, "yes" | "no")
}

fn is_uuid(s: &str) -> bool {
    s.len() == 36 && uuid::Uuid::try_parse(s).is_ok()
}

/// As age(1) takes them.
fn is_recipient(s: &str) -> bool {
    let age = s.strip_prefix("age1").is_some_and(|rest| {
        // Bech32: 52 characters of 32 bytes and 6 of the checksum; other kinds are longer.
        rest.len() >= 58
            && rest
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    });
    let ssh = ["ssh-ed25519 ", "ssh-rsa "];
    age || (ssh.iter().any(|p| s.starts_with(p)) && is_ssh_key(s))
}
