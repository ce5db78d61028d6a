// SPDX-License-Identifier: Apache-2.0
//! Making the files of a key set.

use crate::cert::{self, CertificateInfo};
use crate::error::{Error, Result};
use crate::file::{Entry, FORMAT, KeySetFile, Kind, Pkcs11Access, write_synced};
use crate::local::{LocalKey, encode_pem};
use crate::pkcs11::Pkcs11Uri;
use crate::release::Source;
use crate::role::{Algorithm, Role};
use crate::set::{KeySet, absolute};
use lama_exec::fs;
use lama_exec::progress::{Progress, Unit};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use uuid::{Uuid, uuid};

/// Namespace of owner GUIDs (UUIDv5); chosen once, at random.
const OWNER_NAMESPACE: Uuid = uuid!("6f0f4c0e-93f5-4b5c-9d57-0f2a7c1c8d31");

/// Makes all files of a set in `dir`, `keyset.toml` last; not the enrolment files.
pub(crate) fn key_set(
    dir: &Path,
    kind: Kind,
    name: &str,
    sources: BTreeMap<Role, Source>,
    pkcs11: Option<Pkcs11Access>,
    progress: &dyn Progress,
) -> Result<KeySet> {
    let generated: Vec<Role> = Role::ALL
        .into_iter()
        .filter(|r| matches!(sources.get(r), None | Some(Source::Generate)))
        .collect();
    let mut keys = generate(&generated, progress)?;
    let mut roles: BTreeMap<Role, Entry> = BTreeMap::new();
    for role in Role::ALL {
        let source = sources.get(&role).unwrap_or(&Source::Generate);
        let ca = roles
            .get(&Role::RaucCa)
            .filter(|_| role == Role::RaucSigning);
        let entry = Install {
            dir,
            kind,
            name,
            role,
            ca,
        }
        .install(source, keys.remove(&role))?;
        roles.insert(role, entry);
    }
    let pk = roles
        .get(&Role::Pk)
        .map(|e| dir.join(&e.certificate))
        .unwrap_or_default();
    let pk = CertificateInfo::read(&pk)?;
    // Whole seconds: EFI_TIME in a variable's time stamp must have none below.
    let now = now();
    let file = KeySetFile {
        format: FORMAT,
        kind,
        name: name.to_owned(),
        created: now,
        changed: now,
        owner_guid: Uuid::new_v5(&OWNER_NAMESPACE, &pk.der),
        pkcs11,
        roles,
    };
    file.write(dir)?;
    Ok(KeySet {
        dir: dir.to_owned(),
        file,
    })
}

/// The time, in whole seconds.
pub(crate) fn now() -> jiff::Timestamp {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Makes keys for roles, several at a time: looking for primes takes its time.
pub(crate) fn generate(
    roles: &[Role],
    progress: &dyn Progress,
) -> Result<BTreeMap<Role, LocalKey>> {
    let roles: Vec<Role> = roles
        .iter()
        .copied()
        .filter(|r| r.algorithm() != Algorithm::Openpgp)
        .collect();
    if roles.is_empty() {
        return Ok(BTreeMap::new());
    }
    let task = progress.task("making keys", Unit::Items, roles.len() as u64);
    std::thread::scope(|s| {
        let running: Vec<_> = roles
            .iter()
            .map(|role| {
                let task = &task;
                (
                    *role,
                    s.spawn(move || {
                        let key = LocalKey::generate(role.algorithm());
                        task.advance(1);
                        key
                    }),
                )
            })
            .collect();
        running
            .into_iter()
            .map(|(role, t)| match t.join() {
                Ok(key) => Ok((role, key?)),
                Err(_) => Err(Error::Crypto {
                    what: "cannot make a key",
                    reason: "the thread that made it broke off".into(),
                }),
            })
            .collect()
    })
}

/// Puts one key into a set.
pub(crate) struct Install<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    pub(crate) role: Role,
    /// For `rauc-signing`: its certification authority.
    pub(crate) ca: Option<&'a Entry>,
}

