// SPDX-License-Identifier: Apache-2.0
//! OpenPGP (RFC 9580): who signed a cleartext message, and may he?
//!
//! The crate `pgp` computes; what makes a key acceptable is decided here: bound to its
//! certificate, allowed to sign, neither expired nor revoked at the time in question.

use std::path::{Path, PathBuf};

use lama_exec::fs::{self, FsError};
use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, VerifyingKey};

/// A clock may be this much behind the signer's, in seconds.
pub(crate) const CLOCK_SKEW: i64 = 3600;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum KeyError {
    /// A file that cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// A file that holds no certificate.
    #[error("{} holds no OpenPGP certificate: {what}", path.display())]
    #[diagnostic(help("export it with `gpg --armor --export FINGERPRINT`"))]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Certificates that are trusted to sign a feed.
#[derive(Debug, Clone, Default)]
pub struct Certificates(Vec<SignedPublicKey>);

/// What a signature says about itself, once it was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The text that the signature covers, lines ended by `\n`.
    pub text: String,
    /// Fingerprint of the key that signed, in upper case.
    pub fingerprint: String,
    /// When, in seconds since 1970.
    pub created: i64,
}

/// Why a message is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not a cleartext-signed message, or more than one.
    #[error("it is no cleartext-signed OpenPGP message: {0}")]
    NoMessage(String),
    /// No signature at all.
    #[error("it bears no signature")]
    Unsigned,
    /// None of the signatures is good.
    #[error("none of its signatures is good: {0}")]
    Bad(String),
}

/// When keys and signatures have to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValidAt {
    /// At this time (seconds since 1970).
    Time(i64),
    /// When the signature was made.
    Signing,
}

impl Certificates {
    /// Reads certificates from files, armored or binary; a file may hold several.
    pub fn load<P: AsRef<Path>>(paths: &[P]) -> Result<Self, KeyError> {
        let mut all = Self::default();
        for path in paths {
            let path = path.as_ref();
            let data = fs::read(path)?;
            all.add(&data).map_err(|what| KeyError::NoCertificate {
                path: path.to_owned(),
                what,
            })?;
        }
        Ok(all)
    }

    /// Adds the certificates in `data`.
    pub fn add(&mut self, data: &[u8]) -> Result<(), String> {
        let (keys, _) = SignedPublicKey::from_reader_many(data).map_err(|e| e.to_string())?;
        let keys = keys
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| e.to_string())?;
        if keys.is_empty() {
            return Err("it is empty".into());
        }
        self.0.extend(keys);
        Ok(())
    }

    /// Checks a cleartext-signed message: one good signature suffices, as apt has it. What stands
    /// outside the signed part is an error, not ignored.
    pub(crate) fn verify(&self, message: &[u8], at: ValidAt) -> Result<Signed, SignatureError> {
        let text =
            std::str::from_utf8(message).map_err(|e| SignatureError::NoMessage(format!("{e}")))?;
        if !text.starts_with("-----BEGIN PGP SIGNED MESSAGE-----") {
            let what = if text.contains("-----BEGIN PGP SIGNED MESSAGE-----") {
                "text stands before the signed part"
            } else {
                "there is no `-----BEGIN PGP SIGNED MESSAGE-----`"
            };
            return Err(SignatureError::NoMessage(what.into()));
        }
        let (message, _) = CleartextSignedMessage::from_string(text)
            .map_err(|e| SignatureError::NoMessage(e.to_string()))?;
        if message.signatures().is_empty() {
            return Err(SignatureError::Unsigned);
        }
        let text = message.signed_text();
        let mut reasons = Vec::new();
        for s in message.signatures() {
            match self.check(s, text.as_bytes(), at) {
                Ok((fingerprint, created)) => {
                    return Ok(Signed {
                        text: text.replace("\r\n", "\n"),
                        fingerprint,
                        created,
                    });
                }
                Err(why) => reasons.push(why),
            }
        }
        reasons.dedup();
        Err(SignatureError::Bad(reasons.join("; ")))
    }

    fn check(&self, s: &Signature, text: &[u8], at: ValidAt) -> Result<(String, i64), String> {
        if !matches!(s.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
            return Err("a signature of a kind that signs no documents".into());
        }
        let issuer = issuer(s);
        match s.hash_alg() {
            Some(
                HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512,
            ) => {}
            Some(other) => return Err(format!("{other}, used by key {issuer}, is too weak")),
            None => return Err("a signature of an unknown version".into()),
        }
        let created = s
            .created()
            .map(|t| i64::from(t.as_secs()))
            .ok_or_else(|| format!("the signature of key {issuer} has no time"))?;
        let now = match at {
            ValidAt::Time(t) => t,
            ValidAt::Signing => created,
        };
        if created > now + CLOCK_SKEW {
            return Err(format!(
                "the signature of key {issuer} is from the future ({}); is the clock right?",
                date(created)
            ));
        }
        if let Some(d) = s.signature_expiration_time().filter(|d| d.as_secs() > 0) {
            let end = created + i64::from(d.as_secs());
            if end < now {
                return Err(format!(
                    "the signature of key {issuer} expired on {}",
                    date(end)
                ));
            }
        }
        let mut reason = format!("key {issuer} is unknown (not among the feed's keys)");
        for cert in &self.0 {
            match try_certificate(cert, s, text, now) {
                Tried::Good(fingerprint) => return Ok((fingerprint, created)),
                Tried::Bad(why) => reason = why,
                Tried::Other => {}
            }
        }
        Err(reason)
    }
}

