// SPDX-License-Identifier: Apache-2.0
//! The machine's own key pair: update bundles are encrypted to its certificate.
//!
//! The private key is made here and never leaves. It is one of the machine's secrets
//! ([`crate::secret`]), which the service of RAUC is given decrypted; RAUC's configuration names it
//! there.

use crate::error::Context;
use crate::run::Run;
use crate::secret::{self, Store};
use crate::{Error, Result, fs};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The credential's name.
pub const NAME: &str = "lamadist.node.key";
/// Where the certificate lies.
pub const CERTIFICATE: &str = "/var/lib/lamadist/node.crt";
/// For how many days the certificate is made out. Nobody checks it: it says to whom something is
/// encrypted, and is replaced when the key is.
const DAYS: &str = "36500";

/// The key pair, as far as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The certificate, PEM.
    pub certificate: String,
    /// SHA-256 of it, as the workstation shows it.
    pub sha256: String,
}

/// Where the sealed key lies.
fn sealed() -> PathBuf {
    Path::new(secret::DIR).join(NAME)
}

/// The certificate; none where there is no key pair yet.
///
/// # Errors
/// It cannot be read.
pub fn shown() -> Result<Option<Shown>> {
    let Some(pem) = fs::read_optional(CERTIFICATE)? else {
        return Ok(None);
    };
    let certificate = String::from_utf8_lossy(&pem).into_owned();
    let sha256 = fingerprint(&certificate)?;
    Ok(Some(Shown {
        certificate,
        sha256,
    }))
}

/// Makes a key pair, where there is none; or, with `anew`, in place of the one there is.
///
/// # Errors
/// OpenSSL's or systemd-creds'; what was there before stays.
pub fn make(anew: bool) -> Result<Shown> {
    if !anew && sealed().is_file() {
        if let Some(s) = shown()? {
            return Ok(s);
        }
    }
    let id = fs::line("/etc/machine-id").unwrap_or_default();
    let (key, certificate) = generate(&id)?;
    Store::here()?.set(NAME, key.as_bytes())?;
    // The certificate last: where it is, the key is.
    fs::write(CERTIFICATE, &certificate, 0o644)?;
    let sha256 = fingerprint(&certificate)?;
    Ok(Shown {
        certificate,
        sha256,
    })
}

/// A key of the curve P-256, PKCS#8, and its certificate, which the key signs itself; PEM both.
fn generate(machine_id: &str) -> Result<(String, String)> {
    let key = Run::new("openssl")
        .args(["genpkey", "-algorithm", "EC"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
        .text()?;
    let key = format!("{key}\n");
    let certificate = Run::new("openssl")
        .args(["req", "-x509", "-new", "-sha256", "-days", DAYS])
        .args(["-key", "/dev/stdin", "-config", "/dev/null"])
        .arg(format!("-subj=/CN=LamaDist node {machine_id}"))
        .args(["-addext", "keyUsage=critical,keyAgreement"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .stdin(key.as_bytes())
        .text()
        .context("cannot make the machine's certificate")?;
    Ok((key, format!("{certificate}\n")))
}

/// SHA-256 of a certificate's DER form, which is what stands in its PEM form.
fn fingerprint(pem: &str) -> Result<String> {
    use sha2::{Digest, Sha256};
    let der = Run::new("openssl")
        .args(["x509", "-outform", "DER"])
        .stdin(pem.as_bytes())
        .run()
        .context("the machine's certificate cannot be read")?
        .stdout;
    if der.is_empty() {
        return Err(Error::new("the machine's certificate is empty"));
    }
    Ok(crate::delta::hex(&Sha256::digest(der)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_can_decrypt_what_is_encrypted_to_it() {
        if Run::new("openssl").arg("version").run().is_err() {
            eprintln!("SKIP: no openssl here");
            return;
        }
        let (key, certificate) = generate("0123456789abcdef0123456789abcdef").unwrap();
        let d = tempfile::tempdir().unwrap();
        let path = |n: &str| d.path().join(n);
        fs::write(path("key"), &key, 0o600).unwrap();
        fs::write(path("crt"), &certificate, 0o600).unwrap();
        let sealed = Run::new("openssl")
            .args(["cms", "-encrypt", "-binary", "-aes256", "-outform", "DER"])
            .arg(path("crt"))
            .stdin("secret")
            .run()
            .unwrap();
        let open = Run::new("openssl")
            .args(["cms", "-decrypt", "-binary", "-inform", "DER", "-inkey"])
            .arg(path("key"))
            .arg("-recip")
            .arg(path("crt"))
            .stdin(sealed.stdout)
            .text();
        assert_eq!(open.unwrap(), "secret");
        assert_eq!(fingerprint(&certificate).unwrap().len(), 64);
        let text = Run::new("openssl")
            .args(["x509", "-noout", "-subject"])
            .stdin(certificate)
            .text()
            .unwrap();
        assert!(text.contains("LamaDist node 0123456789abcdef"), "{text}");
        assert!(fingerprint("nonsense").is_err());
    }
}
