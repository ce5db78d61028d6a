// SPDX-License-Identifier: Apache-2.0
//! What a CMS structure says without any key: to whom it is encrypted, who signed it, and with which
//! certificates (RFC 5652, DER).
//!
//! Only what is needed to tell people about a bundle is read; whether a signature holds is for OpenSSL
//! to say.

use lama_keys::der::oid;
use serde::Serialize;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// A CMS structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cms {
    /// Encrypted.
    Enveloped(Vec<Recipient>),
    /// Signed.
    Signed(Signed),
}

/// Whom a structure is encrypted to, or who signed: by the name of the issuer and the number of the
/// certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Recipient {
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The serial number, in hexadecimal.
    pub serial: String,
}

/// A signed structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What was signed; none where it lies elsewhere.
    pub content: Option<Vec<u8>>,
    /// The certificates that come along.
    pub certificates: Vec<Certificate>,
    /// Who signed.
    pub signers: Vec<Recipient>,
}

/// A certificate, as far as people want to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Certificate {
    /// Whom it names.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Its number, in hexadecimal.
    pub serial: String,
    /// From when it is valid, RFC 3339.
    pub not_before: String,
    /// Until when, RFC 3339.
    pub not_after: String,
    /// SHA-256 of the certificate.
    pub sha256: String,
    /// Whether it carries the mark of a development key.
    pub development: bool,
}

/// Takes the first element of `data` off: its tag, its content, and all of it.
fn take<'a>(data: &mut &'a [u8]) -> Option<(u8, &'a [u8], &'a [u8])> {
    let all = *data;
    let (tag, rest) = all.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, body) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let n = usize::from(first & 0x7f);
        if n == 0 || n > 4 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(n)?;
        let len = bytes.iter().fold(0usize, |l, b| l << 8 | usize::from(*b));
        (len, rest)
    };
    let (content, rest) = body.split_at_checked(len)?;
    *data = rest;
    let whole = all.get(..all.len() - rest.len())?;
    Some((*tag, content, whole))
}

/// The content of the first element, which has this tag.
fn expect<'a>(data: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, content, _) = take(data)?;
    (found == tag).then_some(content)
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;

impl Cms {
    /// Parses DER; none where it is nothing of the kind.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let mut data = der;
        let mut info = expect(&mut data, SEQUENCE)?;
        let kind = expect(&mut info, OID)?;
        let mut content = expect(&mut info, CONTEXT_0)?;
        let body = expect(&mut content, SEQUENCE)?;
        match kind {
            oid::ENVELOPED_DATA => enveloped(body).map(Self::Enveloped),
            oid::SIGNED_DATA => signed(body).map(Self::Signed),
            _ => None,
        }
    }
}

fn enveloped(mut body: &[u8]) -> Option<Vec<Recipient>> {
    expect(&mut body, INTEGER)?;
    let (mut tag, mut content, _) = take(&mut body)?;
    if tag == CONTEXT_0 {
        (tag, content, _) = take(&mut body)?;
    }
    if tag != SET {
        return None;
    }
    let mut out = Vec::new();
    while !content.is_empty() {
        let (tag, mut info, _) = take(&mut content)?;
        match tag {
            // Key transport (RSA): version, recipient, …
            SEQUENCE => {
                expect(&mut info, INTEGER)?;
                out.push(recipient(&mut info)?);
            }
            // Key agreement (elliptic curves): version, originator, …, keys.
            CONTEXT_1 => {
                let mut keys = &[][..];
                while !info.is_empty() {
                    let (tag, content, _) = take(&mut info)?;
                    if tag == SEQUENCE {
                        keys = content;
                    }
                }
                while !keys.is_empty() {
                    let mut key = expect(&mut keys, SEQUENCE)?;
                    out.push(recipient(&mut key)?);
                }
            }
            _ => {}
        }
    }
    Some(out)
}

