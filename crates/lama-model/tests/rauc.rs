// SPDX-License-Identifier: Apache-2.0
//! RAUC's configuration of each machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_model::{Description, Loader, Version, rauc};
use std::os::unix::fs::PermissionsExt;

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
fn without_variables_systemd_boot_is_told() {
    let d = description();
    let conf = d.select("rk1", "base").unwrap().rauc_conf().unwrap();
    insta::assert_snapshot!(conf);
    // What it names is laid into the root, and can be started.
    let backend = d.root.join("files/core").join(&rauc::BACKEND[1..]);
    let mode = std::fs::metadata(&backend).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{}", backend.display());
}

#[test]
fn every_machine_has_one_of_the_two() {
    let d = description();
    for (bsp, m) in d.machines() {
        let s = d.select(bsp, "base").unwrap();
        let conf = s.rauc_conf().unwrap();
        let custom = conf.contains("bootloader=custom") && conf.contains(rauc::BACKEND);
        assert_eq!(custom, m.boot.loader == Loader::SystemdBoot, "{bsp}");
        assert_ne!(custom, conf.contains("bootloader=efi"), "{bsp}");
        // Firmware from outside any partition is U-Boot here, which cannot be told at run time.
        assert!(custom || s.layout.raw.is_empty(), "{bsp}");
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
