// SPDX-License-Identifier: Apache-2.0
//! What a virtual machine is made of.

use crate::accel::Accel;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The architecture of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Arch {
    /// AMD64: QEMU's `q35` machine with OVMF.
    #[serde(rename = "x86_64")]
    X86_64,
    /// AArch64: QEMU's `virt` machine with AAVMF.
    #[serde(rename = "arm64")]
    Arm64,
}

impl Arch {
    /// The architecture this program runs on, where it is one of these.
    pub fn host() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// `x86_64` or `arm64`.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// The QEMU program.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }
}

/// What a disk hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// `virtio-blk`, `/dev/vda` …: the fastest.
    Virtio,
    /// A removable USB stick, `/dev/sda` …
    Usb,
    /// NVMe, `/dev/nvme0n1` …
    Nvme,
}

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes of the disk.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl Format {
    /// QEMU's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// Where a disk's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// An image file.
    Image {
        /// Its path.
        path: PathBuf,
        /// Its format.
        format: Format,
        /// What happens to writes.
        access: Access,
    },
    /// An empty disk in the machine's directory, kept as long as the machine is.
    Blank {
        /// Its size in bytes.
        bytes: u64,
    },
}

/// What happens to the guest's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// They go to the image itself.
    Direct,
    /// The disk is write-protected.
    ReadOnly,
    /// They go to a copy-on-write file in the machine's directory; the image stays as it is. The
    /// file is kept until the machine is removed, or until the image has changed.
    Overlay,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its content.
    pub source: Source,
    /// What it hangs on.
    pub bus: Bus,
    /// Its serial number (`/dev/disk/by-id`): up to 20 letters, digits and `-`.
    pub serial: Option<String>,
    /// QEMU's `bootindex`. It reorders the firmware's own boot entries at every start, so leave it
    /// out where boot entries matter (A/B updates).
    pub boot_index: Option<u32>,
}

impl Disk {
    /// A raw image behind an overlay, on virtio.
    pub fn image(path: impl Into<PathBuf>) -> Self {
        Self {
            source: Source::Image {
                path: path.into(),
                format: Format::Raw,
                access: Access::Overlay,
            },
            bus: Bus::Virtio,
            serial: None,
            boot_index: None,
        }
    }

    /// An empty disk of `bytes`, on virtio.
    pub fn blank(bytes: u64) -> Self {
        Self {
            source: Source::Blank { bytes },
            bus: Bus::Virtio,
            serial: None,
            boot_index: None,
        }
    }

    /// The same disk on another bus.
    pub fn on(mut self, bus: Bus) -> Self {
        self.bus = bus;
        self
    }

    /// The same disk, and the guest writes to the image itself.
    pub fn direct(mut self) -> Self {
        if let Source::Image { access, .. } = &mut self.source {
            *access = Access::Direct;
        }
        self
    }

    /// The same disk with a serial number.
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.serial = Some(serial.into());
        self
    }
}

/// The TPM 2.0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tpm {
    /// No TPM.
    None,
    /// A new one at every start.
    Fresh,
    /// One that belongs to the machine and lives as long as it does.
    Own,
    /// One whose state is in a directory of the caller's; not to be used by two machines at once.
    State(PathBuf),
}

/// How the guest's screen is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Display {
    /// No graphics at all; the serial console is all there is.
    None,
    /// SPICE on 127.0.0.1, with the clipboard agent's channel.
    Spice,
    /// VNC on 127.0.0.1.
    Vnc,
}

/// The guest's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// No network device: no SSH either.
    None,
    /// QEMU's user-mode network, cut off from everything but the forwarded ports.
    Isolated,
    /// QEMU's user-mode network; the host's loopback is 10.0.2.2 for the guest.
    User,
}

/// Whether and how a machine starts from the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetBoot {
    /// It does not: a firmware that tries takes minutes to give up.
    Off,
    /// By UEFI HTTP boot, from the URL in its variables ([`crate::VariableStore::boot_uri`]).
    Http,
    /// By its card's boot ROM, iPXE, to which DHCP names this URL. Under Secure Boot the firmware
    /// refuses the ROM, which nobody has signed.
    Ipxe(String),
}

/// Whether firmware variables are protected from the guest's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Smm {
    /// As on real hardware: only code in System Management Mode writes the variable store.
    On,
    /// A firmware without SMM. Debian's build of it has no Secure Boot either: whatever is enrolled,
    /// it starts any program (tried with one byte of a signed UKI changed). So it goes with a blank
    /// variable store only.
    Off,
}

/// The content of the firmware's variable store when the machine is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Variables {
    /// Nothing: Secure Boot is off and in setup mode.
    Blank,
    /// A copy of this file (see [`crate::VariableStore`]). A changed file replaces the machine's
    /// copy.
    Copy(PathBuf),
}

/// The machine's firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Firmware {
    /// UEFI: OVMF or AAVMF.
    Uefi {
        /// Its variables.
        variables: Variables,
        /// Their protection (x86-64 only).
        smm: Smm,
    },
    /// QEMU's SeaBIOS (x86-64 only).
    Bios,
}

/// What happens when the guest reboots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnReboot {
    /// It reboots.
    Reboot,
    /// The machine ends.
    Exit,
}

