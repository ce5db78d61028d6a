// SPDX-License-Identifier: Apache-2.0
//! QEMU's command line for the machines that matter.

use lama_vm::*;
use std::path::PathBuf;

fn plan(c: &VmConfig, accel: Accel) -> Plan {
    let drive = |file: &str, format, read_only, disposable| lama_vm::Drive {
        file: PathBuf::from(file),
        format,
        read_only,
        disposable,
    };
    let drives = c
        .disks
        .iter()
        .enumerate()
        .map(|(n, d)| match &d.source {
            Source::Blank { .. } => drive(&format!("disk-{n}.raw"), Format::Raw, false, true),
            Source::Image {
                access: Access::Overlay,
                ..
            } => drive(&format!("disk-{n}.qcow2"), Format::Qcow2, false, true),
            Source::Image {
                path,
                format,
                access,
            } => drive(
                &path.to_string_lossy(),
                *format,
                *access == Access::ReadOnly,
                false,
            ),
        })
        .collect();
    Plan {
        accel,
        uuid: uuid::uuid!("11111111-2222-4333-8444-555555555555"),
        drives,
        console: ConsoleTo::Socket,
        spice_port: 5930,
        smbios: vec!["smbios-0".into()],
    }
}

fn lines(c: &VmConfig, p: &Plan) -> String {
    let mut s = String::new();
    for a in command_line(c, p) {
        if !s.is_empty() {
            s.push(if a.starts_with('-') { '\n' } else { ' ' });
        }
        s.push_str(&a);
    }
    s + "\n"
}

#[test]
fn a_secure_machine() {
    let mut c = VmConfig::new("node").disk(Disk::image("/deploy/disk.raw").serial("system"));
    c.firmware = Firmware::Uefi {
        variables: Variables::Copy("/keys/vars.fd".into()),
        smm: Smm::On,
    };
    c.guest_ports = vec![22, 443];
    insta::assert_snapshot!(lines(&c, &plan(&c, Accel::Tcg)));
}

#[test]
fn an_installer_with_a_screen() {
    let mut c = VmConfig::new("installer")
        .disk(Disk {
            source: Source::Image {
                path: "/deploy/a,b \"c\".raw".into(),
                format: Format::Raw,
                access: Access::ReadOnly,
            },
            ..Disk::image("").on(Bus::Usb)
        })
        .disk(Disk {
            boot_index: Some(1),
            ..Disk::blank(1 << 30).on(Bus::Nvme)
        });
    c.display = Display::Spice;
    c.on_reboot = OnReboot::Exit;
    c.network = Network::Isolated;
    let mut p = plan(&c, Accel::Kvm);
    p.console = ConsoleTo::Terminal;
    insta::assert_snapshot!(lines(&c, &p));
}

#[test]
fn an_arm64_machine() {
    let mut c = VmConfig::new("soquartz").disk(Disk::image("/deploy/disk.raw"));
    c.arch = Arch::Arm64;
    c.display = Display::Vnc;
    insta::assert_snapshot!(lines(&c, &plan(&c, Accel::Tcg)));
}

#[test]
fn a_small_machine() {
    let mut c = VmConfig::new("probe");
    c.firmware = Firmware::Bios;
    c.tpm = Tpm::None;
    c.network = Network::None;
    let mut p = plan(&c, Accel::Tcg);
    p.smbios.clear();
    insta::assert_snapshot!(lines(&c, &p));
}

#[test]
fn impossible_machines() {
    let base = || VmConfig::new("x");
    let secure = Firmware::Uefi {
        variables: Variables::Copy("v".into()),
        smm: Smm::On,
    };
    let table: Vec<(&str, VmConfig)> = vec![
        ("cannot be the name", VmConfig::new("")),
        ("cannot be the name", VmConfig::new("../x")),
        ("cannot be the name", VmConfig::new(".x")),
        ("cannot be the name", VmConfig::new("a".repeat(64))),
        ("cannot be the name", VmConfig::new("a,b")),
        (
            "too little",
            VmConfig {
                memory_mib: 1,
                ..base()
            },
        ),
        ("processors", VmConfig { cpus: 0, ..base() }),
        (
            "no BIOS",
            VmConfig {
                arch: Arch::Arm64,
                firmware: Firmware::Bios,
                ..base()
            },
        ),
        (
            "under Secure Boot",
            VmConfig {
                kernel_cmdline_extra: Some("x".into()),
                firmware: secure,
                ..base()
            },
        ),
        ("serial number", base().disk(Disk::blank(1).serial("a b"))),
        ("credential's name", base().credential("a=b", "x")),
        ("credential's name", base().credential("", "x")),
    ];
    for (want, c) in table {
        let e = c.check().unwrap_err();
        assert!(e.to_string().contains(want), "{e} / {want}");
    }
    base().check().unwrap();
}

#[test]
fn enrolled_keys_and_a_firmware_that_ignores_them_are_refused() {
    let with = |variables, smm| {
        let mut c = VmConfig::new("x");
        c.firmware = Firmware::Uefi { variables, smm };
        c.check()
    };
    let keys = || Variables::Copy("/vars.fd".into());
    let e = with(keys(), Smm::Off).unwrap_err().to_string();
    assert!(e.contains("no Secure Boot"), "{e}");
    assert!(with(keys(), Smm::On).is_ok());
    assert!(with(Variables::Blank, Smm::Off).is_ok());
}
