// SPDX-License-Identifier: Apache-2.0
//! Detached OpenPGP signatures (RFC 9580, 10.4) by the `openpgp` role: of packages and feeds.

use crate::error::{Error, Result, crypto};
use crate::role::Role;
use crate::set::{KeySet, PrivateKey};
use lama_exec::fs;
use pgp::composed::{
    ArmorOptions, Deserializable, DetachedSignature, SignedPublicKey, SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{Packet, PacketParser, Signature, SignatureType};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, Password};
use rsa::rand_core::OsRng;

/// The private `openpgp` key of a set.
pub struct OpenpgpSigner {
    key: SignedSecretKey,
    fingerprint: String,
}

/// The certificates of the role that are honoured: the current one, then the replaced ones.
pub struct OpenpgpCertificates(Vec<One>);

struct One {
    certificate: SignedPublicKey,
    fingerprint: String,
    previous: bool,
}

/// Who made a signature that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Fingerprint of the certificate, in lower case.
    pub fingerprint: String,
    /// Whether it has been replaced and is still honoured.
    pub previous: bool,
}

/// Why a signature says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// It is no signature.
    #[error("it bears no OpenPGP signature that can be read: {0}")]
    Malformed(String),
    /// Its key is none of the set's.
    #[error("it is signed by the key {0}, which is not in the key set")]
    Foreign(String),
    /// The data is not what was signed.
    #[error("the signature of the key {0} does not fit: what it covers was changed")]
    Changed(String),
    /// Made in a way that is not accepted.
    #[error("the signature of the key {issuer} is not accepted: {why}")]
    Weak {
        /// The key.
        issuer: String,
        /// What is wrong with it.
        why: String,
    },
}

impl OpenpgpSigner {
    /// Fingerprint of the certificate, in lower case.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether it is an RSA key, whose signatures older formats keep apart.
    pub fn is_rsa(&self) -> bool {
        matches!(self.key.algorithm(), PublicKeyAlgorithm::RSA)
    }

    /// A signature of `data`, as an OpenPGP packet.
    ///
    /// # Errors
    /// The key cannot be used without a passphrase.
    pub fn sign(&self, data: &[u8]) -> Result<Vec<u8>> {
        let signature = self.detached(data)?;
        signature.to_bytes().map_err(crypto(ENCODE))
    }

    /// A signature of `data`, armored.
    ///
    /// # Errors
    /// As of [`OpenpgpSigner::sign`].
    pub fn sign_armored(&self, data: &[u8]) -> Result<String> {
        let signature = self.detached(data)?;
        signature
            .to_armored_string(ArmorOptions::default())
            .map_err(crypto(ENCODE))
    }

    fn detached(&self, data: &[u8]) -> Result<DetachedSignature> {
        let key = &self.key.primary_key;
        DetachedSignature::sign_binary_data(
            OsRng,
            key,
            &Password::empty(),
            HashAlgorithm::Sha256,
            data,
        )
        .map_err(crypto("cannot make an OpenPGP signature"))
    }
}

const ENCODE: &str = "cannot encode an OpenPGP signature";

impl OpenpgpCertificates {
    /// Checks a signature of `data`: one packet, or an armored one.
    ///
    /// # Errors
    /// It is not by one of these certificates, or not of this data.
    pub fn verify(&self, signature: &[u8], data: &[u8]) -> std::result::Result<Signed, Unsigned> {
        let signature = parse(signature).map_err(Unsigned::Malformed)?;
        let issuer = issuer(&signature);
        let weak = |why: &str| Unsigned::Weak {
            issuer: issuer.clone(),
            why: why.to_owned(),
        };
        let Some(one) = self.0.iter().find(|o| made_by(&signature, o)) else {
            return Err(Unsigned::Foreign(issuer));
        };
        if signature.typ() != Some(SignatureType::Binary) {
            return Err(weak("it is not one of a file"));
        }
        if !matches!(
            signature.hash_alg(),
            Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)
        ) {
            return Err(weak("its hash is neither SHA-256 nor SHA-384 nor SHA-512"));
        }
        if signature.signature_expiration_time().is_some() {
            return Err(weak("it is one for a time only"));
        }
        match signature.verify(&one.certificate.primary_key, data) {
            Ok(()) => Ok(Signed {
                fingerprint: one.fingerprint.clone(),
                previous: one.previous,
            }),
            Err(_) => Err(Unsigned::Changed(one.fingerprint.clone())),
        }
    }
}

