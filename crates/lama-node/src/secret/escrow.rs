// SPDX-License-Identifier: Apache-2.0
//! The way back to a secret when the TPM no longer opens it: a copy encrypted to the recovery key.
//!
//! A recovery key is 256 random bits, enough to be a key of its own: an age identity follows from it.
//! Its public half, the recipient, lies in the LUKS header beside the slot that the key opens, so
//! secrets can be encrypted to it at any time, while the key itself is on paper.

use crate::Result;
use crate::error::Context;
use crate::install::recovery;
use crate::run::Run;
use sha2::{Digest, Sha256};
use std::path::Path;

/// The age identity that a recovery key stands for (<https://age-encryption.org/v1>).
///
/// # Errors
/// It is no recovery key.
pub fn identity(recovery_key: &str) -> Result<String> {
    let key = recovery::normalize(recovery_key)?;
    let mut h = Sha256::new();
    h.update(b"lamadist secrets\0");
    h.update(key);
    Ok(bech32("age-secret-key-", &h.finalize()).to_ascii_uppercase())
}

/// The recipient of a recovery key.
///
/// # Errors
/// It is none, or age-keygen(1) is missing.
pub fn recipient(recovery_key: &str) -> Result<String> {
    let run = Run::new("age-keygen").arg("-y");
    run.stdin(identity(recovery_key)?).text()
}

/// Whether a text is a recipient of this kind. A LUKS header is not signed: what stands in it is not
/// passed on unseen.
pub fn is_recipient(s: &str) -> bool {
    let rest = s.strip_prefix("age1").unwrap_or("");
    rest.len() == 58 && rest.bytes().all(|b| CHARSET.contains(&b))
}

/// Encrypts a secret to these recipients.
///
/// # Errors
/// age(1) fails.
pub fn encrypt(data: &[u8], recipients: &[String]) -> Result<Vec<u8>> {
    let mut run = Run::new("age").arg("--encrypt");
    for r in recipients {
        run = run.arg("--recipient").arg(r);
    }
    Ok(run.stdin(data).run()?.stdout)
}

/// Decrypts what [`encrypt`] made.
///
/// # Errors
/// It was encrypted to another key.
pub fn decrypt(path: &Path, recovery_key: &str) -> Result<Vec<u8>> {
    let run = Run::new("age").args(["--decrypt", "--identity", "-"]);
    let out = run.arg(path).stdin(identity(recovery_key)?).run();
    Ok(out.context("this key does not open its copy")?.stdout)
}

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Bech32 (BIP-173), without its limit on length.
fn bech32(prefix: &str, data: &[u8]) -> String {
    let mut values = Vec::new();
    let (mut bits, mut n) = (0_u32, 0);
    for b in data {
        bits = (bits << 8) | u32::from(*b);
        n += 8;
        while n >= 5 {
            n -= 5;
            values.push((bits >> n) & 31);
            bits &= (1 << n) - 1;
        }
    }
    if n > 0 {
        values.push((bits << (5 - n)) & 31);
    }
    let high = prefix.bytes().map(|b| u32::from(b >> 5));
    let low = prefix.bytes().map(|b| u32::from(b & 31));
    let expanded = high.chain([0]).chain(low).chain(values.iter().copied());
    let sum = polymod(expanded.chain([0; 6])) ^ 1;
    values.extend((0..6).rev().map(|i| (sum >> (5 * i)) & 31));
    let letter = |v: &u32| char::from(*CHARSET.get(*v as usize).unwrap_or(&b'q'));
    format!("{prefix}1{}", values.iter().map(letter).collect::<String>())
}

fn polymod(values: impl Iterator<Item = u32>) -> u32 {
    const GENERATOR: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    values.fold(1, |sum, v| {
        let top = sum >> 25;
        let next = ((sum & 0x1ff_ffff) << 5) ^ v;
        (0..5)
            .zip(GENERATOR)
            .filter(|(i, _)| (top >> i) & 1 == 1)
            .fold(next, |n, (_, g)| n ^ g)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bech32_is_that_of_others() {
        // 32 bytes of 0x42, from the tests of age.
        assert_eq!(
            bech32("age-secret-key-", &[0x42; 32]).to_ascii_uppercase(),
            "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
        );
        // BIP-173: a valid string without data.
        assert_eq!(bech32("a", &[]).to_ascii_uppercase(), "A12UEL5L");
    }

    #[test]
    fn a_recovery_key_stands_for_one_identity() {
        let key = "cccjbcbj-dcdjecej-fcfjgcgj-hchjicij-jcjjkckj-lcljncnj-rcrjtctj-ucujvcvj";
        let one = identity(key).unwrap();
        // Copies of secrets outlive versions of this program: it must not change.
        assert_eq!(
            one,
            "AGE-SECRET-KEY-1M5S8RPSHR0YX007DMP4NNUEXHT855ATKE8W98SJ0N4XD8WUJJ6NQ0CLLD4"
        );
        assert_eq!(
            identity(&key.to_uppercase().replace('-', " ")).unwrap(),
            one
        );
        assert_ne!(identity(&key.replace("ccc", "ccb")).unwrap(), one);
        assert!(identity("cccjbcbj").is_err());
        assert!(is_recipient(&format!("age1{}", "q".repeat(58))));
        for bad in ["", "age1", "-o/etc/x", &format!("age1{}", "b".repeat(58))] {
            assert!(!is_recipient(bad), "{bad}");
        }
    }
}
