// SPDX-License-Identifier: Apache-2.0
//! SHA-256 sums as values.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use sha2::Digest;

/// A SHA-256 sum. Shown, parsed and serialized as 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

/// A text that is no SHA-256 sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no SHA-256 sum (64 hexadecimal digits in lower case)")]
pub struct NoSha256(String);

impl Sha256 {
    /// The sum of `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(sha2::Sha256::digest(data).into())
    }

    /// The sum of all that `r` gives.
    pub fn of_reader(mut r: impl Read) -> std::io::Result<Self> {
        let mut h = Hasher::default();
        let mut buf = vec![0; 1 << 17];
        loop {
            match r.read(&mut buf) {
                Ok(0) => return Ok(h.finish()),
                Ok(n) => h.update(buf.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// A sum being computed.
#[derive(Debug, Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Takes more data.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The sum of what was taken.
    pub fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = NoSha256;

    fn from_str(s: &str) -> Result<Self, NoSha256> {
        let mut v = [0; 32];
        // Lower case only: a sum has one spelling, as it names files.
        if s.bytes().any(|b| b.is_ascii_uppercase()) || hex::decode_to_slice(s, &mut v).is_err() {
            return Err(NoSha256(s.chars().take(80).collect()));
        }
        Ok(Self(v))
    }
}

impl serde::Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        s.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        let s = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Sha256::of(b"").to_string(), s);
        assert_eq!(s.parse::<Sha256>().unwrap(), Sha256::of(b""));
        assert_eq!(Sha256::of_reader(&b"abc"[..]).unwrap(), Sha256::of(b"abc"));
        for bad in [
            "",
            "e3b0",
            &s.to_uppercase(),
            &format!("{s}0"),
            &s.replace('e', "g"),
        ] {
            assert!(bad.parse::<Sha256>().is_err(), "{bad}");
        }
    }
}
