// SPDX-License-Identifier: Apache-2.0
//! PKCS#11 URIs (RFC 7512): names of keys in tokens.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Attributes of the path, RFC 7512 section 2.3.
const PATH: [&str; 13] = [
    "token",
    "manufacturer",
    "serial",
    "model",
    "library-manufacturer",
    "library-version",
    "library-description",
    "object",
    "type",
    "id",
    "slot-manufacturer",
    "slot-description",
    "slot-id",
];
/// Attributes of the query.
const QUERY: [&str; 4] = ["pin-source", "pin-value", "module-name", "module-path"];

/// Whether a URI may carry its PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinValue {
    /// It may: it comes from the environment or another place that is never kept.
    Allowed,
    /// It may not: it stands in a file that may be committed or copied.
    Refused,
}

/// The URI of a private key in a PKCS#11 token. Shown (`Display`, `Debug`) without its PIN.
#[derive(Clone, PartialEq, Eq)]
pub struct Pkcs11Uri {
    raw: String,
    attributes: BTreeMap<String, String>,
}

impl Pkcs11Uri {
    /// Parses and checks a URI that shall name one private key.
    ///
    /// Beyond RFC 7512, it must name an `object` or an `id` (else any key of the token would do),
    /// its `type`, if given, must be `private`, and `pin-source` must be an absolute file path
    /// (a program, `|…`, is never run).
    pub fn parse(uri: &str, pin: PinValue) -> Result<Self> {
        let fail = |reason: String| Error::Pkcs11Uri {
            uri: mask(uri),
            reason,
        };
        let Some(rest) = uri.strip_prefix("pkcs11:") else {
            return Err(fail("it does not start with `pkcs11:`".into()));
        };
        let (path, query) = match rest.split_once('?') {
            Some((p, q)) => (p, Some(q)),
            None => (rest, None),
        };
        let mut attributes = BTreeMap::new();
        let parts = path
            .split(';')
            .map(|a| (a, &PATH[..], ":[]@!$'()*+,=&"))
            .chain(
                query
                    .into_iter()
                    .flat_map(|q| q.split('&'))
                    .map(|a| (a, &QUERY[..], ":[]@!$'()*+,=/?|;")),
            );
        for (attribute, known, extra) in parts {
            if attribute.is_empty() {
                continue;
            }
            let Some((name, value)) = attribute.split_once('=') else {
                return Err(fail(format!("`{}` has no value", name_only(attribute))));
            };
            if !known.contains(&name) && !vendor(name) {
                return Err(fail(format!(
                    "`{name}` is no attribute that may stand here"
                )));
            }
            let value = decode(value, extra).map_err(|e| fail(format!("`{name}`: {e}")))?;
            if attributes.insert(name.to_owned(), value).is_some() {
                return Err(fail(format!("`{name}` stands there twice")));
            }
        }
        let get = |k: &str| attributes.get(k).map(String::as_str);
        if get("object").is_none() && get("id").is_none() {
            return Err(fail(
                "neither `object` nor `id` says which key of the token is meant".into(),
            ));
        }
        if get("type").is_some_and(|t| t != "private") {
            return Err(fail(
                "`type` must be `private`: a signing key is meant".into(),
            ));
        }
        if get("slot-id").is_some_and(|s| s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit())) {
            return Err(fail("`slot-id` must be a number".into()));
        }
        if get("pin-source").is_some() && get("pin-value").is_some() {
            return Err(fail(
                "`pin-source` and `pin-value` exclude each other".into(),
            ));
        }
        if get("pin-source").is_some_and(|s| file_path(s).is_none()) {
            return Err(fail(
                "`pin-source` must be an absolute path or file:/…".into(),
            ));
        }
        if pin == PinValue::Refused && get("pin-value").is_some() {
            return Err(fail(
                "it holds a PIN (pin-value), which must not be kept in a file".into(),
            ));
        }
        Ok(Self {
            raw: uri.to_owned(),
            attributes,
        })
    }

    /// The URI as it was given, PIN included: for the tool that opens the token, never for a log.
    pub fn expose(&self) -> &str {
        &self.raw
    }

    /// The decoded value of an attribute. Bytes that are no UTF-8 (an `id`) are shown as U+FFFD.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    /// Whether the PIN itself is part of the URI.
    pub fn has_pin_value(&self) -> bool {
        self.attributes.contains_key("pin-value")
    }

    /// The file that holds the PIN.
    pub fn pin_file(&self) -> Option<PathBuf> {
        self.attribute("pin-source").and_then(file_path)
    }
}

impl std::fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&mask(&self.raw))
    }
}

impl std::fmt::Debug for Pkcs11Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pkcs11Uri({self})")
    }
}

