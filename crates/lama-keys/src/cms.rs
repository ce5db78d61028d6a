// SPDX-License-Identifier: Apache-2.0
//! Signed messages: CMS SignedData (RFC 5652, section 5), DER. PKCS #7, which UEFI and Authenticode
//! have, is the same structure with other parts.

use crate::Result;
use crate::cert::CertificateInfo;
use crate::der::{Parameters, algorithm, identifier, oid, tlv};
use crate::signer::Signer;
use sha2::{Digest, Sha256};

/// What a SignedData with one signer is made of, each part DER.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The algorithm of the digest.
    pub digest: &'a [u8],
    /// The algorithm of the signature.
    pub signature_algorithm: &'a [u8],
    /// The EncapsulatedContentInfo.
    pub content: &'a [u8],
    /// Signed attributes, one after another; none where the signature is over the content itself.
    pub attributes: Option<&'a [u8]>,
    /// Who signs.
    pub certificate: &'a CertificateInfo,
    /// More certificates that come along.
    pub chain: &'a [CertificateInfo],
}

impl Parts<'_> {
    /// The SignedData with this signature.
    pub fn signed(&self, signature: &[u8]) -> Vec<u8> {
        let one = tlv(0x02, &[&[1]]);
        let c = self.certificate;
        // A SET, in the order of DER.
        let mut all: Vec<&[u8]> = self.chain.iter().map(|c| c.der.as_slice()).collect();
        all.push(&c.der);
        all.sort_unstable();
        let signer = tlv(0x30, &[&c.issuer, &tlv(0x02, &[&c.serial])]);
        // They are signed as a SET and stored with an implicit tag.
        let attributes = self.attributes.map(|a| tlv(0xa0, &[a]));
        let signer_info = tlv(
            0x30,
            &[
                &one,
                &signer,
                self.digest,
                attributes.as_deref().unwrap_or_default(),
                self.signature_algorithm,
                &tlv(0x04, &[signature]),
            ],
        );
        tlv(
            0x30,
            &[
                &one,
                &tlv(0x31, &[self.digest]),
                self.content,
                &tlv(0xa0, &all),
                &tlv(0x31, &[&signer_info]),
            ],
        )
    }
}

/// A SignedData as a ContentInfo.
pub fn content_info(signed: &[u8]) -> Vec<u8> {
    tlv(
        0x30,
        &[&identifier(oid::SIGNED_DATA), &tlv(0xa0, &[signed])],
    )
}

/// The two attributes that are signed in place of the content: its type, and its SHA-256.
pub fn attributes(content_type: &[u8], digest: &[u8]) -> Vec<u8> {
    let attribute = |name, value: &[u8]| tlv(0x30, &[&identifier(name), &tlv(0x31, &[value])]);
    // In the order of DER, for both types that there are here.
    [
        attribute(oid::CONTENT_TYPE, &identifier(content_type)),
        attribute(oid::MESSAGE_DIGEST, &tlv(0x04, &[digest])),
    ]
    .concat()
}

/// Signs attributes as the SET that they are.
///
/// # Errors
/// The key cannot sign.
pub fn sign_attributes(attributes: &[u8], signer: &dyn Signer) -> Result<Vec<u8>> {
    signer.sign(&tlv(0x31, &[attributes]))
}

/// Signs `content`, which is in the message; the certificates of `chain` come along. There is no time in it, so that the same content gives
/// the same message where the signature itself does (RSA; ECDSA of RFC 6979).
///
/// # Errors
/// The key cannot sign.
pub fn sign(
    content: &[u8],
    certificate: &CertificateInfo,
    chain: &[CertificateInfo],
    signer: &dyn Signer,
) -> Result<Vec<u8>> {
    // RFC 5758: no parameters with ECDSA; RFC 4055: NULL with RSA; RFC 5754: none with SHA-256.
    let signature_algorithm = match certificate.algorithm.starts_with("rsa") {
        true => algorithm(oid::RSA_SHA256, Parameters::Null),
        false => algorithm(oid::ECDSA_SHA256, Parameters::Absent),
    };
    let attributes = attributes(oid::DATA, &Sha256::digest(content));
    let parts = Parts {
        digest: &algorithm(oid::SHA256, Parameters::Absent),
        signature_algorithm: &signature_algorithm,
        content: &tlv(
            0x30,
            &[
                &identifier(oid::DATA),
                &tlv(0xa0, &[&tlv(0x04, &[content])]),
            ],
        ),
        attributes: Some(&attributes),
        certificate,
        chain,
    };
    let signature = sign_attributes(&attributes, signer)?;
    Ok(content_info(&parts.signed(&signature)))
}
