// SPDX-License-Identifier: Apache-2.0
//! A TPM's signature over PCR values, by tpm2-tools.
//!
//! The attestation key is a restricted signing key below the endorsement key, made once and kept in
//! the TPM under [`HANDLE`]. A restricted key signs nothing that looks like a quote but is none (TPM
//! 2.0 Library, Part 1, "Restricted signing keys"), so whoever knows its public part knows that a
//! quote came from that TPM. That it *is* a TPM would be told by the chain of the endorsement key's
//! certificate, which is not checked.

use super::bytes::{Digest, Reader, base64, hex, sha256, unbase64, unhex};
use super::evidence::{Evidence, Quote};
use super::pcr::{self, Values};
use crate::error::{Context, Result};
use crate::run::Run;
use crate::{Error, fs};
use std::path::{Path, PathBuf};

/// Where the TPM keeps the key: in the range of the owner's persistent objects (TCG Registry of
/// Reserved TPM 2.0 Handles).
pub const HANDLE: &str = "0x81000a4b";
/// Bytes of a nonce: none but a long one is fresh, and tools take no more than a digest.
const NONCE: std::ops::RangeInclusive<usize> = 8..=32;
/// How often a quote is tried while IMA measures into the registers.
const TRIES: usize = 8;
/// TPM_GENERATED_VALUE and TPM_ST_ATTEST_QUOTE (TPM 2.0 Library, Part 2).
const QUOTE: [u8; 6] = [0xff, 0x54, 0x43, 0x47, 0x80, 0x18];

/// What a quote says (TPMS_ATTEST with TPMS_QUOTE_INFO, TPM 2.0 Library, Part 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted {
    /// The nonce.
    pub nonce: Vec<u8>,
    /// How often the TPM was reset: every boot counts.
    pub resets: u32,
    /// The registers.
    pub pcrs: Vec<u32>,
    /// The digest over their values.
    pub digest: Digest,
}

impl Quoted {
    /// Parses TPMS_ATTEST; its numbers are big-endian.
    ///
    /// # Errors
    /// It is no quote of the SHA-256 bank.
    pub fn parse(message: &[u8]) -> Result<Self> {
        let mut r = Reader::new(message);
        let not = || Error::new("it is no quote");
        if r.array::<6>()? != QUOTE {
            return Err(not());
        }
        let sized = |r: &mut Reader<'_>| -> Result<Vec<u8>> {
            let len = u16::from_be_bytes(r.array()?);
            Ok(r.take(usize::from(len))?.to_vec())
        };
        // The signer's name.
        sized(&mut r)?;
        let nonce = sized(&mut r)?;
        // Clock, then resets and restarts, whether the clock is safe, the firmware's version.
        r.take(8)?;
        let resets = u32::from_be_bytes(r.array()?);
        r.take(4 + 1 + 8)?;
        let banks = u32::from_be_bytes(r.array()?);
        let bank = u16::from_be_bytes(r.array()?);
        if (banks, bank) != (1, 0x000b) {
            return Err(Error::new("it is not over the SHA-256 bank alone"));
        }
        let [len] = r.array()?;
        let mut pcrs = Vec::new();
        for (i, byte) in (0_u32..).zip(r.take(usize::from(len))?) {
            pcrs.extend((0..8).filter(|b| byte >> b & 1 == 1).map(|b| i * 8 + b));
        }
        let digest = sized(&mut r)?.try_into().map_err(|_| not())?;
        if !r.is_empty() {
            return Err(not());
        }
        Ok(Self {
            nonce,
            resets,
            pcrs,
            digest,
        })
    }

    /// Whether these are the values that were quoted; all of [`pcr::ALL`] must be among them.
    ///
    /// # Errors
    /// They are not.
    pub fn covers(&self, values: &Values) -> Result<()> {
        if let Some(n) = pcr::ALL.into_iter().find(|n| !self.pcrs.contains(n)) {
            return Err(Error::new(format!("PCR {n} was not quoted")));
        }
        let mut all = Vec::new();
        for n in &self.pcrs {
            let v = values.get(n);
            all.extend(v.ok_or_else(|| Error::new(format!("there is no value of PCR {n}")))?);
        }
        if sha256(all) == self.digest {
            return Ok(());
        }
        Err(Error::new(
            "the PCR values are not those that the TPM signed",
        ))
    }
}

