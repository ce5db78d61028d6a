// SPDX-License-Identifier: Apache-2.0
//! A key set: opening it, making a development one, and what is in it.

use crate::cert::CertificateInfo;
use crate::error::{Error, Result};
use crate::file::{Entry, FILE_NAME, KeySetFile, Kind, Pkcs11Access};
use crate::local::LocalKey;
use crate::pkcs11::{PinValue, Pkcs11Uri};
use crate::role::Role;
use crate::signer::{Pkcs11Signer, Signer};
use crate::status::Severity;
use lama_exec::Tools;
use lama_exec::fs;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Where a private key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrivateKey {
    /// In a file: unencrypted PEM (PKCS#8), or armored OpenPGP.
    File(PathBuf),
    /// In a PKCS#11 token.
    Pkcs11(Pkcs11Uri),
}

impl PrivateKey {
    fn parse(text: &str, dir: &Path) -> Result<Self> {
        if text.starts_with("pkcs11:") {
            Ok(Self::Pkcs11(Pkcs11Uri::parse(text, PinValue::Refused)?))
        } else {
            Ok(Self::File(dir.join(text)))
        }
    }
}

/// A certificate of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its file: X.509 in PEM form, or an armored OpenPGP certificate.
    pub path: PathBuf,
    /// As in [`RoleStatus`](crate::RoleStatus).
    pub fingerprint: String,
    /// Whether it has been replaced and is still honoured.
    pub previous: bool,
}

/// A key set, loaded.
#[derive(Debug, Clone)]
pub struct KeySet {
    pub(crate) dir: PathBuf,
    pub(crate) file: KeySetFile,
}

