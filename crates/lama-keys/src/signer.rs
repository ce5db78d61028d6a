// SPDX-License-Identifier: Apache-2.0
//! Making signatures, wherever the key is.

use crate::error::{Error, Result};
use crate::file::Pkcs11Access;
use crate::local::LocalKey;
use crate::pkcs11::Pkcs11Uri;
use crate::role::Role;
use lama_exec::Tools;
use rsa::pkcs8::DecodePublicKey;
use rsa::sha2::Sha256;
use rsa::signature::Verifier;
use rsa::{RsaPublicKey, pkcs1v15};

/// Something that signs: a file, a token, or a test's key.
pub trait Signer {
    /// The signature over `message` with SHA-256 (RSA: PKCS#1 v1.5; EC: DER of ECDSA). The hash is
    /// taken by the signer.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>>;
}

impl Signer for LocalKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.sign_message(message)
    }
}

/// A key in a token, reached through OpenSSL's `pkcs11` engine, the same way ukify does.
pub(crate) struct Pkcs11Signer<'a> {
    pub(crate) role: Role,
    pub(crate) uri: Pkcs11Uri,
    pub(crate) access: Option<&'a Pkcs11Access>,
    pub(crate) tools: &'a Tools,
    /// What the signature must be verifiable with.
    pub(crate) spki: Vec<u8>,
}

impl Signer for Pkcs11Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let args = crate::args::ToolArgs::for_token(&self.uri, self.access);
        let cmd = self
            .tools
            .command("openssl")
            .args([
                "dgst", "-sha256", "-engine", "pkcs11", "-keyform", "engine", "-sign",
            ])
            .arg(self.uri.expose())
            .stdin_bytes(message);
        let signature = args.apply(cmd).run()?.stdout;
        if verify(&self.spki, message, &signature) == Some(false) {
            return Err(Error::Mismatch { role: self.role });
        }
        Ok(signature)
    }
}

/// Whether a signature is good; `None` where the key is not RSA.
pub(crate) fn verify(spki: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
    let key = RsaPublicKey::from_public_key_der(spki).ok()?;
    let Ok(signature) = pkcs1v15::Signature::try_from(signature) else {
        return Some(false);
    };
    Some(
        pkcs1v15::VerifyingKey::<Sha256>::new(key)
            .verify(message, &signature)
            .is_ok(),
    )
}