/// A nonce in hexadecimal.
///
/// # Errors
/// It is none, or too short or long.
pub fn nonce(text: &str) -> Result<Vec<u8>> {
    unhex(text)
        .filter(|n| NONCE.contains(&n.len()))
        .ok_or_else(|| {
            Error::new("the nonce must be 8 to 32 bytes in hexadecimal")
                .hint("make one with: openssl rand -hex 16")
        })
}

/// The fingerprint of a public key in PEM: the SHA-256 of its DER form.
///
/// # Errors
/// It is no public key.
pub fn fingerprint(pem: &str) -> Result<String> {
    let body: String = pem
        .lines()
        .map(str::trim)
        .skip_while(|l| *l != "-----BEGIN PUBLIC KEY-----")
        .skip(1)
        .take_while(|l| *l != "-----END PUBLIC KEY-----")
        .collect();
    match unbase64(&body) {
        Some(der) if !der.is_empty() => Ok(hex(&sha256(der))),
        _ => Err(Error::new("it is no public key in PEM form")),
    }
}

/// A directory of one's own, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = std::env::temp_dir().join(format!("lama-node-{}", hex(&fs::random(8)?)));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .context(format_args!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn with(&self, name: &str, data: &[u8]) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, data, 0o600)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for name in fs::names(&self.0).unwrap_or_default() {
            let _ = fs::remove(self.0.join(name));
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn tool(name: &str) -> Run {
    // Its default would look for a resource manager daemon first.
    Run::new(name).env("TPM2TOOLS_TCTI", "device:/dev/tpmrm0")
}

/// The key's public part, PEM; the key is made where there is none.
fn key(dir: &Scratch) -> Result<String> {
    let pem = dir.file("ak.pem");
    let read = || {
        tool("tpm2_readpublic")
            .args(["-Q", "-c", HANDLE, "-f", "pem", "-o"])
            .arg(&pem)
            .any()
    };
    if read()?.status.success() {
        return fs::text(&pem);
    }
    let (ek, ak) = (dir.file("ek.ctx"), dir.file("ak.ctx"));
    tool("tpm2_createek")
        .args(["-Q", "-G", "rsa", "-c"])
        .arg(&ek)
        .run()?;
    tool("tpm2_createak")
        .args(["-Q", "-G", "rsa", "-g", "sha256", "-s", "rsassa", "-C"])
        .arg(&ek)
        .arg("-c")
        .arg(&ak)
        .arg("-n")
        .arg(dir.file("ak.name"))
        .run()?;
    tool("tpm2_evictcontrol")
        .args(["-Q", "-C", "o", "-c"])
        .arg(&ak)
        .arg(HANDLE)
        .run()?;
    read()?;
    fs::text(&pem)
}

/// Evidence of this machine with a quote over all of [`pcr::ALL`].
///
/// # Errors
/// There is no TPM, no tpm2-tools, or the registers do not come to rest.
pub fn take(nonce: &[u8]) -> Result<Evidence> {
    let dir = Scratch::new()?;
    let key = key(&dir).map_err(|e| e.hint("this needs root, a TPM 2.0 and tpm2-tools"))?;
    let list: Vec<String> = pcr::ALL.map(|n| n.to_string()).collect();
    let (message, signature) = (dir.file("message"), dir.file("signature"));
    for _ in 0..TRIES {
        let values = pcr::read()?;
        tool("tpm2_quote")
            .args(["-Q", "-c", HANDLE, "-g", "sha256", "-q", &hex(nonce), "-l"])
            .arg(format!("sha256:{}", list.join(",")))
            .arg("-m")
            .arg(&message)
            .arg("-s")
            .arg(&signature)
            .run()?;
        let m = fs::read(&message)?;
        // Something may have been measured in between.
        if Quoted::parse(&m)?.covers(&values).is_err() {
            continue;
        }
        let mut evidence = Evidence::collect(&values)?;
        evidence.quote = Some(Quote {
            message: base64(&m),
            signature: base64(&fs::read(&signature)?),
            key,
        });
        return Ok(evidence);
    }
    Err(
        Error::new("the PCRs changed each time while the TPM signed them")
            .hint("something measures without a pause; try again when the machine is quiet"),
    )
}

