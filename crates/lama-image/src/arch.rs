// SPDX-License-Identifier: Apache-2.0
//! What differs between processor architectures: names in UEFI and partition types.

use uuid::{Uuid, uuid};

/// A processor architecture, by Debian's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

/// The role of a partition in the Discoverable Partitions Specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartitionType {
    /// The EFI system partition.
    Esp,
    /// A root file system.
    Root,
    /// The verity tree of a root file system.
    RootVerity,
    /// `/var`.
    Var,
    /// Anything else that Linux uses.
    LinuxGeneric,
}

impl Arch {
    /// From Debian's name (`amd64`, `arm64`).
    pub fn from_debian(name: &str) -> Option<Self> {
        match name {
            "amd64" => Some(Self::Amd64),
            "arm64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// The OCI's name for it (`GOARCH`): `amd64`, `arm64`.
    pub fn oci(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// UEFI's name for it: `x64`, `aa64` (UEFI specification, 3.5.1.1).
    pub fn efi(self) -> &'static str {
        match self {
            Self::Amd64 => "x64",
            Self::Arm64 => "aa64",
        }
    }

    /// The removable-media path below the ESP: `EFI/BOOT/BOOTX64.EFI`.
    pub fn boot_path(self) -> &'static str {
        match self {
            Self::Amd64 => "EFI/BOOT/BOOTX64.EFI",
            Self::Arm64 => "EFI/BOOT/BOOTAA64.EFI",
        }
    }

    /// The type GUID (Discoverable Partitions Specification, "Defined Partition Type UUIDs").
    pub fn partition_type(self, t: PartitionType) -> Uuid {
        match (t, self) {
            (PartitionType::Esp, _) => uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
            (PartitionType::Root, Self::Amd64) => uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
            (PartitionType::Root, Self::Arm64) => uuid!("b921b045-1df0-41c3-af44-4c6f280d3fae"),
            (PartitionType::RootVerity, Self::Amd64) => {
                uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5")
            }
            (PartitionType::RootVerity, Self::Arm64) => {
                uuid!("df3300ce-d69f-4c92-978c-9bfb0f38d820")
            }
            (PartitionType::Var, _) => uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d"),
            (PartitionType::LinuxGeneric, _) => uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"),
        }
    }
}
