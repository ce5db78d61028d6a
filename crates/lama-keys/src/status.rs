// SPDX-License-Identifier: Apache-2.0
//! What a key set is like, defects included.

use crate::cert::CertificateInfo;
use crate::file::Kind;
use crate::generate::{fingerprint, suitable};
use crate::local::LocalKey;
use crate::role::Role;
use crate::set::{KeySet, PrivateKey};
use lama_exec::fs;
use serde::Serialize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The set can be used.
    Warning,
    /// It can't.
    Error,
}

/// Something wrong with a key set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and where.
    pub message: String,
    /// How to mend it.
    pub hint: String,
}

/// Where a private key lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "location")]
pub enum PrivateLocation {
    /// In a file.
    File(PathBuf),
    /// In a token: its URI.
    Pkcs11(String),
    /// Elsewhere.
    Elsewhere,
}

/// The state of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RoleStatus {
    /// The role.
    pub role: Role,
    /// Such as `rsa-2048`.
    pub algorithm: String,
    /// SHA-256 of the certificate (DER), for `pcr` of the SPKI (DER), for `openpgp` the OpenPGP
    /// fingerprint; hexadecimal, lower case.
    pub fingerprint: String,
    /// The certificate's subject or the OpenPGP user ID, where it can be read.
    pub subject: Option<String>,
    /// The certificate's file.
    pub certificate: PathBuf,
    /// Where the private part lives.
    pub private: PrivateLocation,
    /// Until when the certificate is valid (RFC 3339); OpenPGP keys don't expire.
    pub expires: Option<String>,
    /// Fingerprints of the replaced keys that are still honoured.
    pub previous: Vec<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// The state of a key set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Its directory.
    pub dir: PathBuf,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// When it was made (RFC 3339).
    pub created: String,
    /// When a key was last replaced (RFC 3339).
    pub changed: String,
    /// The owner of its entries in the firmware's databases.
    pub owner_guid: uuid::Uuid,
    /// Its keys, in the order of [`Role::ALL`].
    pub roles: Vec<RoleStatus>,
    /// What is wrong with the set as a whole.
    pub problems: Vec<Problem>,
}

impl Status {
    /// The problems of the set and of its roles.
    pub fn all_problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems
            .iter()
            .chain(self.roles.iter().flat_map(|r| &r.problems))
    }
}

fn error(message: String, hint: impl Into<String>) -> Problem {
    Problem {
        severity: Severity::Error,
        message,
        hint: hint.into(),
    }
}

fn warning(message: String, hint: impl Into<String>) -> Problem {
    Problem {
        severity: Severity::Warning,
        message,
        hint: hint.into(),
    }
}

fn from_error(e: &crate::error::Error) -> Problem {
    let hint = miette::Diagnostic::help(e)
        .map(|h| h.to_string())
        .unwrap_or_default();
    error(e.to_string(), hint)
}

impl KeySet {
    /// Looks at every file of the set. Keys in tokens are not touched.
    pub fn status(&self) -> Status {
        let mut problems = Vec::new();
        if let Some(p) = too_open(&self.dir, "700") {
            problems.push(p);
        }
        let roles: Vec<RoleStatus> = Role::ALL.into_iter().map(|r| self.role_status(r)).collect();
        // Without certificates the enrolment files can't be judged, and the reason is told already.
        if roles
            .iter()
            .filter(|r| r.role.is_secure_boot())
            .all(|r| r.problems.is_empty())
            && let Some(message) = self.enrolment_problem()
        {
            problems.push(warning(
                message,
                "`lamadist keys enroll` writes the enrolment files anew",
            ));
        }
        if let Some(p) = self.chain_problem() {
            problems.push(p);
        }
        Status {
            dir: self.dir.clone(),
            name: self.file.name.clone(),
            kind: self.file.kind,
            created: self.file.created.to_string(),
            changed: self.file.changed.to_string(),
            owner_guid: self.file.owner_guid,
            roles,
            problems,
        }
    }

    fn role_status(&self, role: Role) -> RoleStatus {
        let mut s = RoleStatus {
            role,
            algorithm: String::new(),
            fingerprint: String::new(),
            subject: None,
            certificate: self.certificate_path(role),
            private: PrivateLocation::Elsewhere,
            expires: None,
            previous: Vec::new(),
            problems: Vec::new(),
        };
        let Ok(entry) = self.entry(role) else {
            return s;
        };
        s.algorithm.clone_from(&entry.algorithm);
        s.fingerprint.clone_from(&entry.fingerprint);
        s.previous = entry
            .previous
            .iter()
            .map(|p| p.fingerprint.clone())
            .collect();
        let private = entry.private_key.as_ref().map(|_| self.private_key(role));
        let key_file = match private {
            None => None,
            Some(Ok(PrivateKey::File(path))) => {
                s.private = PrivateLocation::File(path.clone());
                s.problems.extend(too_open(&path, "600"));
                Some(path)
            }
            Some(Ok(PrivateKey::Pkcs11(uri))) => {
                s.private = PrivateLocation::Pkcs11(uri.to_string());
                None
            }
            Some(Err(e)) => {
                s.problems.push(from_error(&e));
                None
            }
        };
        match role {
            Role::Openpgp => self.openpgp_status(&mut s, key_file.as_deref()),
            _ => self.x509_status(&mut s, key_file.as_deref()),
        }
        for (c, p) in self.certificates(role).iter().skip(1).zip(&entry.previous) {
            let found = match role {
                Role::Openpgp => crate::openpgp::read_public(&c.path).map(|i| i.fingerprint),
                _ => CertificateInfo::read(&c.path).map(|i| fingerprint(role, &i)),
            };
            match found {
                Ok(f) if f != c.fingerprint => s.problems.push(changed(&c.path)),
                Ok(_) => {}
                Err(e) => s.problems.push(from_error(&e)),
            }
            if let Some(cross) = &p.cross_certificate
                && let Err(e) = CertificateInfo::read(&self.dir.join(cross))
            {
                s.problems.push(from_error(&e));
            }
            if let Some(k) = p.private_key.as_ref().filter(|k| !k.starts_with("pkcs11:")) {
                s.problems.extend(too_open(&self.dir.join(k), "600"));
            }
        }
        s
    }

