// SPDX-License-Identifier: Apache-2.0
//! The roles keys play.

use serde::{Deserialize, Serialize};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// UEFI platform key: owns the machine, signs changes of KEK.
    Pk,
    /// UEFI key exchange key: signs changes of db.
    Kek,
    /// UEFI signature database: signs what the firmware starts.
    Db,
    /// Signs the PCR 11 values a TPM releases the disk key for.
    Pcr,
    /// The certification authority that nodes trust update bundles by.
    RaucCa,
    /// Signs update bundles; its certificate is issued by [`Role::RaucCa`].
    RaucSigning,
    /// Update bundles are encrypted to it; nodes hold the private part.
    RaucEncryption,
    /// Signs packages and feeds, in OpenPGP format.
    Openpgp,
}

/// The kind of key a role is given when one is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rsa2048,
    EcP256,
    Openpgp,
}

impl Role {
    /// All roles, an issuer before what it issues.
    pub const ALL: [Role; 8] = [
        Role::Pk,
        Role::Kek,
        Role::Db,
        Role::Pcr,
        Role::RaucCa,
        Role::RaucSigning,
        Role::RaucEncryption,
        Role::Openpgp,
    ];

    /// Its name in `keyset.toml`, on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Role::Pk => "pk",
            Role::Kek => "kek",
            Role::Db => "db",
            Role::Pcr => "pcr",
            Role::RaucCa => "rauc-ca",
            Role::RaucSigning => "rauc-signing",
            Role::RaucEncryption => "rauc-encryption",
            Role::Openpgp => "openpgp",
        }
    }

    /// Its name as people read it, in certificate subjects.
    pub fn title(self) -> &'static str {
        match self {
            Role::Pk => "PK",
            Role::Kek => "KEK",
            Role::Db => "db",
            Role::Pcr => "PCR policy",
            Role::RaucCa => "RAUC CA",
            Role::RaucSigning => "RAUC signing",
            Role::RaucEncryption => "RAUC encryption",
            Role::Openpgp => "OpenPGP",
        }
    }

    /// UEFI firmware knows RSA-2048 everywhere and little else everywhere; TPMs the same for
    /// policies. RAUC and OpenPGP are free to use elliptic curves.
    pub(crate) fn algorithm(self) -> Algorithm {
        match self {
            Role::Pk | Role::Kek | Role::Db | Role::Pcr => Algorithm::Rsa2048,
            Role::RaucCa | Role::RaucSigning | Role::RaucEncryption => Algorithm::EcP256,
            Role::Openpgp => Algorithm::Openpgp,
        }
    }

    /// Whether the private part of a replaced key is needed until it is forgotten: both keys must sign
    /// while firmware knows the old `db` alone or disks are sealed by the old `pcr`, and nodes decrypt
    /// bundles made before.
    pub(crate) fn keeps_previous_private(self) -> bool {
        matches!(self, Role::Db | Role::Pcr | Role::RaucEncryption)
    }

    /// Whether firmware enrolls it.
    pub(crate) fn is_secure_boot(self) -> bool {
        matches!(self, Role::Pk | Role::Kek | Role::Db)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of no role.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no key role; the roles are pk, kek, db, pcr, rauc-ca, rauc-signing, rauc-encryption, openpgp"
)]
pub struct UnknownRole(String);

impl std::str::FromStr for Role {
    type Err = UnknownRole;
    fn from_str(s: &str) -> std::result::Result<Self, UnknownRole> {
        Role::ALL
            .into_iter()
            .find(|r| r.name() == s)
            .ok_or_else(|| UnknownRole(s.to_owned()))
    }
}
