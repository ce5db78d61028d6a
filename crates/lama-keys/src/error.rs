// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with keys.

use crate::role::Role;
use std::path::PathBuf;

/// An error about keys.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] lama_exec::fs::FsError),
    /// An external program failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tool(#[from] lama_exec::ToolError),
    /// `keyset.toml` can't be understood.
    #[error("{}:{line}: {message}", path.display())]
    #[diagnostic(help(
        "mend the line, or restore the file from a copy; a development set can be removed and is made anew"
    ))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// `keyset.toml` is of another format.
    #[error("{}: format {found} of a key set is not known here (this version reads format {})", path.display(), crate::file::FORMAT)]
    #[diagnostic(help("use the version of lamadist that made the key set, or a newer one"))]
    Format {
        /// The file.
        path: PathBuf,
        /// The format it says it has.
        found: i64,
    },
    /// `keyset.toml` says something that can't be.
    #[error("{}: {what}", path.display())]
    #[diagnostic(help("{hint}"))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// How to mend it.
        hint: String,
    },
    /// There is no key set.
    #[error("{} holds no key set (no keyset.toml)", dir.display())]
    #[diagnostic(help(
        "`lamadist keys init --release` makes a release set; a development set is made on first use in a directory that is empty or missing"
    ))]
    NotAKeySet {
        /// The directory.
        dir: PathBuf,
    },
    /// A new set would overwrite something.
    #[error("{} already exists and is not empty", dir.display())]
    #[diagnostic(help(
        "keys are never overwritten: choose another directory, or move this one away"
    ))]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// A PKCS#11 URI is malformed.
    #[error("`{uri}` is no usable PKCS#11 URI: {reason}")]
    #[diagnostic(help(
        "RFC 7512; for example pkcs11:token=release;object=db;type=private?pin-source=file:/run/secrets/pin"
    ))]
    Pkcs11Uri {
        /// The URI, its PIN masked.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A PIN stands in a file.
    #[error("{}: the PKCS#11 URI of `{role}` holds a PIN (pin-value)", path.display())]
    #[diagnostic(help(
        "a key set can be committed and copied, so it must hold no secret: use pin-source=file:/… with a file that only you can read"
    ))]
    PinValue {
        /// The file.
        path: PathBuf,
        /// The role.
        role: Role,
    },
    /// A certificate can't be used.
    #[error("certificate {}: {reason}", path.display())]
    #[diagnostic(help("{}", CERTIFICATE_HELP))]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A private key can't be used.
    #[error("private key {}: {reason}", path.display())]
    #[diagnostic(help(
        "keys are read as unencrypted PKCS#8 PEM; `openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW` converts others. To protect a key, use PKCS#11 or an encrypted disk"
    ))]
    PrivateKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Key and certificate don't belong together.
    #[error("the certificate of `{role}` does not belong to its private key")]
    #[diagnostic(help("pass the certificate that was issued for this very key"))]
    Mismatch {
        /// The role.
        role: Role,
    },
    /// The private part isn't here.
    #[error("the private key of `{role}` is not in this key set")]
    #[diagnostic(help(
        "it is kept elsewhere: name its file or PKCS#11 URI as `private-key` in keyset.toml for as long as it is needed"
    ))]
    NoPrivateKey {
        /// The role.
        role: Role,
    },
    /// A key in a token, and no program to reach it.
    #[error(
        "the private key of `{role}` is in a PKCS#11 token, which is reached through external tools"
    )]
    #[diagnostic(help("run this where the tools tree is at hand"))]
    NeedsTools {
        /// The role.
        role: Role,
    },
    /// One of two keys is in a token and the other in a file.
    #[error(
        "`{pkcs11}` is in a PKCS#11 token and `{file}` in a file; one run of ukify can't use both"
    )]
    #[diagnostic(help("put both into the token, or both into files"))]
    MixedSources {
        /// The role in the token.
        pkcs11: Role,
        /// The role in a file.
        file: Role,
    },
    /// The set is defective.
    #[error("the key set {} can't be used:\n{}", dir.display(), problems.join("\n"))]
    #[diagnostic(help("`lamadist keys status` shows the whole set"))]
    Defective {
        /// The key set.
        dir: PathBuf,
        /// One line a problem.
        problems: Vec<String>,
    },
    /// Development keys where release keys are needed.
    #[error("{} holds development keys{}, which must not sign a release", dir.display(), match role { Some(r) => format!(" (`{r}`)"), None => String::new() })]
    #[diagnostic(help("make a release set with `lamadist keys init --release --name NAME`"))]
    DevelopmentKeys {
        /// The key set.
        dir: PathBuf,
        /// The role whose certificate gives it away, in a set that says it is a release one.
        role: Option<Role>,
    },
    /// A cryptographic operation failed.
    #[error("{what}: {reason}")]
    #[diagnostic(help("this should not happen; `lamadist keys status` may show why"))]
    Crypto {
        /// What was attempted.
        what: &'static str,
        /// The library's answer.
        reason: String,
    },
    /// A key that can't do what its role asks.
    #[error("`{role}` can't use this key: {reason}")]
    #[diagnostic(help("{hint}"))]
    Unsuitable {
        /// The role.
        role: Role,
        /// Why.
        reason: String,
        /// What would do.
        hint: String,
    },
}

const CERTIFICATE_HELP: &str = "an X.509 certificate in PEM or DER form is needed; `openssl x509 -noout -text -in FILE` shows what it is";

/// Result of an operation on keys.
pub type Result<T> = std::result::Result<T, Error>;

/// Turns a library's error into [`Error::Crypto`].
pub(crate) fn crypto<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |e| Error::Crypto {
        what,
        reason: e.to_string(),
    }
}