impl Install<'_> {
    /// Writes the files of a role and returns its entry. `generated` is the key where the source
    /// is [`Source::Generate`] (none for OpenPGP).
    pub(crate) fn install(&self, source: &Source, generated: Option<LocalKey>) -> Result<Entry> {
        if self.role == Role::Openpgp {
            return self.install_openpgp(source);
        }
        match source {
            Source::Generate => {
                let key = match generated {
                    Some(k) => k,
                    None => LocalKey::generate(self.role.algorithm())?,
                };
                let pem = self.issue(&key)?;
                let stem = self.stem(&pem_info(&pem)?.fingerprint);
                let name = format!("{stem}.key");
                write_synced(&self.dir.join(&name), key.to_pem()?.as_bytes(), 0o600)?;
                self.finish(&stem, Some(name), &pem)
            }
            Source::Files {
                private_key,
                certificate,
            } => {
                let private_key = absolute(private_key)?;
                let key = LocalKey::read(&private_key)?;
                let pem = match certificate {
                    Some(path) => {
                        let info = CertificateInfo::read(path)?;
                        if info.spki != key.spki()? {
                            return Err(Error::Mismatch { role: self.role });
                        }
                        encode_pem("CERTIFICATE", &info.der)?
                    }
                    None => self.issue(&key)?,
                };
                let stem = self.stem(&pem_info(&pem)?.fingerprint);
                self.finish(&stem, Some(utf8(&private_key)?), &pem)
            }
            Source::Pkcs11 { uri, certificate } => {
                let info = CertificateInfo::read(certificate)?;
                let pem = encode_pem("CERTIFICATE", &info.der)?;
                self.finish(&self.stem(&info.fingerprint), Some(self.uri(uri)?), &pem)
            }
            Source::Public { certificate } => {
                let info = CertificateInfo::read(certificate)?;
                let pem = encode_pem("CERTIFICATE", &info.der)?;
                self.finish(&self.stem(&info.fingerprint), None, &pem)
            }
        }
    }

    fn uri(&self, uri: &Pkcs11Uri) -> Result<String> {
        if uri.has_pin_value() {
            return Err(Error::PinValue {
                path: self.dir.join(crate::file::FILE_NAME),
                role: self.role,
            });
        }
        Ok(uri.expose().to_owned())
    }

    fn issue(&self, key: &LocalKey) -> Result<String> {
        let Some(ca) = self.ca else {
            return cert::issue(self.kind, self.name, self.role, key, None);
        };
        let pem = fs::read_to_string(self.dir.join(&ca.certificate))?;
        let signer = match &ca.private_key {
            Some(k) if !k.starts_with("pkcs11:") => LocalKey::read(&self.dir.join(k))?,
            _ => {
                return Err(Error::Unsuitable {
                    role: self.role,
                    reason: "its certificate must be issued by the CA, whose private key is not in a file here".into(),
                    hint: "issue a codeSigning certificate with that CA and pass it".into(),
                });
            }
        };
        cert::issue(self.kind, self.name, self.role, key, Some((&pem, &signer)))
    }

    /// The role's name, made unique by the fingerprint where files of an earlier key lie there.
    fn stem(&self, fingerprint: &str) -> String {
        let plain = self.role.name();
        let taken =
            |ext: &str| fs::symlink_metadata(self.dir.join(format!("{plain}.{ext}"))).is_ok();
        if ["crt", "key", "pub", "asc", "key.asc"]
            .into_iter()
            .any(taken)
        {
            format!("{plain}-{}", short(fingerprint))
        } else {
            plain.to_owned()
        }
    }

    fn finish(&self, stem: &str, private_key: Option<String>, pem: &str) -> Result<Entry> {
        let info = pem_info(pem)?;
        suitable(self.role, &info)?;
        if self.kind == Kind::Release && info.development {
            return Err(Error::DevelopmentKeys {
                dir: self.dir.to_owned(),
                role: Some(self.role),
            });
        }
        let certificate = format!("{stem}.crt");
        write_synced(&self.dir.join(&certificate), pem.as_bytes(), 0o644)?;
        let mut entry = Entry {
            algorithm: info.algorithm.clone(),
            private_key,
            certificate,
            public_key: None,
            fingerprint: fingerprint(self.role, &info),
            previous: Vec::new(),
        };
        if self.role == Role::Pcr {
            let name = format!("{stem}.pub");
            write_synced(
                &self.dir.join(&name),
                encode_pem("PUBLIC KEY", &info.spki)?.as_bytes(),
                0o644,
            )?;
            entry.public_key = Some(name);
        }
        Ok(entry)
    }

    fn install_openpgp(&self, source: &Source) -> Result<Entry> {
        let (key, private) = match source {
            Source::Generate => (Some(crate::openpgp::generate(self.kind, self.name)?), None),
            Source::Files { private_key, .. } => {
                let path = absolute(private_key)?;
                (
                    Some(crate::openpgp::read_private(&path)?),
                    Some(utf8(&path)?),
                )
            }
            Source::Public { .. } => (None, None),
            Source::Pkcs11 { .. } => {
                return Err(Error::Unsuitable {
                    role: self.role,
                    reason: "OpenPGP keys can't be used through PKCS#11".into(),
                    hint: "use a key file, or pass the certificate alone and sign with GnuPG"
                        .into(),
                });
            }
        };
        let (public, private) = match (key, source) {
            (Some(k), _) => {
                let stem = self.stem(&k.fingerprint);
                let private = match private {
                    Some(p) => p,
                    None => {
                        let name = format!("{stem}.key.asc");
                        write_synced(&self.dir.join(&name), k.private.as_bytes(), 0o600)?;
                        name
                    }
                };
                (k.public, Some(private))
            }
            (None, Source::Public { certificate }) => (fs::read_to_string(certificate)?, None),
            (None, _) => return Err(Error::NoPrivateKey { role: self.role }),
        };
        let scratch = self.dir.join(".openpgp.asc");
        fs::write(&scratch, &public)?;
        let info = crate::openpgp::read_public(&scratch);
        fs::remove_file(&scratch)?;
        let info = info?;
        if self.kind == Kind::Release && info.user_id.contains("NOT FOR RELEASE") {
            return Err(Error::DevelopmentKeys {
                dir: self.dir.to_owned(),
                role: Some(self.role),
            });
        }
        let stem = match &private {
            Some(p) if p.ends_with(".key.asc") && !p.contains('/') => {
                p.trim_end_matches(".key.asc").to_owned()
            }
            _ => self.stem(&info.fingerprint),
        };
        let certificate = format!("{stem}.asc");
        write_synced(&self.dir.join(&certificate), public.as_bytes(), 0o644)?;
        Ok(Entry {
            algorithm: info.algorithm,
            private_key: private,
            certificate,
            public_key: None,
            fingerprint: info.fingerprint,
            previous: Vec::new(),
        })
    }
}

