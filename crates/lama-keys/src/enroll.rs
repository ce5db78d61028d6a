// SPDX-License-Identifier: Apache-2.0
//! The files a firmware enrolls: `enroll/{PK,KEK,db}.{esl,auth,cer}`, and `enroll/db-append.auth`, by
//! which a machine in use takes the certificates of `db` beside those that it has.

use crate::cert::CertificateInfo;
use crate::efi::{self, Change, Variable};
use crate::error::{Error, Result};
use crate::role::Role;
use crate::set::KeySet;
use lama_exec::{Tools, fs};
use std::path::{Path, PathBuf};

/// What adds to `db`, signed.
pub const DB_APPEND: &str = "db-append.auth";
/// What replaces `db`, signed.
pub const DB_REPLACE: &str = "db.auth";

/// The files of one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Which variable.
    pub variable: Variable,
    /// Its content: `EFI_SIGNATURE_LIST`s.
    pub esl: PathBuf,
    /// The signed content; none where the key that must sign it isn't at hand.
    pub auth: Option<PathBuf>,
}

impl KeySet {
    /// What a variable shall hold: the current certificate, and for KEK and db the previous ones
    /// too. (PK can hold only one.)
    pub fn signature_lists(&self, variable: Variable) -> Result<Vec<u8>> {
        let mut ders = Vec::new();
        for c in self.certificates(variable.role()) {
            if variable != Variable::Pk || !c.previous {
                ders.push(CertificateInfo::read(&c.path)?.der);
            }
        }
        Ok(efi::signature_lists(
            self.owner_guid(),
            ders.iter().map(Vec::as_slice),
        ))
    }

    /// Writes the enrolment files anew. Where a signing key is not in this set, or is in a token and
    /// no tools are given, the `.auth` file is left out (an outdated one is removed).
    pub fn write_enrolment(&self, tools: Option<&Tools>) -> Result<Vec<Enrolment>> {
        let dir = self.enroll_dir();
        let mut made = Vec::new();
        for variable in Variable::ALL {
            let name = variable.name();
            let payload = self.signature_lists(variable)?;
            let esl = dir.join(format!("{name}.esl"));
            fs::write_atomic(&esl, &payload)?;
            let own = CertificateInfo::read(&self.certificate_path(variable.role()))?;
            fs::write_atomic(dir.join(format!("{name}.cer")), &own.der)?;
            let auth = dir.join(format!("{name}.auth"));
            let auth = self.write_signed(&auth, variable, Change::Replace, &payload, tools)?;
            if variable == Variable::Db {
                let file = dir.join(DB_APPEND);
                self.write_signed(&file, variable, Change::Append, &payload, tools)?;
            }
            made.push(Enrolment {
                variable,
                esl,
                auth,
            });
        }
        crate::file::sync_dir(&dir)?;
        Ok(made)
    }

    /// Writes the signed change of a variable; where the key that must sign it is not at hand, none.
    fn write_signed(
        &self,
        file: &Path,
        variable: Variable,
        change: Change,
        payload: &[u8],
        tools: Option<&Tools>,
    ) -> Result<Option<PathBuf>> {
        let sign = || {
            let by = variable.signer();
            let signer = self.signer(by, tools)?;
            let certificate = CertificateInfo::read(&self.certificate_path(by))?;
            let time = self.file.changed;
            efi::authenticated(variable, change, time, payload, &certificate, &*signer)
        };
        match sign() {
            Ok(data) => {
                fs::write_atomic(file, data)?;
                Ok(Some(file.to_owned()))
            }
            Err(Error::NoPrivateKey { role } | Error::NeedsTools { role }) => {
                tracing::info!("no {}: the key of `{role}` is not at hand", file.display());
                fs::remove_file(file)?;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Signed changes of `db` for machines in use, where they are at hand and of the current keys: what
    /// adds the certificates that are honoured, and what puts them in place of all others.
    pub fn db_changes(&self) -> Result<Option<[Vec<u8>; 2]>> {
        let want = self.signature_lists(Variable::Db)?;
        let file = |name| fs::read_optional(self.enroll_dir().join(name));
        let both = file(DB_APPEND)?.zip(file(DB_REPLACE)?);
        Ok(both
            .filter(|(a, r)| a.ends_with(&want) && r.ends_with(&want))
            .map(<[Vec<u8>; 2]>::from))
    }

    /// The change from this set's PK to that of `next`, signed by this set's PK: what a machine in
    /// the field accepts.
    pub(crate) fn pk_update(&self, next: &KeySet, tools: Option<&Tools>) -> Result<Vec<u8>> {
        let signer = self.signer(Role::Pk, tools)?;
        let certificate = CertificateInfo::read(&self.certificate_path(Role::Pk))?;
        let payload = next.signature_lists(Variable::Pk)?;
        efi::authenticated(
            Variable::Pk,
            Change::Replace,
            next.file.changed,
            &payload,
            &certificate,
            signer.as_ref(),
        )
    }

    /// What is wrong with the enrolment files, if anything.
    pub(crate) fn enrolment_problem(&self) -> Option<String> {
        for variable in Variable::ALL {
            let Ok(want) = self.signature_lists(variable) else {
                return None;
            };
            let file = |ext: &str| {
                fs::read_optional(self.enroll_dir().join(format!("{}.{ext}", variable.name())))
                    .ok()
                    .flatten()
            };
            match file("esl") {
                None => return Some(format!("enroll/{}.esl is missing", variable.name())),
                Some(esl) if esl != want => {
                    return Some(format!(
                        "enroll/{}.esl is not of the current keys",
                        variable.name()
                    ));
                }
                Some(_) => {}
            }
            match file("auth") {
                None if self.private_key(variable.signer()).is_ok() => {
                    return Some(format!("enroll/{}.auth is missing", variable.name()));
                }
                Some(auth) if !auth.ends_with(&want) => {
                    return Some(format!(
                        "enroll/{}.auth is not of the current keys",
                        variable.name()
                    ));
                }
                _ => {}
            }
        }
        let missing = matches!(self.db_changes(), Ok(None));
        (missing && self.private_key(Role::Kek).is_ok())
            .then(|| format!("enroll/{DB_APPEND} is missing or not of the current keys"))
    }
}
