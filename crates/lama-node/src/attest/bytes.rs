// SPDX-License-Identifier: Apache-2.0
//! Bytes: a reader that never reads past the end, hexadecimal, Base64 (RFC 4648), SHA-256.

use crate::{Error, Result};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// The SHA-256 of data.
pub fn sha256(data: impl AsRef<[u8]>) -> Digest {
    Sha256::digest(data).into()
}

/// Reads numbers and pieces from the front of data.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Over all of it.
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((a, b)) => {
                self.rest = b;
                Ok(a)
            }
            None => Err(Error::new(format!(
                "it is cut short: {len} bytes are missing where {} are left",
                self.rest.len()
            ))),
        }
    }

    /// As [`Reader::take`], an array.
    ///
    /// # Errors
    /// There are fewer bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut a = [0; N];
        a.copy_from_slice(self.take(N)?);
        Ok(a)
    }

    /// As [`Reader::take`], with the length as a 32-bit number.
    ///
    /// # Errors
    /// There are fewer bytes.
    pub fn take32(&mut self, len: u32) -> Result<&'a [u8]> {
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// A little-endian number.
    ///
    /// # Errors
    /// There are fewer bytes.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A little-endian number.
    ///
    /// # Errors
    /// There are fewer bytes.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A little-endian number.
    ///
    /// # Errors
    /// There are fewer bytes.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}

/// Lower-case hexadecimal.
pub fn hex(data: &[u8]) -> String {
    data.iter().map(|b| format!("{b:02x}")).collect()
}

/// Hexadecimal of either case; nothing where it is none.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if text.len() % 2 != 0 {
        return None;
    }
    text.chunks(2)
        .map(|two| {
            let two = two
                .iter()
                .map(|c| char::from(*c).to_digit(16))
                .try_fold(0, |n, d| Some(n * 16 + d?))?;
            u8::try_from(two).ok()
        })
        .collect()
}

/// A SHA-256 digest in hexadecimal.
pub fn digest_of_hex(text: &str) -> Option<Digest> {
    unhex(text)?.try_into().ok()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding.
pub fn base64(data: &[u8]) -> String {
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for three in data.chunks(3) {
        let n = three
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |n, b| n << 8 | usize::from(*b));
        for i in 0..4 {
            let c = BASE64
                .get(n >> (18 - 6 * i) & 63)
                .filter(|_| i <= three.len());
            out.push(c.map_or('=', |c| char::from(*c)));
        }
    }
    out
}

/// What was encoded; nothing where it is no Base64 with padding.
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if text.len() % 4 != 0 {
        return None;
    }
    let bare = text
        .strip_suffix(b"==")
        .or_else(|| text.strip_suffix(b"="))
        .unwrap_or(text);
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for four in bare.chunks(4) {
        let mut n = 0_u32;
        for c in four {
            let v = BASE64.iter().position(|b| b == c)?;
            n = n << 6 | u32::try_from(v).ok()?;
        }
        n <<= 6 * (4 - four.len());
        let bytes = n.to_be_bytes();
        out.extend_from_slice(bytes.get(1..four.len())?);
    }
    Some(out)
}

/// UTF-16 as firmware writes it, up to a NUL; what is none is replaced.
pub fn utf16(data: &[u8]) -> String {
    let units = data
        .chunks_exact(2)
        .map(|b| b.iter().rev().fold(0, |n, b| n << 8 | u16::from(*b)));
    char::decode_utf16(units.take_while(|u| *u != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(unbase64(coded).unwrap(), plain.as_bytes());
        }
        assert_eq!(unhex("00fFa"), None);
        assert_eq!(unhex("zz"), None);
        assert_eq!(unhex("00fFa0").unwrap(), [0, 255, 160]);
        assert_eq!(utf16(b"a\0b\0\0\0c\0"), "ab");
    }

    proptest! {
        #[test]
        fn back_and_forth(data: Vec<u8>) {
            prop_assert_eq!(unbase64(&base64(&data)), Some(data.clone()));
            prop_assert_eq!(unhex(&hex(&data)), Some(data));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (unbase64(&text), unhex(&text), utf16(text.as_bytes()));
        }
    }
}
