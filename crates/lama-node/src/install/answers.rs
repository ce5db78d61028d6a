// SPDX-License-Identifier: Apache-2.0
//! What the installer is told beforehand: lines `KEY=VALUE`, `#` beginning a comment.
//!
//! From weakest to strongest: the file `lamadist/install.conf` on the medium's ESP, the credential
//! `lamadist.install`, and kernel parameters `lamadist.install.KEY=VALUE`, which only a signed addon
//! can bring under Secure Boot. Where one of them names a disk, nobody is asked anything.

use crate::kernel::Cmdline;
use crate::{Error, Result};

/// The prefix of kernel parameters.
pub const PREFIX: &str = "lamadist.install.";

/// Which disk is installed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The only one that is blank.
    Any,
    /// The one with this serial number.
    Serial(String),
    /// The only one of this model.
    Model(String),
    /// The one that this path leads to (`/dev/disk/by-id/…`, `/dev/nvme0n1`).
    Path(String),
}

/// What happens at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Finish {
    /// The machine reboots into the new system.
    #[default]
    Reboot,
    /// It powers off.
    PowerOff,
    /// The live system stays.
    Stay,
}

/// Answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// `disk`.
    pub disk: Option<Choice>,
    /// `wipe`: whether a disk with data may be overwritten.
    pub wipe: bool,
    /// `reinstall`: the GPT's UUID of an installed disk that may be overwritten. It names one
    /// installation: the next one has another.
    pub reinstall: Option<String>,
    /// `finish`.
    pub finish: Finish,
    /// `without-tpm=passphrase`: a machine without TPM may be installed; its disk is opened by a
    /// passphrase.
    pub without_tpm: bool,
    /// `secure-boot=off`: a machine whose Secure Boot is off may be installed.
    pub secure_boot_off: bool,
    /// `recovery-to`: who the recovery key is encrypted to, an age recipient or an SSH public key
    /// each.
    pub recipients: Vec<String>,
    /// `recovery-show`: whether it is shown on the console. Without an answer it is.
    pub show: Option<bool>,
}

impl Answers {
    /// Reads lines over what is known already; `origin` is named in errors.
    ///
    /// # Errors
    /// An unknown key or value, with its line.
    pub fn read(&mut self, text: &str, origin: &str) -> Result<()> {
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = format!("{origin}:{}", n.saturating_add(1));
            let (key, value) = line.split_once('=').ok_or_else(|| {
                Error::new(format!("{at}: {line:?} is no answer")).hint("write KEY=VALUE")
            })?;
            self.set(key.trim(), value.trim())
                .map_err(|e| e.within(&at))?;
        }
        Ok(())
    }

    /// Reads the kernel command line's.
    ///
    /// # Errors
    /// An unknown key or value.
    pub fn read_cmdline(&mut self, cmdline: &Cmdline) -> Result<()> {
        for (key, value) in cmdline.with_prefix(PREFIX) {
            self.set(key, value)
                .map_err(|e| e.within(&format!("kernel parameter {PREFIX}{key}")))?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let bad = |may: &str| Err(Error::new(format!("{key} cannot be {value:?}")).hint(may));
        let yes = |may: &'static str| match value {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(Error::new(format!("{key} cannot be {value:?}")).hint(may)),
        };
        match key {
            "disk" => self.disk = Some(Choice::parse(value)?),
            "wipe" => self.wipe = yes("write yes or no")?,
            "reinstall" => self.reinstall = Some(value.to_ascii_lowercase()),
            "finish" => {
                self.finish = match value {
                    "reboot" => Finish::Reboot,
                    "poweroff" => Finish::PowerOff,
                    "stay" => Finish::Stay,
                    _ => return bad("write reboot, poweroff or stay"),
                }
            }
            "without-tpm" => match value {
                "passphrase" => self.without_tpm = true,
                _ => return bad("write passphrase, or leave it out"),
            },
            "secure-boot" => match value {
                "off" => self.secure_boot_off = true,
                "required" => self.secure_boot_off = false,
                _ => return bad("write required or off"),
            },
            "recovery-to" if is_recipient(value) => self.recipients.push(value.to_owned()),
            "recovery-to" => return bad("write an age recipient (age1…) or an SSH public key"),
            "recovery-show" => self.show = Some(yes("write yes or no")?),
            _ => {
                return Err(Error::new(format!("there is no answer {key:?}"))
                    .hint("docs/INSTALL.md lists the keys"));
            }
        }
        Ok(())
    }
}

