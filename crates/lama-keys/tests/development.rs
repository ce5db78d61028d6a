// SPDX-License-Identifier: Apache-2.0
//! Development sets: making, opening, refusing.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Notes, development, files};
use lama_exec::fs;
use lama_exec::progress::Quiet;
use lama_keys::{
    Error, KeySet, Kind, PrivateKey, Role, Severity, Source, is_development_certificate,
};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_development_set_is_made_once_and_says_so_once() {
    let d = tempfile::tempdir().unwrap();
    let dir = d.path().join("below/keys");
    let notes = Notes::default();
    let start = std::time::Instant::now();
    let a = KeySet::open_or_create_development(&dir, &notes).unwrap();
    println!("made in {:.2?}", start.elapsed());
    let b = KeySet::open_or_create_development(&dir, &notes).unwrap();
    let notes = notes.0.into_inner().unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains(dir.to_str().unwrap()) && notes[0].contains("NOT FOR RELEASE"));
    assert_eq!(a.owner_guid(), b.owner_guid());
    assert_eq!(a.kind(), Kind::Development);
    assert!(a.is_development());
    assert!(matches!(
        a.require_release(),
        Err(Error::DevelopmentKeys { role: None, .. })
    ));

    assert_eq!(
        files(&dir),
        [
            "db.crt",
            "db.key",
            "enroll/KEK.auth",
            "enroll/KEK.cer",
            "enroll/KEK.esl",
            "enroll/PK.auth",
            "enroll/PK.cer",
            "enroll/PK.esl",
            "enroll/db-append.auth",
            "enroll/db.auth",
            "enroll/db.cer",
            "enroll/db.esl",
            "kek.crt",
            "kek.key",
            "keyset.toml",
            "openpgp.asc",
            "openpgp.key.asc",
            "pcr.crt",
            "pcr.key",
            "pcr.pub",
            "pk.crt",
            "pk.key",
            "rauc-ca.crt",
            "rauc-ca.key",
            "rauc-encryption.crt",
            "rauc-encryption.key",
            "rauc-signing.crt",
            "rauc-signing.key",
        ]
    );
    for f in files(&dir) {
        let mode = fs::metadata(dir.join(&f)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if f.contains(".key") { 0o600 } else { 0o644 }, "{f}");
    }
    assert_eq!(
        fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    // Nothing temporary stays beside it.
    assert_eq!(
        files(d.path().join("below").as_path())
            .iter()
            .filter(|f| !f.starts_with("keys/"))
            .collect::<Vec<_>>(),
        [".keys.lock"]
    );
}

#[test]
fn status_is_clean_and_tells_everything() {
    let (_d, set) = development();
    let s = set.status();
    assert_eq!(
        s.all_problems().collect::<Vec<_>>(),
        Vec::<&lama_keys::Problem>::new()
    );
    let algorithms: Vec<_> = s.roles.iter().map(|r| r.algorithm.as_str()).collect();
    assert_eq!(
        algorithms,
        [
            "rsa-2048",
            "rsa-2048",
            "rsa-2048",
            "rsa-2048",
            "ec-p256",
            "ec-p256",
            "ec-p256",
            "openpgp-eddsalegacy"
        ]
    );
    for r in &s.roles {
        assert!(
            r.subject.as_ref().unwrap().contains("NOT FOR RELEASE"),
            "{r:?}"
        );
        assert!(r.fingerprint.len() >= 40, "{r:?}");
        if r.role != Role::Openpgp {
            assert_eq!(r.expires.as_deref(), Some("2045-01-01T00:00:00Z"));
            assert!(is_development_certificate(
                set.certificate_pem(r.role).unwrap().as_bytes()
            ));
        }
    }
    let json = serde_json::to_value(&s).unwrap();
    assert_eq!(json["kind"], "development");
    assert_eq!(json["roles"][2]["role"], "db");
    assert_eq!(json["roles"][2]["private"]["kind"], "file");
    assert!(
        set.certificate_pem(Role::Db)
            .unwrap()
            .starts_with("-----BEGIN CERTIFICATE-----\n")
    );
    assert_eq!(
        set.db_key().unwrap(),
        PrivateKey::File(set.dir().join("db.key"))
    );
    assert!(
        fs::read_to_string(set.pcr_public_path())
            .unwrap()
            .starts_with("-----BEGIN PUBLIC KEY-----\n")
    );
}

