// SPDX-License-Identifier: Apache-2.0
//! The OpenPGP key of a set: an Ed25519 v4 key that certifies itself and signs.

use crate::cert::subject;
use crate::error::{Error, Result, crypto};
use crate::file::Kind;
use crate::role::Role;
use lama_exec::fs;
use pgp::composed::{
    ArmorOptions, Deserializable, EncryptionCaps, KeyType, SecretKeyParamsBuilder, SignedPublicKey,
    SignedSecretKey,
};
use pgp::types::KeyDetails;
use rsa::rand_core::OsRng;
use std::path::Path;

/// A new key: private and public part, both armored, and the fingerprint.
pub(crate) struct Generated {
    pub(crate) private: String,
    pub(crate) public: String,
    pub(crate) fingerprint: String,
}

pub(crate) fn generate(kind: Kind, set: &str) -> Result<Generated> {
    let what = "cannot make an OpenPGP key";
    let mut p = SecretKeyParamsBuilder::default();
    // The curve's older form: GnuPG knows no other.
    p.key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .can_encrypt(EncryptionCaps::None)
        .primary_user_id(subject(kind, set, Role::Openpgp));
    let secret = p
        .build()
        .map_err(crypto(what))?
        .generate(OsRng)
        .map_err(crypto(what))?;
    describe(&secret)
}

fn describe(secret: &SignedSecretKey) -> Result<Generated> {
    let what = "cannot encode an OpenPGP key";
    let public = SignedPublicKey::from(secret.clone());
    Ok(Generated {
        private: secret
            .to_armored_string(ArmorOptions::default())
            .map_err(crypto(what))?,
        public: public
            .to_armored_string(ArmorOptions::default())
            .map_err(crypto(what))?,
        fingerprint: public.fingerprint().to_string().to_lowercase(),
    })
}

/// Reads an armored private key file, for what is written into a set.
pub(crate) fn read_private(path: &Path) -> Result<Generated> {
    describe(&secret(path)?)
}

/// Reads an armored private key file.
pub(crate) fn secret(path: &Path) -> Result<SignedSecretKey> {
    let fail = |reason: String| Error::PrivateKey {
        path: path.to_owned(),
        reason,
    };
    let data = fs::read(path)?;
    let (key, _) = SignedSecretKey::from_armor_single(data.as_slice())
        .map_err(|e| fail(format!("no armored OpenPGP private key: {e}")))?;
    key.verify_bindings()
        .map_err(|e| fail(format!("its self-signature is bad: {e}")))?;
    Ok(key)
}

/// What an armored certificate says of itself.
pub(crate) struct PublicInfo {
    pub(crate) fingerprint: String,
    pub(crate) user_id: String,
    pub(crate) algorithm: String,
}

/// Reads an armored certificate file.
pub(crate) fn public(path: &Path) -> Result<SignedPublicKey> {
    let fail = |reason: String| Error::Certificate {
        path: path.to_owned(),
        reason,
    };
    let data = fs::read(path)?;
    let (key, _) = SignedPublicKey::from_armor_single(data.as_slice())
        .map_err(|e| fail(format!("no armored OpenPGP certificate: {e}")))?;
    key.verify_bindings()
        .map_err(|e| fail(format!("its self-signature is bad: {e}")))?;
    Ok(key)
}

/// What an armored certificate file says of itself.
pub(crate) fn read_public(path: &Path) -> Result<PublicInfo> {
    let key = public(path)?;
    Ok(PublicInfo {
        fingerprint: key.fingerprint().to_string().to_lowercase(),
        algorithm: format!("openpgp-{:?}", key.algorithm()).to_lowercase(),
        user_id: key
            .details
            .users
            .first()
            .map(|u| String::from_utf8_lossy(u.id.id()).into_owned())
            .unwrap_or_default(),
    })
}
