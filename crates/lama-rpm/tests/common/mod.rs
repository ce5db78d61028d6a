// SPDX-License-Identifier: Apache-2.0
//! Keys and packages made up by the tests.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods
)]

use lama_exec::progress::Quiet;
use lama_keys::{KeySet, OpenpgpCertificates, OpenpgpSigner, Role, Source};
use lama_rpm::{Done, Others, Refused, Result, sign, verify};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A key set of one's own, in `dir`. Its slow keys are made once, the OpenPGP key each time.
pub fn keys(dir: &Path) -> KeySet {
    static MASTER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let master = MASTER.get_or_init(|| {
        let d = tempfile::tempdir().unwrap();
        KeySet::open_or_create_development(d.path().join("keys"), &Quiet).unwrap();
        d
    });
    copy(&master.path().join("keys"), dir);
    let mut set = KeySet::open(dir).unwrap();
    rotate(&mut set);
    finish(&mut set);
    set
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
    for e in std::fs::read_dir(from).unwrap() {
        let e = e.unwrap();
        let target = to.join(e.file_name());
        if e.file_type().unwrap().is_dir() {
            copy(&e.path(), &target);
        } else {
            std::fs::copy(e.path(), target).unwrap();
        }
    }
}

/// A new `openpgp` key; the old one stays valid.
pub fn rotate(set: &mut KeySet) {
    set.rotate(Role::Openpgp, &Source::Generate, None, &Quiet)
        .unwrap();
}

/// The old keys end.
pub fn finish(set: &mut KeySet) {
    set.forget_previous(Role::Openpgp, None).unwrap();
}

pub fn with(set: &KeySet) -> (OpenpgpSigner, OpenpgpCertificates) {
    (
        set.openpgp_signer().unwrap(),
        set.openpgp_certificates().unwrap(),
    )
}

/// Signs what is not to be anybody else's.
pub fn signed(set: &KeySet, path: &Path) -> Done {
    let (signer, certificates) = with(set);
    sign(path, &signer, &certificates, Others::Refuse).unwrap()
}

/// Why a package is refused.
#[track_caller]
pub fn refused(set: &KeySet, path: &Path) -> Refused {
    why(verify(path, &set.openpgp_certificates().unwrap()))
}

#[track_caller]
pub fn why<T: std::fmt::Debug>(result: Result<T>) -> Refused {
    match result.unwrap_err() {
        lama_rpm::Error::Refused { why, .. } => {
            assert!(!why.hint().is_empty());
            why
        }
        e => panic!("{e}"),
    }
}

/// A small package of no architecture, not signed.
pub fn package(dir: &Path, name: &str, config: rpm::BuildConfig) -> PathBuf {
    let mut b = rpm::PackageBuilder::new(name, "1.0", "Apache-2.0", "noarch", "A test");
    b.using_config(config).release("1").description("A test");
    let at = format!("/usr/share/{name}/hello");
    b.with_file_contents("Hello\n", rpm::FileOptions::new(at))
        .unwrap();
    let path = dir.join(format!("{name}-1.0-1.noarch.rpm"));
    b.build().unwrap().write_file(&path).unwrap();
    path
}

pub fn v4() -> rpm::BuildConfig {
    rpm::BuildConfig::v4()
}

/// Where the header begins, and where the payload does.
pub fn parts(bytes: &[u8]) -> (usize, usize) {
    let length = |at: usize| {
        let n = |o: usize| {
            let four = bytes[at + o..at + o + 4].try_into().unwrap();
            usize::try_from(u32::from_be_bytes(four)).unwrap()
        };
        16 + 16 * n(8) + n(12)
    };
    let header = (96 + length(96)).next_multiple_of(8);
    (header, header + length(header))
}

/// A copy of a package with one bit of it turned.
pub fn turned(path: &Path, at: usize) -> PathBuf {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    let to = path.with_file_name(format!("turned-{at}.rpm"));
    std::fs::write(&to, bytes).unwrap();
    to
}
