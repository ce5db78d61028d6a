// SPDX-License-Identifier: Apache-2.0
//! What the build tells the program on the node is what that understands.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_model::{Description, Loader, Migration};
use lama_node::loader;
use lama_node::machine::{Machine, Role};

#[test]
fn the_node_reads_what_becomes_of_data() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../distro");
    let mut d = Description::load(root).unwrap();
    let read = |d: &Description| {
        let text = d.select("x86_64", "base").unwrap().machine_json("1.2.3");
        Machine::parse(text.as_bytes()).unwrap().migration
    };
    assert_eq!(read(&d), None);
    d.distro.migration = Some(Migration {
        since: "1.2.0".parse().unwrap(),
        note: "databases become version 17".into(),
    });
    let m = read(&d).unwrap();
    assert_eq!(m.note, "databases become version 17");
    assert!(m.is_between("1.1.9", "1.2.0-dev").unwrap());
}

#[test]
fn the_node_reads_what_is_rendered() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../distro");
    let d = Description::load(root).unwrap();
    for (bsp, machine) in d.machines() {
        let selection = d.select(bsp, "base").unwrap();
        let text = selection.machine_json("1.2.3");
        assert!(text.ends_with("}\n"), "{bsp}: {text}");
        let m = Machine::parse(text.as_bytes()).unwrap();
        assert_eq!(
            (&*m.bsp, &*m.image, &*m.version, &m.compatible),
            (bsp, "base", "1.2.3", &machine.compatible)
        );
        let described = match machine.boot.loader {
            Loader::Firmware => loader::Loader::Firmware,
            Loader::SystemdBoot => loader::Loader::SystemdBoot,
        };
        assert_eq!(m.loader, described, "{bsp}");
        assert_eq!(m.layout.len(), selection.layout.partitions.len());
        for (read, described) in m.layout.iter().zip(&selection.layout.partitions) {
            assert_eq!(&read.label, described.label.get_ref());
            let kind = described.role.type_uuid(machine.arch);
            assert_eq!(read.r#type, kind.to_string());
            assert_eq!(read.size, described.size.map(|s| s.0));
            assert_eq!(read.slot.is_some(), described.slot.is_some());
            // The same words on both sides.
            let role = format!("{:?}", described.role);
            assert_eq!(format!("{:?}", read.role), role);
        }
        let var = m.layout.iter().find(|p| p.role == Role::Var).unwrap();
        assert!(var.encrypted && var.filesystem.is_some(), "{bsp}");
        let slots: Vec<_> = m.layout.iter().filter_map(|p| p.slot.as_deref()).collect();
        assert_eq!(slots, ["a", "a", "b", "b"], "{bsp}");
    }
}
