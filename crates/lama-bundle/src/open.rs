// SPDX-License-Identifier: Apache-2.0
//! A bundle's parts.
//!
//! A bundle is its payload, of the formats `verity` and `crypt` with a hash tree behind it, then a CMS
//! structure, then the length of that in 8 bytes, big-endian (RAUC 1.13, "Bundle Formats").

use crate::cms::{Certificate, Cms, Recipient, Signed};
use crate::error::format;
use crate::manifest::{Listed, META, Manifest};
use crate::{Error, Result};
use lama_exec::fs::{self, AtPath};
use lama_exec::{Tools, fs::Scratch};
use lama_keys::KeySet;
use lama_node::delta::MOST_CMS;
use lama_node::delta::sink::Crypt;
use serde::Serialize;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// With what a bundle is opened.
#[derive(Clone, Copy)]
pub struct With<'a> {
    /// Where OpenSSL comes from.
    pub tools: &'a Tools,
    /// The key set whose encryption key is tried.
    pub keys: Option<&'a KeySet>,
    /// A folder for short-lived files.
    pub scratch: &'a Path,
}

/// An opened bundle.
pub struct Bundle {
    /// Its file.
    pub path: PathBuf,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes before the CMS structure: payload and hash tree.
    pub content: u64,
    /// The CMS structure, as it lies in the file.
    pub cms: Vec<u8>,
    /// To whom it is encrypted; empty where it is not.
    pub recipients: Vec<Recipient>,
    /// The signed structure; none where no key here opens it.
    pub signed: Option<Signed>,
    /// The manifest in it, and its text.
    pub manifest: Option<(Manifest, String)>,
}

/// What people and programs are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// The file.
    pub file: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// `crypt`, `verity`, `plain`, or none where it cannot be told.
    pub format: Option<String>,
    /// To whom it is encrypted.
    pub recipients: Vec<Recipient>,
    /// Whether what follows could be read.
    pub opened: bool,
    /// RAUC's `compatible`.
    pub compatible: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The machine.
    pub bsp: Option<String>,
    /// The image.
    pub image: Option<String>,
    /// The root hash.
    pub root_hash: Option<String>,
    /// The oldest version that the system in it installs.
    pub min_version: Option<String>,
    /// The version since which earlier ones cannot read the data any more.
    pub migration_since: Option<String>,
    /// What becomes of the data.
    pub migration_note: Option<String>,
    /// Whether development keys signed it.
    pub development: bool,
    /// The images.
    pub images: Vec<Listed>,
    /// Who signed.
    pub signers: Vec<Certificate>,
    /// Certificates that come along, the signers' among them.
    pub certificates: Vec<Certificate>,
    /// Bytes of the payload.
    pub payload: Option<u64>,
    /// Bytes of its hash tree.
    pub hash_tree: Option<u64>,
}

