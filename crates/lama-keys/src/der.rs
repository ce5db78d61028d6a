// SPDX-License-Identifier: Apache-2.0
//! Writing DER (ITU-T X.690): all that a PKCS #7 signature needs.

/// A value: its tag, its length in the shortest form, and its content, which is joined from parts.
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = vec![tag];
    if len < 0x80 {
        out.push(len as u8);
    } else {
        let bytes = len.to_be_bytes();
        let skip = bytes.iter().take_while(|b| **b == 0).count();
        out.push(0x80 | (bytes.len() - skip) as u8);
        out.extend(bytes.iter().skip(skip));
    }
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

/// An object identifier, of its encoded content ([`oid`]).
pub fn identifier(content: &[u8]) -> Vec<u8> {
    tlv(0x06, &[content])
}

/// Whether an algorithm's parameters are there: NULL, or nothing at all. Which one stands in the
/// algorithm's own specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameters {
    /// NULL.
    Null,
    /// Nothing.
    Absent,
}

/// An AlgorithmIdentifier (RFC 5280, section 4.1.1.2).
pub fn algorithm(content: &[u8], parameters: Parameters) -> Vec<u8> {
    match parameters {
        Parameters::Null => tlv(0x30, &[&identifier(content), &tlv(0x05, &[])]),
        Parameters::Absent => tlv(0x30, &[&identifier(content)]),
    }
}

/// Object identifiers, as they are encoded.
pub mod oid {
    /// sha256, 2.16.840.1.101.3.4.2.1
    pub const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
    /// ecdsa-with-SHA256, 1.2.840.10045.4.3.2
    pub const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    /// rsaEncryption, 1.2.840.113549.1.1.1
    pub const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    /// sha256WithRSAEncryption, 1.2.840.113549.1.1.11
    pub const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    /// id-data, 1.2.840.113549.1.7.1
    pub const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
    /// id-signedData, 1.2.840.113549.1.7.2
    pub const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    /// id-envelopedData, 1.2.840.113549.1.7.3
    pub const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
    /// id-contentType, 1.2.840.113549.1.9.3
    pub const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
    /// id-messageDigest, 1.2.840.113549.1.9.4
    pub const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
}

#[cfg(test)]
mod tests {
    use super::tlv;

    #[test]
    fn der_lengths() {
        assert_eq!(tlv(4, &[&[1, 2]]), [4, 2, 1, 2]);
        assert_eq!(tlv(4, &[&[0; 0x80]])[..3], [4, 0x81, 0x80]);
        assert_eq!(tlv(4, &[&[0; 0x1234]])[..4], [4, 0x82, 0x12, 0x34]);
    }
}
