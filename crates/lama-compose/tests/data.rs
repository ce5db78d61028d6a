// SPDX-License-Identifier: Apache-2.0
//! The project's own data: `distro/scripts/`, `distro/ids.toml`, `distro/files.toml`.
#![allow(clippy::unwrap_used)]

use lama_compose::accounts::Accounts;
use lama_model::files::FileRules;
use lama_model::ids::Ids;
use lama_model::scripts::{Scripts, Step};
use lama_tree::{Node, Tree};
use std::collections::BTreeSet;
use std::path::PathBuf;

fn distro() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../distro"))
}

#[test]
fn every_record_has_a_reason_and_sound_digests() {
    let s = Scripts::load(distro().join("scripts")).unwrap();
    assert!(s.packages.len() > 90, "{}", s.packages.len());
    for (name, p) in &s.packages {
        assert!(p.why.len() > 10, "{name}: no reason");
        assert!(!p.scripts.is_empty(), "{name}: nothing was reviewed");
        for d in p.scripts.values().flatten() {
            assert!(
                d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit()),
                "{name}: {d}"
            );
        }
        for m in p.modes.iter().chain(&p.dirs) {
            assert!(m.bits().is_ok(), "{name}: {m:?}");
        }
    }
    let steps: BTreeSet<Step> = s.packages.values().flat_map(|p| p.steps.clone()).collect();
    let all = [
        Step::Accounts,
        Step::Shells,
        Step::Pam,
        Step::CaCertificates,
        Step::Presets,
        Step::Depmod,
        Step::Hwdb,
    ];
    assert_eq!(steps, BTreeSet::from(all));
}

#[test]
fn every_account_of_a_record_is_pinned() {
    let s = Scripts::load(distro().join("scripts")).unwrap();
    let ids = Ids::load(distro().join("ids.toml")).unwrap();
    let mut t = Tree::new();
    let mut names = BTreeSet::new();
    for (name, p) in &s.packages {
        if !p.sysusers.is_empty() {
            let text = p.sysusers.join("\n");
            t.add(
                &format!("usr/lib/sysusers.d/{name}.conf"),
                Node::file(text, 0o644),
            )
            .unwrap();
        }
        names.extend(
            p.modes
                .iter()
                .chain(&p.dirs)
                .flat_map(|m| [m.user.clone(), m.group.clone()]),
        );
    }
    Accounts::collect(&mut t, &ids).unwrap();
    for n in names.into_iter().flatten() {
        assert!(
            ids.users.contains_key(&n) || ids.groups.contains_key(&n),
            "{n}"
        );
    }
}

#[test]
fn what_is_left_out_has_a_reason() {
    let r = FileRules::load(distro().join("files.toml")).unwrap();
    let s = Scripts::load(distro().join("scripts")).unwrap();
    for (name, why) in &r.drop {
        assert!(why.len() > 3, "{name}");
        assert!(
            !s.packages.contains_key(name),
            "{name} is left out and reviewed"
        );
    }
}
