// SPDX-License-Identifier: Apache-2.0
//! The key of a signed PCR policy (systemd-measure(1)): by which one something is sealed, and which ones
//! have signed what a UKI measures.

use crate::attest::bytes::{hex, sha256, unbase64};
use crate::{Context, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// The name by which policies know a public key (PEM, SubjectPublicKeyInfo): SHA-256 of its PKCS #1 form,
/// hexadecimal. None where it is no RSA key.
pub fn fingerprint(pem: &str) -> Option<String> {
    let (_, rest) = pem.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = unbase64(&body)?;
    // SEQUENCE { algorithm, BIT STRING { unused bits, key } }
    let (sequence, _) = tlv(&der, 0x30)?;
    let (_, rest) = tlv(sequence, 0x30)?;
    let (bits, _) = tlv(rest, 0x03)?;
    let (unused, key) = bits.split_first()?;
    (*unused == 0 && key.first() == Some(&0x30)).then(|| hex(&sha256(key)))
}

/// That of a token of systemd-cryptenroll's, where the PEM text is in Base64.
pub fn of_token(base64: &str) -> Option<String> {
    fingerprint(std::str::from_utf8(&unbase64(base64)?).ok()?)
}

/// That of a credential of systemd-creds', which has the PEM text in it.
pub fn of_credential(credential: &[u8]) -> Option<String> {
    let text: Vec<u8> = credential
        .iter()
        .copied()
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    let data = unbase64(std::str::from_utf8(&text).ok()?)?;
    let begin = BEGIN.as_bytes();
    let at = data.windows(begin.len()).position(|w| w == begin)?;
    // Whatever follows the text is not part of it.
    fingerprint(&String::from_utf8_lossy(data.get(at..)?))
}

/// The keys that have signed the policies of a UKI, from its section `.pcrsig`.
///
/// # Errors
/// It is not what systemd-measure(1) writes.
pub fn signers(pcrsig: &[u8]) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Signature {
        pkfp: String,
    }
    let end = pcrsig.iter().rposition(|b| *b != 0).map_or(0, |n| n + 1);
    let json = pcrsig.get(..end).unwrap_or_default();
    let banks: BTreeMap<String, Vec<Signature>> =
        serde_json::from_slice(json).context("the policies in the UKI cannot be understood")?;
    let all = banks.into_values().flatten();
    Ok(all.map(|s| s.pkfp.to_ascii_lowercase()).collect())
}

/// The content of the first element of DER, which has this tag, and what follows it.
fn tlv(data: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = data.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => {
            let n = u16::from_be_bytes(rest.first_chunk::<2>().copied()?);
            (usize::from(n), rest.get(2..)?)
        }
        _ => return None,
    };
    (*found == tag)
        .then(|| rest.split_at_checked(len))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::bytes::base64;
    use proptest::prelude::*;

    /// A key, and what `openssl rsa -pubin -RSAPublicKey_out -outform DER | sha256sum` makes of it.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----
MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALwtp7IYSjbFSKjZBpGqTyn2g5EgKjXH
w0+BMjDfcutHr0q+kg1E4jJrURbsvrH1MEHtOoTqg+sYpzAPSLZXt/MCAwEAAQ==
-----END PUBLIC KEY-----
";
    const NAME: &str = "c7678ac016d4ad4967c6e3c8f85552369654f32b884a6551b2f8f86fd5a2e6c8";

    #[test]
    fn a_key_is_found_wherever_it_is() {
        let name = fingerprint(PEM).unwrap();
        assert_eq!(name, NAME);
        assert_eq!(of_token(&base64(PEM.as_bytes())).unwrap(), name);
        let credential = [&[0x7f, 0, 1][..], PEM.as_bytes(), &[0xff; 9]].concat();
        let mut text = base64(&credential);
        text.insert(40, '\n');
        assert_eq!(of_credential(text.as_bytes()).unwrap(), name);
        assert_eq!(of_credential(b"AAAA"), None);
        assert_eq!(fingerprint("-----BEGIN PUBLIC KEY-----"), None);
    }

    #[test]
    fn a_ukis_signers_are_told() {
        let json = br#"{"sha256":[{"pcrs":[11],"pkfp":"AB","pol":"1","sig":"x"},
            {"pcrs":[11],"pkfp":"ab","pol":"2","sig":"x"},{"pcrs":[11],"pkfp":"cd","pol":"2","sig":"x"}]}"#;
        let padded = [&json[..], &[0; 5]].concat();
        let all: Vec<String> = signers(&padded).unwrap().into_iter().collect();
        assert_eq!(all, ["ab", "cd"]);
        assert!(signers(b"{").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data: Vec<u8>, text: String) {
            let _ = (signers(&data), of_credential(&data), of_token(&text));
            let _ = fingerprint(&format!("{BEGIN}{}{END}", base64(&data)));
        }
    }
}
