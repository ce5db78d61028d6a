// SPDX-License-Identifier: Apache-2.0
//! The options that make external tools use a key set.

use crate::error::{Error, Result};
use crate::file::Pkcs11Access;
use crate::pkcs11::Pkcs11Uri;
use crate::role::Role;
use crate::set::{KeySet, PrivateKey};
use lama_exec::Cmd;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What a tool needs to use a key: options, environment variables, and paths it must see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolArgs {
    /// Options, in order.
    pub args: Vec<OsString>,
    /// Environment variables.
    pub env: Vec<(String, OsString)>,
    /// Paths of this machine that must be visible to it, read-only.
    pub binds: Vec<PathBuf>,
    /// Paths that must be visible and writable (token stores, sockets).
    pub binds_rw: Vec<PathBuf>,
}

impl ToolArgs {
    /// Adds all of it to a command.
    pub fn apply(&self, cmd: Cmd) -> Cmd {
        let cmd = self.binds.iter().fold(cmd, Cmd::bind_ro);
        let cmd = self.binds_rw.iter().fold(cmd, Cmd::bind);
        let cmd = self.env.iter().fold(cmd, |c, (k, v)| c.env(k, v));
        cmd.args(&self.args)
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        let mut o = OsString::from(name);
        o.push(value.into());
        self.args.push(o);
    }

    fn pair(&mut self, name: &str, value: impl Into<OsString>) {
        self.args.push(name.into());
        self.args.push(value.into());
    }

    /// What opening a token needs, without options.
    pub(crate) fn for_token(uri: &Pkcs11Uri, access: Option<&Pkcs11Access>) -> Self {
        let mut a = Self {
            binds: uri.pin_file().into_iter().collect(),
            ..Self::default()
        };
        let Some(access) = access else { return a };
        if let Some(m) = &access.module {
            // The first is read by OpenSSL's engine and provider, the others by RAUC.
            a.env.push(("PKCS11_MODULE_PATH".into(), m.into()));
            a.env.push(("PKCS11_PROVIDER_MODULE".into(), m.into()));
            a.env.push(("RAUC_PKCS11_MODULE".into(), m.into()));
        }
        a.env
            .extend(access.env.iter().map(|(k, v)| (k.clone(), v.into())));
        a.binds_rw.clone_from(&access.paths);
        a
    }

    fn for_key(key: &PrivateKey, set: &KeySet) -> Self {
        let mut a = match key {
            PrivateKey::File(path) if path.starts_with(set.dir()) => Self::default(),
            PrivateKey::File(path) => Self {
                binds: vec![path.clone()],
                ..Self::default()
            },
            PrivateKey::Pkcs11(uri) => Self::for_token(uri, set.pkcs11()),
        };
        a.binds.insert(0, set.dir().to_owned());
        a
    }

    fn merge(&mut self, other: Self) {
        for b in other.binds {
            if !self.binds.contains(&b) {
                self.binds.push(b);
            }
        }
        for e in other.env {
            if !self.env.contains(&e) {
                self.env.push(e);
            }
        }
        for b in other.binds_rw {
            if !self.binds_rw.contains(&b) {
                self.binds_rw.push(b);
            }
        }
        self.args.extend(other.args);
    }
}

impl PrivateKey {
    /// The key as tools take it: a path or a URI.
    pub fn argument(&self) -> OsString {
        match self {
            PrivateKey::File(p) => p.clone().into(),
            PrivateKey::Pkcs11(u) => u.expose().into(),
        }
    }
}

/// What ukify (systemd 257) shall do.
impl KeySet {
    /// Options of `ukify build` for a signed UKI: Secure Boot signature of the UKI, and PCR
    /// policies signed by the current and, during a change, the previous `pcr` key (`--pcr-banks`,
    /// `--sign-kernel` and phases are the caller's).
    ///
    /// `--signing-engine` holds for a whole run of ukify, so `db` and `pcr` must be of one kind.
    pub fn ukify_args(&self) -> Result<ToolArgs> {
        let mut a = self.secure_boot_args()?;
        let db = self.private_key(Role::Db)?;
        let pcr = self.private_key(Role::Pcr)?;
        match (&db, &pcr) {
            (PrivateKey::Pkcs11(_), PrivateKey::File(_)) => {
                return Err(Error::MixedSources {
                    pkcs11: Role::Db,
                    file: Role::Pcr,
                });
            }
            (PrivateKey::File(_), PrivateKey::Pkcs11(_)) => {
                return Err(Error::MixedSources {
                    pkcs11: Role::Pcr,
                    file: Role::Db,
                });
            }
            _ => {}
        }
        a.merge(ToolArgs::for_key(&pcr, self));
        for (key, certificate, public) in self.pcr_pairs()? {
            let token = matches!(key, PrivateKey::Pkcs11(_));
            if token != matches!(pcr, PrivateKey::Pkcs11(_)) {
                // A change from file to token: the old key can't sign in the same run.
                tracing::warn!(
                    "the previous pcr key is of another kind than the current one; it does not sign"
                );
                continue;
            }
            a.merge(ToolArgs::for_key(&key, self));
            a.option("--pcr-private-key=", key.argument());
            // With an engine systemd-measure takes the certificate, else the plain public key.
            a.option(
                "--pcr-public-key=",
                if token { certificate } else { public },
            );
        }
        // ukify guesses it only where there is one pair.
        a.option("--pcrpkey=", self.pcr_public_path());
        Ok(a)
    }

