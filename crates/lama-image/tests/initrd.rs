// SPDX-License-Identifier: Apache-2.0
//! The initrd's assembly, without a whole system to make it of.
#![allow(clippy::unwrap_used, clippy::panic)]
use lama_exec::Tools;
use lama_image::{Arch, Error, initrd};
use lama_tree::{Node, Tree};

#[test]
fn a_missing_file_is_named_with_its_package() {
    let mut t = Tree::new();
    t.add("lib", Node::symlink("usr/lib")).unwrap();
    let make = |t: &Tree| {
        initrd::assemble(&Tools::host(), t, &initrd::Options::new(Arch::Amd64, 0)).unwrap_err()
    };
    let mut told = Vec::new();
    // Each error names one file more, until only libraries are missing.
    for _ in 0..400 {
        match make(&t) {
            Error::InitrdNeeds {
                path,
                package: Some(p),
                ..
            } if path.starts_with("usr/") => {
                told.push((path.clone(), p));
                t.add(&path, Node::file("x", 0o755)).unwrap();
            }
            e => {
                // All there, but no kernel.
                assert!(matches!(e, Error::Kernel { .. }), "{e}");
                break;
            }
        }
    }
    let package = |file: &str| told.iter().find(|t| t.0.ends_with(file)).map(|t| t.1);
    assert_eq!(
        package("systemd/systemd-veritysetup"),
        Some("systemd-cryptsetup")
    );
    assert_eq!(package("udevadm"), Some("udev"));
    assert_eq!(package("dmsetup"), Some("dmsetup"));
    assert_eq!(
        package("libtss2-tcti-device.so.0"),
        Some("libtss2-tcti-device0t64")
    );
}

#[test]
fn microcode_is_an_uncompressed_archive_in_front() {
    let mut t = Tree::new();
    assert_eq!(initrd::microcode(&t, Arch::Amd64, 0).unwrap(), None);
    t.add(
        "usr/lib/firmware/intel-ucode/06-01-02",
        Node::file("INTEL", 0o644),
    )
    .unwrap();
    t.add(
        "usr/lib/firmware/intel-ucode/06-01-03.initramfs",
        Node::file("TWICE", 0o644),
    )
    .unwrap();
    t.add(
        "usr/lib/firmware/amd-ucode/a.bin",
        Node::file("AMD1", 0o644),
    )
    .unwrap();
    t.add(
        "usr/lib/firmware/amd-ucode/README",
        Node::file("WORDS", 0o644),
    )
    .unwrap();
    let m = initrd::microcode(&t, Arch::Amd64, 0).unwrap().unwrap();
    let text = String::from_utf8_lossy(&m).into_owned();
    for s in [
        "kernel/x86/microcode/GenuineIntel.bin",
        "INTEL",
        "kernel/x86/microcode/AuthenticAMD.bin",
        "AMD1",
    ] {
        assert!(text.contains(s), "{s}");
    }
    assert!(!text.contains("TWICE") && !text.contains("WORDS"));
    assert_eq!(initrd::microcode(&t, Arch::Arm64, 0).unwrap(), None);
}