fn vendor(name: &str) -> bool {
    name.strip_prefix("x-").is_some_and(|n| {
        !n.is_empty()
            && n.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

fn name_only(attribute: &str) -> &str {
    attribute.get(..attribute.len().min(20)).unwrap_or("…")
}

/// Replaces what follows `pin-value=`, wherever it stands.
fn mask(uri: &str) -> String {
    let mut out = String::new();
    let mut rest = uri;
    while let Some(at) = rest.find("pin-value=") {
        let (head, tail) = rest.split_at(at + "pin-value=".len());
        out.push_str(head);
        out.push_str("***");
        rest = tail.find('&').and_then(|i| tail.get(i..)).unwrap_or("");
    }
    out + rest
}

fn file_path(source: &str) -> Option<PathBuf> {
    let p = source.strip_prefix("file:").unwrap_or(source);
    let p = match p.strip_prefix("//") {
        Some(rest) if rest.starts_with('/') => rest,
        Some(_) => return None,
        None => p,
    };
    Path::new(p).is_absolute().then(|| PathBuf::from(p))
}

/// Percent-decodes a value; `extra` are the reserved characters that may stand for themselves.
fn decode(value: &str, extra: &str) -> std::result::Result<String, String> {
    let mut out = Vec::new();
    let mut bytes = value.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' => {
                let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                match (hex(bytes.next()), hex(bytes.next())) {
                    (Some(h), Some(l)) => out.push((h * 16 + l) as u8),
                    _ => return Err("a `%` must be followed by two hexadecimal digits".into()),
                }
            }
            b if b.is_ascii_alphanumeric()
                || b"-._~".contains(&b)
                || (b.is_ascii() && extra.contains(char::from(b))) =>
            {
                out.push(b);
            }
            b if b.is_ascii_graphic() => {
                return Err(format!("`{}` must be written as %{b:02X}", char::from(b)));
            }
            b => return Err(format!("byte {b:#04x} must be percent-encoded")),
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_uris() {
        let u = Pkcs11Uri::parse(
            "pkcs11:token=The%20token;object=db;type=private;id=%01%02?pin-source=file:/run/pin&module-name=p11",
            PinValue::Refused,
        )
        .unwrap();
        assert_eq!(u.attribute("token"), Some("The token"));
        assert_eq!(u.pin_file(), Some(PathBuf::from("/run/pin")));
        assert_eq!(u.attribute("id"), Some("\u{1}\u{2}"));
        for ok in [
            "pkcs11:id=%69%95",
            "pkcs11:object=a;x-vendor=1",
            "pkcs11:object=a?pin-source=/run/pin",
            "pkcs11:object=a?pin-source=file:///run/pin",
            "pkcs11:object=a;slot-id=3",
        ] {
            Pkcs11Uri::parse(ok, PinValue::Refused).unwrap();
        }
    }

    #[test]
    fn bad_uris_say_why() {
        for (uri, why) in [
            ("db.key", "does not start"),
            ("pkcs11:", "neither"),
            ("pkcs11:token=x", "neither"),
            ("pkcs11:object", "no value"),
            ("pkcs11:object=a;object=b", "twice"),
            ("pkcs11:object=a;colour=red", "no attribute"),
            ("pkcs11:object=a;type=cert", "must be `private`"),
            ("pkcs11:object=a b", "percent-encoded"),
            ("pkcs11:object=a/b", "%2F"),
            ("pkcs11:object=%4", "hexadecimal"),
            ("pkcs11:object=%zz", "hexadecimal"),
            ("pkcs11:object=ä", "percent-encoded"),
            ("pkcs11:object=a;slot-id=x", "number"),
            ("pkcs11:object=a?pin-source=pin", "absolute"),
            ("pkcs11:object=a?pin-source=file://host/pin", "absolute"),
            ("pkcs11:object=a?pin-source=|/bin/pin", "absolute"),
            ("pkcs11:object=a?pin-source=/p&pin-value=1", "exclude"),
            ("pkcs11:object=a?pin-value=1234", "holds a PIN"),
            ("pkcs11:object=a?object=b", "no attribute"),
        ] {
            let e = Pkcs11Uri::parse(uri, PinValue::Refused)
                .unwrap_err()
                .to_string();
            assert!(e.contains(why), "{uri}: {e}");
        }
    }

    #[test]
    fn the_pin_is_never_shown() {
        let raw = "pkcs11:object=a?pin-value=s3cret&module-name=m";
        let u = Pkcs11Uri::parse(raw, PinValue::Allowed).unwrap();
        assert_eq!(u.to_string(), "pkcs11:object=a?pin-value=***&module-name=m");
        assert!(!format!("{u:?}").contains("s3cret"));
        assert_eq!(u.expose(), raw);
        let e = Pkcs11Uri::parse(raw, PinValue::Refused).unwrap_err();
        assert!(!format!("{e:?}{e}").contains("s3cret"));
    }

    proptest! {
        #[test]
        fn never_panics(s in "\\PC*") {
            let _ = Pkcs11Uri::parse(&s, PinValue::Allowed);
            let _ = Pkcs11Uri::parse(&format!("pkcs11:{s}"), PinValue::Allowed);
        }

        #[test]
        fn names_survive_percent_encoding(name in proptest::collection::vec(any::<u8>(), 1..20)) {
            let enc: String = name.iter().map(|b| format!("%{b:02x}")).collect();
            let u = Pkcs11Uri::parse(&format!("pkcs11:object={enc}"), PinValue::Refused).unwrap();
            let want = String::from_utf8_lossy(&name).into_owned();
            prop_assert_eq!(u.attribute("object"), Some(want.as_str()));
        }
    }
}