impl KeySet {
    /// Loads the key set of a directory and checks it; a defect is an error. Warnings are logged.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let set = Self::load(dir)?;
        set.check()?;
        Ok(set)
    }

    /// Loads a key set without looking at its keys, so that [`KeySet::status`] can.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = absolute(dir.as_ref())?;
        let path = dir.join(FILE_NAME);
        let Some(data) = fs::read_optional(&path)? else {
            return Err(Error::NotAKeySet { dir });
        };
        let text = String::from_utf8(data).map_err(|e| Error::Syntax {
            path: path.clone(),
            line: 1 + e
                .as_bytes()
                .iter()
                .take(e.utf8_error().valid_up_to())
                .filter(|b| **b == b'\n')
                .count(),
            message: "not UTF-8".into(),
        })?;
        Ok(Self {
            file: KeySetFile::parse(&text, &path)?,
            dir,
        })
    }

    /// Fails where [`KeySet::status`] finds an error.
    pub fn check(&self) -> Result<()> {
        let status = self.status();
        let mut errors = Vec::new();
        for p in status.all_problems() {
            match p.severity {
                Severity::Error => errors.push(format!("  {}\n    hint: {}", p.message, p.hint)),
                Severity::Warning => {
                    tracing::warn!("key set {}: {}", self.dir.display(), p.message)
                }
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::Defective {
                dir: self.dir.clone(),
                problems: errors,
            })
        }
    }

    /// The directory, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// Its kind, as `keyset.toml` says.
    pub fn kind(&self) -> Kind {
        self.file.kind
    }

    /// Whether it may sign no release.
    pub fn is_development(&self) -> bool {
        self.require_release().is_err()
    }

    /// The error of `--release` where this is no release set, or a certificate of it carries the
    /// mark of a development key whatever `keyset.toml` says.
    pub fn require_release(&self) -> Result<()> {
        let fail = |role| {
            Err(Error::DevelopmentKeys {
                dir: self.dir.clone(),
                role,
            })
        };
        if self.file.kind == Kind::Development {
            return fail(None);
        }
        for role in Role::ALL {
            for c in self.certificates(role) {
                let development = match role {
                    Role::Openpgp => crate::openpgp::read_public(&c.path)?
                        .user_id
                        .contains("NOT FOR RELEASE"),
                    _ => CertificateInfo::read(&c.path)?.development,
                };
                if development {
                    return fail(Some(role));
                }
            }
        }
        Ok(())
    }

    /// The owner of our entries in the firmware's databases. Made from the first PK certificate
    /// (UUIDv5), and kept when keys are replaced.
    pub fn owner_guid(&self) -> Uuid {
        self.file.owner_guid
    }

    /// How tools reach PKCS#11 tokens.
    pub fn pkcs11(&self) -> Option<&Pkcs11Access> {
        self.file.pkcs11.as_ref()
    }

    /// Where the private key of a role is.
    pub fn private_key(&self, role: Role) -> Result<PrivateKey> {
        match &self.entry(role)?.private_key {
            Some(text) => PrivateKey::parse(text, &self.dir),
            None => Err(Error::NoPrivateKey { role }),
        }
    }

    /// The file of the current certificate of a role: X.509 PEM, or armored OpenPGP.
    pub fn certificate_path(&self, role: Role) -> PathBuf {
        self.dir.join(
            self.file
                .roles
                .get(&role)
                .map_or("", |e| e.certificate.as_str()),
        )
    }

    /// The current certificate of a role, as text (PEM or armored OpenPGP).
    pub fn certificate_pem(&self, role: Role) -> Result<String> {
        Ok(fs::read_to_string(self.certificate_path(role))?)
    }

    /// The certificates of a role that are honoured: the current one, then the replaced ones.
    pub fn certificates(&self, role: Role) -> Vec<Certificate> {
        let Some(e) = self.file.roles.get(&role) else {
            return Vec::new();
        };
        let one = |name: &str, fingerprint: &str, previous| Certificate {
            path: self.dir.join(name),
            fingerprint: fingerprint.to_owned(),
            previous,
        };
        std::iter::once(one(&e.certificate, &e.fingerprint, false))
            .chain(
                e.previous
                    .iter()
                    .map(|p| one(&p.certificate, &p.fingerprint, true)),
            )
            .collect()
    }

    /// The certificate UKIs are signed with (PEM), for sbsign, sbverify and virt-fw-vars.
    pub fn db_cert_path(&self) -> PathBuf {
        self.certificate_path(Role::Db)
    }

    /// The key UKIs are signed with.
    pub fn db_key(&self) -> Result<PrivateKey> {
        self.private_key(Role::Db)
    }

    /// The current public key of PCR policies, SPKI in PEM form: for systemd-measure,
    /// systemd-cryptenroll and systemd-repart (`--tpm2-public-key`).
    pub fn pcr_public_path(&self) -> PathBuf {
        let name = self
            .file
            .roles
            .get(&Role::Pcr)
            .and_then(|e| e.public_key.as_deref());
        self.dir.join(name.unwrap_or("pcr.pub"))
    }

    /// The directory with what firmware enrolls: `PK`, `KEK` and `db`, each as `.esl`, `.auth`
    /// and `.cer` (DER). Its `.auth` files are what systemd-boot wants in `loader/keys/auto`.
    pub fn enroll_dir(&self) -> PathBuf {
        self.dir.join("enroll")
    }

    /// The certificates nodes trust bundles by, as RAUC's keyring file (PEM, one after another).
    pub fn rauc_keyring_pem(&self) -> Result<String> {
        let mut all = String::new();
        for c in self.certificates(Role::RaucCa) {
            all.push_str(&fs::read_to_string(&c.path)?);
        }
        Ok(all)
    }

    /// What goes with the signatures of bundles and channel files, so that machines which trust a
    /// replaced CA alone find the way to the present one: certificates of each CA's key by the one
    /// before it (PEM).
    pub fn rauc_intermediates(&self) -> Vec<PathBuf> {
        let previous = self.file.roles.get(&Role::RaucCa).map(|e| &e.previous);
        let names = previous.into_iter().flatten();
        names
            .filter_map(|p| Some(self.dir.join(p.cross_certificate.as_ref()?)))
            .collect()
    }

    /// Something that signs with the key of a role. A key in a token needs `tools` with openssl and
    /// its pkcs11 engine.
    pub fn signer<'a>(
        &'a self,
        role: Role,
        tools: Option<&'a Tools>,
    ) -> Result<Box<dyn Signer + 'a>> {
        let certificate = CertificateInfo::read(&self.certificate_path(role))?;
        self.signer_of(role, self.private_key(role)?, &certificate, tools)
    }

    fn signer_of<'a>(
        &'a self,
        role: Role,
        key: PrivateKey,
        certificate: &CertificateInfo,
        tools: Option<&'a Tools>,
    ) -> Result<Box<dyn Signer + 'a>> {
        match key {
            PrivateKey::File(path) => Ok(Box::new(LocalKey::read(&path)?)),
            PrivateKey::Pkcs11(uri) => Ok(Box::new(Pkcs11Signer {
                role,
                uri,
                access: self.pkcs11(),
                tools: tools.ok_or(Error::NeedsTools { role })?,
                spki: certificate.spki.clone(),
            })),
        }
    }

    /// What signs for Secure Boot, certificates and keys: the current `db` key, then the previous ones
    /// whose private part is still there. Firmware that knows any of them starts what all have signed,
    /// and the current one comes first, so that firmware which knows it goes by it.
    pub fn db_signers<'a>(
        &'a self,
        tools: Option<&'a Tools>,
    ) -> Result<Vec<(CertificateInfo, Box<dyn Signer + 'a>)>> {
        let e = self.entry(Role::Db)?;
        let mut all = vec![(
            CertificateInfo::read(&self.db_cert_path())?,
            self.signer(Role::Db, tools)?,
        )];
        for p in &e.previous {
            if let Some(key) = &p.private_key {
                let certificate = CertificateInfo::read(&self.dir.join(&p.certificate))?;
                let key = PrivateKey::parse(key, &self.dir)?;
                let signer = self.signer_of(Role::Db, key, &certificate, tools)?;
                all.push((certificate, signer));
            }
        }
        Ok(all)
    }

    /// Private key, certificate and public key of the current `pcr` key, then of the previous ones
    /// whose private part is still there.
    pub(crate) fn pcr_pairs(&self) -> Result<Vec<(PrivateKey, PathBuf, PathBuf)>> {
        let e = self.entry(Role::Pcr)?;
        let mut all = vec![(
            self.private_key(Role::Pcr)?,
            self.dir.join(&e.certificate),
            self.pcr_public_path(),
        )];
        for p in &e.previous {
            if let (Some(key), Some(public)) = (&p.private_key, &p.public_key) {
                let key = PrivateKey::parse(key, &self.dir)?;
                all.push((key, self.dir.join(&p.certificate), self.dir.join(public)));
            }
        }
        Ok(all)
    }

    /// Private key and certificate that bundles are decrypted with, then those of replaced ones whose
    /// private part is still there.
    pub(crate) fn decryption_keys(&self) -> Result<Vec<(PrivateKey, PathBuf)>> {
        let e = self.entry(Role::RaucEncryption)?;
        let mut all = vec![(
            self.private_key(Role::RaucEncryption)?,
            self.certificate_path(Role::RaucEncryption),
        )];
        for p in &e.previous {
            if let Some(key) = &p.private_key {
                let key = PrivateKey::parse(key, &self.dir)?;
                all.push((key, self.dir.join(&p.certificate)));
            }
        }
        Ok(all)
    }

    pub(crate) fn entry(&self, role: Role) -> Result<&Entry> {
        // Loading has checked that each role is there.
        self.file
            .roles
            .get(&role)
            .ok_or(Error::NoPrivateKey { role })
    }
}

/// A path, made absolute without looking at the disk.
pub(crate) fn absolute(dir: &Path) -> Result<PathBuf> {
    use fs::AtPath;
    Ok(std::path::absolute(dir).at("find", dir)?)
}