enum Tried {
    Good(String),
    Bad(String),
    /// Another certificate's key made the signature.
    Other,
}

fn try_certificate(cert: &SignedPublicKey, s: &Signature, text: &[u8], now: i64) -> Tried {
    let primary = &cert.primary_key;
    if is_issuer(s, primary) {
        let name = fingerprint(primary);
        return match s.verify(primary, text) {
            Err(e) => Tried::Bad(format!("the signature of key {name} is bad: {e}")),
            Ok(()) => match primary_valid(cert, now, Use::Sign) {
                Ok(()) => Tried::Good(name),
                Err(why) => Tried::Bad(format!("key {name} {why}")),
            },
        };
    }
    for sub in &cert.public_subkeys {
        if !is_issuer(s, &sub.key) {
            continue;
        }
        let name = fingerprint(&sub.key);
        if let Err(e) = s.verify(&sub.key, text) {
            return Tried::Bad(format!("the signature of key {name} is bad: {e}"));
        }
        if let Err(why) = primary_valid(cert, now, Use::Certify) {
            return Tried::Bad(format!("the primary key of {name} {why}"));
        }
        return match subkey_valid(cert, sub, now) {
            Ok(()) => Tried::Good(name),
            Err(why) => Tried::Bad(format!("key {name} {why}")),
        };
    }
    Tried::Other
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Sign,
    Certify,
}

/// Whether the primary key may be used: by its newest valid self-signature.
fn primary_valid(cert: &SignedPublicKey, now: i64, usage: Use) -> Result<(), String> {
    let key = &cert.primary_key;
    if cert
        .details
        .revocation_signatures
        .iter()
        .any(|s| s.verify_key(key).is_ok())
    {
        return Err("is revoked".into());
    }
    let of_users = cert.details.users.iter().flat_map(|u| {
        u.signatures.iter().filter(|s| {
            s.typ() != Some(SignatureType::CertRevocation)
                && s.verify_certification(key, Tag::UserId, &u.id).is_ok()
        })
    });
    let direct = cert
        .details
        .direct_signatures
        .iter()
        .filter(|s| s.typ() == Some(SignatureType::Key) && s.verify_key(key).is_ok());
    let newest = of_users
        .chain(direct)
        .filter(|s| created(s) <= now + CLOCK_SKEW)
        .max_by_key(|s| created(s))
        .ok_or("has no valid self-signature")?;
    not_expired(key, newest, now)?;
    if usage == Use::Sign && !newest.key_flags().sign() {
        return Err("is not meant for signing".into());
    }
    Ok(())
}

fn subkey_valid(
    cert: &SignedPublicKey,
    sub: &pgp::composed::SignedPublicSubKey,
    now: i64,
) -> Result<(), String> {
    let primary = &cert.primary_key;
    let valid = |s: &&Signature| s.verify_subkey_binding(primary, &sub.key).is_ok();
    let of = |t: SignatureType| {
        sub.signatures
            .iter()
            .filter(move |s| s.typ() == Some(t))
            .filter(valid)
    };
    if of(SignatureType::SubkeyRevocation).next().is_some() {
        return Err("is revoked".into());
    }
    let newest = of(SignatureType::SubkeyBinding)
        .filter(|s| created(s) <= now + CLOCK_SKEW)
        .max_by_key(|s| created(s))
        .ok_or("is not bound to its certificate")?;
    not_expired(&sub.key, newest, now)?;
    if !newest.key_flags().sign() {
        return Err("is not meant for signing".into());
    }
    // Without the back signature, anyone could claim a foreign key as his subkey.
    match newest.embedded_signature() {
        Some(b) if b.verify_primary_key_binding(&sub.key, primary).is_ok() => Ok(()),
        _ => Err("did not confirm that it belongs to its certificate".into()),
    }
}

fn not_expired(key: &impl KeyDetails, s: &Signature, now: i64) -> Result<(), String> {
    let made = i64::from(key.created_at().as_secs());
    match s.key_expiration_time().map(|d| i64::from(d.as_secs())) {
        Some(d) if d > 0 && made + d < now => Err(format!("expired on {}", date(made + d))),
        _ => Ok(()),
    }
}

fn created(s: &Signature) -> i64 {
    s.created().map_or(0, |t| i64::from(t.as_secs()))
}

fn is_issuer(s: &Signature, key: &impl VerifyingKey) -> bool {
    let fps = s.issuer_fingerprint();
    let ids = s.issuer_key_id();
    fps.iter().any(|f| **f == key.fingerprint()) || ids.iter().any(|i| **i == key.legacy_key_id())
}

fn issuer(s: &Signature) -> String {
    let fp = s.issuer_fingerprint().first().map(|f| format!("{f:X}"));
    fp.or_else(|| {
        s.issuer_key_id()
            .first()
            .map(|i| i.to_string().to_uppercase())
    })
    .unwrap_or_else(|| "without a name".into())
}

fn fingerprint(key: &impl KeyDetails) -> String {
    format!("{:X}", key.fingerprint())
}

/// A time as people read it.
pub(crate) fn date(t: i64) -> String {
    jiff::Timestamp::from_second(t).map_or_else(|_| format!("@{t}"), |t| t.to_string())
}
