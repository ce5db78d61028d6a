// SPDX-License-Identifier: Apache-2.0
//! Running programs: what they say becomes part of the error when they fail.

use crate::error::{Context, Error, Result};
use serde::de::DeserializeOwned;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Lines of a failed program's output that an error shows.
const TAIL: usize = 8;

/// One run of a program. It sees `LC_ALL=C.UTF-8`, so that what it says can be parsed.
#[derive(Debug)]
pub struct Run {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Option<Vec<u8>>,
}

impl Run {
    /// A program by name (`PATH`) or path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, a: impl AsRef<OsStr>) -> Self {
        self.args.push(a.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, a: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(a.into_iter().map(|s| s.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// What it reads; secrets go this way, never as arguments.
    #[must_use]
    pub fn stdin(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(data.into());
        self
    }

    /// The command line, for messages.
    pub fn line(&self) -> String {
        let mut s = self.program.to_string_lossy().into_owned();
        for a in &self.args {
            s.push(' ');
            s.push_str(&a.to_string_lossy());
        }
        s
    }

    fn command(&self) -> Command {
        let mut c = Command::new(&self.program);
        c.args(&self.args).env("LC_ALL", "C.UTF-8");
        c.envs(self.env.iter().map(|(k, v)| (k, v)));
        c
    }

    /// Runs it, whatever its status.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn any(self) -> Result<Output> {
        let what = format!("cannot run {}", self.program.to_string_lossy());
        let mut c = self.command();
        c.stdin(if self.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        c.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = c.spawn().context(&what)?;
        if let (Some(mut pipe), Some(data)) = (child.stdin.take(), self.stdin) {
            // What is fed here is short; a program that does not want it closes the pipe.
            let _ = pipe.write_all(&data);
        }
        child.wait_with_output().context(what)
    }

    /// Runs it; another status than 0 is an error.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn run(self) -> Result<Output> {
        let line = self.line();
        let out = self.any()?;
        if out.status.success() {
            return Ok(out);
        }
        Err(failed(&line, &out))
    }

    /// Runs it with this process's terminal, for programs that show progress.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn show(self) -> Result<()> {
        let status = self
            .command()
            .stdin(Stdio::null())
            .status()
            .context(format_args!(
                "cannot run {}",
                self.program.to_string_lossy()
            ))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::new(format!("{}: {status}", self.line())))
    }

    /// Its standard output as text, without the last newline.
    ///
    /// # Errors
    /// As [`Run::run`].
    pub fn text(self) -> Result<String> {
        let out = self.run()?;
        Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
    }

    /// Its standard output as JSON.
    ///
    /// # Errors
    /// As [`Run::run`], or it printed something else.
    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        let line = self.line();
        let out = self.run()?;
        serde_json::from_slice(&out.stdout).context(format_args!("cannot read what {line} printed"))
    }
}

fn failed(line: &str, out: &Output) -> Error {
    let said = if out.stderr.iter().all(u8::is_ascii_whitespace) {
        &out.stdout
    } else {
        &out.stderr
    };
    let said = String::from_utf8_lossy(said);
    let lines: Vec<&str> = said.lines().filter(|l| !l.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(TAIL);
    let said = lines.get(from..).unwrap_or_default().join("\n  ");
    Error::new(format!("{line}: {}\n  {said}", out.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_was_said() {
        let e = Run::new("sh")
            .args(["-c", "echo out; echo why >&2; exit 3"])
            .run()
            .unwrap_err();
        assert!(e.to_string().ends_with("exit status: 3\n  why"), "{e}");
        let e = Run::new("/nonexistent/x").run().unwrap_err();
        assert!(e.to_string().starts_with("cannot run /nonexistent/x: "));
        assert_eq!(Run::new("cat").stdin("x\n").text().unwrap(), "x");
    }
}
