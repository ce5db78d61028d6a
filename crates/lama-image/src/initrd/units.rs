// SPDX-License-Identifier: Apache-2.0
//! What an initrd of systemd 257 is made of.

/// Where systemd's own units lie.
pub const DIR: &str = "usr/lib/systemd/system";

/// Files that have to be there, and the package that brings them.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// Debian's package.
    pub package: Option<&'static str>,
    /// Paths in the root tree; `{triplet}` is the architecture's.
    pub paths: &'static [&'static str],
}

macro_rules! units {
    ($($u:literal)*) => { &[$(concat!("usr/lib/systemd/system/", $u)),*] };
}
macro_rules! rules {
    ($($u:literal)*) => { &[$(concat!("usr/lib/udev/rules.d/", $u)),*] };
}

/// What the initrd cannot do without.
pub const REQUIRED: &[Group] = &[
    Group {
        package: Some("systemd"),
        paths: &[
            "usr/lib/systemd/systemd",
            "usr/lib/systemd/systemd-executor",
            "usr/lib/systemd/systemd-fsck",
            "usr/lib/systemd/systemd-journald",
            "usr/lib/systemd/systemd-makefs",
            "usr/lib/systemd/systemd-modules-load",
            "usr/lib/systemd/systemd-pcrextend",
            "usr/lib/systemd/systemd-reply-password",
            "usr/lib/systemd/systemd-shutdown",
            "usr/lib/systemd/systemd-sysctl",
            "usr/lib/systemd/systemd-sysroot-fstab-check",
            "usr/lib/systemd/systemd-tpm2-setup",
            "usr/lib/systemd/system-generators/systemd-debug-generator",
            "usr/lib/systemd/system-generators/systemd-fstab-generator",
            "usr/lib/systemd/system-generators/systemd-tpm2-generator",
            "usr/bin/journalctl",
            "usr/bin/systemctl",
            "usr/bin/systemd-tmpfiles",
            "usr/bin/systemd-tty-ask-password-agent",
            "usr/lib/tmpfiles.d/20-systemd-stub.conf",
            "usr/lib/tmpfiles.d/static-nodes-permissions.conf",
        ],
    },
    Group {
        package: Some("systemd"),
        paths: units!(
            "basic.target" "cryptsetup-pre.target" "cryptsetup.target" "ctrl-alt-del.target"
            "emergency.target" "final.target" "halt.target" "initrd-cleanup.service"
            "initrd-fs.target" "initrd-parse-etc.service" "initrd-root-device.target"
            "initrd-root-fs.target" "initrd-switch-root.service" "initrd-switch-root.target"
            "initrd-usr-fs.target" "initrd.target" "kmod-static-nodes.service" "local-fs-pre.target"
            "local-fs.target" "modprobe@.service" "network-pre.target" "paths.target"
            "poweroff.target" "reboot.target" "remote-cryptsetup.target" "remote-fs-pre.target"
            "remote-fs.target" "remote-veritysetup.target" "shutdown.target" "slices.target"
            "sockets.target" "swap.target" "sysinit.target" "systemd-ask-password-console.path"
            "systemd-ask-password-console.service" "systemd-fsck-root.service"
            "systemd-fsck@.service" "systemd-halt.service" "systemd-journald-dev-log.socket"
            "systemd-journald.service" "systemd-journald.socket" "systemd-modules-load.service"
            "systemd-pcrphase-initrd.service" "systemd-poweroff.service" "systemd-reboot.service"
            "systemd-sysctl.service" "systemd-tmpfiles-setup-dev-early.service"
            "systemd-tmpfiles-setup-dev.service" "systemd-tmpfiles-setup.service"
            "systemd-tpm2-setup-early.service" "timers.target" "tpm2.target" "umount.target"
            "veritysetup-pre.target" "veritysetup.target"
        ),
    },
    Group {
        package: Some("udev"),
        paths: &[
            "usr/bin/udevadm",
            "usr/lib/systemd/systemd-udevd",
            "usr/lib/systemd/system/initrd-udevadm-cleanup-db.service",
            "usr/lib/systemd/system/systemd-udev-settle.service",
            "usr/lib/systemd/system/systemd-udev-trigger.service",
            "usr/lib/systemd/system/systemd-udevd-control.socket",
            "usr/lib/systemd/system/systemd-udevd-kernel.socket",
            "usr/lib/systemd/system/systemd-udevd.service",
            "usr/lib/udev/ata_id",
            "usr/lib/udev/scsi_id",
        ],
    },
    Group {
        package: Some("udev"),
        paths: rules!(
            "50-firmware.rules" "50-udev-default.rules" "60-block.rules"
            "60-persistent-storage.rules" "80-drivers.rules" "99-systemd.rules"
        ),
    },
    Group {
        package: Some("systemd-cryptsetup"),
        paths: &[
            "usr/bin/systemd-cryptsetup",
            "usr/lib/systemd/systemd-cryptsetup",
            "usr/lib/systemd/systemd-veritysetup",
            "usr/lib/systemd/system-generators/systemd-cryptsetup-generator",
            "usr/lib/systemd/system-generators/systemd-veritysetup-generator",
            "usr/lib/systemd/system/system-systemd\\x2dcryptsetup.slice",
            "usr/lib/systemd/system/system-systemd\\x2dveritysetup.slice",
            "usr/lib/{triplet}/cryptsetup/libcryptsetup-token-systemd-tpm2.so",
        ],
    },
    Group {
        package: Some("dmsetup"),
        paths: &[
            "usr/sbin/dmsetup",
            "usr/lib/udev/rules.d/55-dm.rules",
            "usr/lib/udev/rules.d/60-persistent-storage-dm.rules",
            "usr/lib/udev/rules.d/95-dm-notify.rules",
        ],
    },
    Group {
        package: Some("kmod"),
        paths: &["usr/bin/kmod", "usr/sbin/modprobe"],
    },
    Group {
        package: Some("mount"),
        paths: &["usr/bin/mount", "usr/bin/umount", "usr/sbin/losetup"],
    },
    Group {
        package: Some("coreutils"),
        paths: &[
            "usr/bin/mkdir",
            "usr/bin/mv",
            "usr/bin/sleep",
            "usr/bin/echo",
        ],
    },
    Group {
        package: Some("login"),
        paths: &["usr/sbin/nologin"],
    },
];

