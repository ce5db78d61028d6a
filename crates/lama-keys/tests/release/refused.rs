// SPDX-License-Identifier: Apache-2.0
//! What is refused, and leaves nothing behind.

use super::*;

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
