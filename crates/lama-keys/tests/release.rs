// SPDX-License-Identifier: Apache-2.0
//! Release sets: where keys may come from, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Notes, development, files};
use lama_exec::fs;
use lama_exec::progress::Quiet;
use lama_keys::{
    Error, KeySet, Kind, PinValue, Pkcs11Uri, PrivateKey, PrivateLocation, ReleaseOptions, Role,
    Source, is_development_certificate,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

fn options(sources: impl IntoIterator<Item = (Role, Source)>) -> ReleaseOptions {
    ReleaseOptions {
        name: "Example release".into(),
        sources: sources.into_iter().collect(),
        pkcs11: None,
    }
}

/// A release set whose files other sets can borrow.
fn release() -> &'static KeySet {
    static SET: OnceLock<(tempfile::TempDir, KeySet)> = OnceLock::new();
    let (_, set) = SET.get_or_init(|| {
        let d = tempfile::tempdir().unwrap();
        let set =
            KeySet::init_release(d.path().join("release"), &options([]), None, &Quiet).unwrap();
        (d, set)
    });
    set
}

fn files_of(set: &KeySet, role: Role) -> Source {
    let PrivateKey::File(private_key) = set.private_key(role).unwrap() else {
        panic!()
    };
    Source::Files {
        private_key,
        certificate: Some(set.certificate_path(role)),
    }
}

/// Every role from the files of a set, so that nothing need be made.
fn all_from(set: &KeySet) -> BTreeMap<Role, Source> {
    Role::ALL
        .into_iter()
        .map(|r| (r, files_of(set, r)))
        .collect()
}

fn init(sources: BTreeMap<Role, Source>) -> (tempfile::TempDir, Result<KeySet, Error>) {
    let d = tempfile::tempdir().unwrap();
    let set = KeySet::init_release(d.path().join("set"), &options(sources), None, &Quiet);
    if set.is_err() {
        assert_eq!(files(d.path()), [".set.lock"], "a failure leaves nothing");
    }
    (d, set)
}

#[test]
fn a_generated_set_is_no_development_set() {
    let set = release();
    assert_eq!(set.kind(), Kind::Release);
    set.require_release().unwrap();
    assert!(!set.is_development());
    assert_eq!(set.status().all_problems().count(), 0);
    for r in set.status().roles {
        assert!(r.subject.unwrap().contains("Example release"));
        let text = set.certificate_pem(r.role).unwrap();
        assert!(!is_development_certificate(text.as_bytes()));
    }
}

#[test]
fn private_keys_are_used_where_they_lie() {
    let theirs = release();
    let (_d, set) = init(all_from(theirs));
    let set = set.unwrap();
    assert!(
        files(set.dir()).iter().all(|f| !f.contains(".key")),
        "{:?}",
        files(set.dir())
    );
    for role in Role::ALL {
        assert_eq!(
            set.private_key(role).unwrap(),
            theirs.private_key(role).unwrap()
        );
        assert_eq!(
            set.certificates(role)[0].fingerprint,
            theirs.certificates(role)[0].fingerprint
        );
    }
    assert_eq!(
        set.owner_guid(),
        theirs.owner_guid(),
        "derived from the PK certificate"
    );
    let args = set.ukify_args().unwrap();
    assert!(
        args.binds.contains(&theirs.dir().join("db.key")),
        "{args:?}"
    );
}

#[test]
fn a_missing_certificate_is_issued_for_the_key_that_is_there() {
    let theirs = release();
    let mut sources = all_from(theirs);
    for role in [Role::Pcr, Role::RaucSigning] {
        let Source::Files { private_key, .. } = files_of(theirs, role) else {
            panic!()
        };
        sources.insert(
            role,
            Source::Files {
                private_key,
                certificate: None,
            },
        );
    }
    let (_d, set) = init(sources);
    let set = set.unwrap();
    assert_eq!(
        fs::read(set.pcr_public_path()).unwrap(),
        fs::read(theirs.pcr_public_path()).unwrap()
    );
}

#[test]
fn der_certificates_are_taken_too() {
    let theirs = release();
    let mut sources = all_from(theirs);
    let certificate = theirs.enroll_dir().join("db.cer");
    let Some(Source::Files { private_key, .. }) = sources.remove(&Role::Db) else {
        panic!()
    };
    sources.insert(
        Role::Db,
        Source::Files {
            private_key,
            certificate: Some(certificate),
        },
    );
    let (_d, set) = init(sources);
    assert_eq!(
        set.unwrap().certificate_pem(Role::Db).unwrap(),
        theirs.certificate_pem(Role::Db).unwrap()
    );
}