#[test]
fn defects_are_named_with_a_hint() {
    type Break = fn(&Path);
    let cases: [(Break, &str); 12] = [
        (
            |d| chmod(&d.join("db.key"), 0o640),
            "db.key can be read by others (mode 640)",
        ),
        (|d| chmod(d, 0o755), "keys can be read by others (mode 755)"),
        (
            |d| fs::remove_file(d.join("kek.key")).unwrap(),
            "cannot read",
        ),
        (
            |d| fs::remove_file(d.join("pk.crt")).unwrap(),
            "cannot read",
        ),
        (
            |d| fs::rename(d.join("kek.crt"), d.join("db.crt")).unwrap(),
            "db.crt is not the certificate",
        ),
        (
            |d| {
                std::fs::copy(d.join("kek.key"), d.join("db.key")).unwrap();
            },
            "db.crt is not the certificate of",
        ),
        (
            |d| fs::write(d.join("pcr.pub"), "x").unwrap(),
            "pcr.pub is not the public key",
        ),
        (
            |d| fs::write(d.join("db.crt"), "x").unwrap(),
            "db.crt: it holds no certificate",
        ),
        (
            |d| fs::write(d.join("db.key"), "x").unwrap(),
            "db.key: it is not PEM",
        ),
        (
            |d| fs::write(d.join("openpgp.asc"), "x").unwrap(),
            "no armored OpenPGP certificate",
        ),
        (
            |d| fs::write(d.join("openpgp.key.asc"), "x").unwrap(),
            "no armored OpenPGP private key",
        ),
        (
            |d| {
                fs::write(d.join("db.key"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n").unwrap()
            },
            "protected by a passphrase",
        ),
    ];
    for (break_it, want) in cases {
        let (_d, set) = development();
        break_it(set.dir());
        let set = KeySet::load(set.dir()).unwrap();
        let status = set.status();
        let errors: Vec<_> = status
            .all_problems()
            .filter(|p| p.severity == Severity::Error)
            .collect();
        assert!(
            errors.iter().any(|p| p.message.contains(want)),
            "{want}: {errors:?}"
        );
        assert!(errors.iter().all(|p| !p.hint.is_empty()), "{errors:?}");
        let e = KeySet::open(set.dir()).unwrap_err();
        assert!(
            matches!(e, Error::Defective { .. }) && e.to_string().contains(want),
            "{e}"
        );
        // Never replaced behind the back of whoever has lost a file.
        assert!(KeySet::open_or_create_development(set.dir(), &Quiet).is_err());
    }
}

#[test]
fn outdated_enrolment_files_are_a_warning_and_can_be_written_anew() {
    let (_d, set) = development();
    fs::write(set.enroll_dir().join("db.esl"), "old").unwrap();
    let problems: Vec<_> = set.status().all_problems().cloned().collect();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].severity, Severity::Warning);
    KeySet::open(set.dir())
        .unwrap()
        .write_enrolment(None)
        .unwrap();
    assert_eq!(set.status().all_problems().count(), 0);
}

