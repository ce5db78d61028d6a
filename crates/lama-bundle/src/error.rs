// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with bundles.

use lama_exec::ToolError;
use lama_exec::fs::FsError;
use std::path::{Path, PathBuf};

/// Why a bundle cannot be made, opened or trusted.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// An external tool failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tool(#[from] ToolError),
    /// A key could not be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Keys(#[from] lama_keys::Error),
    /// A file is not what it is taken for.
    #[error("{}: {reason}", path.display())]
    #[diagnostic(help("{hint}"))]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// A bundle must not be installed.
    #[error("{} is refused: {reason}", path.display())]
    #[diagnostic(help("{hint}"))]
    Refused {
        /// The bundle.
        path: PathBuf,
        /// Why.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// It is encrypted, and to nobody here.
    #[error("{} is encrypted to others: {}", path.display(), recipients.join(", "))]
    #[diagnostic(help(
        "what is in it can only be told with the private key of one of them; the key set it was made with has one (--keys)"
    ))]
    NoKey {
        /// The bundle.
        path: PathBuf,
        /// To whom.
        recipients: Vec<String>,
    },
    /// Making or following a delta bundle failed.
    #[error("{}: {source}", path.display())]
    #[diagnostic(help("{}", source.help().unwrap_or("make the delta bundle anew, from the version that is to be updated")))]
    Delta {
        /// The file.
        path: PathBuf,
        /// Why.
        source: lama_node::Error,
    },
    /// A channel file says what cannot be.
    #[error("{}: {source}", path.display())]
    #[diagnostic(help("{}", source.help().unwrap_or("issue it anew with `lamadist channel`")))]
    Channel {
        /// The file.
        path: PathBuf,
        /// What.
        source: lama_node::Error,
    },
    /// A channel file must not be issued so.
    #[error("{reason}")]
    #[diagnostic(help("{hint}"))]
    Issue {
        /// Why.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// A value that the manifest cannot hold.
    #[error("{what} cannot stand in a manifest: {value:?}")]
    #[diagnostic(help("use letters, digits and -._+ only"))]
    Value {
        /// Which one.
        what: &'static str,
        /// The value.
        value: String,
    },
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// What must not be issued.
pub(crate) fn issue(reason: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Issue {
        reason: reason.into(),
        hint: hint.into(),
    }
}

/// A file that is not what it is taken for.
pub(crate) fn format(path: &Path, reason: impl Into<String>, hint: &str) -> Error {
    Error::Format {
        path: path.to_owned(),
        reason: reason.into(),
        hint: hint.to_owned(),
    }
}