impl Bundle {
    /// Opens a bundle, and its manifest where a key of ours does.
    ///
    /// # Errors
    /// It is no bundle, or cut off.
    pub fn open(path: &Path, with: With<'_>) -> Result<Self> {
        let hint = "it is no RAUC bundle, or was not copied whole: compare its size and SHA-256";
        let bad = |reason: String| format(path, reason, hint);
        let file = fs::open(path)?;
        let size = file.metadata().at("look at", path)?.len();
        let Some(end) = size.checked_sub(8) else {
            return Err(bad("too short for a bundle".to_owned()));
        };
        let mut len = [0; 8];
        file.read_exact_at(&mut len, end).at("read", path)?;
        let len = u64::from_be_bytes(len);
        let content = end
            .checked_sub(len)
            .filter(|_| len > 0 && len <= MOST_CMS as u64);
        let Some(content) = content else {
            return Err(bad(format!(
                "its end says that its signature has {len} bytes"
            )));
        };
        let mut cms = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut cms, content).at("read", path)?;
        let parsed = Cms::parse(&cms);
        let mut bundle = Self {
            path: path.to_owned(),
            size,
            content,
            recipients: Vec::new(),
            signed: None,
            manifest: None,
            cms,
        };
        match parsed {
            None => return Err(bad("its signature is no CMS structure".to_owned())),
            Some(Cms::Signed(s)) => bundle.signed = Some(s),
            Some(Cms::Enveloped(to)) => {
                bundle.recipients = to;
                if let Some(der) = bundle.decrypt(with)? {
                    bundle.signed = match Cms::parse(&der) {
                        Some(Cms::Signed(s)) => Some(s),
                        _ => return Err(bad("what is encrypted in it is no signature".to_owned())),
                    };
                }
            }
        }
        let text = bundle.signed.as_ref().and_then(|s| s.content.clone());
        if let Some(text) = text.and_then(|t| String::from_utf8(t).ok()) {
            bundle.manifest = Some((Manifest::parse(&text), text));
        }
        Ok(bundle)
    }

    /// The signed structure, where one of our keys is a recipient.
    fn decrypt(&self, with: With<'_>) -> Result<Option<Vec<u8>>> {
        let Some(keys) = with.keys else {
            return Ok(None);
        };
        let dir = Scratch::new_in(with.scratch)?;
        let sealed = dir.path().join("sealed");
        fs::write(&sealed, &self.cms)?;
        for args in keys.cms_decrypt_args()? {
            let cmd = with.tools.command("openssl");
            let cmd = cmd.args(["cms", "-decrypt", "-binary", "-inform", "DER", "-in"]);
            let cmd = args.apply(cmd.arg(&sealed)).bind_ro(dir.path());
            let (status, out) = cmd.run_any()?;
            if status.success() {
                return Ok(Some(out.stdout));
            }
            tracing::debug!("openssl: {}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(None)
    }

    /// The manifest.
    ///
    /// # Errors
    /// No key here opens it, or it has none (the format `plain`).
    pub fn manifest(&self) -> Result<&Manifest> {
        match (&self.manifest, &self.signed) {
            (Some((m, _)), _) => Ok(m),
            (None, None) => Err(Error::NoKey {
                path: self.path.clone(),
                recipients: self
                    .recipients
                    .iter()
                    .map(|r| format!("{} {}", r.issuer, r.serial))
                    .collect(),
            }),
            (None, Some(_)) => Err(Error::Refused {
                path: self.path.clone(),
                reason: "it is of the format plain".to_owned(),
                hint: "make it as a crypt bundle: `lamadist bundle` does".to_owned(),
            }),
        }
    }

    /// How its payload is encrypted and verified.
    ///
    /// # Errors
    /// As [`Bundle::manifest`], or it is of another format.
    pub fn crypt(&self) -> Result<Crypt> {
        self.manifest()?;
        let text = self.manifest.as_ref().map_or("", |m| m.1.as_str());
        Crypt::parse(text).map_err(|source| Error::Delta {
            path: self.path.clone(),
            source,
        })
    }

    /// The opened file.
    pub(crate) fn file(&self) -> Result<File> {
        Ok(fs::open(&self.path)?)
    }

    /// Everything, for people and programs.
    pub fn summary(&self) -> Summary {
        let m = self.manifest.as_ref().map(|m| &m.0);
        let get = |section, key| Some(m?.get(section, key)?.to_owned());
        let format = match (&self.signed, m) {
            (Some(_), None) => Some("plain".to_owned()),
            _ => get("bundle", "format"),
        };
        let signed = self.signed.as_ref();
        let certificates = signed.map_or(&[][..], |s| &s.certificates);
        let tree = get("bundle", "verity-size").and_then(|v| v.parse::<u64>().ok());
        Summary {
            file: self.path.clone(),
            size: self.size,
            opened: signed.is_some(),
            recipients: self.recipients.clone(),
            compatible: get("update", "compatible"),
            version: get("update", "version"),
            bsp: get(META, "bsp"),
            image: get(META, "image"),
            root_hash: get(META, "root-hash"),
            min_version: get(META, "min-version"),
            migration_since: get(META, "migration-since"),
            migration_note: get(META, "migration-note"),
            development: get(META, "development").as_deref() == Some("yes"),
            images: m.map(Manifest::images).unwrap_or_default(),
            signers: signed.map_or_else(Vec::new, |s| s.signed_by().cloned().collect()),
            certificates: certificates.to_vec(),
            payload: Some(self.content.saturating_sub(tree.unwrap_or(0))),
            hash_tree: tree,
            format,
        }
    }
}
