// SPDX-License-Identifier: Apache-2.0
//! Making a release set.

use crate::create::lock;
use crate::error::{Error, Result};
use crate::file::{Kind, Pkcs11Access};
use crate::pkcs11::Pkcs11Uri;
use crate::role::Role;
use crate::set::{KeySet, absolute};
use lama_exec::{Progress, Tools};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a key comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Source {
    /// It is made now and lies in the set.
    #[default]
    Generate,
    /// A private key file, used where it lies: it is not copied, for a secret should have one home.
    Files {
        /// Unencrypted PKCS#8 or PKCS#1 PEM, or an armored OpenPGP key.
        private_key: PathBuf,
        /// Its certificate, PEM or DER, which is copied; issued here where there is none.
        certificate: Option<PathBuf>,
    },
    /// A key in a PKCS#11 token.
    Pkcs11 {
        /// Its URI.
        uri: Pkcs11Uri,
        /// Its certificate, which is copied.
        certificate: PathBuf,
    },
    /// Only the certificate is known here; the private key is kept elsewhere (off line).
    Public {
        /// The certificate, which is copied.
        certificate: PathBuf,
    },
}

/// What a release set shall be.
#[derive(Debug, Clone, Default)]
pub struct ReleaseOptions {
    /// Its name, which becomes part of certificate subjects: 1 to 40 printable characters.
    pub name: String,
    /// Where keys come from; a role that isn't named is generated.
    pub sources: BTreeMap<Role, Source>,
    /// How tools reach PKCS#11 tokens.
    pub pkcs11: Option<Pkcs11Access>,
}

impl KeySet {
    /// Makes a release set in `dir`, which must be missing or empty. With `tools`, keys in tokens
    /// sign the enrolment files.
    pub fn init_release(
        dir: impl AsRef<Path>,
        options: &ReleaseOptions,
        tools: Option<&Tools>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let dir = absolute(dir.as_ref())?;
        let name = options.name.as_str();
        let printable = !name.is_empty()
            && name.trim() == name
            && name.chars().count() <= 40
            && !name.chars().any(char::is_control);
        if !printable || name.to_lowercase().contains("not for release") {
            return Err(Error::Invalid {
                path: dir,
                what: format!("`{name}` can't be the name of a release set"),
                hint: "use 1 to 40 printable characters, such as `Example release 2026`".into(),
            });
        }
        let _lock = lock(&dir)?;
        let sources = options.sources.clone();
        Self::create(
            &dir,
            Kind::Release,
            name,
            sources,
            options.pkcs11.clone(),
            tools,
            progress,
        )?;
        Self::open(&dir)
    }
}