/// Checks the signature of a quote with a key (PEM), and gives what was signed. The inner error is
/// that the evidence is wrong, the outer one that nobody can tell.
///
/// # Errors
/// Neither of the tools that can tell is there.
pub fn verify(quote: &Quote, key: &str) -> Result<Result<Quoted>> {
    let decoded = || -> Result<(Vec<u8>, Vec<u8>, Quoted)> {
        let decode = |s: &str, what: &str| {
            unbase64(s).ok_or_else(|| Error::new(format!("the quote's {what} is no Base64")))
        };
        let message = decode(&quote.message, "message")?;
        let signature = decode(&quote.signature, "signature")?;
        let quoted = Quoted::parse(&message).context("the quote")?;
        Ok((message, signature, quoted))
    };
    let (message, signature, quoted) = match decoded() {
        Ok(d) => d,
        Err(e) => return Ok(Err(e)),
    };
    let dir = Scratch::new()?;
    let m = dir.with("message", &message)?;
    let k = dir.with("key.pem", key.as_bytes())?;
    let s = dir.with("signature", &signature)?;
    let mut check = Run::new("tpm2_checkquote").args(["-Q", "-g", "sha256", "-u"]);
    check = check.arg(&k).arg("-m").arg(&m).arg("-s").arg(&s);
    if !quoted.nonce.is_empty() {
        check = check.args(["-q", &hex(&quoted.nonce)]);
    }
    let good = match check.any() {
        Ok(out) => out.status.success(),
        // It is not there: OpenSSL can tell as well.
        Err(_) => match rsassa(&signature) {
            Ok(bare) => openssl(&k, &dir.with("bare", bare)?, &m)?,
            Err(e) => return Ok(Err(e)),
        },
    };
    if good {
        return Ok(Ok(quoted));
    }
    Ok(Err(Error::new("the quote was not signed by this key")
        .hint(
            "another TPM, a TPM that was cleared, or evidence that somebody has changed",
        )))
}

fn openssl(key: &Path, signature: &Path, message: &Path) -> Result<bool> {
    let out = Run::new("openssl")
        .args(["dgst", "-sha256", "-verify"])
        .arg(key)
        .arg("-signature")
        .arg(signature)
        .arg(message)
        .any()
        .map_err(|_| {
            Error::new("neither tpm2_checkquote nor openssl is on this machine").hint(
                "install tpm2-tools or openssl: without them the quote's signature cannot be checked",
            )
        })?;
    Ok(out.status.success())
}

/// The bare signature in a TPMT_SIGNATURE of TPM_ALG_RSASSA with TPM_ALG_SHA256.
fn rsassa(signature: &[u8]) -> Result<&[u8]> {
    let mut r = Reader::new(signature);
    if r.array::<4>()? != [0x00, 0x14, 0x00, 0x0b] {
        return Err(Error::new("the quote is not signed by RSASSA with SHA-256"));
    }
    let len = u16::from_be_bytes(r.array()?);
    r.take(usize::from(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_nonce_is_neither_short_nor_long() {
        assert!(nonce("00112233445566").is_err());
        assert!(nonce("0011223344556677").is_ok());
        assert!(nonce(&"00".repeat(33)).is_err());
        assert!(nonce("xx112233445566778899").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data: Vec<u8>, text: String) {
            let _ = (Quoted::parse(&data), rsassa(&data), fingerprint(&text));
            let _ = Quoted::parse(&[&QUOTE, data.as_slice()].concat());
        }
    }
}
