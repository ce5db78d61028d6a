// SPDX-License-Identifier: Apache-2.0
//! What is signed, what is believed, and what is said where it is not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::*;
use lama_keys::Unsigned;
use lama_rpm::{Done, Error, Others, Refused, feed, packages, sign, verify};
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_package_is_signed_once() {
    let d = tempfile::tempdir().unwrap();
    let set = keys(&d.path().join("keys"));
    let (signer, certificates) = with(&set);
    for (name, config) in [
        ("four", v4()),
        ("bare", v4().reserved_space(None)),
        ("six", rpm::BuildConfig::v6()),
    ] {
        let p = package(d.path(), name, config);
        std::fs::set_permissions(&p, std::fs::Permissions::from_mode(0o640)).unwrap();
        let before = std::fs::read(&p).unwrap();
        assert_eq!(refused(&set, &p), Refused::NotSigned);
        assert_eq!(signed(&set, &p), Done::Signed);
        let s = verify(&p, &certificates).unwrap();
        assert_eq!(
            (s.fingerprint.as_str(), s.previous),
            (signer.fingerprint(), false)
        );
        let after = std::fs::read(&p).unwrap();
        assert_eq!(signed(&set, &p), Done::Already);
        assert_eq!(std::fs::read(&p).unwrap(), after);
        // What is covered is what it was.
        let ((a, _), (b, _)) = (parts(&before), parts(&after));
        assert_eq!(before[a..], after[b..]);
        assert_eq!(
            std::fs::metadata(&p).unwrap().permissions().mode() & 0o777,
            0o640
        );
    }
    // Nothing is left beside them but the keys.
    let names = std::fs::read_dir(d.path())
        .unwrap()
        .map(|e| e.unwrap().file_name());
    let left: Vec<_> = names
        .filter(|n| !n.to_string_lossy().contains("keys"))
        .collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(packages(d.path()).unwrap().len(), 3);
}

#[test]
fn what_is_refused_and_why() {
    let d = tempfile::tempdir().unwrap();
    let set = keys(&d.path().join("keys"));
    let other = keys(&d.path().join("others"));
    let own = set.openpgp_signer().unwrap().fingerprint().to_owned();
    let p = package(d.path(), "own", v4());
    signed(&set, &p);
    let foreign = package(d.path(), "foreign", v4());
    signed(&other, &foreign);
    let stranger = other.openpgp_signer().unwrap().fingerprint().to_owned();
    let is = Refused::Signature(Unsigned::Foreign(stranger));
    assert_eq!(refused(&set, &foreign), is);

    let bytes = std::fs::read(&p).unwrap();
    let (header, payload) = parts(&bytes);
    let changed = Refused::Signature(Unsigned::Changed(own));
    // A letter of some text of the header: near its end there is nothing else.
    assert_eq!(refused(&set, &turned(&p, payload - 30)), changed);
    let digest = refused(&set, &turned(&p, payload + 20));
    assert!(matches!(digest, Refused::Digest(_)), "{digest:?}");
    let magic = refused(&set, &turned(&p, header));
    assert!(matches!(magic, Refused::Malformed(_)), "{magic:?}");
    assert!(matches!(
        refused(&set, &turned(&p, 0)),
        Refused::Malformed(_)
    ));

    for cut in [
        0,
        50,
        96,
        110,
        header + 3,
        header + 40,
        payload,
        bytes.len() - 1,
    ] {
        let short = d.path().join("short.rpm");
        std::fs::write(&short, &bytes[..cut]).unwrap();
        let why = refused(&set, &short);
        assert!(matches!(why, Refused::Length(_)), "{cut}: {why:?}");
    }
    let long = d.path().join("long.rpm");
    std::fs::write(&long, [&bytes[..], b"x"].concat()).unwrap();
    assert!(matches!(refused(&set, &long), Refused::Length(_)));
    std::fs::write(&long, vec![0; 4096]).unwrap();
    assert!(matches!(refused(&set, &long), Refused::Malformed(_)));
    assert!(matches!(
        verify(
            &d.path().join("none.rpm"),
            &set.openpgp_certificates().unwrap()
        ),
        Err(Error::Fs(_))
    ));
}

