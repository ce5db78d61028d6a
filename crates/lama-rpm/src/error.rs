// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with packages and feeds.

use crate::verify::Refused;
use lama_exec::fs::FsError;
use std::path::PathBuf;

/// Why something cannot be signed or believed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// A key could not be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Keys(#[from] lama_keys::Error),
    /// A file is refused.
    #[error("{}: {why}", path.display())]
    #[diagnostic(help("{}", why.hint()))]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        why: Refused,
    },
    /// A folder has no index.
    #[error("{} is no feed: it has no repodata/repomd.xml", dir.display())]
    #[diagnostic(help(
        "make its index first: `createrepo_c {}`, or `bitbake package-index`",
        dir.display()
    ))]
    NoIndex {
        /// The folder.
        dir: PathBuf,
    },
    /// The index is of another state of the packages.
    #[error("the index of {} is older than {}", dir.display(), package.display())]
    #[diagnostic(help(
        "it has the digests of the packages as they were: make it anew, `createrepo_c --update {}` or `bitbake package-index`",
        dir.display()
    ))]
    Stale {
        /// The feed.
        dir: PathBuf,
        /// A package that was written since.
        package: PathBuf,
    },
    /// Packages of a feed are refused.
    #[error("{} of the packages of {} are refused:\n{}", refused.len(), dir.display(), refused.join("\n"))]
    #[diagnostic(help(
        "sign them first: `lamadist rpm sign {}`; what says that it was changed or is signed by others does not belong there",
        dir.display()
    ))]
    Packages {
        /// The feed.
        dir: PathBuf,
        /// A line each.
        refused: Vec<String>,
    },
}

/// Result of working on packages.
pub type Result<T> = std::result::Result<T, Error>;
