// SPDX-License-Identifier: Apache-2.0
//! What is accepted as an InRelease, and what is said where it is not.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use common::{Key, NOW, key, release_text, sign};
use lama_feed::Freshness::{self, Enforce, Ignore};
use lama_feed::openpgp::Certificates;
use lama_feed::release::{ArchAll, ByHash, Release, ReleaseError};
use proptest::prelude::*;

const DAY: i64 = 24 * 3600;

fn certs(keys: &[&Key]) -> Certificates {
    let mut c = Certificates::default();
    for k in keys {
        c.add(k.public().as_bytes()).unwrap();
    }
    c
}

fn text() -> String {
    release_text(&[("main/binary-amd64/Packages.xz".to_owned(), b"x".to_vec())].into())
}

fn check(message: &str, keys: &[&Key], f: Freshness, now: i64) -> Result<Release, ReleaseError> {
    Release::verify(message.as_bytes(), &certs(keys), "s", f, now)
}

#[track_caller]
fn refused(message: &str, keys: &[&Key], now: i64, says: &str) {
    let e = check(message, keys, Enforce, now).unwrap_err();
    assert!(e.to_string().contains(says), "{e}");
    assert!(!e.hint().is_empty());
}

#[test]
fn a_good_one() {
    let r = check(&key().sign(&text()), &[key()], Enforce, NOW).unwrap();
    assert_eq!(
        (r.date, r.valid_until),
        (NOW - 3600, Some(NOW - 3600 + 7 * DAY))
    );
    assert_eq!((r.by_hash, r.arch_all), (ByHash::Yes, ArchAll::WithOthers));
    assert_eq!(r.signed_by, key().fingerprint());
    assert_eq!(r.files.len(), 1);
    assert_eq!(r.components, ["main"]);
    // By suite, too; and packages for all architectures apart where the release says nothing.
    let t = text().replace("No-Support-for-Architecture-all: Packages\n", "");
    let m = key().sign(&t);
    let r = Release::verify(m.as_bytes(), &certs(&[key()]), "stable", Enforce, NOW).unwrap();
    assert_eq!(r.arch_all, ArchAll::Apart);
}

#[test]
fn whose_signature() {
    let other = Key::new("Other <o@example>");
    let m = key().sign(&text());
    refused(
        &m,
        &[&other],
        NOW,
        &format!("key {} is unknown", key().fingerprint()),
    );
    refused(&m, &[], NOW, "is unknown");
    refused(
        &m.replace("Origin: Test", "Origin: Toast"),
        &[key()],
        NOW,
        "is bad",
    );
    refused(
        &text(),
        &[key()],
        NOW,
        "no cleartext-signed OpenPGP message",
    );
    refused("", &[key()], NOW, "no cleartext-signed OpenPGP message");
    refused(
        "<html>Log in to the hotel's network</html>",
        &[key()],
        NOW,
        "no cleartext-signed",
    );
    // One of two suffices, whichever it is.
    for pair in [[key(), &other], [&other, key()]] {
        let m = sign(&text(), &pair, NOW, None);
        assert_eq!(
            check(&m, &[key()], Enforce, NOW).unwrap().signed_by,
            key().fingerprint()
        );
    }
}

#[test]
fn keys_that_may_not() {
    let mut expired = Key::new("Expired <e@example>");
    expired.re_certify(Some(500_000), true);
    let m = expired.sign(&text());
    refused(&m, &[&expired], NOW, "expired on 2026-11-18T");
    // Nor is a signature good that was made after the key's end, whatever the time asked for.
    assert!(check(&m, &[&expired], Ignore, NOW).is_err());
    let early = sign(&text(), &[&expired], NOW - 700_000, None);
    assert!(check(&early, &[&expired], Ignore, NOW).is_ok());
    refused(&early, &[&expired], NOW, "expired on");

    let mut revoked = Key::new("Revoked <r@example>");
    revoked.revoke();
    refused(&revoked.sign(&text()), &[&revoked], NOW, "is revoked");

    let mut other_use = Key::new("Certifies <c@example>");
    other_use.re_certify(None, false);
    refused(
        &other_use.sign(&text()),
        &[&other_use],
        NOW,
        "not meant for signing",
    );
}

