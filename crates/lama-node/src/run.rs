// SPDX-License-Identifier: Apache-2.0
//! Running programs: what they say becomes part of the error when they fail.

use crate::error::{Context, Error, Result};
use serde::de::DeserializeOwned;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Lines of a failed program's output that an error shows.
const TAIL: usize = 8;

/// Bytes of each output that a run with a time limit keeps.
const KEPT: u64 = 1 << 20;

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

    pub(crate) fn command(&self) -> Command {
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

    /// Runs it, whatever its status, for at most `limit`; then it and what it started in its process
    /// group are killed. It reads nothing.
    ///
    /// # Errors
    /// It cannot be started, or the time is over.
    pub fn within(self, limit: Duration) -> Result<Output> {
        let name = self.program.to_string_lossy().into_owned();
        let what = format!("cannot run {name}");
        let end = Instant::now() + limit;
        let mut c = self.command();
        c.stdin(Stdio::null()).process_group(0);
        let mut child = c
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(&what)?;
        let out = child.stdout.take().map(collect);
        let err = child.stderr.take().map(collect);
        let mut ended = exited(child.id());
        while !ended && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
            ended = exited(child.id());
        }
        // What it left behind in its group must not outlive it either. The child is not waited for
        // yet, so that nobody else can have got its number.
        if let Ok(group) = i32::try_from(child.id()) {
            // SAFETY: a plain system call.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        if !ended {
            // Where the kernel does not let go of it, nobody waits for it.
            let _ = child.try_wait();
            let limit = limit.as_secs();
            return Err(Error::new(format!("{name}: no end after {limit} s")));
        }
        let status = child.wait().context(&what)?;
        let take = |r: Option<mpsc::Receiver<Vec<u8>>>| {
            r.and_then(|r| r.recv_timeout(Duration::from_secs(1)).ok())
                .unwrap_or_default()
        };
        Ok(Output {
            status,
            stdout: take(out),
            stderr: take(err),
        })
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

    /// As [`Run::within`]; another status than 0 is an error.
    ///
    /// # Errors
    /// It cannot be started, fails, or the time is over.
    pub fn run_within(self, limit: Duration) -> Result<Output> {
        let line = self.line();
        let out = self.within(limit)?;
        if out.status.success() {
            return Ok(out);
        }
        Err(failed(&line, &out))
    }

    /// As [`Run::show`], as long as `goes_on` says so, which is asked each `pause`; then it is killed.
    ///
    /// # Errors
    /// As [`Run::show`], and where it was killed.
    pub fn show_while(self, pause: Duration, mut goes_on: impl FnMut() -> bool) -> Result<()> {
        let what = format!("cannot run {}", self.program.to_string_lossy());
        let mut child = self.command().stdin(Stdio::null()).spawn().context(&what)?;
        let mut asked = Instant::now();
        loop {
            match child.try_wait().context(&what)? {
                Some(s) if s.success() => return Ok(()),
                Some(s) => return Err(Error::new(format!("{}: {s}", self.line()))),
                None if asked.elapsed() < pause => std::thread::sleep(Duration::from_millis(100)),
                None if goes_on() => asked = Instant::now(),
                None => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(Error::new(format!("{} was ended", self.line())));
                }
            }
        }
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

/// Whether a child has ended; it stays to be waited for.
fn exited(child: u32) -> bool {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: a structure of the right size; zeroed is a valid value of plain numbers, and stays where
    // the child runs on.
    unsafe {
        let r = libc::waitid(libc::P_PID, child, info.as_mut_ptr(), flags);
        r != 0 || info.assume_init().si_pid() != 0
    }
}

/// Reads a pipe to its end beside what waits for the program.
pub(crate) fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let _ = pipe.by_ref().take(KEPT).read_to_end(&mut kept);
        // The rest is read, too: a full pipe would stop the program.
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        let _ = send.send(kept);
    });
    receive
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
    #[test]
    fn who_does_not_go_on_is_killed() {
        let start = Instant::now();
        let run = |s: &str| Run::new("sh").args(["-c", s]);
        let mut asked = 0;
        let short = Duration::from_millis(1);
        let e = run("exec sleep 60").show_while(short, || {
            asked += 1;
            asked < 3
        });
        assert!(e.unwrap_err().to_string().ends_with("was ended"));
        assert_eq!(asked, 3);
        assert!(run("exit 0").show_while(short, || true).is_ok());
        let e = run("sleep 0.2; exit 3")
            .show_while(short, || true)
            .unwrap_err();
        assert!(e.to_string().contains("exit status: 3"), "{e}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    #[test]
    fn who_takes_too_long_is_killed() {
        let start = Instant::now();
        let run = |s: &str| {
            Run::new("sh")
                .args(["-c", s])
                .within(Duration::from_secs(1))
        };
        let e = run("sleep 60 & trap '' TERM; sleep 60").unwrap_err();
        assert_eq!(e.to_string(), "sh: no end after 1 s");
        let out = run("echo a; echo b >&2; exit 3").unwrap();
        assert_eq!(
            (&out.stdout[..], &out.stderr[..]),
            (&b"a\n"[..], &b"b\n"[..])
        );
        assert_eq!(out.status.code(), Some(3));
        let fails = Run::new("sh").args(["-c", "echo why >&2; exit 3"]);
        let e = fails.run_within(Duration::from_secs(5)).unwrap_err();
        assert!(e.to_string().ends_with("exit status: 3\n  why"), "{e}");
        // What holds the pipe is killed with it, and much output stops nobody.
        assert!(run("sleep 60 & exit 0").unwrap().status.success());
        let out = run("head -c 3000000 /dev/zero").unwrap();
        assert_eq!(out.stdout.len(), 1 << 20);
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