    /// Options of `systemd-measure sign` (systemd 257), once for each key that signs the PCR policy:
    /// the current and, during a change, the previous one.
    pub fn measure_args(&self) -> Result<Vec<ToolArgs>> {
        let one = |(key, certificate, public): (PrivateKey, PathBuf, PathBuf)| {
            let mut a = ToolArgs::for_key(&key, self);
            a.option("--private-key=", key.argument());
            // With an engine it takes the certificate, else the plain public key.
            if matches!(key, PrivateKey::Pkcs11(_)) {
                a.args.push("--private-key-source=engine:pkcs11".into());
                a.option("--certificate=", certificate);
            } else {
                a.option("--public-key=", public);
            }
            a
        };
        Ok(self.pcr_pairs()?.into_iter().map(one).collect())
    }

    /// Options of `ukify build` for a PE file that is only signed for Secure Boot (an addon).
    pub fn secure_boot_args(&self) -> Result<ToolArgs> {
        let key = self.private_key(Role::Db)?;
        let mut a = ToolArgs::for_key(&key, self);
        if matches!(key, PrivateKey::Pkcs11(_)) {
            a.args.push("--signing-engine=pkcs11".into());
        }
        a.args.push("--signtool=sbsign".into());
        a.option("--secureboot-private-key=", key.argument());
        a.option("--secureboot-certificate=", self.db_cert_path());
        Ok(a)
    }

    /// Options of `sbsign`.
    pub fn sbsign_args(&self) -> Result<ToolArgs> {
        let key = self.private_key(Role::Db)?;
        let mut a = ToolArgs::for_key(&key, self);
        if matches!(key, PrivateKey::Pkcs11(_)) {
            a.pair("--engine", "pkcs11");
        }
        a.pair("--key", key.argument());
        a.pair("--cert", self.db_cert_path());
        Ok(a)
    }

    /// The configuration file for RAUC on the building machine, which [`KeySet::rauc_sign_args`] and
    /// [`KeySet::rauc_encrypt_args`] name: `keyring` is a file with [`KeySet::rauc_keyring_pem`].
    ///
    /// A file it must be: given as options, RAUC 1.13 checks bundles it makes for the purpose of
    /// signing mail, which a codeSigning certificate is not for.
    pub fn rauc_conf(keyring: &Path) -> String {
        format!(
            "[system]\ncompatible=lamadist\nbootloader=noop\n[keyring]\npath={}\ncheck-purpose=codesign\n",
            keyring.display()
        )
    }

    /// Options of `rauc bundle` and `rauc resign`: who signs, and the configuration that the result
    /// is checked by ([`KeySet::rauc_conf`]).
    pub fn rauc_sign_args(&self, conf: &Path) -> Result<ToolArgs> {
        let key = self.private_key(Role::RaucSigning)?;
        let mut a = ToolArgs::for_key(&key, self);
        a.option("--conf=", conf);
        a.option("--key=", key.argument());
        a.option("--cert=", self.certificate_path(Role::RaucSigning));
        for path in self.rauc_intermediates() {
            a.option("--intermediate=", path);
        }
        Ok(a)
    }

    /// Options of `rauc encrypt`: the recipients, current and previous.
    pub fn rauc_encrypt_args(&self, conf: &Path) -> ToolArgs {
        let mut a = ToolArgs {
            binds: vec![self.dir().to_owned()],
            ..ToolArgs::default()
        };
        a.option("--conf=", conf);
        for c in self.certificates(Role::RaucEncryption) {
            a.option("--to=", c.path);
        }
        a
    }

    /// Options of `openssl cms -decrypt`, one set for each key that bundles are decrypted with: the
    /// current one and, during a change, the previous one.
    pub fn cms_decrypt_args(&self) -> Result<Vec<ToolArgs>> {
        let one = |(key, certificate): (PrivateKey, PathBuf)| {
            let mut a = ToolArgs::for_key(&key, self);
            if matches!(key, PrivateKey::Pkcs11(_)) {
                a.args
                    .extend(["-engine", "pkcs11", "-keyform", "engine"].map(OsString::from));
            }
            a.pair("-inkey", key.argument());
            a.pair("-recip", certificate);
            a
        };
        Ok(self.decryption_keys()?.into_iter().map(one).collect())
    }

    /// Configuration files for RAUC as [`KeySet::rauc_conf`], that also decrypt: one for each key, with
    /// what a program needs to use it.
    pub fn rauc_decrypt_confs(&self, keyring: &Path) -> Result<Vec<(String, ToolArgs)>> {
        let one = |(key, certificate): (PrivateKey, PathBuf)| {
            let conf = format!(
                "{}[encryption]\nkey={}\ncert={}\n",
                Self::rauc_conf(keyring),
                key.argument().to_string_lossy(),
                certificate.display()
            );
            (conf, ToolArgs::for_key(&key, self))
        };
        Ok(self.decryption_keys()?.into_iter().map(one).collect())
    }
}