#[test]
fn broken_keyset_files() {
    let (_d, set) = development();
    let path = set.dir().join("keyset.toml");
    let good = fs::read_to_string(&path).unwrap();
    let cases = [
        (String::new(), "keyset.toml:1: missing field `format`"),
        ("format = 1\nkind = [".into(), "keyset.toml:2: "),
        (
            good.replace("format = 1", "format = 2"),
            "format 2 of a key set is not known",
        ),
        (
            good.replace("kind = \"development\"", "kind = \"test\""),
            "keyset.toml:4: unknown variant `test`",
        ),
        (
            good.replace("name =", "colour = 1\nname ="),
            "unknown field `colour`",
        ),
        (
            good.replace("[roles.db]", "[roles.database]"),
            "unknown variant `database`",
        ),
        (
            good.replace("\"db.crt\"", "\"../db.crt\""),
            "`../db.crt` leads out",
        ),
        (
            good.replace("\"db.crt\"", "\"/etc/db.crt\""),
            "`/etc/db.crt` leads out",
        ),
        (
            good.replace("\"db.key\"", "\"../db.key\""),
            "`../db.key` leads out",
        ),
        (
            good.replace("\"db.key\"", "\"pkcs11:token=x\""),
            "neither `object` nor `id`",
        ),
        (
            good.replace("\"db.key\"", "\"pkcs11:object=x?pin-value=4711\""),
            "`db` holds a PIN",
        ),
        (
            good.replace("public-key = \"pcr.pub\"\n", ""),
            "`pcr` has no `public-key`",
        ),
        (
            good.split("[roles.db]").next().unwrap().to_owned(),
            "the role `db` is missing",
        ),
    ];
    for (text, want) in cases {
        fs::write(&path, &text).unwrap();
        let e = KeySet::open(set.dir()).unwrap_err();
        assert!(e.to_string().contains(want), "{want}: {e}");
        assert!(miette::Diagnostic::help(&e).is_some(), "{e}");
        assert!(!format!("{e}{e:?}").contains("4711"));
    }
    fs::write(&path, b"format = 1\n\xff").unwrap();
    assert!(
        KeySet::open(set.dir())
            .unwrap_err()
            .to_string()
            .contains("keyset.toml:2: not UTF-8")
    );
}

#[test]
fn interrupted_creation_leaves_nothing_that_counts() {
    let d = tempfile::tempdir().unwrap();
    let dir = d.path().join("keys");
    // As a killed run leaves it: a half-made sibling, and perhaps an empty directory.
    let half = d.path().join(".keys.new-abc123");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("pk.key"), "half").unwrap();
    fs::create_dir_all(&dir).unwrap();
    KeySet::open_or_create_development(&dir, &Quiet).unwrap();
    assert!(fs::metadata(&half).is_err());
}

#[test]
fn a_directory_of_other_things_is_left_alone() {
    let d = tempfile::tempdir().unwrap();
    fs::write(d.path().join("letter.txt"), "dear").unwrap();
    assert!(matches!(
        KeySet::open_or_create_development(d.path(), &Quiet),
        Err(Error::NotAKeySet { .. })
    ));
    assert_eq!(files(d.path()), ["letter.txt"]);
}

