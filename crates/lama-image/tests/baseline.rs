// SPDX-License-Identifier: Apache-2.0
//! What a build writes into `baseline.json` is what the program on the node reads out of it.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_image::baseline::{Addon, Baseline, Cmdline, FORMAT, Loader, Phase, Section, Uki};
use lama_node::attest::baseline as node;

/// A digest that is told from others.
fn digest(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

fn baseline() -> Baseline {
    let section = |name: &str, n| Section {
        name: name.to_owned(),
        sha256: digest(n),
    };
    let addon = |file: &str, n| Addon {
        file: file.to_owned(),
        sha256: digest(n),
        authenticode: digest(n + 1),
        cmdline: format!("lamadist.slot={n}"),
    };
    Baseline {
        format: FORMAT,
        version: "1.2.3".to_owned(),
        bsp: "x86_64".to_owned(),
        image: "base".to_owned(),
        root_hash: digest(1),
        uki: Uki {
            file: "lamadist.efi".to_owned(),
            sha256: digest(2),
            authenticode: digest(3),
            kernel_authenticode: digest(4),
            cmdline: Cmdline {
                text: "ro \"quoted\" ü".to_owned(),
                sha256: digest(5),
            },
            sections: vec![section(".linux", 6), section(".initrd", 7)],
            pcr11: ["enter-initrd", "ready"]
                .map(|p| Phase {
                    phase: p.to_owned(),
                    sha256: digest(8),
                })
                .to_vec(),
        },
        addons: vec![addon("slot-a.addon.efi", 9), addon("slot-b.addon.efi", 11)],
        loader: None,
        db: vec![digest(13)],
    }
}

#[test]
fn the_node_reads_what_is_written() {
    assert_eq!(FORMAT, node::FORMAT);
    let written = baseline();
    let read = node::Baseline::parse(&written.to_json()).unwrap();
    assert_eq!(
        (&read.version, &read.bsp, &read.image, &read.root_hash),
        (
            &written.version,
            &written.bsp,
            &written.image,
            &written.root_hash
        )
    );
    let (r, w) = (&read.uki, &written.uki);
    assert_eq!(
        (&r.authenticode, &r.kernel_authenticode, &r.cmdline.text),
        (&w.authenticode, &w.kernel_authenticode, &w.cmdline.text)
    );
    let sections = r.sections.iter().map(|s| (&s.name, &s.sha256));
    assert!(sections.eq(w.sections.iter().map(|s| (&s.name, &s.sha256))));
    let phases = r.pcr11.iter().map(|p| (&p.phase, &p.sha256));
    assert!(phases.eq(w.pcr11.iter().map(|p| (&p.phase, &p.sha256))));
    let addons = read.addons.iter();
    let addons = addons.map(|a| (&a.file, &a.authenticode, &a.cmdline));
    let all = written.addons.iter();
    assert!(addons.eq(all.map(|a| (&a.file, &a.authenticode, &a.cmdline))));
    assert_eq!(read.db, written.db);
    assert!(read.loader.is_none());
}

#[test]
fn a_boot_loader_is_in_it_where_there_is_one() {
    let without = String::from_utf8(baseline().to_json()).unwrap();
    assert!(!without.contains("loader"), "{without}");
    let mut b = baseline();
    b.loader = Some(Loader {
        file: "systemd-boot.efi".to_owned(),
        sha256: digest(14),
        authenticode: digest(15),
    });
    let read = node::Baseline::parse(&b.to_json()).unwrap().loader.unwrap();
    assert_eq!(
        (read.file.as_str(), read.authenticode),
        ("systemd-boot.efi", digest(15))
    );
}

/// Another format is another format, and not half of this one.
#[test]
fn a_newer_format_is_refused() {
    let mut newer = baseline();
    newer.format += 1;
    let e = node::Baseline::parse(&newer.to_json()).unwrap_err();
    assert!(e.to_string().contains("of format 2"), "{e}");
    assert!(e.help().is_some());
}
