// SPDX-License-Identifier: Apache-2.0
//! LUKS2 volumes: what opens them, and changing that. cryptsetup(8) and systemd-cryptenroll(1) do it.

use crate::error::Context;
use crate::keys::policy;
use crate::run::Run;
use crate::secret::escrow;
use crate::{Error, Result, fs};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The public key of the signed PCR policy, which systemd-stub takes from the UKI.
pub const PCR_PUBLIC_KEY: &str = "/run/systemd/tpm2-pcr-public-key.pem";
/// PCRs that are sealed to by value: 7, Secure Boot's state and keys.
pub const PCRS: &str = "7";
/// PCRs that are sealed to by signed policy: 11, the UKI and how far the boot got.
pub const SIGNED_PCRS: &str = "11";
/// Bytes that a new volume encrypts at once: a page, and what file systems write. All partitions are
/// multiples of it.
pub const SECTOR: u32 = 4096;
/// For keys that are random, so nothing has to slow down who tries (systemd-cryptenroll(1) does the
/// same).
const FAST: [&str; 5] = [
    "--pbkdf=pbkdf2",
    "--pbkdf-force-iterations",
    "1000",
    "--hash",
    "sha512",
];
/// The slot of a new volume's first key.
pub const FIRST: &str = "0";
/// The token that marks a recovery key, as systemd-cryptenroll writes it.
const RECOVERY: &str = "systemd-recovery";
const TPM: &str = "systemd-tpm2";

/// What cryptsetup tells of a header (LUKS2 On-Disk Format Specification, section 3).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Header {
    keyslots: BTreeMap<String, Value>,
    tokens: BTreeMap<String, Token>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Token {
    r#type: String,
    keyslots: Vec<String>,
    #[serde(rename = "tpm2-pcrs")]
    pcrs: Vec<u32>,
    #[serde(rename = "tpm2_pubkey_pcrs")]
    pubkey_pcrs: Vec<u32>,
    /// The key of the signed policy: PEM, in Base64.
    #[serde(rename = "tpm2_pubkey")]
    pubkey: Option<String>,
    /// Of a recovery key: who copies of secrets are encrypted to.
    #[serde(rename = "lamadist-recipient")]
    recipient: Option<String>,
}

/// What the TPM opens a volume by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The token's number.
    pub token: String,
    /// The slots that it opens.
    pub slots: Vec<String>,
    /// The key of its signed policy ([`policy::fingerprint`]).
    pub key: Option<String>,
}

impl Header {
    /// That of a device.
    ///
    /// # Errors
    /// It is no LUKS2 volume.
    pub fn read(device: &str) -> Result<Self> {
        Run::new("cryptsetup")
            .args(["luksDump", "--dump-json-metadata", device])
            .json()
    }