fn recipient(data: &mut &[u8]) -> Option<Recipient> {
    let (tag, mut content, _) = take(data)?;
    if tag != SEQUENCE {
        // By the identifier of its key.
        let mut inner = content;
        let id = expect(&mut inner, OCTETS).unwrap_or(content);
        return Some(Recipient {
            issuer: "key".to_owned(),
            serial: hex::encode(id),
        });
    }
    let (_, _, name) = take(&mut content)?;
    let serial = expect(&mut content, INTEGER)?;
    let issuer = X509Name::from_der(name).ok()?.1.to_string();
    Some(Recipient {
        issuer,
        serial: number(serial),
    })
}

/// A serial number without the zero that keeps it positive.
fn number(bytes: &[u8]) -> String {
    match bytes {
        [0, rest @ ..] if !rest.is_empty() => hex::encode(rest),
        all => hex::encode(all),
    }
}

fn signed(mut body: &[u8]) -> Option<Signed> {
    expect(&mut body, INTEGER)?;
    expect(&mut body, SET)?;
    let mut inner = expect(&mut body, SEQUENCE)?;
    expect(&mut inner, OID)?;
    let content = expect(&mut inner, CONTEXT_0).and_then(|mut c| expect(&mut c, OCTETS));
    let mut out = Signed {
        content: content.map(<[u8]>::to_vec),
        certificates: Vec::new(),
        signers: Vec::new(),
    };
    while !body.is_empty() {
        let (tag, mut content, _) = take(&mut body)?;
        match tag {
            CONTEXT_0 => {
                while !content.is_empty() {
                    let (_, _, der) = take(&mut content)?;
                    out.certificates.extend(Certificate::parse(der));
                }
            }
            SET => {
                while !content.is_empty() {
                    let mut info = expect(&mut content, SEQUENCE)?;
                    expect(&mut info, INTEGER)?;
                    out.signers.push(recipient(&mut info)?);
                }
            }
            _ => {}
        }
    }
    Some(out)
}

impl Signed {
    /// The signers' certificates, of those that come along.
    pub fn signed_by(&self) -> impl Iterator<Item = &Certificate> {
        let is_signer = |c: &&Certificate| self.signers.contains(&c.as_recipient());
        self.certificates.iter().filter(is_signer)
    }
}

impl Certificate {
    /// Parses DER.
    pub fn parse(der: &[u8]) -> Option<Self> {
        use sha2::Digest;
        let (_, c) = X509Certificate::from_der(der).ok()?;
        let time = |t: i64| {
            jiff::Timestamp::from_second(t).map_or_else(|_| t.to_string(), |t| t.to_string())
        };
        Some(Self {
            subject: c.subject().to_string(),
            issuer: c.issuer().to_string(),
            serial: number(c.raw_serial()),
            not_before: time(c.validity().not_before.timestamp()),
            not_after: time(c.validity().not_after.timestamp()),
            sha256: hex::encode(sha2::Sha256::digest(der)),
            development: lama_keys::is_development_certificate(der),
        })
    }

    /// Reads the first certificate of a PEM text.
    pub fn parse_pem(pem: &[u8]) -> Option<Self> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
        Self::parse(&pem.contents)
    }

    /// As CMS structures name it.
    pub fn as_recipient(&self) -> Recipient {
        Recipient {
            issuer: self.issuer.clone(),
            serial: self.serial.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Cms::parse(&data);
            let mut framed = vec![0x30, 0x82, 0, 0, 6, 9];
            framed.extend(oid::ENVELOPED_DATA);
            framed.extend([0xa0, 0x82, 0, 0, 0x30, 0x82, 0, 0]);
            framed.extend(data);
            let n = framed.len() as u16;
            framed[2..4].copy_from_slice(&(n - 4).to_be_bytes());
            framed[17..19].copy_from_slice(&(n - 19).to_be_bytes());
            framed[21..23].copy_from_slice(&(n - 23).to_be_bytes());
            let _ = Cms::parse(&framed);
        }
    }
}
