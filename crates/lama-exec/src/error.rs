// SPDX-License-Identifier: Apache-2.0
//! Why an external program did not do its work.

use crate::tool::Output;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// A failed run of an external program.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ToolError {
    /// The program could not be started.
    #[error("cannot run `{program}`: {source}")]
    #[diagnostic(help("{}", start_hint(source)))]
    Start {
        /// Its name.
        program: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The sandbox could not be made.
    #[error("cannot make the sandbox for `{program}`: {step}: {source}")]
    #[diagnostic(help("{}", sandbox_hint()))]
    Sandbox {
        /// The program that should have run in it.
        program: String,
        /// The step that failed.
        step: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The program ended with a failure.
    #[error("`{command}` failed ({status})\n{output}")]
    #[diagnostic(help("the lines above are the tool's own; `-v` shows every command that is run"))]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        output: String,
    },
    /// The program came to no end.
    #[error("`{command}` was not done after {} minutes, and was ended", after.as_secs() / 60)]
    #[diagnostic(help(
        "it waited for something that did not come; is there room on the disk? Try again"
    ))]
    Stalled {
        /// The command line.
        command: String,
        /// How long it had.
        after: Duration,
    },
    /// Its output is not the JSON it should be.
    #[error("`{command}` did not answer with the expected JSON: {source}")]
    Json {
        /// The command line.
        command: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Data could not be passed to or from it.
    #[error("lost the connection to `{command}`: {source}")]
    Pipe {
        /// The command line.
        command: String,
        /// The operating system's answer.
        source: io::Error,
    },
}

fn start_hint(e: &io::Error) -> &'static str {
    if e.kind() == io::ErrorKind::NotFound {
        "the tools tree lacks it; `lamadist clean --tools` and a new build make it anew"
    } else {
        "see the reason above"
    }
}

/// Which kernel setting forbids user namespaces here, and what else can be done.
pub fn sandbox_hint() -> String {
    let flag = |p: &str, bad: &str| crate::fs::read_to_string(p).is_ok_and(|s| s.trim() == bad);
    let setting = if flag("/proc/sys/user/max_user_namespaces", "0") {
        "user.max_user_namespaces is 0; allow them with `sysctl user.max_user_namespaces=10000`"
    } else if flag("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "kernel.unprivileged_userns_clone is 0; allow them with `sysctl kernel.unprivileged_userns_clone=1`"
    } else if flag(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        "kernel.apparmor_restrict_unprivileged_userns is 1; allow them with `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or give this program an AppArmor profile with `userns,`"
    } else {
        "the kernel or a container runtime forbids user namespaces or mounts in them (in a container: allow the unshare and mount system calls)"
    };
    format!("{setting}. Otherwise run the same command as root, which needs no user namespace.")
}

/// The last lines that a failed program said; its standard output only where stderr is silent.
pub(crate) fn tail(out: &Output) -> String {
    let data = if out.stderr.iter().any(|b| !b.is_ascii_whitespace()) {
        &out.stderr
    } else {
        &out.stdout
    };
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let skip = lines.len().saturating_sub(30);
    lines[skip..]
        .iter()
        .map(|l| format!("    {l}"))
        .collect::<Vec<_>>()
        .join("\n")
}
