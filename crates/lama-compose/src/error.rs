// SPDX-License-Identifier: Apache-2.0
//! What can go wrong while a root tree is composed.

use lama_exec::ToolError;
use lama_exec::fs::FsError;
use lama_tree::TreePath;

/// Result of composing.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a root tree cannot be composed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// The tree or an archive is at fault.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tree(#[from] lama_tree::Error),
    /// A package cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Deb(#[from] lama_feed::deb::Error),
    /// A tool failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tool(#[from] ToolError),
    /// Two packages ship the same file.
    #[error("{first} and {second} both ship {path}")]
    #[diagnostic(help(
        "neither declares that it replaces the other; leave one of them out, or, if one of their scripts diverts the file, record the diversion in distro/scripts/"
    ))]
    Conflict {
        /// The path.
        path: TreePath,
        /// The package that came first.
        first: String,
        /// The other.
        second: String,
    },
    /// Scripts that nobody has reviewed.
    #[error("{}", crate::review::describe(.0))]
    #[diagnostic(
        code(lamadist::scripts),
        help(
            "decide what has to take the script's place and record it in distro/scripts/, or let `lamadist scripts --record PACKAGE --why REASON` write the record where nothing has to be done"
        )
    )]
    Unreviewed(Vec<crate::review::Finding>),
    /// A name without a pinned number.
    #[error("the {what} {name:?} ({origin}) has no number in distro/ids.toml")]
    #[diagnostic(help("add `{name} = {next}` under [{what}s] in distro/ids.toml; {next} is free"))]
    NotPinned {
        /// `user` or `group`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What asks for it.
        origin: String,
        /// A number that is free.
        next: u32,
    },
    /// A name whose pinned number is not the one a package insists on.
    #[error("the {what} {name:?} is {asked} in {origin} but {pinned} in distro/ids.toml")]
    #[diagnostic(help("put the package's number into distro/ids.toml"))]
    PinDiffers {
        /// `user` or `group`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What asks for it.
        origin: String,
        /// The number asked for.
        asked: u32,
        /// The pinned number.
        pinned: u32,
    },
    /// A file in the tree cannot be understood.
    #[error("{path}:{line}: {what}")]
    #[diagnostic(help(
        "the file comes from a package, distro/files/ or distro/scripts/; see there"
    ))]
    Syntax {
        /// The file in the tree.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A recorded effect does not fit the tree.
    #[error("{origin}: {what}")]
    #[diagnostic(help(
        "the package has changed; review its record in distro/scripts/ or distro/files.toml"
    ))]
    Effect {
        /// Where the effect is recorded.
        origin: String,
        /// What does not fit.
        what: String,
    },
    /// Libraries outside the loader's default directories.
    #[error("{file} names {dir}, where the dynamic loader does not look without a cache")]
    #[diagnostic(help(
        "images have no ld.so.cache; move the libraries, or give their users a RUNPATH"
    ))]
    LibraryDir {
        /// The file of /etc/ld.so.conf.d.
        file: String,
        /// The directory.
        dir: String,
    },
}

/// A syntax error at a place.
pub(crate) fn syntax(path: &str, line: usize, what: impl Into<String>) -> Error {
    Error::Syntax {
        path: path.to_owned(),
        line,
        what: what.into(),
    }
}
