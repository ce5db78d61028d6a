// SPDX-License-Identifier: Apache-2.0
//! Why there is no answer.

/// Why there is no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A request that cannot be read.
    #[error("`{text}` is no package to ask for: {what}")]
    #[diagnostic(help("write `name`, `name=version` or `name:architecture`"))]
    Request {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        what: String,
    },
    /// Packages that no feed has.
    #[error("no feed has {}", names.join(", "))]
    Unknown {
        /// What was asked for.
        names: Vec<String>,
        /// What may have been meant, or how to find out.
        #[help]
        hint: String,
    },
    /// No set of packages fulfils every relation.
    #[error("the packages cannot be installed together:\n{explanation}")]
    Unsatisfiable {
        /// The reasons in plain words, one chain a line.
        explanation: String,
        /// What can be done.
        #[help]
        hint: String,
    },
}

/// Result of the solver.
pub type Result<T> = std::result::Result<T, Error>;