/// What comes along where the root has it.
pub const OPTIONAL: &[&str] = &[
    "usr/lib/modprobe.d",
    "usr/lib/sysctl.d",
    "usr/lib/systemd/systemd-battery-check",
    "usr/lib/systemd/systemd-bsod",
    "usr/lib/systemd/system/systemd-battery-check.service",
    "usr/lib/systemd/system/systemd-bsod.service",
    "usr/lib/systemd/system/systemd-udevd.service.d",
    "usr/lib/udev/cdrom_id",
    "usr/lib/udev/rules.d/60-cdrom_id.rules",
    "usr/lib/udev/rules.d/60-tpm-udev.rules",
    "usr/sbin/e2fsck",
    "usr/sbin/fsck",
    "usr/sbin/fsck.ext4",
    "usr/sbin/fsck.xfs",
];

/// Libraries that no ELF header names: (soname, what for, package).
pub const LIBRARIES: &[(&str, &str, Option<&str>)] = &[
    (
        "libgcc_s.so.1",
        "threads that are cancelled",
        Some("libgcc-s1"),
    ),
    (
        "libtss2-tcti-device.so.0",
        "access to the TPM",
        Some("libtss2-tcti-device0t64"),
    ),
];

/// Features of `.note.dlopen` records whose libraries are taken where the root has them; those of
/// priority `required` are taken too.
pub const DLOPEN_FEATURES: &[&str] = &["cryptsetup", "kmod", "lz4", "tpm", "xz", "zstd"];

/// Those of them without which the machine would not find its root.
pub const DLOPEN_REQUIRED: &[&str] = &["cryptsetup", "kmod", "tpm"];
