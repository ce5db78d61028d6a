// SPDX-License-Identifier: Apache-2.0
//! What can go wrong between tree and disk.

use lama_exec::ToolError;
use lama_exec::fs::FsError;
use std::path::PathBuf;

/// A failed stage.
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
    /// The root tree could not be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tree(#[from] lama_tree::Error),
    /// A key could not be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Keys(#[from] lama_keys::Error),
    /// The root tree lacks a file that the initrd is made of.
    #[error(
        "the initrd needs {path}, which the root tree does not have{}",
        needed_by(by)
    )]
    #[diagnostic(help("{}", package_hint(package)))]
    InitrdNeeds {
        /// The missing file.
        path: String,
        /// What needs it; empty where it is a requirement of its own.
        by: String,
        /// The package it usually comes from.
        package: Option<&'static str>,
    },
    /// A kernel module that was asked for by its exact name does not exist.
    #[error(
        "the initrd shall hold the kernel module `{name}`, but kernel {release} has none of that name, built in or loadable"
    )]
    #[diagnostic(help(
        "check the spelling in the machine's `initrd-modules`, and that the kernel package is the generic one (the cloud kernel lacks USB storage and MMC)"
    ))]
    Module {
        /// The name.
        name: String,
        /// The kernel release.
        release: String,
    },
    /// A file of the tree is not of the expected form.
    #[error("{path}: {reason}")]
    Format {
        /// The file, in the tree or on this machine.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No kernel, or several, in the root tree.
    #[error("the root tree has {found} below usr/lib/modules, it must be exactly one kernel")]
    #[diagnostic(help("name one kernel package in the machine's packages"))]
    Kernel {
        /// What was found.
        found: String,
    },
    /// A partition or file system is too small for what it shall hold.
    #[error("{what} needs {need} bytes but has {have}")]
    #[diagnostic(help("enlarge it in the layout, or leave it without a size so that it fits"))]
    TooSmall {
        /// Which one.
        what: String,
        /// Bytes needed.
        need: u64,
        /// Bytes there are.
        have: u64,
    },
    /// More kernel parameters than are read.
    #[error("the kernel command line takes {length} bytes, of which a kernel reads {most}")]
    #[diagnostic(help(
        "shorten what the host's description says (ed25519 keys are short, RSA keys are long), or what is added"
    ))]
    Cmdline {
        /// Its bytes.
        length: usize,
        /// Bytes that are read.
        most: usize,
    },
    /// An option of no sense.
    #[error("{what}: {reason}")]
    Option {
        /// Which option.
        what: String,
        /// Why it is refused.
        reason: String,
    },
    /// The partition table could not be made.
    #[error("cannot make the partition table of {}: {source}", path.display())]
    Gpt {
        /// The disk image.
        path: PathBuf,
        /// The reason.
        source: gptman::Error,
    },
    /// A worker thread ended unexpectedly.
    #[error("an internal error: a worker thread of {0} ended unexpectedly")]
    #[diagnostic(help("this is a defect of lamadist: please report it"))]
    Thread(&'static str),
}

fn needed_by(by: &str) -> String {
    if by.is_empty() {
        String::new()
    } else {
        format!(" (needed by {by})")
    }
}

fn package_hint(package: &Option<&'static str>) -> String {
    match package {
        Some(p) => format!("add the package `{p}` to a package group of the image"),
        None => "add the package that holds it to a package group of the image".to_owned(),
    }
}

/// Result of a stage.
pub type Result<T> = std::result::Result<T, Error>;
