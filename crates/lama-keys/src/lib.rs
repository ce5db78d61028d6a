// SPDX-License-Identifier: Apache-2.0
//! Key sets: every key that LamaDist signs or encrypts with, in one directory.
//!
//! A *key set* is a directory with a `keyset.toml` and the files it names. It is of one of two
//! [`Kind`]s: a *development* set is made on first use and marks everything it signs with
//! "NOT FOR RELEASE"; a *release* set is made on purpose, its private keys lying in files or behind
//! PKCS#11 URIs (RFC 7512).
//!
//! | [`Role`] | Key | What it does |
//! |---|---|---|
//! | `pk`, `kek`, `db` | RSA-2048, self-signed certificate | UEFI Secure Boot; `db` signs UKIs and addons |
//! | `pcr` | RSA-2048, SPKI and certificate | signed PCR 11 policies (systemd-measure) |
//! | `rauc-ca` | EC P-256, CA certificate | what nodes trust update bundles by |
//! | `rauc-signing` | EC P-256, codeSigning leaf under `rauc-ca` | signs bundles |
//! | `rauc-encryption` | EC P-256, recipient certificate | bundles are encrypted to it |
//! | `openpgp` | Ed25519, OpenPGP v4 | signs packages and feeds |
//!
//! [`KeySet::open`] loads and checks a set; [`KeySet::load`] only loads it, so that
//! [`KeySet::status`] can tell what is wrong with it. The material a firmware enrolls lies in
//! `enroll/` of the set (see [`efi`]).

mod args;
mod cert;
pub mod cms;
mod create;
pub mod der;
mod detached;
pub mod efi;
mod enroll;
mod error;
mod file;
mod generate;
mod local;
mod openpgp;
mod pkcs11;
mod release;
mod role;
mod rotate;
mod set;
mod signer;
mod status;

pub use args::ToolArgs;
pub use cert::{CertificateInfo, is_development_certificate};
pub use detached::{OpenpgpCertificates, OpenpgpSigner, Signed, Unsigned};
pub use enroll::Enrolment;
pub use error::{Error, Result};
pub use file::{Kind, Pkcs11Access};
pub use pkcs11::{PinValue, Pkcs11Uri};
pub use release::{ReleaseOptions, Source};
pub use role::Role;
pub use set::{Certificate, KeySet, PrivateKey};
pub use signer::Signer;
pub use status::{PrivateLocation, Problem, RoleStatus, Severity, Status};
