// SPDX-License-Identifier: Apache-2.0
//! X.509 certificates: issuing ours, reading anybody's.

use crate::error::{Error, Result, crypto};
use crate::file::Kind;
use crate::local::LocalKey;
use crate::role::Role;
use crate::signer::Signer;
use lama_exec::fs;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, PublicKeyData,
    SerialNumber, SignatureAlgorithm, SigningKey, SubjectPublicKeyInfo, date_time_ymd,
};
use sha2::{Digest, Sha256};
use std::path::Path;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

/// Netscape comment, an extension every viewer shows in plain text.
const COMMENT_OID: [u64; 7] = [2, 16, 840, 1, 113_730, 1, 13];
const COMMENT_OID_TEXT: &str = "2.16.840.1.113730.1.13";
const COMMENT: &str = "LamaDist development key: NOT FOR RELEASE";

/// The subject of a certificate of a key set.
pub(crate) fn subject(kind: Kind, set: &str, role: Role) -> String {
    match kind {
        Kind::Development => format!("LamaDist development {} — NOT FOR RELEASE", role.title()),
        Kind::Release => format!("{set} {}", role.title()),
    }
}

/// Issues the certificate of a role, signed by `issuer` (a certificate in PEM and its key) or by
/// itself. Returns PEM.
///
/// It is valid from 2025 to 2045 whenever it was made: firmware doesn't look at the dates, and a
/// node whose clock has not been set yet must still accept an update.
pub(crate) fn issue(
    kind: Kind,
    set: &str,
    role: Role,
    key: &LocalKey,
    issuer: Option<(&str, &LocalKey)>,
) -> Result<String> {
    let what = "cannot issue a certificate";
    let mut p = params(&[&key.subject_public_key_info()]);
    p.distinguished_name
        .push(DnType::CommonName, subject(kind, set, role));
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    match role {
        Role::RaucCa => of_ca(&mut p),
        Role::RaucSigning => p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
        Role::RaucEncryption => {
            p.key_usages = vec![match key {
                LocalKey::Rsa(..) => KeyUsagePurpose::KeyEncipherment,
                LocalKey::Ec(_) => KeyUsagePurpose::KeyAgreement,
            }];
        }
        _ => {}
    }
    if kind == Kind::Development {
        mark(&mut p);
    }
    let cert = match issuer {
        None => p.self_signed(key).map_err(crypto(what))?,
        Some((pem, signer)) => {
            p.use_authority_key_identifier_extension = true;
            let issuer = Issuer::from_ca_cert_pem(pem, signer).map_err(crypto(what))?;
            p.signed_by(key, &issuer).map_err(crypto(what))?
        }
    };
    crate::local::encode_pem("CERTIFICATE", cert.der())
}

/// What all certificates have in common. The serial number follows from `keys`: positive, never zero,
/// always 16 bytes long.
fn params(keys: &[&[u8]]) -> CertificateParams {
    let mut p = CertificateParams::default();
    p.not_before = date_time_ymd(2025, 1, 1);
    p.not_after = date_time_ymd(2045, 1, 1);
    p.distinguished_name = DistinguishedName::new();
    let mut serial = Sha256::digest(keys.concat())[..16].to_vec();
    serial[0] = serial[0] & 0x7f | 0x40;
    p.serial_number = Some(SerialNumber::from(serial));
    p.is_ca = IsCa::ExplicitNoCa;
    p
}

fn of_ca(p: &mut CertificateParams) {
    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

/// Marks a certificate as a development key's.
fn mark(p: &mut CertificateParams) {
    let mut ia5 = vec![0x16, COMMENT.len() as u8];
    ia5.extend_from_slice(COMMENT.as_bytes());
    p.custom_extensions = vec![CustomExtension::from_oid_content(&COMMENT_OID, ia5)];
}

/// The certificate of a new CA's key by the old CA, PEM: what RFC 4210, section 4.4.1, calls
/// "newWithOld". Who trusts the old one alone gets by it to what the new one issued.
///
/// # Errors
/// The old one's key is of a kind that nothing here signs with, or the new one's subject can't be
/// written as it is.
pub(crate) fn cross(
    new: &CertificateInfo,
    old: &CertificateInfo,
    signer: &dyn Signer,
) -> Result<String> {
    let what = "cannot certify the new CA by the old one";
    let fail = |reason: &str| Error::Unsuitable {
        role: Role::RaucCa,
        reason: reason.to_owned(),
        hint: "issue a certificate of the new CA's key with the old CA and pass it: --cross FILE"
            .to_owned(),
    };
    let algorithm: &SignatureAlgorithm = match old.algorithm.as_str() {
        "ec-p256" => &rcgen::PKCS_ECDSA_P256_SHA256,
        a if a.starts_with("rsa-") => &rcgen::PKCS_RSA_SHA256,
        _ => {
            return Err(fail(
                "nothing here signs with the previous CA's kind of key",
            ));
        }
    };
    let (_, x) = X509Certificate::from_der(&new.der).map_err(crypto(what))?;
    let mut p = params(&[&new.spki, &old.spki]);
    of_ca(&mut p);
    for a in x.subject().iter_attributes() {
        let oid: Vec<u64> = a.attr_type().iter().into_iter().flatten().collect();
        let text = a.as_str().map_err(crypto(what))?;
        p.distinguished_name.push(DnType::from_oid(&oid), text);
    }
    // What it has issued names its key so.
    let id = x
        .extensions()
        .iter()
        .find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
    if let Some(id) = id {
        p.key_identifier_method = KeyIdMethod::PreSpecified(id);
    }
    if new.development {
        mark(&mut p);
    }
    p.use_authority_key_identifier_extension = true;
    let by = Authority {
        public: SubjectPublicKeyInfo::from_der(&old.spki).map_err(crypto(what))?,
        algorithm,
        signer,
    };
    let issuer = Issuer::from_ca_cert_der(&old.der.as_slice().into(), by).map_err(crypto(what))?;
    let key = SubjectPublicKeyInfo::from_der(&new.spki).map_err(crypto(what))?;
    let cert = p.signed_by(&key, &issuer).map_err(crypto(what))?;
    let made = CertificateInfo::parse(cert.der()).map_err(crypto(what))?;
    if (&made.subject, &made.issuer) != (&new.subject, &old.subject_der) {
        return Err(fail(
            "the new CA's or the previous one's name can't be repeated here",
        ));
    }
    crate::local::encode_pem("CERTIFICATE", cert.der())
}

/// An issuer's key, wherever it is.
struct Authority<'a> {
    public: SubjectPublicKeyInfo,
    algorithm: &'static SignatureAlgorithm,
    signer: &'a dyn Signer,
}