/// An age recipient, or an SSH public key of a type that age encrypts to (age(1)).
pub fn is_recipient(s: &str) -> bool {
    let one_line = !s.contains(['\n', '\r']);
    one_line
        && ["age1", "ssh-ed25519 ", "ssh-rsa "]
            .iter()
            .any(|p| s.starts_with(p))
}

impl Choice {
    /// `any`, `serial:S`, `model:M`, `path:P`, or a path.
    ///
    /// # Errors
    /// None of these.
    pub fn parse(s: &str) -> Result<Self> {
        let rest = |kind: &str| {
            let r = s.strip_prefix(kind)?.strip_prefix(':')?.trim();
            (!r.is_empty()).then(|| r.to_owned())
        };
        if s == "any" {
            return Ok(Self::Any);
        }
        rest("serial")
            .map(Self::Serial)
            .or_else(|| rest("model").map(Self::Model))
            .or_else(|| {
                rest("path")
                    .or_else(|| Some(s.to_owned()))
                    .filter(|p| p.starts_with("/dev/"))
                    .map(Self::Path)
            })
            .ok_or_else(|| {
                Error::new(format!("disk cannot be {s:?}")).hint(
                    "write any, serial:NUMBER, model:NAME, or a path such as /dev/disk/by-id/…",
                )
            })
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any blank disk"),
            Self::Serial(s) => write!(f, "the disk with serial number {s}"),
            Self::Model(m) => write!(f, "the disk of model {m}"),
            Self::Path(p) => write!(f, "the disk {p}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_sources_win_and_recipients_add_up() {
        let mut a = Answers::default();
        a.read(
            "# who\ndisk = serial:A B\nwipe=yes\nrecovery-to=ssh-ed25519 AAAA me\n",
            "x",
        )
        .unwrap();
        a.read_cmdline(&Cmdline::parse(
            "quiet lamadist.install.disk=/dev/vda lamadist.install.finish=poweroff \
             lamadist.install.recovery-to=age1xyz",
        ))
        .unwrap();
        assert_eq!(a.disk, Some(Choice::Path("/dev/vda".into())));
        assert!(a.wipe);
        assert_eq!(a.finish, Finish::PowerOff);
        assert_eq!(a.recipients, ["ssh-ed25519 AAAA me", "age1xyz"]);
    }

    #[test]
    fn mistakes_name_their_place() {
        for (text, says) in [
            ("disk", "install.conf:2: \"disk\" is no answer"),
            ("disk=sda", "install.conf:2: disk cannot be"),
            ("disk=serial:", "disk cannot be"),
            ("wipe=maybe", "wipe cannot be"),
            ("finish=halt", "finish cannot be"),
            ("recovery-to=root", "recovery-to cannot be"),
            ("dsik=any", "there is no answer \"dsik\""),
        ] {
            let e = Answers::default()
                .read(&format!("\n{text}"), "install.conf")
                .unwrap_err();
            assert!(e.to_string().contains(says), "{e}");
            assert!(e.help().is_some(), "{e}");
        }
        let c = Cmdline::parse("lamadist.install.x=1");
        let e = Answers::default().read_cmdline(&c).unwrap_err();
        assert!(e.to_string().contains("lamadist.install.x: "), "{e}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = Answers::default().read(&text, "x");
        }
    }
}
