// SPDX-License-Identifier: Apache-2.0
//! Signature databases of UEFI firmware: `EFI_SIGNATURE_LIST` and authenticated variables.
//!
//! UEFI specification 2.10, section 32.4.1 (signature database) and 8.2.2 (authenticated
//! variables). Integers are little endian, GUIDs in their mixed-endian form.

use crate::cert::CertificateInfo;
use crate::cms::Parts;
use crate::der::{Parameters, algorithm, identifier, oid, tlv};
use crate::error::Result;
use crate::role::Role;
use crate::signer::Signer;
use uuid::{Uuid, uuid};

/// Type of a signature list that holds an X.509 certificate, DER.
pub const CERT_X509_GUID: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
/// Type of a certificate block that holds a PKCS#7 SignedData.
pub const CERT_TYPE_PKCS7_GUID: Uuid = uuid!("4aafd29d-68df-49ee-8aa9-347d375665a7");
/// Vendor of PK and KEK.
pub const GLOBAL_VARIABLE: Uuid = uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
/// Vendor of db and dbx.
pub const IMAGE_SECURITY_DATABASE: Uuid = uuid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f");

/// NON_VOLATILE | BOOTSERVICE_ACCESS | RUNTIME_ACCESS | TIME_BASED_AUTHENTICATED_WRITE_ACCESS.
const ATTRIBUTES: u32 = 0x27;
/// APPEND_WRITE.
const APPEND: u32 = 0x40;

/// What becomes of a variable's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The new content takes its place.
    Replace,
    /// It is added; the firmware passes over entries that are there already.
    Append,
}

/// A variable of the signature database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// Platform key.
    Pk,
    /// Key exchange keys.
    Kek,
    /// Allowed signers.
    Db,
}

impl Variable {
    /// All three.
    pub const ALL: [Variable; 3] = [Variable::Pk, Variable::Kek, Variable::Db];

    /// Its name in the firmware, and the stem of its files in `enroll/`.
    pub fn name(self) -> &'static str {
        match self {
            Variable::Pk => "PK",
            Variable::Kek => "KEK",
            Variable::Db => "db",
        }
    }

    /// Its vendor GUID.
    pub fn vendor(self) -> Uuid {
        match self {
            Variable::Pk | Variable::Kek => GLOBAL_VARIABLE,
            Variable::Db => IMAGE_SECURITY_DATABASE,
        }
    }

    /// The role whose certificates it holds.
    pub fn role(self) -> Role {
        match self {
            Variable::Pk => Role::Pk,
            Variable::Kek => Role::Kek,
            Variable::Db => Role::Db,
        }
    }

    /// The role whose key signs changes of it.
    pub fn signer(self) -> Role {
        match self {
            Variable::Pk | Variable::Kek => Role::Pk,
            Variable::Db => Role::Kek,
        }
    }
}

/// `EFI_SIGNATURE_LIST`s of certificates (DER), one list each, since their sizes differ.
pub fn signature_lists<'a>(
    owner: Uuid,
    certificates: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut out = Vec::new();
    for der in certificates {
        let size = 16 + der.len() as u32;
        out.extend_from_slice(&CERT_X509_GUID.to_bytes_le());
        out.extend_from_slice(&(28 + size).to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&owner.to_bytes_le());
        out.extend_from_slice(der);
    }
    out
}

/// A certificate found in a signature list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who put it there.
    pub owner: Uuid,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
}

/// Parses signature lists of certificates; the error says at which byte what is wrong.
/// Lists of other types (hashes) are refused.
pub fn parse_signature_lists(data: &[u8]) -> std::result::Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let at = data.len() - rest.len();
        let short = || format!("byte {at}: the signature list is cut off");
        let field = |o: usize| {
            rest.get(o..o + 4)
                .and_then(|b| b.try_into().ok())
                .map(|b| u32::from_le_bytes(b) as usize)
                .ok_or_else(short)
        };
        let kind = guid(rest).ok_or_else(short)?;
        let (list, header, size) = (field(16)?, field(20)?, field(24)?);
        if kind != CERT_X509_GUID {
            return Err(format!(
                "byte {at}: a signature list of type {kind}, not of certificates"
            ));
        }
        let body = rest.get(..list).ok_or_else(short)?;
        let body = body
            .get(28usize.saturating_add(header)..)
            .ok_or_else(short)?;
        if size <= 16 || body.is_empty() || body.len() % size != 0 {
            return Err(format!(
                "byte {at}: the sizes of the signature list contradict each other"
            ));
        }
        for e in body.chunks_exact(size) {
            let (owner, certificate) = e.split_at(16);
            let owner = guid(owner).ok_or_else(short)?;
            entries.push(Entry {
                owner,
                certificate: certificate.to_vec(),
            });
        }
        rest = rest.get(list..).ok_or_else(short)?;
    }
    Ok(entries)
}