/// Just one signature; whatever else is in there nobody has looked at.
fn parse(data: &[u8]) -> std::result::Result<Signature, String> {
    if data.starts_with(b"-----BEGIN") {
        let (s, _) = DetachedSignature::from_armor_single(data).map_err(|e| e.to_string())?;
        return Ok(s.signature);
    }
    let mut packets = PacketParser::new(data);
    let first = match packets.next() {
        Some(Ok(Packet::Signature(s))) => s,
        Some(Ok(_)) => return Err("it is another kind of packet".into()),
        Some(Err(e)) => return Err(e.to_string()),
        None => return Err("it is empty".into()),
    };
    match packets.next() {
        None => Ok(first),
        Some(_) => Err("something follows it".into()),
    }
}

fn made_by(s: &Signature, one: &One) -> bool {
    let key = &one.certificate.primary_key;
    let fingerprints = s.issuer_fingerprint();
    if fingerprints.is_empty() {
        return s.issuer_key_id().contains(&&key.legacy_key_id());
    }
    fingerprints.iter().all(|f| **f == key.fingerprint())
}

fn issuer(s: &Signature) -> String {
    let of_key = || s.issuer_key_id().first().map(ToString::to_string);
    let name = s.issuer_fingerprint().first().map(ToString::to_string);
    name.or_else(of_key)
        .map_or_else(|| "without a name".to_owned(), |n| n.to_lowercase())
}

impl KeySet {
    /// Something that signs with the current `openpgp` key. It is a file always.
    ///
    /// # Errors
    /// The private part is not here, cannot be read, or is not meant for signing.
    pub fn openpgp_signer(&self) -> Result<OpenpgpSigner> {
        let role = Role::Openpgp;
        let path = match self.private_key(role)? {
            PrivateKey::File(path) => path,
            PrivateKey::Pkcs11(_) => {
                return Err(Error::Unsuitable {
                    role,
                    reason: "OpenPGP keys can't be used through PKCS#11".into(),
                    hint: "name a key file in keyset.toml".into(),
                });
            }
        };
        let key = crate::openpgp::secret(&path)?;
        let signs = (key.details.users.iter())
            .flat_map(|u| &u.signatures)
            .any(|s| s.key_flags().sign());
        if !signs {
            return Err(Error::Unsuitable {
                role,
                reason: "its primary key is not meant for signing".into(),
                hint: "use an OpenPGP key that signs itself, not by a subkey".into(),
            });
        }
        Ok(OpenpgpSigner {
            fingerprint: key.fingerprint().to_string().to_lowercase(),
            key,
        })
    }

    /// The certificates that packages and feeds are trusted by.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn openpgp_certificates(&self) -> Result<OpenpgpCertificates> {
        let all = self.certificates(Role::Openpgp).into_iter().map(|c| {
            Ok(One {
                certificate: crate::openpgp::public(&c.path)?,
                fingerprint: c.fingerprint,
                previous: c.previous,
            })
        });
        Ok(OpenpgpCertificates(all.collect::<Result<_>>()?))
    }

    /// The same, armored, one after another: a file as `rpm --import` and dnf take it.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn openpgp_keyring(&self) -> Result<String> {
        let mut all = String::new();
        for c in self.certificates(Role::Openpgp) {
            let text = fs::read_to_string(&c.path)?;
            all.push_str(text.trim_end());
            all.push('\n');
        }
        Ok(all)
    }
}