impl PublicKeyData for Authority<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for Authority<'_> {
    fn sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, rcgen::Error> {
        self.signer
            .sign(message)
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// What there is to know about a certificate.
#[derive(Debug, Clone)]
pub struct CertificateInfo {
    /// The whole certificate, DER.
    pub der: Vec<u8>,
    /// The SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// The issuer's name, DER.
    pub issuer: Vec<u8>,
    /// The subject's name, DER.
    pub subject_der: Vec<u8>,
    /// The serial number, big endian, as the content of its DER INTEGER.
    pub serial: Vec<u8>,
    /// The subject, as text.
    pub subject: String,
    /// Seconds since 1970 until which it is valid.
    pub not_after: i64,
    /// SHA-256 of the whole certificate, in hexadecimal.
    pub fingerprint: String,
    /// Such as `rsa-2048`.
    pub algorithm: String,
    /// Whether it carries the mark of a development key.
    pub development: bool,
    /// Whether it may issue certificates.
    pub ca: bool,
    /// Whether its extended key usage says codeSigning.
    pub code_signing: bool,
}

impl CertificateInfo {
    /// Reads a certificate file, PEM (the first CERTIFICATE of it) or DER.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&fs::read(path)?).map_err(|reason| Error::Certificate {
            path: path.to_owned(),
            reason,
        })
    }

    /// Parses a certificate, PEM or DER; the error says in words what is wrong with it.
    pub fn parse(data: &[u8]) -> std::result::Result<Self, String> {
        let der = if data.first() == Some(&0x30) {
            data.to_vec()
        } else {
            x509_parser::pem::Pem::iter_from_buffer(data)
                .filter_map(std::result::Result::ok)
                .find(|p| p.label == "CERTIFICATE")
                .ok_or("it holds no certificate, in PEM or DER form")?
                .contents
        };
        let (rest, x) =
            X509Certificate::from_der(&der).map_err(|e| format!("it can't be parsed: {e}"))?;
        if !rest.is_empty() {
            return Err("bytes follow after its end".into());
        }
        let key = x.public_key();
        let algorithm = match key.parsed() {
            Ok(x509_parser::public_key::PublicKey::RSA(k)) => format!("rsa-{}", k.key_size()),
            Ok(x509_parser::public_key::PublicKey::EC(k)) => format!("ec-p{}", k.key_size()),
            _ => key.algorithm.algorithm.to_id_string(),
        };
        let eku = x.extended_key_usage().map_err(|e| e.to_string())?;
        Ok(Self {
            spki: key.raw.to_vec(),
            issuer: x.issuer().as_raw().to_vec(),
            subject_der: x.subject().as_raw().to_vec(),
            serial: x.raw_serial().to_vec(),
            subject: x.subject().to_string(),
            not_after: x.validity().not_after.timestamp(),
            fingerprint: hex::encode(Sha256::digest(&der)),
            algorithm,
            development: marked(&x),
            ca: x.is_ca(),
            code_signing: eku.is_some_and(|e| e.value.code_signing),
            der: der.clone(),
        })
    }
}

fn marked(x: &X509Certificate<'_>) -> bool {
    x.extensions().iter().any(|e| {
        e.oid.to_id_string() == COMMENT_OID_TEXT
            && e.value.get(2..).is_some_and(|v| v == COMMENT.as_bytes())
    })
}

/// Whether a certificate (PEM or DER) carries the mark of a LamaDist development key. What is no
/// certificate carries none.
pub fn is_development_certificate(data: &[u8]) -> bool {
    CertificateInfo::parse(data).is_ok_and(|c| c.development)
}