#[test]
fn a_key_kept_elsewhere_leaves_the_rest_usable() {
    let theirs = release();
    let mut sources = all_from(theirs);
    for role in [Role::Pk, Role::RaucCa] {
        sources.insert(
            role,
            Source::Public {
                certificate: theirs.certificate_path(role),
            },
        );
    }
    let (_d, set) = init(sources);
    let set = set.unwrap();
    assert!(matches!(
        set.private_key(Role::Pk),
        Err(Error::NoPrivateKey { role: Role::Pk })
    ));
    assert_eq!(set.status().roles[0].private, PrivateLocation::Elsewhere);
    assert_eq!(set.status().all_problems().count(), 0);
    let enroll: Vec<_> = files(&set.enroll_dir());
    assert_eq!(
        enroll,
        [
            "KEK.cer", "KEK.esl", "PK.cer", "PK.esl", "db.auth", "db.cer", "db.esl"
        ]
    );
    set.ukify_args().unwrap();
    // The CA can't issue a certificate now.
    let mut set = set;
    let e = set
        .rotate(Role::RaucSigning, &Source::Generate, None, &Quiet)
        .unwrap_err();
    assert!(
        matches!(
            e,
            Error::Unsuitable {
                role: Role::RaucSigning,
                ..
            }
        ),
        "{e}"
    );
    assert_eq!(
        KeySet::open(set.dir())
            .unwrap()
            .certificates(Role::RaucSigning)
            .len(),
        1
    );
}

#[test]
fn what_can_not_work_is_refused_at_once() {
    let theirs = release();
    let (_dev_dir, dev) = development();
    let cert = |role| Some(theirs.certificate_path(role));
    let key = |role: Role| match theirs.private_key(role).unwrap() {
        PrivateKey::File(p) => p,
        PrivateKey::Pkcs11(_) => panic!(),
    };
    let uri = |s: &str| Pkcs11Uri::parse(s, PinValue::Allowed).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let junk = scratch.path().join("junk");
    fs::write(&junk, "junk").unwrap();
    let missing = scratch.path().join("missing");
    let cases: Vec<(Role, Source, &str)> = vec![
        (
            Role::Db,
            Source::Files {
                private_key: key(Role::Db),
                certificate: cert(Role::Kek),
            },
            "does not belong",
        ),
        (
            Role::Db,
            Source::Files {
                private_key: key(Role::RaucCa),
                certificate: None,
            },
            "firmware does not know `ec-p256`",
        ),
        (
            Role::Pcr,
            Source::Files {
                private_key: key(Role::RaucCa),
                certificate: None,
            },
            "not every TPM",
        ),
        (
            Role::RaucCa,
            Source::Public {
                certificate: theirs.certificate_path(Role::Db),
            },
            "not that of a CA",
        ),
        (
            Role::RaucSigning,
            Source::Public {
                certificate: theirs.certificate_path(Role::Db),
            },
            "not for signing code",
        ),
        (
            Role::Db,
            Source::Files {
                private_key: junk.clone(),
                certificate: None,
            },
            "it is not PEM",
        ),
        (
            Role::Db,
            Source::Files {
                private_key: theirs.certificate_path(Role::Db),
                certificate: None,
            },
            "holds a `CERTIFICATE`",
        ),
        (
            Role::Db,
            Source::Files {
                private_key: missing.clone(),
                certificate: None,
            },
            "cannot read",
        ),
        (
            Role::Db,
            Source::Public {
                certificate: junk.clone(),
            },
            "no certificate",
        ),
        (
            Role::Db,
            files_of(&dev, Role::Db),
            "holds development keys (`db`)",
        ),
        (
            Role::Openpgp,
            files_of(&dev, Role::Openpgp),
            "holds development keys (`openpgp`)",
        ),
        (
            Role::Openpgp,
            Source::Files {
                private_key: key(Role::Db),
                certificate: None,
            },
            "no armored OpenPGP private key",
        ),
        (
            Role::Openpgp,
            Source::Public { certificate: junk },
            "no armored OpenPGP certificate",
        ),
        (
            Role::Openpgp,
            Source::Pkcs11 {
                uri: uri("pkcs11:object=x"),
                certificate: missing,
            },
            "through PKCS#11",
        ),
        (
            Role::Db,
            Source::Pkcs11 {
                uri: uri("pkcs11:object=x?pin-value=4711"),
                certificate: theirs.certificate_path(Role::Db),
            },
            "holds a PIN",
        ),
    ];
    for (role, source, want) in cases {
        let mut sources = all_from(theirs);
        sources.insert(role, source);
        let (_d, set) = init(sources);
        let e = set.unwrap_err();
        assert!(e.to_string().contains(want), "{want}: {e}");
        assert!(
            !e.to_string().contains(".new-"),
            "a temporary name is shown: {e}"
        );
        assert!(!e.to_string().contains("4711"));
        assert!(miette::Diagnostic::help(&e).is_some());
    }
}

