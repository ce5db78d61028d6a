// SPDX-License-Identifier: Apache-2.0
//! The files a firmware enrolls: `enroll/{PK,KEK,db}.{esl,auth,cer}`.

use crate::cert::CertificateInfo;
use crate::efi::{self, Variable};
use crate::error::{Error, Result};
use crate::role::Role;
use crate::set::KeySet;
use lama_exec::{Tools, fs};
use std::path::PathBuf;

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
            let signed = self.sign_variable(variable, variable.signer(), &payload, tools);
            let auth = match signed {
                Ok(data) => {
                    fs::write_atomic(&auth, data)?;
                    Some(auth)
                }
                Err(Error::NoPrivateKey { role } | Error::NeedsTools { role }) => {
                    tracing::info!("no {name}.auth: the key of `{role}` is not at hand");
                    fs::remove_file(&auth)?;
                    None
                }
                Err(e) => return Err(e),
            };
            made.push(Enrolment {
                variable,
                esl,
                auth,
            });
        }
        crate::file::sync_dir(&dir)?;
        Ok(made)
    }

    fn sign_variable(
        &self,
        variable: Variable,
        by: Role,
        payload: &[u8],
        tools: Option<&Tools>,
    ) -> Result<Vec<u8>> {
        let signer = self.signer(by, tools)?;
        let certificate = CertificateInfo::read(&self.certificate_path(by))?;
        efi::authenticated(
            variable,
            self.file.changed,
            payload,
            &certificate,
            signer.as_ref(),
        )
    }

    /// The change from this set's PK to that of `next`, signed by this set's PK: what a machine in
    /// the field accepts.
    pub(crate) fn pk_update(&self, next: &KeySet, tools: Option<&Tools>) -> Result<Vec<u8>> {
        let signer = self.signer(Role::Pk, tools)?;
        let certificate = CertificateInfo::read(&self.certificate_path(Role::Pk))?;
        let payload = next.signature_lists(Variable::Pk)?;
        efi::authenticated(
            Variable::Pk,
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
        None
    }
}
