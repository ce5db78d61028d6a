// SPDX-License-Identifier: Apache-2.0
//! Release sets: where keys may come from, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod refused;

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
            "KEK.cer",
            "KEK.esl",
            "PK.cer",
            "PK.esl",
            "db-append.auth",
            "db.auth",
            "db.cer",
            "db.esl"
        ]
    );
    set.ukify_args().unwrap();
    // The CA can't issue a certificate now, nor certify another one.
    let mut set = set;
    let e = set
        .rotate(Role::RaucCa, &Source::Generate, None, &Quiet)
        .unwrap_err();
    let why = e.to_string();
    assert!(why.contains("not at hand to certify the new one"), "{why}");
    assert_eq!(files(&set.enroll_dir()), enroll);
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
