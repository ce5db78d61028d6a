// SPDX-License-Identifier: Apache-2.0
//! Parsers meet damaged input: they may refuse it, never break off.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::development;
use lama_exec::fs;
use lama_keys::{CertificateInfo, KeySet};
use proptest::prelude::*;
use std::sync::OnceLock;

fn set() -> &'static (tempfile::TempDir, KeySet) {
    static SET: OnceLock<(tempfile::TempDir, KeySet)> = OnceLock::new();
    SET.get_or_init(development)
}

/// One byte changed, or the end cut off.
fn damage(data: &mut Vec<u8>, at: prop::sample::Index, value: u8, cut: bool) {
    let at = at.index(data.len());
    if cut {
        data.truncate(at);
    } else {
        data[at] = value;
    }
}

proptest! {
    #[test]
    fn damaged_certificates(at: prop::sample::Index, value: u8, cut: bool, pem: bool) {
        let (_, set) = set();
        let path = if pem { set.db_cert_path() } else { set.enroll_dir().join("db.cer") };
        let mut data = fs::read(path).unwrap();
        damage(&mut data, at, value, cut);
        let _ = CertificateInfo::parse(&data);
    }

    #[test]
    fn damaged_keyset_files(at: prop::sample::Index, value: u8, cut: bool) {
        let (_, set) = set();
        let mut data = fs::read(set.dir().join("keyset.toml")).unwrap();
        damage(&mut data, at, value, cut);
        let d = tempfile::tempdir().unwrap();
        fs::write(d.path().join("keyset.toml"), &data).unwrap();
        if let Ok(s) = KeySet::load(d.path()) {
            // No key is there: told as such, whatever the file says.
            prop_assert!(s.status().all_problems().count() > 0);
        }
    }

    #[test]
    fn damaged_private_keys(at: prop::sample::Index, value: u8, cut: bool, which in 0usize..3) {
        let (_, set) = set();
        let name = ["db.key", "rauc-ca.key", "openpgp.key.asc"][which];
        let mut data = fs::read(set.dir().join(name)).unwrap();
        damage(&mut data, at, value, cut);
        let d = tempfile::tempdir().unwrap();
        common::copy(set.dir(), d.path());
        fs::write(d.path().join(name), &data).unwrap();
        let _ = KeySet::load(d.path()).unwrap().status();
    }
}
