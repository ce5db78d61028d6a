// SPDX-License-Identifier: Apache-2.0
//! A signed message: CMS SignedData (RFC 5652, section 5) with the content in it, DER.

use crate::Result;
use crate::cert::CertificateInfo;
use crate::der::tlv;
use crate::signer::Signer;
use sha2::{Digest, Sha256};

/// 2.16.840.1.101.3.4.2.1
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 1.2.840.10045.4.3.2
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// 1.2.840.113549.1.1.11
const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
/// 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.7.2
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// 1.2.840.113549.1.9.3
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
/// 1.2.840.113549.1.9.4
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];

/// Signs `content`, which is in the message. There is no time in it, so that the same content gives
/// the same message where the signature itself does (RSA; ECDSA of RFC 6979).
///
/// # Errors
/// The key cannot sign.
pub fn sign(content: &[u8], certificate: &CertificateInfo, signer: &dyn Signer) -> Result<Vec<u8>> {
    let oid = |o: &[u8]| tlv(0x06, &[o]);
    // RFC 5758: no parameters with ECDSA; RFC 4055: NULL with RSA; RFC 5754: none with SHA-256.
    let signature_algorithm = if certificate.algorithm.starts_with("rsa") {
        tlv(0x30, &[&oid(RSA_SHA256), &tlv(0x05, &[])])
    } else {
        tlv(0x30, &[&oid(ECDSA_SHA256)])
    };
    let digest_algorithm = tlv(0x30, &[&oid(SHA256)]);
    let attribute = |name: &[u8], value: &[u8]| tlv(0x30, &[&oid(name), &tlv(0x31, &[value])]);
    // In the order of DER: both begin alike, the shorter one comes first.
    let attributes = [
        attribute(CONTENT_TYPE, &oid(DATA)),
        attribute(MESSAGE_DIGEST, &tlv(0x04, &[&Sha256::digest(content)])),
    ]
    .concat();
    // Signed as a SET, stored with an implicit tag.
    let signature = signer.sign(&tlv(0x31, &[&attributes]))?;
    let one = tlv(0x02, &[&[1]]);
    let signer_info = tlv(
        0x30,
        &[
            &one,
            &tlv(
                0x30,
                &[&certificate.issuer, &tlv(0x02, &[&certificate.serial])],
            ),
            &digest_algorithm,
            &tlv(0xa0, &[&attributes]),
            &signature_algorithm,
            &tlv(0x04, &[&signature]),
        ],
    );
    let signed = tlv(
        0x30,
        &[
            &one,
            &tlv(0x31, &[&digest_algorithm]),
            &tlv(0x30, &[&oid(DATA), &tlv(0xa0, &[&tlv(0x04, &[content])])]),
            &tlv(0xa0, &[&certificate.der]),
            &tlv(0x31, &[&signer_info]),
        ],
    );
    Ok(tlv(0x30, &[&oid(SIGNED_DATA), &tlv(0xa0, &[&signed])]))
}
