// SPDX-License-Identifier: Apache-2.0
//! `distro/machines/*.toml`: what hardware needs (a BSP).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use toml::Spanned;

/// A Debian architecture.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// Debian's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }
    /// The UEFI specification's short name, as in `BOOTX64.EFI` (section 3.5.1.1).
    pub fn efi(self) -> &'static str {
        match self {
            Arch::Amd64 => "x64",
            Arch::Arm64 => "aa64",
        }
    }
    /// The multiarch tuple, as in `/usr/lib/x86_64-linux-gnu`.
    pub fn multiarch(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64-linux-gnu",
            Arch::Arm64 => "aarch64-linux-gnu",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A machine.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Machine {
    /// What it is, in a line.
    pub description: String,
    /// Its architecture.
    pub arch: Arch,
    /// RAUC's `compatible`: a bundle for another machine is refused.
    pub compatible: String,
    /// The oldest version that its systems install, `MAJOR.MINOR.PATCH`: an older bundle is refused,
    /// however it was signed.
    #[serde(default)]
    pub min_version: Option<Version>,
    /// The layout of an installed system's disk (`distro/layouts/`).
    #[schemars(with = "String")]
    pub layout: Spanned<String>,
    /// The layout of the live and installer medium.
    #[schemars(with = "String")]
    pub medium: Spanned<String>,
    /// Whether the debian engine builds it; otherwise why not.
    #[serde(default)]
    pub debian: Debian,
    /// Packages it needs: kernel, EFI stub, microcode, firmware.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Feed components it needs besides those of the feed (`non-free-firmware`).
    #[serde(default)]
    pub components: Vec<String>,
    /// `console=` parameters, the last of which becomes /dev/console.
    #[serde(default)]
    pub consoles: Vec<String>,
    /// More kernel command line parameters.
    #[serde(default)]
    pub cmdline: Vec<String>,
    /// Kernel modules that its initrd holds besides their dependencies.
    #[serde(default)]
    pub initrd_modules: Vec<String>,
    /// How it starts.
    #[serde(default)]
    pub boot: Boot,
}

/// How a machine starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Boot {
    /// What starts the UKI of a slot on an installed machine.
    #[serde(default)]
    pub loader: Loader,
}

/// What starts the UKI of a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// The firmware itself, by its variables `BootOrder` and `BootNext`.
    #[default]
    Firmware,
    /// systemd-boot, which counts attempts: for firmware whose variables cannot be set at run time.
    SystemdBoot,
}

/// Whether the debian engine can build a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Debian {
    /// It can.
    #[default]
    Supported,
    /// It cannot, for this reason.
    Unsupported(String),
}

/// A version, `MAJOR.MINOR.PATCH` (<https://semver.org>) without anything after it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[schemars(with = "String")]
#[serde(into = "String")]
pub struct Version(u64, u64, u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl From<Version> for String {
    fn from(v: Version) -> Self {
        v.to_string()
    }
}

impl std::str::FromStr for Version {
    type Err = String;
    fn from_str(s: &str) -> std::result::Result<Self, String> {
        let number = |p: &str| {
            let plain = p.bytes().all(|b| b.is_ascii_digit()) && (p == "0" || !p.starts_with('0'));
            p.parse::<u64>().ok().filter(|_| plain)
        };
        let parts: Vec<Option<u64>> = s.split('.').map(number).collect();
        match parts.as_slice() {
            [Some(a), Some(b), Some(c)] => Ok(Self(*a, *b, *c)),
            _ => Err(format!(
                "{s:?} is no version: write MAJOR.MINOR.PATCH, such as \"1.4.0\""
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
