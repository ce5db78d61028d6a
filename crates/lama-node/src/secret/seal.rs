// SPDX-License-Identifier: Apache-2.0
//! Sealing a secret to this machine, as a credential of systemd's (systemd-creds(1)): to its TPM by the
//! policy of the disk's keys, and to the host key that lies on /var. Either alone opens nothing.

use crate::attest::bytes::unbase64;
use crate::backup::ETC_UPPER;
use crate::error::{Context, Result};
use crate::luks::{self, PCR_PUBLIC_KEY, PCRS, SIGNED_PCRS};
use crate::run::Run;
use crate::{Error, fs, keys};
use serde::Serialize;
use std::path::Path;

/// What a credential is sealed to: systemd's identifiers of its formats (`CRED_AES256_GCM_BY_…` of
/// src/shared/creds-util.h), which its first 16 bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The TPM, by PCRs' values.
    Tpm,
    /// The TPM, by PCRs' values and a signed policy.
    TpmSigned,
    /// The TPM by PCRs' values, and the host key.
    HostTpm,
    /// The TPM by PCRs' values and a signed policy, and the host key: what is made here.
    HostTpmSigned,
    /// The host key.
    Host,
    /// Nothing: it is no secret.
    Null,
    /// Something that this program does not know.
    Unknown,
}

impl Kind {
    /// Of a credential file.
    pub fn of(credential: &[u8]) -> Self {
        let text: String = credential
            .iter()
            .filter(|b| !b.is_ascii_whitespace())
            .take(24)
            .map(|b| char::from(*b))
            .collect();
        let bytes = unbase64(&text).unwrap_or_default();
        let id = bytes
            .get(..16)
            .map_or(0, |b| b.iter().fold(0_u128, |n, b| n << 8 | u128::from(*b)));
        match id {
            0x0c7c_c07b_1176_4591_9c4b_0bea_08bc_20fe => Self::Tpm,
            0xfaf7_eb93_41e3_412c_a1a4_36f9_5a29_362f => Self::TpmSigned,
            0x93a8_9409_4874_4490_90ca_f2fc_93ca_b553 => Self::HostTpm,
            0xaf49_50a8_4913_4eb1_a738_4630_4ff3_0c05 => Self::HostTpmSigned,
            0x5a1c_6a86_df9d_4096_b1d5_a65e_0862_f19a => Self::Host,
            0x0584_69da_f6f5_4324_8005_49da_0f8e_a2fb => Self::Null,
            _ => Self::Unknown,
        }
    }

    /// Whether a TPM has a part in it: only that is lost when the machine changes.
    pub fn by_tpm(self) -> bool {
        !matches!(self, Self::Host | Self::Null)
    }

    /// In a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Tpm => "TPM",
            Self::TpmSigned => "TPM, signed policy",
            Self::HostTpm => "TPM, host key",
            Self::HostTpmSigned => "TPM, signed policy, host key",
            Self::Host => "host key",
            Self::Null => "nothing",
            Self::Unknown => "?",
        }
    }
}

/// What a secret is sealed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// The TPM, where there is one, and the host key.
    Machine,
    /// The host key alone: while the TPM's registers change with the firmware's keys.
    Host,
}

/// Seals a secret to this machine: to its TPM, where it has one, and to the host key in `var`.
///
/// # Errors
/// systemd-creds fails.
pub fn seal(var: &Path, name: &str, data: &[u8], to: To) -> Result<Vec<u8>> {
    fs::create_dir(var.join("lib/systemd"))?;
    let mut run = creds(var).arg("encrypt");
    // After a change of db the TPM would not open at the next start what is sealed to it now.
    run = if to == To::Host || (luks::has_tpm() && keys::pending()) {
        run.arg("--with-key=host")
    } else if luks::has_tpm() && Path::new(PCR_PUBLIC_KEY).exists() {
        run.args([
            "--with-key=host+tpm2-with-public-key",
            "--tpm2-device=auto",
            &format!("--tpm2-pcrs={PCRS}"),
            &format!("--tpm2-public-key={PCR_PUBLIC_KEY}"),
            &format!("--tpm2-public-key-pcrs={SIGNED_PCRS}"),
        ])
    } else {
        run.arg("--with-key=auto")
    };
    let out = run
        .arg(format!("--name={name}"))
        .args(["-", "-"])
        .stdin(data)
        .run()
        .context(format_args!("cannot seal the secret {name}"))?;
    Ok(out.stdout)
}

/// Opens a sealed credential with the TPM and the host key in `var`.
///
/// # Errors
/// It was sealed to another machine or by another name, or systemd-creds is missing.
pub fn open(var: &Path, name: &str, path: &Path) -> Result<Vec<u8>> {
    let out = creds(var)
        .arg("decrypt")
        .arg(format!("--name={name}"))
        .arg(path)
        .arg("-")
        .run()
        .context(format_args!("cannot open the credential {name}"))?;
    Ok(out.stdout)
}

/// systemd-creds(1) for the system whose `/var` this is.
fn creds(var: &Path) -> Run {
    if var == Path::new("/var") {
        return Run::new("systemd-creds");
    }
    let theirs = var.join(ETC_UPPER).join("machine-id");
    let (own, id) = (fs::line("/etc/machine-id"), fs::line(&theirs));
    let run = match (own, id) {
        // systemd removes a host key that it finds under another machine ID, and what was sealed by it
        // is lost: a medium has to be the machine that is restored from it for as long as this takes.
        (Some(own), Some(id)) if own != id => Run::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/machine-id && exec systemd-creds \"$@\"")
            .arg(theirs),
        _ => Run::new("systemd-creds"),
    };
    run.env(
        "SYSTEMD_CREDENTIAL_SECRET",
        var.join("lib/systemd/credential.secret"),
    )
}

/// Whether a credential may be called so: a part of what systemd takes (systemd-creds(1)), that needs
/// no quoting in a unit or a shell.
///
/// # Errors
/// It may not.
pub fn check_name(name: &str) -> Result<()> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
    let start = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    // So is a file called that is being written.
    let end = !name.ends_with(".new");
    if start && end && name.len() <= 128 && name.bytes().all(ok) {
        return Ok(());
    }
    let e = Error::new(format!("no secret can be called {name:?}"));
    Err(e.hint(
        "letters, digits, `.`, `_`, `-` and `@`, at most 128, beginning with a letter or digit and \
         not ending in .new",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_format_says_what_it_is_sealed_to() {
        assert_eq!(Kind::of(b"Whxqht+dQJax1aZeCGLx\nmgAA\n"), Kind::Host);
        assert_eq!(Kind::of(b"r0lQqEkTTrGnOEYwT/MMBQAA"), Kind::HostTpmSigned);
        assert_eq!(Kind::of(b"Whxqht+dQJax1aZeCGLx"), Kind::Unknown);
        assert!(!Kind::Host.by_tpm() && Kind::HostTpmSigned.by_tpm() && Kind::Unknown.by_tpm());
    }

    #[test]
    fn names() {
        for good in [
            "a",
            "lamadist.backup.password",
            "user@host_1-x",
            &"a".repeat(128),
        ] {
            check_name(good).unwrap();
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a b",
            "a:b",
            "ä",
            "a\n",
            "a.new",
            &"a".repeat(129),
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Kind::of(&data);
        }
    }
}