/// A systemd system credential passed into the guest.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its name, for example `network.hosts`.
    pub name: String,
    /// Its content.
    pub value: Vec<u8>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({}, {} bytes)", self.name, self.value.len())
    }
}

/// A virtual machine.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// Its name, also that of its directory.
    pub name: String,
    /// Its architecture.
    pub arch: Arch,
    /// Its firmware.
    pub firmware: Firmware,
    /// Its disks, in this order.
    pub disks: Vec<Disk>,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Its processors.
    pub cpus: u32,
    /// Its TPM.
    pub tpm: Tpm,
    /// Its screen.
    pub display: Display,
    /// Its network.
    pub network: Network,
    /// Whether it starts from there.
    pub netboot: NetBoot,
    /// Guest TCP ports reachable from the host besides 22; see [`crate::Vm::port`].
    pub guest_ports: Vec<u16>,
    /// Credentials for the guest's systemd, besides the SSH key.
    pub credentials: Vec<Credential>,
    /// Words for the kernel command line, by the SMBIOS string
    /// `io.systemd.stub.kernel-cmdline-extra`. systemd-stub ignores it under Secure Boot, so such a
    /// machine refuses it: use a signed addon there.
    pub kernel_cmdline_extra: Option<String>,
    /// What a reboot does.
    pub on_reboot: OnReboot,
    /// How it is run; without it [`crate::accel::probe`] decides.
    pub accel: Option<Accel>,
    /// Further arguments for QEMU.
    pub extra_args: Vec<String>,
}

impl VmConfig {
    /// An x86-64 machine with UEFI and a blank variable store, a TPM of its own, 2 processors,
    /// 2 GiB of memory and a network, but no disk and no screen.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            arch: Arch::X86_64,
            firmware: Firmware::Uefi {
                variables: Variables::Blank,
                smm: Smm::On,
            },
            disks: Vec::new(),
            memory_mib: 2048,
            cpus: 2,
            tpm: Tpm::Own,
            display: Display::None,
            network: Network::User,
            netboot: NetBoot::Off,
            guest_ports: Vec::new(),
            credentials: Vec::new(),
            kernel_cmdline_extra: None,
            on_reboot: OnReboot::Reboot,
            accel: None,
            extra_args: Vec::new(),
        }
    }

    /// The same machine with one more disk.
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// The same machine with one more credential.
    pub fn credential(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.credentials.push(Credential {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Checks what QEMU or the file system would stumble over.
    ///
    /// # Errors
    /// [`Error::Name`] and [`Error::Config`].
    pub fn check(&self) -> Result<()> {
        check_name(&self.name)?;
        let bad = |what: String, hint| {
            Err(Error::Config {
                name: self.name.clone(),
                what,
                hint,
            })
        };
        if self.memory_mib < 64 {
            return bad(
                format!("{} MiB of memory is too little", self.memory_mib),
                "give it 1024 or more",
            );
        }
        if self.cpus == 0 || self.cpus > 255 {
            return bad(
                format!("it cannot have {} processors", self.cpus),
                "give it 1 to 255",
            );
        }
        if self.arch == Arch::Arm64 && self.firmware == Firmware::Bios {
            return bad("arm64 has no BIOS".into(), "use UEFI firmware");
        }
        if self.kernel_cmdline_extra.is_some()
            && matches!(
                self.firmware,
                Firmware::Uefi {
                    variables: Variables::Copy(_),
                    ..
                }
            )
        {
            return bad(
                "systemd-stub ignores extra kernel arguments under Secure Boot".into(),
                "put them into a signed addon, or start with a blank variable store",
            );
        }
        if self.arch == Arch::X86_64
            && matches!(
                self.firmware,
                Firmware::Uefi {
                    variables: Variables::Copy(_),
                    smm: Smm::Off
                }
            )
        {
            return bad(
                "the firmware without SMM has no Secure Boot, so enrolled keys would not count"
                    .into(),
                "use `Smm::On`, or start with a blank variable store",
            );
        }
        if let Some(t) = &self.kernel_cmdline_extra
            && t.contains('\0')
        {
            return bad(
                "the extra kernel arguments contain a NUL byte".into(),
                "remove it",
            );
        }
        if let NetBoot::Ipxe(url) = &self.netboot
            && (url.contains(',') || !url.bytes().all(|b| b.is_ascii_graphic()))
        {
            return bad(
                format!("`{}` cannot be a boot URL", url.escape_debug()),
                "use a URL without commas and spaces",
            );
        }
        for d in &self.disks {
            if let Some(s) = &d.serial
                && (s.is_empty()
                    || s.len() > 20
                    || !s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
            {
                return bad(
                    format!("`{s}` cannot be a disk's serial number"),
                    "use 1 to 20 letters, digits and `-`",
                );
            }
        }
        for c in &self.credentials {
            if c.name.is_empty()
                || c.name.len() > 255
                || !c
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
                || c.name.starts_with('.')
            {
                return bad(
                    format!("`{}` cannot be a credential's name", c.name),
                    "use letters, digits, `.`, `_`, `-` and `@`",
                );
            }
        }
        Ok(())
    }
}

/// Checks a machine's name: 1 to 63 of letters, digits, `-`, `_`, `.`, and a letter or digit first.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let ok = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && name
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric);
    if ok {
        Ok(())
    } else {
        Err(Error::Name { name: name.into() })
    }
}