    /// Slots that belong to a token of this type.
    fn slots(&self, kind: &str) -> Vec<&str> {
        let of = self.tokens.values().filter(|t| t.r#type == kind);
        of.flat_map(|t| t.keyslots.iter().map(String::as_str))
            .collect()
    }

    /// How many slots the TPM opens.
    pub fn tpm(&self) -> usize {
        self.slots(TPM).len()
    }

    /// What the TPM opens it by.
    pub fn seals(&self) -> Vec<Seal> {
        let of = self.tokens.iter().filter(|(_, t)| t.r#type == TPM);
        of.map(|(token, t)| Seal {
            token: token.clone(),
            slots: t.keyslots.clone(),
            key: t.pubkey.as_deref().and_then(policy::of_token),
        })
        .collect()
    }

    /// How many recovery keys there are.
    pub fn recovery(&self) -> usize {
        self.slots(RECOVERY).len()
    }

    /// The slots of recovery keys.
    pub fn recovery_slots(&self) -> Vec<String> {
        let slots = self.slots(RECOVERY);
        slots.into_iter().map(str::to_owned).collect()
    }

    /// How many slots a passphrase opens.
    pub fn passphrase(&self) -> usize {
        let (tpm, recovery) = (self.slots(TPM), self.slots(RECOVERY));
        let others = |s: &&String| !tpm.contains(&s.as_str()) && !recovery.contains(&s.as_str());
        self.keyslots.keys().filter(others).count()
    }

    /// PCRs by value and by signed policy that the TPM's slot is bound to.
    pub fn pcrs(&self) -> Option<(&[u32], &[u32])> {
        let t = self.tokens.values().find(|t| t.r#type == TPM)?;
        Some((&t.pcrs, &t.pubkey_pcrs))
    }

    /// Who copies of secrets are encrypted to, so that recovery keys open them.
    pub fn recipients(&self) -> Vec<String> {
        let of = self.tokens.values().filter(|t| t.r#type == RECOVERY);
        of.filter_map(|t| t.recipient.clone())
            .filter(|r| escrow::is_recipient(r))
            .collect()
    }

    fn free_slot(&self) -> usize {
        (0..32)
            .find(|n| !self.keyslots.contains_key(&n.to_string()))
            .unwrap_or(31)
    }
}

/// What opens a volume that is to be changed.
#[derive(Debug, Clone, Copy)]
pub enum Opener<'a> {
    /// The TPM.
    Tpm,
    /// A passphrase or recovery key.
    Key(&'a str),
}

impl Opener<'_> {
    /// Makes a run of cryptsetup(8) open a volume by this.
    fn to(self, run: Run) -> Run {
        match self {
            Opener::Tpm => run.arg("--token-only"),
            // Else cryptsetup would ask the TPM first, and any key would seem to open it.
            Opener::Key(k) => run
                .args(["--disable-external-tokens", "--key-file", "-"])
                .stdin(k),
        }
    }
}

/// A secret in a file that only root reads, in memory; gone when this is dropped.
pub struct Secret(PathBuf);

impl Secret {
    /// Writes it.
    ///
    /// # Errors
    /// /run cannot be written.
    pub fn new(name: &str, text: &str) -> Result<Self> {
        let path = Path::new("/run/lamadist/secret").join(name);
        fs::write(&path, text, 0o600)?;
        Ok(Self(path))
    }

    /// The same, for something that is done to one device; others may be worked on beside it.
    fn of(name: &str, device: &str, text: &str) -> Result<Self> {
        let device = device.rsplit('/').next().unwrap_or(device);
        Self::new(&format!("{name}-{device}"), text)
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = fs::remove(&self.0);
    }
}

/// Makes a volume that this recovery key opens, with its GPT name as label. Nothing else opens it, and
/// [`mark_recovery`] has yet to tell what its one key ([`FIRST`]) is.
///
/// # Errors
/// cryptsetup's.
pub fn format(device: &str, label: &str, recovery: &str) -> Result<()> {
    let run = Run::new("cryptsetup").args(["luksFormat", "--batch-mode", "--type=luks2"]);
    // What systemd-repart(8) takes, too, but for the sectors.
    let run = run.args(["--cipher=aes-xts-plain64", "--key-size=512"]);
    let run = run.arg(format!("--sector-size={SECTOR}"));
    let run = run.args(["--label", label, "--key-slot", FIRST, "--key-file", "-"]);
    run.args(FAST)
        .arg(device)
        .stdin(recovery)
        .run()
        .context(format_args!("cannot encrypt {device}"))
        .map(|_| ())
}

/// Adds a recovery key.
///
/// # Errors
/// The volume does not open, or has no free slot.
pub fn add_recovery(device: &str, opener: Opener<'_>, key: &str) -> Result<()> {
    let slot = Header::read(device)?.free_slot().to_string();
    let more = ["--key-slot", &slot].into_iter().chain(FAST);
    add_key(device, opener, key, more).context(format_args!("no recovery key for {device}"))?;
    mark_recovery(device, &slot, escrow::recipient(key).ok().as_deref())
}

/// Adds a passphrase, which takes as long to try as cryptsetup(8) thinks fit.
///
/// # Errors
/// The volume does not open, or has no free slot.
pub fn add_passphrase(device: &str, opener: Opener<'_>, passphrase: &str) -> Result<()> {
    add_key(device, opener, passphrase, []).context(format_args!("no passphrase for {device}"))
}

fn add_key<'a>(
    device: &str,
    opener: Opener<'_>,
    key: &str,
    more: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    let new = Secret::of("key", device, key)?;
    let run = Run::new("cryptsetup").args(["luksAddKey", "--batch-mode"]);
    let run = opener.to(run.args(more));
    run.arg(device).arg(new.path()).run().map(|_| ())
}

/// Writes the token that says which slot a recovery key has, and who its [recipient](escrow::recipient)
/// is. Without that the key opens the disk all the same, but no copies of secrets.
///
/// # Errors
/// cryptsetup's.
pub fn mark_recovery(device: &str, slot: &str, recipient: Option<&str>) -> Result<()> {
    let mut token = serde_json::json!({ "type": RECOVERY, "keyslots": [slot] });
    if let Some(r) = recipient {
        token["lamadist-recipient"] = r.into();
    }
    Run::new("cryptsetup")
        .args(["token", "import", device])
        .stdin(token.to_string())
        .run()
        .map(|_| ())
}

/// Whether this opens the volume; it stays closed.
///
/// # Errors
/// It does not: why.
pub fn check(device: &str, opener: Opener<'_>) -> Result<()> {
    let run = Run::new("cryptsetup").args(["open", "--test-passphrase", "--batch-mode"]);
    opener.to(run).arg(device).run().map(|_| ())
}

/// Seals the volume's key to this machine's TPM as it is now, in place of what was sealed before.
///
/// # Errors
/// The volume does not open, or the TPM refuses.
pub fn seal(device: &str, opener: Opener<'_>) -> Result<()> {
    if !Path::new(PCR_PUBLIC_KEY).exists() {
        return Err(Error::new(format!(
            "there is no {PCR_PUBLIC_KEY}: this boot has no signed PCR policy"
        ))
        .hint("boot a UKI that `lamadist build` made, by UEFI"));
    }
    // What another TPM sealed looks enrolled already, and systemd-cryptenroll would leave it at that;
    // so it goes first. The key that was given opens the volume meanwhile.
    if matches!(opener, Opener::Key(_)) && Header::read(device)?.tpm() > 0 {
        Run::new("systemd-cryptenroll")
            .args(["--wipe-slot=tpm2", device])
            .run()?;
    }
    let mut run = Run::new("systemd-cryptenroll").args(tpm_options(PCRS));
    let secret;
    run = match opener {
        Opener::Tpm => run.arg("--unlock-tpm2-device=auto"),
        Opener::Key(k) => {
            secret = Secret::of("unlock", device, k)?;
            run.arg(format!("--unlock-key-file={}", secret.path().display()))
        }
    };
    run.arg(device)
        .run()
        .context(format_args!("cannot seal the key of {device}"))
        .map(|_| ())
}

/// Whether this token of a volume opens it now; it stays closed.
pub fn opens(device: &str, seal: &Seal) -> bool {
    let run = Run::new("cryptsetup").args(["open", "--test-passphrase", "--batch-mode"]);
    let run = run.args(["--token-only", "--token-id", &seal.token, device]);
    run.run().is_ok()
}

/// Seals the volume's key to the TPM beside what was sealed before, for a boot that measures this into
/// PCR 7, or for one as this.
///
/// # Errors
/// The TPM does not open the volume, or refuses; the header has no room.
pub fn seal_beside(device: &str, pcr7: Option<&str>) -> Result<()> {
    let pcrs = pcr7.map_or(PCRS.to_owned(), |v| format!("{PCRS}:sha256={v}"));
    let run = Run::new("systemd-cryptenroll").args(tpm_options(&pcrs));
    run.args(["--unlock-tpm2-device=auto", device])
        .run()
        .context(format_args!("cannot seal the key of {device}"))
        .map(|_| ())
}

/// Takes away what the TPM opens the volume by.
///
/// # Errors
/// The header cannot be written.
pub fn unseal(device: &str, seal: &Seal) -> Result<()> {
    let slots = seal.slots.join(",");
    Run::new("systemd-cryptenroll")
        .args([&format!("--wipe-slot={slots}"), device])
        .run()
        .map(|_| ())
}

/// What systemd-repart and systemd-cryptenroll seal with; `pcrs` are those by value.
pub fn tpm_options(pcrs: &str) -> [String; 4] {
    [
        "--tpm2-device=auto".to_owned(),
        format!("--tpm2-pcrs={pcrs}"),
        format!("--tpm2-public-key={PCR_PUBLIC_KEY}"),
        format!("--tpm2-public-key-pcrs={SIGNED_PCRS}"),
    ]
}

/// Whether there is a TPM 2.0 that the kernel drives.
pub fn has_tpm() -> bool {
    Path::new("/dev/tpmrm0").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_what_opens_it() {
        let recipient = format!("age1{}", "q".repeat(58));
        let h: Header = serde_json::from_str(
            &r#"{"keyslots":{"0":{"type":"luks2"},"1":{},"2":{}},
            "tokens":{"0":{"type":"systemd-tpm2","keyslots":["0"],"tpm2-pcrs":[7],
            "tpm2_pubkey_pcrs":[11],"tpm2-blob":["x"]},
            "1":{"type":"systemd-recovery","keyslots":["1"],"lamadist-recipient":"AGE"},
            "2":{"type":"systemd-recovery","keyslots":[],"lamadist-recipient":"-x"}},"segments":{},"config":{}}"#
                .replace("AGE", &recipient),
        )
        .unwrap();
        assert_eq!((h.tpm(), h.recovery(), h.passphrase()), (1, 1, 1));
        assert_eq!(h.recipients(), [recipient]);
        assert_eq!(h.pcrs(), Some((&[7][..], &[11][..])));
        let seals = h.seals();
        assert_eq!(seals.len(), 1);
        assert_eq!(
            (seals[0].token.as_str(), seals[0].slots.as_slice()),
            ("0", &["0".to_owned()][..])
        );
        assert_eq!(h.free_slot(), 3);
        assert_eq!(Header::default().passphrase(), 0);
    }
}