/// Nobody's package becomes ours by accident, and a damaged one never.
#[test]
fn what_is_not_signed() {
    let d = tempfile::tempdir().unwrap();
    let set = keys(&d.path().join("keys"));
    let other = keys(&d.path().join("others"));
    let (signer, certificates) = with(&set);
    let p = package(d.path(), "foreign", v4());
    signed(&other, &p);
    let before = std::fs::read(&p).unwrap();
    let why_not = why(sign(&p, &signer, &certificates, Others::Refuse));
    assert!(matches!(why_not, Refused::Signature(Unsigned::Foreign(_))));
    assert_eq!(std::fs::read(&p).unwrap(), before);
    let stranger = other.openpgp_signer().unwrap().fingerprint().to_owned();
    let done = sign(&p, &signer, &certificates, Others::Replace).unwrap();
    assert_eq!(done, Done::Replaced(stranger));
    assert!(verify(&p, &certificates).is_ok());
    assert!(matches!(
        refused(&other, &p),
        Refused::Signature(Unsigned::Foreign(_))
    ));

    let (_, payload) = parts(&std::fs::read(&p).unwrap());
    let unsigned = package(d.path(), "unsigned", v4());
    let (_, of_unsigned) = parts(&std::fs::read(&unsigned).unwrap());
    for damaged in [
        turned(&p, payload - 30),
        turned(&p, payload + 20),
        turned(&unsigned, of_unsigned - 30),
        turned(&unsigned, of_unsigned + 20),
    ] {
        let before = std::fs::read(&damaged).unwrap();
        let _ = why(sign(&damaged, &signer, &certificates, Others::Replace));
        assert_eq!(std::fs::read(&damaged).unwrap(), before);
    }
}

#[test]
fn two_keys_are_valid_while_one_follows_the_other() {
    let d = tempfile::tempdir().unwrap();
    let mut set = keys(&d.path().join("keys"));
    let old = set.openpgp_signer().unwrap().fingerprint().to_owned();
    let (first, second) = (
        package(d.path(), "one", v4()),
        package(d.path(), "two", v4()),
    );
    signed(&set, &first);
    signed(&set, &second);
    rotate(&mut set);
    let (signer, certificates) = with(&set);
    assert_ne!(signer.fingerprint(), old);
    let s = verify(&first, &certificates).unwrap();
    assert_eq!((s.fingerprint, s.previous), (old.clone(), true));
    assert_eq!(signed(&set, &second), Done::Replaced(old.clone()));
    let s = verify(&second, &certificates).unwrap();
    assert_eq!(
        (s.fingerprint.as_str(), s.previous),
        (signer.fingerprint(), false)
    );
    let keyring = set.openpgp_keyring().unwrap();
    assert_eq!(keyring.matches("BEGIN PGP PUBLIC KEY BLOCK").count(), 2);
    finish(&mut set);
    assert_eq!(
        refused(&set, &first),
        Refused::Signature(Unsigned::Foreign(old))
    );
    assert!(verify(&second, &set.openpgp_certificates().unwrap()).is_ok());
}