#[test]
fn several_processes_make_one_set() {
    let d = tempfile::tempdir().unwrap();
    let dir = d.path().join("keys");
    let notes = Notes::default();
    let guids: Vec<_> = std::thread::scope(|s| {
        let all: Vec<_> = (0..4)
            .map(|_| {
                s.spawn(|| {
                    KeySet::open_or_create_development(&dir, &notes)
                        .unwrap()
                        .owner_guid()
                })
            })
            .collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(guids.iter().all(|g| *g == guids[0]));
    assert_eq!(notes.0.lock().unwrap().len(), 1);
}

#[test]
fn rotation_keeps_the_old_certificate_until_it_is_forgotten() {
    for role in Role::ALL {
        let (_d, mut set) = development();
        let old = set.certificates(role);
        let guid = set.owner_guid();
        set.rotate(role, &Source::Generate, None, &Quiet).unwrap();
        let now = set.certificates(role);
        assert_eq!(now.len(), 2, "{role}");
        assert_eq!(now[1].path, old[0].path);
        assert!(now[1].previous && !now[0].previous);
        assert_ne!(now[0].fingerprint, now[1].fingerprint);
        assert_eq!(set.owner_guid(), guid);
        let reopened = KeySet::open(set.dir()).unwrap();
        assert_eq!(reopened.certificates(role), now);
        let problems: Vec<_> = reopened.status().all_problems().cloned().collect();
        assert!(problems.is_empty(), "{role}: {problems:?}");
        // The old private key is gone, but where it is still needed.
        let kept = fs::metadata(set.dir().join(if role == Role::Openpgp {
            "openpgp.key.asc".into()
        } else {
            format!("{role}.key")
        }))
        .is_ok();
        assert_eq!(
            kept,
            matches!(role, Role::Db | Role::Pcr | Role::RaucEncryption),
            "{role}"
        );
        if role == Role::RaucCa {
            assert_eq!(
                set.rauc_keyring_pem()
                    .unwrap()
                    .matches("BEGIN CERTIFICATE")
                    .count(),
                2
            );
            assert_eq!(set.certificates(Role::RaucSigning).len(), 2);
        }
        let update = set.enroll_dir().join("PK-update.auth");
        assert_eq!(fs::metadata(&update).is_ok(), role == Role::Pk);

        set.forget_previous(role, None).unwrap();
        assert_eq!(set.certificates(role).len(), 1);
        assert!(fs::metadata(&old[0].path).is_err());
        assert!(fs::metadata(&update).is_err());
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
fn during_a_change_firmware_and_policies_get_both_keys() {
    let (_d, mut set) = development();
    set.rotate(Role::Db, &Source::Generate, None, &Quiet)
        .unwrap();
    set.rotate(Role::Pcr, &Source::Generate, None, &Quiet)
        .unwrap();
    let esl = fs::read(set.enroll_dir().join("db.esl")).unwrap();
    let entries = lama_keys::efi::parse_signature_lists(&esl).unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|e| e.owner == set.owner_guid()));
    let args = set.ukify_args().unwrap().args;
    let count = |p: &str| {
        args.iter()
            .filter(|a| a.to_string_lossy().starts_with(p))
            .count()
    };
    assert_eq!(count("--pcr-private-key="), 2);
    assert_eq!(count("--pcr-public-key="), 2);
    assert_eq!(count("--pcrpkey="), 1);
}

/// Not a test of its own: the process that [`killed_at_any_time_leaves_a_whole_set_or_none`] kills.
#[test]
fn child_makes_a_set() {
    if let Some(dir) = std::env::var_os("LAMADIST_TEST_MAKE_SET") {
        KeySet::open_or_create_development(dir, &Quiet).unwrap();
    }
}

#[test]
fn killed_at_any_time_leaves_a_whole_set_or_none() {
    use std::time::{Duration, Instant};
    let d = tempfile::tempdir().unwrap();
    let dir = d.path().join("keys");
    let spawn = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_makes_a_set"])
            .env("LAMADIST_TEST_MAKE_SET", &dir)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let start = Instant::now();
    assert!(spawn().wait().unwrap().success());
    // Making keys takes a different time each time: so some points hit and some miss.
    let length = start.elapsed();
    let points = 6;
    let mut whole = 0;
    for i in 0..points {
        fs::remove_dir_all(&dir).unwrap();
        let mut child = spawn();
        std::thread::sleep(
            length.mul_f64(f64::from(i) / f64::from(points)) + Duration::from_millis(5),
        );
        child.kill().unwrap();
        child.wait().unwrap();
        match KeySet::open(&dir) {
            Ok(set) => {
                assert_eq!(set.status().all_problems().count(), 0);
                whole += 1;
            }
            Err(Error::NotAKeySet { .. }) => {
                assert!(fs::metadata(&dir).is_err(), "half a set under its name")
            }
            Err(e) => panic!("{e}"),
        }
    }
    println!("{whole} of {points} were finished before they were killed (one takes {length:.2?})");
    assert!(whole < points, "no point was early enough");
    // The next run works and tidies up.
    KeySet::open_or_create_development(&dir, &Quiet).unwrap();
    let beside: Vec<_> = fs::read_dir(d.path())
        .unwrap()
        .iter()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(beside, [".keys.lock", "keys"]);
}