    fn x509_status(&self, s: &mut RoleStatus, key_file: Option<&Path>) {
        let info = match CertificateInfo::read(&s.certificate) {
            Ok(i) => i,
            Err(e) => return s.problems.push(from_error(&e)),
        };
        s.subject = Some(info.subject.clone());
        s.expires = jiff::Timestamp::from_second(info.not_after)
            .ok()
            .map(|t| t.to_string());
        if fingerprint(s.role, &info) != s.fingerprint {
            s.problems.push(changed(&s.certificate));
        }
        if let Err(e) = suitable(s.role, &info) {
            s.problems.push(from_error(&e));
        }
        let left = info.not_after - jiff::Timestamp::now().as_second();
        if left < 0 {
            let message = format!("the certificate of `{}` has expired", s.role);
            let hint = format!("`lamadist keys rotate {}` makes a new one", s.role);
            // Firmware doesn't look at the dates; OpenSSL on the node does.
            s.problems.push(match s.role {
                Role::RaucCa | Role::RaucSigning => error(message, hint),
                _ => warning(message, hint),
            });
        } else if left < 90 * 86_400 {
            s.problems.push(warning(
                format!("the certificate of `{}` expires within 90 days", s.role),
                format!(
                    "`lamadist keys rotate {}` makes a new one; ship it before the old one ends",
                    s.role
                ),
            ));
        }
        if let Some(path) = key_file {
            match LocalKey::read(path).and_then(|k| k.spki()) {
                Ok(spki) if spki != info.spki => s.problems.push(error(
                    format!(
                        "{} is not the certificate of {}",
                        s.certificate.display(),
                        path.display()
                    ),
                    "put back the two files that belong together",
                )),
                Ok(_) => {}
                Err(e) => s.problems.push(from_error(&e)),
            }
        }
        if s.role == Role::Pcr {
            let path = self.pcr_public_path();
            let want = crate::local::encode_pem("PUBLIC KEY", &info.spki).unwrap_or_default();
            match fs::read_to_string(&path) {
                Ok(text) if text.trim() != want.trim() => s.problems.push(error(
                    format!(
                        "{} is not the public key of {}",
                        path.display(),
                        s.certificate.display()
                    ),
                    format!(
                        "`openssl x509 -pubkey -noout -in {}` shows what belongs there",
                        s.certificate.display()
                    ),
                )),
                Ok(_) => {}
                Err(e) => s.problems.push(from_error(&e.into())),
            }
        }
    }

    fn openpgp_status(&self, s: &mut RoleStatus, key_file: Option<&Path>) {
        match crate::openpgp::read_public(&s.certificate) {
            Ok(info) => {
                if info.fingerprint != s.fingerprint {
                    s.problems.push(changed(&s.certificate));
                }
                s.subject = Some(info.user_id);
            }
            Err(e) => s.problems.push(from_error(&e)),
        }
        match key_file.map(crate::openpgp::read_private) {
            Some(Ok(k)) if k.fingerprint != s.fingerprint => s.problems.push(error(
                format!(
                    "the private key of `{}` is not the one keyset.toml names",
                    s.role
                ),
                "put back the file that belongs there",
            )),
            Some(Err(e)) => s.problems.push(from_error(&e)),
            _ => {}
        }
    }

    /// Whether the signing certificate comes from a CA of the set, by name.
    fn chain_problem(&self) -> Option<Problem> {
        let leaf = CertificateInfo::read(&self.certificate_path(Role::RaucSigning)).ok()?;
        let known = self
            .certificates(Role::RaucCa)
            .iter()
            .filter_map(|c| CertificateInfo::read(&c.path).ok())
            .any(|ca| ca.subject_der == leaf.issuer);
        (!known).then(|| {
            error(
                "the certificate of `rauc-signing` was not issued by `rauc-ca`".into(),
                "nodes would refuse every bundle: pass a certificate issued by that CA",
            )
        })
    }
}

fn changed(path: &Path) -> Problem {
    error(
        format!(
            "{} is not the certificate whose fingerprint keyset.toml names",
            path.display()
        ),
        "put back the file; to change a key, use `lamadist keys rotate`",
    )
}

/// Others' access to a secret.
fn too_open(path: &Path, want: &str) -> Option<Problem> {
    match fs::metadata(path) {
        Ok(m) => {
            let mode = m.permissions().mode() & 0o777;
            (mode & 0o077 != 0).then(|| {
                error(
                    format!("{} can be read by others (mode {mode:o})", path.display()),
                    format!("chmod {want} {}", path.display()),
                )
            })
        }
        // A missing key is told by whoever reads it, but not all are read.
        Err(e) if want == "700" => Some(from_error(&e.into())),
        Err(_) => None,
    }
}