fn guid(b: &[u8]) -> Option<Uuid> {
    b.get(..16)?.try_into().ok().map(Uuid::from_bytes_le)
}

/// An `EFI_TIME` (seconds, UTC; all else 0, as authenticated variables demand).
pub fn efi_time(t: jiff::Timestamp) -> [u8; 16] {
    let c = t.to_zoned(jiff::tz::TimeZone::UTC).datetime();
    let mut b = [0; 16];
    b[..2].copy_from_slice(&u16::try_from(c.year()).unwrap_or(0).to_le_bytes());
    for (slot, v) in b[2..7]
        .iter_mut()
        .zip([c.month(), c.day(), c.hour(), c.minute(), c.second()])
    {
        *slot = v.unsigned_abs();
    }
    b
}

/// The signed change of a variable: `EFI_VARIABLE_AUTHENTICATION_2` followed by `payload`, which is
/// what `SetVariable` takes and what lies in `loader/keys/auto/NAME.auth`.
pub fn authenticated(
    variable: Variable,
    change: Change,
    time: jiff::Timestamp,
    payload: &[u8],
    certificate: &CertificateInfo,
    signer: &dyn Signer,
) -> Result<Vec<u8>> {
    let attributes = match change {
        Change::Replace => ATTRIBUTES,
        Change::Append => ATTRIBUTES | APPEND,
    };
    let time = efi_time(time);
    let mut message: Vec<u8> = variable
        .name()
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    message.extend_from_slice(&variable.vendor().to_bytes_le());
    message.extend_from_slice(&attributes.to_le_bytes());
    message.extend_from_slice(&time);
    message.extend_from_slice(payload);
    let pkcs7 = signed_data(certificate, &signer.sign(&message)?);

    let mut out = time.to_vec();
    out.extend_from_slice(&(24 + pkcs7.len() as u32).to_le_bytes());
    out.extend_from_slice(&0x0200u16.to_le_bytes());
    out.extend_from_slice(&0x0ef1u16.to_le_bytes());
    out.extend_from_slice(&CERT_TYPE_PKCS7_GUID.to_bytes_le());
    out.extend_from_slice(&pkcs7);
    out.extend_from_slice(payload);
    Ok(out)
}

/// A PKCS#7 SignedData with detached content and, as section 8.2.2 demands, without a ContentInfo
/// around it and without signed attributes: the signature is made over the content itself.
fn signed_data(certificate: &CertificateInfo, signature: &[u8]) -> Vec<u8> {
    Parts {
        digest: &algorithm(oid::SHA256, Parameters::Null),
        signature_algorithm: &algorithm(oid::RSA, Parameters::Null),
        content: &tlv(0x30, &[&identifier(oid::DATA)]),
        attributes: None,
        certificate,
        chain: &[],
    }
    .signed(signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn time_is_laid_out_as_efi_time() {
        let t: jiff::Timestamp = "2026-11-24T13:05:59Z".parse().unwrap();
        assert_eq!(
            efi_time(t),
            [0xea, 0x07, 11, 24, 13, 5, 59, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn cut_lists_are_refused() {
        let esl = signature_lists(Uuid::nil(), [&b"certificate"[..], b"other"]);
        for n in 1..esl.len() {
            let first = 28 + 16 + 11;
            assert_eq!(parse_signature_lists(&esl[..n]).is_ok(), n == first, "{n}");
        }
        let mut hash = esl.clone();
        hash[0] ^= 1;
        assert!(
            parse_signature_lists(&hash)
                .unwrap_err()
                .contains("not of certificates")
        );
    }

    proptest! {
        #[test]
        fn lists_round_trip(owner: u128, certs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..4)) {
            let owner = Uuid::from_u128(owner);
            let esl = signature_lists(owner, certs.iter().map(Vec::as_slice));
            let back = parse_signature_lists(&esl).unwrap();
            prop_assert_eq!(back.len(), certs.len());
            for (e, c) in back.iter().zip(&certs) {
                prop_assert_eq!(e.owner, owner);
                prop_assert_eq!(&e.certificate, c);
            }
        }

        #[test]
        fn parsing_never_panics(mut data in proptest::collection::vec(any::<u8>(), 0..200), real: bool) {
            if real && data.len() >= 16 {
                data[..16].copy_from_slice(&CERT_X509_GUID.to_bytes_le());
            }
            let _ = parse_signature_lists(&data);
        }
    }
}
