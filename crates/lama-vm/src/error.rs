// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a virtual machine.

use lama_exec::fs::FsError;
use std::path::PathBuf;
use std::time::Duration;

/// Result of an operation on a virtual machine.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of this crate.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// An external program failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tool(#[from] lama_exec::ToolError),
    /// A machine's name is not usable as a directory and host name.
    #[error("`{name}` cannot be the name of a virtual machine")]
    #[diagnostic(help(
        "use 1 to 63 letters, digits, `-`, `_` or `.`, the first one a letter or a digit"
    ))]
    Name {
        /// The name.
        name: String,
    },
    /// A configuration that no machine can have.
    #[error("virtual machine `{name}`: {what}")]
    #[diagnostic(help("{hint}"))]
    Config {
        /// The machine's name.
        name: String,
        /// What is wrong.
        what: String,
        /// How to mend it.
        hint: &'static str,
    },
    /// The machine's disk image is missing.
    #[error("virtual machine `{name}`: there is no disk image {}", path.display())]
    #[diagnostic(help("build it first, with `lamadist build`"))]
    NoImage {
        /// The machine's name.
        name: String,
        /// The image's path.
        path: PathBuf,
    },
    /// A firmware file is missing from the tools.
    #[error("there is no firmware file {} for {arch}", path.display())]
    #[diagnostic(help("{package} brings it; add that package to the tools tree"))]
    NoFirmware {
        /// Where it was looked for.
        path: PathBuf,
        /// The architecture of the machine.
        arch: &'static str,
        /// The Debian package.
        package: &'static str,
    },
    /// The machine runs already.
    #[error("the virtual machine `{name}` is running already (process {pid})")]
    #[diagnostic(help(
        "use it with `lamadist vm shell --name {name}`, or end it with `lamadist vm stop --name {name}`"
    ))]
    Running {
        /// Its name.
        name: String,
        /// QEMU's process ID.
        pid: u32,
    },
    /// The machine does not run.
    #[error("the virtual machine `{name}` is not running")]
    #[diagnostic(help("start it with `lamadist vm boot --name {name}`"))]
    NotRunning {
        /// Its name.
        name: String,
    },
    /// There is no machine of that name.
    #[error("there is no virtual machine `{name}` in {}", root.display())]
    #[diagnostic(help("`lamadist vm list` shows those that exist"))]
    Unknown {
        /// The name.
        name: String,
        /// The registry's directory.
        root: PathBuf,
    },
    /// QEMU or swtpm ended while it was being started.
    #[error("`{program}` ended while virtual machine `{name}` was starting:\n{log}")]
    #[diagnostic(help("the lines above are the program's own; its whole log is {}", path.display()))]
    StartFailed {
        /// The machine's name.
        name: String,
        /// `qemu-system-…` or `swtpm`.
        program: &'static str,
        /// The last lines it wrote.
        log: String,
        /// The log file.
        path: PathBuf,
    },
    /// The machine ended while something was expected of it.
    #[error(
        "the virtual machine `{name}` ended while waiting for {what}; its last lines:\n{console}"
    )]
    #[diagnostic(help("the whole console is {}", path.display()))]
    Ended {
        /// The machine's name.
        name: String,
        /// What was waited for.
        what: String,
        /// The last lines of its console.
        console: String,
        /// The console log.
        path: PathBuf,
    },
    /// The console says that the guest cannot come up.
    #[error("the virtual machine `{name}` cannot come up: {reason}; its last lines:\n{console}")]
    #[diagnostic(help("the whole console is {}", path.display()))]
    GuestFailed {
        /// The machine's name.
        name: String,
        /// The console line that says so.
        reason: String,
        /// The last lines of its console.
        console: String,
        /// The console log.
        path: PathBuf,
    },
    /// Something did not happen in time.
    #[error(
        "waited {} s for {what} of virtual machine `{name}` in vain; its last lines:\n{console}",
        after.as_secs()
    )]
    #[diagnostic(help("the whole console is {}", path.display()))]
    Timeout {
        /// The machine's name.
        name: String,
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The last lines of its console, and what the last attempt said.
        console: String,
        /// The console log.
        path: PathBuf,
    },
    /// A command in the guest failed.
    #[error("virtual machine `{name}`: `{command}` failed with status {status}\n{output}")]
    #[diagnostic(help("the lines above are the command's own"))]
    Command {
        /// The machine's name.
        name: String,
        /// The command.
        command: String,
        /// Its exit status (255 where SSH itself failed).
        status: i32,
        /// The end of what it said.
        output: String,
    },
    /// QEMU's monitor could not be reached or did not answer.
    #[error("QEMU's monitor {}: {what}", path.display())]
    #[diagnostic(help("the machine may just be ending; `lamadist vm list` shows its state"))]
    Monitor {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// QEMU refused a monitor command.
    #[error("QEMU refused `{command}`: {what}")]
    #[diagnostic(help("this is a fault in LamaDist or an unsuitable version of QEMU"))]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        what: String,
    },
    /// A machine's record cannot be read.
    #[error("{} is not a virtual machine's record: {what}", path.display())]
    #[diagnostic(help("remove the machine with `lamadist vm rm` and boot it anew"))]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A system call failed.
    #[error("virtual machine `{name}`: cannot {action}: {source}")]
    #[diagnostic(help("see the reason above"))]
    Os {
        /// The machine's name.
        name: String,
        /// What was attempted.
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
}
