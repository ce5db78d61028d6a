// SPDX-License-Identifier: Apache-2.0
//! RAUC's configuration of each machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_model::{Description, Version};

fn description() -> Description {
    Description::load(concat!(env!("CARGO_MANIFEST_DIR"), "/../../distro")).unwrap()
}

#[test]
fn slots_are_those_of_the_layout() {
    let d = description();
    let conf = d.select("x86_64", "base").unwrap().rauc_conf().unwrap();
    insta::assert_snapshot!(conf);
}

#[test]
fn another_boot_loader_has_none() {
    let d = description();
    for (bsp, _) in d.machines() {
        let s = d.select(bsp, "base").unwrap();
        assert_eq!(s.rauc_conf().is_none(), !s.layout.raw.is_empty(), "{bsp}");
    }
}

#[test]
fn versions() {
    for good in ["0.1.0", "10.0.3"] {
        assert_eq!(good.parse::<Version>().unwrap().to_string(), good);
    }
    for bad in [
        "1",
        "1.2",
        "1.2.3.4",
        "1.2.3-dev",
        "01.2.3",
        "+1.2.3",
        "1..3",
        "",
    ] {
        let e = bad.parse::<Version>().unwrap_err();
        assert!(e.contains("1.4.0"), "{e}");
    }
    assert!("1.10.0".parse::<Version>() > "1.9.9".parse::<Version>());
}