/// As much of a fingerprint as makes file names differ.
pub(crate) fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}

/// The fingerprint of a role's X.509 certificate; of its SPKI where it has no other use (`pcr`).
pub(crate) fn fingerprint(role: Role, info: &CertificateInfo) -> String {
    match role {
        Role::Pcr => hex::encode(Sha256::digest(&info.spki)),
        _ => info.fingerprint.clone(),
    }
}

/// Whether a certificate can do what its role asks.
pub(crate) fn suitable(role: Role, info: &CertificateInfo) -> Result<()> {
    let fail = |reason: String, hint: &str| {
        Err(Error::Unsuitable {
            role,
            reason,
            hint: hint.to_owned(),
        })
    };
    let a = info.algorithm.as_str();
    match role {
        Role::Pk | Role::Kek | Role::Db if !["rsa-2048", "rsa-3072", "rsa-4096"].contains(&a) => {
            fail(
                format!("firmware does not know `{a}`"),
                "use an RSA key of 2048 bits",
            )
        }
        Role::Pcr if a != "rsa-2048" => fail(
            format!("not every TPM can verify `{a}`"),
            "use an RSA key of 2048 bits",
        ),
        Role::RaucCa if !info.ca => fail(
            "its certificate is not that of a CA".into(),
            "pass a certificate with basicConstraints CA:TRUE",
        ),
        Role::RaucSigning if !info.code_signing => fail(
            "its certificate is not for signing code, which `check-purpose=codesign` asks for"
                .into(),
            "issue it with extendedKeyUsage = codeSigning and keyUsage = critical, digitalSignature",
        ),
        _ => Ok(()),
    }
}

fn pem_info(pem: &str) -> Result<CertificateInfo> {
    CertificateInfo::parse(pem.as_bytes())
        .map_err(crate::error::crypto("cannot read back a certificate"))
}

fn utf8(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::PrivateKey {
            path: path.to_owned(),
            reason: "its path is not UTF-8, so keyset.toml can't name it".into(),
        })
}
