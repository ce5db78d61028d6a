// SPDX-License-Identifier: Apache-2.0
//! Private keys that lie in files: reading, making, signing.

use crate::error::{Error, Result, crypto};
use crate::role::Algorithm;
use lama_exec::fs;
use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPublicKey};
use rsa::pkcs8::der::pem;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::rand_core::OsRng;
use rsa::sha2::Sha256;
use rsa::signature::{RandomizedSigner, SignatureEncoding};
use rsa::{RsaPrivateKey, pkcs1v15};
use std::path::Path;

/// A private key in memory. Signs with SHA-256: RSA PKCS#1 v1.5, or ECDSA as the curve asks.
pub(crate) enum LocalKey {
    /// RSA, with its public part in PKCS#1 form.
    Rsa(Box<RsaPrivateKey>, Vec<u8>),
    /// An elliptic curve.
    Ec(Box<rcgen::KeyPair>),
}

impl LocalKey {
    /// Makes a new key.
    pub(crate) fn generate(algorithm: Algorithm) -> Result<Self> {
        match algorithm {
            Algorithm::Rsa2048 => Self::rsa(
                RsaPrivateKey::new(&mut OsRng, 2048).map_err(crypto("cannot make an RSA key"))?,
            ),
            Algorithm::EcP256 | Algorithm::Openpgp => Ok(Self::Ec(Box::new(
                rcgen::KeyPair::generate().map_err(crypto("cannot make an EC key"))?,
            ))),
        }
    }

    fn rsa(key: RsaPrivateKey) -> Result<Self> {
        let public = key
            .to_public_key()
            .to_pkcs1_der()
            .map_err(crypto("cannot encode an RSA public key"))?
            .as_bytes()
            .to_vec();
        Ok(Self::Rsa(Box::new(key), public))
    }

    /// Reads a key from a PEM file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let fail = |reason: &str| Error::PrivateKey {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let text = String::from_utf8(fs::read(path)?).map_err(|_| fail("it is not PEM"))?;
        let Some(start) = text.find("-----BEGIN ").and_then(|at| text.get(at..)) else {
            return Err(fail("it is not PEM (no BEGIN line)"));
        };
        let label = start
            .get(11..)
            .and_then(|s| s.split("-----").next())
            .unwrap_or("");
        match label {
            "PRIVATE KEY" => {
                if let Ok(key) = RsaPrivateKey::from_pkcs8_pem(start) {
                    return Self::rsa(key);
                }
                rcgen::KeyPair::from_pem(start)
                    .map(|k| Self::Ec(Box::new(k)))
                    .map_err(|e| {
                        fail(&format!(
                            "neither RSA nor EC P-256 or P-384 nor Ed25519: {e}"
                        ))
                    })
            }
            "RSA PRIVATE KEY" => RsaPrivateKey::from_pkcs1_pem(start)
                .map_err(|e| fail(&e.to_string()))
                .and_then(Self::rsa),
            "ENCRYPTED PRIVATE KEY" => Err(fail("it is protected by a passphrase")),
            "EC PRIVATE KEY" => Err(fail("it is in SEC1 form")),
            other => Err(fail(&format!("it holds a `{other}`, not a private key"))),
        }
    }

    /// The key as unencrypted PKCS#8 PEM.
    pub(crate) fn to_pem(&self) -> Result<String> {
        match self {
            Self::Rsa(k, _) => Ok(k
                .to_pkcs8_pem(LineEnding::LF)
                .map_err(crypto("cannot encode a private key"))?
                .to_string()),
            Self::Ec(k) => encode_pem("PRIVATE KEY", k.serialized_der()),
        }
    }

    /// The public part as SubjectPublicKeyInfo, DER.
    pub(crate) fn spki(&self) -> Result<Vec<u8>> {
        match self {
            Self::Rsa(k, _) => Ok(k
                .to_public_key()
                .to_public_key_der()
                .map_err(crypto("cannot encode a public key"))?
                .into_vec()),
            Self::Ec(k) => Ok(k.subject_public_key_info()),
        }
    }

    /// Signs a message (the hash is taken here).
    pub(crate) fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>> {
        match self {
            // With a random number: blinded against timing; the signature is the same each time.
            Self::Rsa(k, _) => pkcs1v15::SigningKey::<Sha256>::new(k.as_ref().clone())
                .try_sign_with_rng(&mut OsRng, message)
                .map(|s| s.to_vec())
                .map_err(crypto("cannot sign")),
            Self::Ec(k) => k.sign(message).map_err(crypto("cannot sign")),
        }
    }
}

impl PublicKeyData for LocalKey {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::Rsa(_, public) => public,
            Self::Ec(k) => k.der_bytes(),
        }
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Self::Rsa(..) => &rcgen::PKCS_RSA_SHA256,
            Self::Ec(k) => k.algorithm(),
        }
    }
}

impl SigningKey for LocalKey {
    fn sign(&self, msg: &[u8]) -> std::result::Result<Vec<u8>, rcgen::Error> {
        self.sign_message(msg)
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// Wraps DER in PEM.
pub(crate) fn encode_pem(label: &'static str, der: &[u8]) -> Result<String> {
    pem::encode_string(label, LineEnding::LF, der).map_err(crypto("cannot encode PEM"))
}