#[test]
fn a_signing_certificate_of_another_ca_is_found() {
    let mut o = ReleaseOptions {
        name: "Other".into(),
        ..options(all_from(release()))
    };
    let Source::Files { private_key, .. } = files_of(release(), Role::RaucCa) else {
        panic!()
    };
    // The certificate that is issued for this CA has another name.
    o.sources.insert(
        Role::RaucCa,
        Source::Files {
            private_key,
            certificate: None,
        },
    );
    let d = tempfile::tempdir().unwrap();
    let e = KeySet::init_release(d.path().join("set"), &o, None, &Quiet).unwrap_err();
    assert!(e.to_string().contains("was not issued by `rauc-ca`"), "{e}");
    assert_eq!(files(d.path()), [".set.lock"]);
}

#[test]
fn a_refused_rotation_leaves_nothing() {
    let (_d, mut set) = development();
    let before = files(set.dir());
    let cases: [(Role, Source, &str); 3] = [
        (
            Role::RaucSigning,
            files_of(release(), Role::RaucSigning),
            "was not issued by `rauc-ca`",
        ),
        (
            Role::Db,
            files_of(release(), Role::RaucCa),
            "firmware does not know",
        ),
        (
            Role::Pk,
            Source::Files {
                private_key: "/nonexistent".into(),
                certificate: None,
            },
            "cannot read",
        ),
    ];
    for (role, source, want) in cases {
        let e = set.rotate(role, &source, None, &Quiet).unwrap_err();
        assert!(e.to_string().contains(want), "{e}");
        assert_eq!(files(set.dir()), before);
        assert_eq!(
            KeySet::open(set.dir())
                .unwrap()
                .status()
                .all_problems()
                .count(),
            0
        );
    }
}

#[test]
fn nothing_is_overwritten_and_names_are_sane() {
    let set = release();
    let e = KeySet::init_release(set.dir(), &options([]), None, &Quiet).unwrap_err();
    assert!(matches!(e, Error::Exists { .. }), "{e}");
    let d = tempfile::tempdir().unwrap();
    for name in ["", " x", "a\nb", &"x".repeat(41), "Not for release"] {
        let o = ReleaseOptions {
            name: name.into(),
            ..options([])
        };
        let e = KeySet::init_release(d.path().join("s"), &o, None, &Quiet).unwrap_err();
        assert!(matches!(e, Error::Invalid { .. }), "{name}: {e}");
    }
}

#[test]
fn a_development_set_renamed_to_release_is_seen_through() {
    let (_d, set) = development();
    let path = set.dir().join("keyset.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace("kind = \"development\"", "kind = \"release\""),
    )
    .unwrap();
    let set = KeySet::open(set.dir()).unwrap();
    assert_eq!(set.kind(), Kind::Release);
    let e = set.require_release().unwrap_err();
    assert!(
        matches!(
            e,
            Error::DevelopmentKeys {
                role: Some(Role::Pk),
                ..
            }
        ),
        "{e}"
    );
}

#[test]
fn one_run_of_ukify_takes_no_mixture() {
    let theirs = release();
    let mut sources = all_from(theirs);
    let uri = Pkcs11Uri::parse("pkcs11:object=db?pin-source=/run/pin", PinValue::Refused).unwrap();
    let certificate = theirs.certificate_path(Role::Db);
    sources.insert(Role::Db, Source::Pkcs11 { uri, certificate });
    let (_d, set) = init(sources);
    let set = set.unwrap();
    let e = set.ukify_args().unwrap_err();
    assert!(
        matches!(
            e,
            Error::MixedSources {
                pkcs11: Role::Db,
                file: Role::Pcr
            }
        ),
        "{e}"
    );
    let a = set.secure_boot_args().unwrap();
    assert_eq!(a.args[0], "--signing-engine=pkcs11");
    assert!(a.binds.iter().any(|b| b == Path::new("/run/pin")));
    assert_eq!(set.sbsign_args().unwrap().args[..2], ["--engine", "pkcs11"]);
}

#[test]
fn an_imported_key_is_rotated_but_never_removed() {
    let theirs = release();
    let (_d, set) = init(all_from(theirs));
    let mut set = set.unwrap();
    let notes = Notes::default();
    set.rotate(Role::Db, &Source::Generate, None, &notes)
        .unwrap();
    set.rotate(Role::RaucCa, &Source::Generate, None, &notes)
        .unwrap();
    assert!(fs::metadata(theirs.dir().join("db.key")).is_ok());
    assert!(fs::metadata(theirs.dir().join("rauc-ca.key")).is_ok());
    assert_eq!(
        set.certificates(Role::RaucSigning).len(),
        1,
        "its key is not ours to replace"
    );
    assert!(
        notes
            .0
            .lock()
            .unwrap()
            .iter()
            .any(|n| n.contains("rauc-signing keeps"))
    );
    let e = set
        .rotate(Role::Kek, &files_of(theirs, Role::Kek), None, &Quiet)
        .unwrap_err();
    assert!(e.to_string().contains("there already"), "{e}");
    assert_eq!(
        KeySet::open(set.dir())
            .unwrap()
            .status()
            .all_problems()
            .count(),
        0
    );
}
