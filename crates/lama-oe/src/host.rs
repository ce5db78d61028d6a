// SPDX-License-Identifier: Apache-2.0
//! Whether this machine can run BitBake.

use lama_exec::{Tools, fs};
use std::path::{Path, PathBuf};

/// Programs that BitBake wants of the machine (HOSTTOOLS of wrynose), with the Debian package where
/// that is called otherwise.
const PROGRAMS: [(&str, &str); 32] = [
    ("ar", "binutils"),
    ("as", "binutils"),
    ("awk", "gawk"),
    ("bzip2", ""),
    ("chrpath", ""),
    ("cpio", ""),
    ("cpp", "cpp"),
    ("diff", "diffutils"),
    ("diffstat", ""),
    ("file", ""),
    ("find", "findutils"),
    ("flock", "util-linux"),
    ("g++", ""),
    ("gawk", ""),
    ("gcc", ""),
    ("git", ""),
    ("gzip", ""),
    ("ld", "binutils"),
    ("lz4c", "lz4"),
    ("make", ""),
    ("patch", ""),
    ("perl", ""),
    ("pzstd", "zstd"),
    ("python3", ""),
    ("rpcgen", "rpcsvc-proto"),
    ("sed", ""),
    ("strings", "binutils"),
    ("tar", ""),
    ("unzstd", "zstd"),
    ("wget", ""),
    ("xz", "xz-utils"),
    ("zstd", ""),
];

/// Why BitBake cannot run here.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// It refuses root.
    #[error("BitBake does not run as root")]
    #[diagnostic(help(
        "run it as an ordinary user who can read the checkout and the layers, such as `useradd -m builder` and `runuser -u builder -- lamadist …`"
    ))]
    Root,
    /// Programs are missing.
    #[error("BitBake needs programs that are not installed: {}", missing.join(", "))]
    #[diagnostic(help(
        "on Debian: apt-get install {packages}; or add --container, which brings them"
    ))]
    Missing {
        /// Their names.
        missing: Vec<String>,
        /// The packages that have them.
        packages: String,
    },
    /// kas is missing.
    #[error("kas is not installed")]
    #[diagnostic(help(
        "it is a Python program: `python3 -m venv ~/kas && ~/kas/bin/pip install kas`, and put ~/kas/bin into PATH"
    ))]
    Kas,
    /// There is no UTF-8 locale that BitBake takes.
    #[error("BitBake needs the locale en_US.UTF-8, which this machine does not have")]
    #[diagnostic(help("on Debian: echo en_US.UTF-8 UTF-8 >>/etc/locale.gen && locale-gen"))]
    Locale,
    /// kas could not find where the checkout begins.
    #[error("git does not take {} for a checkout of this user's: {why}", project.display())]
    #[diagnostic(help(
        "kas asks git where its configurations begin, without your own settings: use a clone of your own, or as root `git config --system --add safe.directory {}`",
        project.display()
    ))]
    Checkout {
        /// The checkout.
        project: PathBuf,
        /// What git said.
        why: String,
    },
}

/// Where a program is, by `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|d| d.join(name))
        .find(|p| fs::metadata(p).is_ok_and(|m| m.is_file()))
}

/// Checks that BitBake can run on the checkout at `project`, and returns where kas is.
///
/// # Errors
/// The first thing that is missing; programs all at once.
pub fn check(project: &Path) -> Result<PathBuf, Error> {
    if rustix::process::geteuid().is_root() {
        return Err(Error::Root);
    }
    let missing: Vec<&(&str, &str)> = PROGRAMS
        .iter()
        .filter(|(name, _)| program(name).is_none())
        .collect();
    if !missing.is_empty() {
        let mut packages: Vec<&str> = missing
            .iter()
            .map(|(name, package)| if package.is_empty() { *name } else { *package })
            .collect();
        packages.sort_unstable();
        packages.dedup();
        return Err(Error::Missing {
            missing: missing.iter().map(|(n, _)| (*n).to_owned()).collect(),
            packages: packages.join(" "),
        });
    }
    let locales = Tools::host().command("locale").arg("-a").text();
    let has = |text: String| text.lines().any(|l| l.eq_ignore_ascii_case("en_US.utf8"));
    if !locales.is_ok_and(has) {
        return Err(Error::Locale);
    }
    let kas = program("kas").ok_or(Error::Kas)?;
    // As kas does it: without the user's own configuration.
    let git = Tools::host().command("git").env("HOME", "/nonexistent");
    let git = git.env("XDG_CONFIG_HOME", "/nonexistent").cwd(project);
    git.args(["rev-parse", "--show-toplevel"])
        .run()
        .map_err(|e| Error::Checkout {
            project: project.to_owned(),
            why: e.to_string().lines().last().unwrap_or_default().to_owned(),
        })?;
    Ok(kas)
}
