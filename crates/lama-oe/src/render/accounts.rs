// SPDX-License-Identifier: Apache-2.0
//! The tables of `useradd-staticids.bbclass`: passwd(5) and group(5) with names and numbers alone,
//! the rest being the recipes'.

use super::{Input, Rendered, marked};
use std::collections::BTreeMap;

pub(super) fn render(input: &Input<'_>, out: &mut Rendered) {
    let (ids, oe) = (input.ids, input.oe);
    let table = |own: &BTreeMap<String, u32>, more: &BTreeMap<String, u32>| {
        let mut all: BTreeMap<String, u32> = own.clone();
        all.extend(more.iter().map(|(n, i)| (n.clone(), *i)));
        for (theirs, ours) in &oe.accounts {
            if let Some(id) = own.get(ours) {
                all.insert(theirs.clone(), *id);
            }
        }
        all
    };
    let users = table(&ids.users, &oe.users);
    let groups = table(&ids.groups, &oe.groups);
    let mut passwd = String::new();
    for (name, id) in &users {
        let group = groups.get(name).map(u32::to_string).unwrap_or_default();
        passwd += &format!("{name}:x:{id}:{group}::::\n");
    }
    let mut group = String::new();
    for (name, id) in &groups {
        group += &format!("{name}:x:{id}:\n");
    }
    for (file, text) in [("passwd", passwd), ("group", group)] {
        let path = format!("meta-lamadist/files/lamadist-{file}");
        out.insert(path.into(), marked(&text));
    }
}