#[test]
fn times() {
    let m = key().sign(&text());
    let after = NOW + 8 * DAY;
    refused(&m, &[key()], after, "it expired on 2026-12-01T11:00:00Z");
    assert!(check(&m, &[key()], Ignore, after).is_ok());
    // A clock that is a little slow is let pass, a wrong one is named.
    assert!(check(&m, &[key()], Enforce, NOW - 3600).is_ok());
    let future = sign(&text(), &[key()], NOW - 30 * DAY / 30, None);
    refused(&future, &[key()], NOW - DAY - 2 * 3600, "future");
    refused(&m, &[key()], NOW - DAY, "from the future");
    let short = sign(&text(), &[key()], NOW - 100, Some(50));
    refused(&short, &[key()], NOW, "expired on");
}

#[test]
fn what_it_says() {
    for (from, to, says) in [
        (
            "Codename: s\n",
            "Codename: t\n",
            "for suite `stable` (codename `t`), not for `s`",
        ),
        (
            "Date: Tue, 24 Nov 2026 11:00:00 UTC\n",
            "",
            "no field `Date`",
        ),
        ("11:00:00 UTC\nValid", "noon\nValid", "line 4: Date: "),
        ("SHA256:", "SHA512:", "no field `SHA256`"),
        (" main/binary", " ../main/binary", "leads out of the suite"),
        (" main/binary", " /main/binary", "leads out of the suite"),
        ("Origin: Test\n", "Origin Test\n", "line 1: "),
        ("Origin: Test\n", "Origin: Test\n\n", "2 stanzas"),
        ("Origin: Test\n", "Suite: x\nOrigin: Test\n", "twice"),
        ("SHA256:\n ", "SHA256:\n zz", "no SHA-256 sum"),
    ] {
        let t = text();
        assert!(t.contains(from), "{from}");
        refused(&key().sign(&t.replacen(from, to, 1)), &[key()], NOW, says);
    }
}

/// Text outside the signed part must never be believed, nor hide the part that is.
#[test]
fn text_outside_the_signed_part() {
    let m = key().sign(&text());
    let evil = "Codename: s\nSHA256:\n 00 1 main/evil\n";
    for bad in [
        format!("{evil}\n{m}"),
        format!("\n{m}"),
        format!("{m}{evil}"),
        format!("{m}\n{m}"),
        m.replacen("Hash: SHA256\n", &format!("Hash: SHA256\n{evil}"), 1),
        m.replacen(
            "-----BEGIN PGP SIGNATURE",
            &format!("{evil}-----BEGIN PGP SIGNATURE"),
            1,
        ),
    ] {
        assert!(check(&bad, &[key()], Enforce, NOW).is_err(), "{bad}");
    }
}

fn message() -> &'static str {
    static M: OnceLock<String> = OnceLock::new();
    M.get_or_init(|| key().sign(&text()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    /// However it is edited: it is refused, or says what it said.
    #[test]
    fn edits(at in 0usize..2000, cut in 0usize..40, with in "(\\PC|[\n\r -]){0,6}") {
        let m = message();
        let good = check(m, &[key()], Enforce, NOW).unwrap();
        let at = at % m.len();
        let end = (at + cut).min(m.len());
        let edited = format!("{}{with}{}", &m[..at], &m[end..]);
        if let Ok(r) = check(&edited, &[key()], Enforce, NOW) {
            prop_assert_eq!(r, good);
        }
    }

    #[test]
    fn chance(data in proptest::collection::vec(any::<u8>(), 0..300), head in any::<bool>()) {
        let mut m = if head { b"-----BEGIN PGP SIGNED MESSAGE-----\n".to_vec() } else { Vec::new() };
        m.extend(data);
        prop_assert!(Release::verify(&m, &certs(&[key()]), "s", Enforce, NOW).is_err());
        let mut c = Certificates::default();
        let _ = c.add(&m);
    }

    #[test]
    fn signed_nonsense_never_panics(t in "([A-Za-z0-9:, ]|\\PC|\n){0,200}") {
        let m = key().sign(&t);
        let _ = check(&m, &[key()], Enforce, NOW);
    }
}

#[test]
fn dates_of_unusual_form() {
    let files = BTreeMap::new();
    for (date, ok) in [
        ("Tue, 24 Nov 2026 11:00:00 +0000", true),
        ("Tue, 24 Nov 2026 11:00:00 GMT", true),
        ("2026-11-24", false),
        ("Tue, 99 Nov 2026 11:00:00 UTC", false),
    ] {
        let t = release_text(&files).replace("Tue, 24 Nov 2026 11:00:00 UTC", date);
        assert_eq!(
            check(&key().sign(&t), &[key()], Enforce, NOW).is_ok(),
            ok,
            "{date}"
        );
    }
}