#[test]
fn a_feed_is_signed_when_its_packages_are() {
    let d = tempfile::tempdir().unwrap();
    let set = keys(&d.path().join("keys"));
    let dir = d.path().join("feed");
    std::fs::create_dir_all(dir.join("noarch")).unwrap();
    let p = package(&dir.join("noarch"), "one", v4());
    let (signer, certificates) = with(&set);
    let keyring = set.openpgp_keyring().unwrap();
    let go = || feed::sign(&dir, &signer, &certificates, &keyring);
    assert!(matches!(go(), Err(Error::NoIndex { .. })));
    let index = dir.join(feed::INDEX);
    std::fs::create_dir(dir.join("repodata")).unwrap();
    std::fs::write(&index, "<repomd/>").unwrap();
    let e = go().unwrap_err().to_string();
    assert!(
        e.contains("noarch/one-1.0-1.noarch.rpm: it is not signed"),
        "{e}"
    );
    let later = |path: &std::path::Path, by: u64| {
        let at = std::fs::metadata(path).unwrap().modified().unwrap();
        let f = std::fs::File::options().write(true).open(path).unwrap();
        f.set_modified(at + std::time::Duration::from_secs(by))
            .unwrap();
    };
    signed(&set, &p);
    later(&p, 9);
    assert!(matches!(go(), Err(Error::Stale { .. })));
    later(&index, 99);
    assert_eq!(
        why(feed::verify_index(&dir, &certificates)),
        Refused::NotSigned
    );
    assert_eq!(go().unwrap(), feed::Done::Signed);
    assert_eq!(go().unwrap(), feed::Done::Already);
    assert!(!feed::verify_index(&dir, &certificates).unwrap().previous);
    let key = std::fs::read_to_string(dir.join("repodata/repomd.xml.key")).unwrap();
    assert_eq!(key, keyring);
    std::fs::write(&index, "<repomd />").unwrap();
    let changed = why(feed::verify_index(&dir, &certificates));
    assert!(
        matches!(changed, Refused::Signature(Unsigned::Changed(_))),
        "{changed:?}"
    );
    std::fs::write(dir.join("repodata/repomd.xml.asc"), "x").unwrap();
    let none = why(feed::verify_index(&dir, &certificates));
    assert!(
        matches!(none, Refused::Signature(Unsigned::Malformed(_))),
        "{none:?}"
    );
}

/// Whatever is changed of what is covered, and however the rest is damaged.
#[test]
fn no_other_bytes_are_believed() {
    let d = tempfile::tempdir().unwrap();
    let set = keys(&d.path().join("keys"));
    let p = package(d.path(), "one", v4());
    signed(&set, &p);
    let certificates = set.openpgp_certificates().unwrap();
    let bytes = std::fs::read(&p).unwrap();
    let (header, _) = parts(&bytes);
    let edited = d.path().join("edited.rpm");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    let edits = (0..bytes.len(), any::<u8>(), 0usize..4);
    let run = runner.run(&edits, |(at, with, cut)| {
        let mut b = bytes.clone();
        let end = (at + cut).min(b.len());
        b.splice(at..end, [with]);
        std::fs::write(&edited, &b).unwrap();
        if verify(&edited, &certificates).is_ok() {
            // The lead, and room between entries, are covered by nothing.
            let (h, _) = parts(&b);
            prop_assert_eq!(&b[h..], &bytes[header..]);
        }
        Ok(())
    });
    run.unwrap();
}

/// One signature, of just these bytes, and nothing beside it.
#[test]
fn signatures_themselves() {
    let d = tempfile::tempdir().unwrap();
    let set = keys(&d.path().join("keys"));
    let (signer, certificates) = with(&set);
    let one = signer.sign(b"data").unwrap();
    let armored = signer.sign_armored(b"data").unwrap();
    assert!(certificates.verify(&one, b"data").is_ok());
    assert!(certificates.verify(armored.as_bytes(), b"data").is_ok());
    let changed = certificates.verify(&one, b"date").unwrap_err();
    assert_eq!(changed, Unsigned::Changed(signer.fingerprint().to_owned()));
    let key = set.openpgp_keyring().unwrap();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("two", [&one[..], &one].concat()),
        ("a tail", [&one[..], b"x"].concat()),
        ("cut off", one[..one.len() - 1].to_vec()),
        ("a key", key.into_bytes()),
        ("text", b"signature".to_vec()),
    ] {
        let e = certificates.verify(&bytes, b"data").unwrap_err();
        assert!(matches!(e, Unsigned::Malformed(_)), "{what}: {e:?}");
    }
}
