// SPDX-License-Identifier: Apache-2.0
//! Running restic: its messages, and its failures in plain words.

use super::message::{Message, Problem, Snapshot, Status, Summary};
use super::{TAG, secret};
use crate::error::{Context, Error, Result};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Messages of one run that are kept.
const MOST: usize = 1000;

/// What a service or session may pass on; everything else is taken away.
const PASSED: [&str; 9] = [
    "PATH",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
];

/// A repository and what opens it.
pub struct Repository {
    /// restic's name of it.
    pub name: String,
    /// Its password.
    pub password: String,
    /// Variables for restic's environment.
    pub environment: Vec<(String, String)>,
    /// Where restic keeps copies of indexes.
    pub cache: PathBuf,
    /// At most so many KiB a second are sent.
    pub upload_limit: Option<u32>,
}

/// What a run of restic left.
#[derive(Debug, Default)]
pub struct Outcome {
    /// restic's exit status; none where a signal ended it.
    pub code: Option<i32>,
    /// Its summary.
    pub summary: Option<Summary>,
    /// What could not be read or written.
    pub problems: Vec<Problem>,
    /// Other lines of its standard output: results.
    pub result: String,
    /// Why it ended, and other lines of its standard error.
    pub said: Vec<String>,
}

impl Repository {
    /// restic with these arguments, its environment, and nothing else in it.
    pub fn command<S: Into<OsString>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut c = Command::new("restic");
        c.env_clear();
        for name in PASSED {
            if let Some(v) = std::env::var_os(name) {
                c.env(name, v);
            }
        }
        c.env("HOME", std::env::var_os("HOME").unwrap_or("/root".into()));
        c.env("LC_ALL", "C.UTF-8");
        c.env("RESTIC_PROGRESS_FPS", "2");
        c.env("RESTIC_CACHE_DIR", &self.cache);
        c.env("RESTIC_REPOSITORY", &self.name);
        c.envs(self.environment.iter().map(|(k, v)| (k, v)));
        c.arg("--json").arg("--cleanup-cache");
        if let Some(n) = self.upload_limit {
            c.arg(format!("--limit-upload={n}"));
        }
        c.args(args.into_iter().map(Into::into));
        c
    }

    /// Runs it to its end, whatever its status.
    ///
    /// # Errors
    /// restic cannot be started, or prints what is not text.
    pub fn any<S: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = S>,
        on: &mut dyn FnMut(&Status),
    ) -> Result<Outcome> {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run restic")?;
        // Where no other source is set, restic reads the password here.
        if let Some(mut pipe) = child.stdin.take() {
            let _ = pipe.write_all(format!("{}\n", self.password).as_bytes());
        }
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut out = Outcome::default();
        // Both pipes have to be emptied at once.
        let errors = std::thread::spawn(move || {
            let mut all = Vec::new();
            if let Some(pipe) = stderr {
                let _ = lines(pipe, |m| {
                    if all.len() < MOST {
                        all.push(m);
                    }
                });
            }
            all
        });
        if let Some(pipe) = stdout {
            lines(pipe, |m| match m {
                Message::Status(s) => on(&s),
                Message::Text(t) => {
                    out.result.push_str(&t);
                    out.result.push('\n');
                }
                m => out.take(m),
            })?;
        }
        for m in errors.join().unwrap_or_default() {
            out.take(m);
        }
        out.code = child.wait().context("cannot wait for restic")?.code();
        Ok(out)
    }

    /// Runs it; a failure is an error.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn run<S: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = S>,
        on: &mut dyn FnMut(&Status),
    ) -> Result<Outcome> {
        let out = self.any(args, on)?;
        match out.code {
            Some(0) => Ok(out),
            _ => Err(out.failure(&self.name)),
        }
    }

    /// Whether the repository is there and the password opens it.
    ///
    /// # Errors
    /// Neither is known.
    pub fn state(&self) -> Result<Found> {
        let out = self.any(["--no-lock", "cat", "config"], &mut |_| ())?;
        match out.code {
            Some(0) => Ok(Found::Open),
            Some(10) => Ok(Found::Missing),
            Some(12) => Ok(Found::Closed),
            _ => Err(out.failure(&self.name)),
        }
    }

    /// The snapshots that were made here, of one host or of all.
    ///
    /// # Errors
    /// As [`Repository::run`], or restic's list cannot be understood.
    pub fn snapshots(&self, host: Option<&str>) -> Result<Vec<Snapshot>> {
        let mut args = vec!["--no-lock".to_owned(), "snapshots".to_owned()];
        args.push(format!("--tag={TAG}"));
        args.extend(host.map(|h| format!("--host={h}")));
        let out = self.run(args, &mut |_| ())?;
        let mut all: Vec<Snapshot> =
            serde_json::from_str(&out.result).context("cannot read restic's list of snapshots")?;
        all.sort_by_key(Snapshot::when);
        Ok(all)
    }
}

/// What is behind a repository's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A repository that the password opens.
    Open,
    /// No repository.
    Missing,
    /// One with another password.
    Closed,
}

fn lines(pipe: impl Read, mut on: impl FnMut(Message)) -> Result<()> {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        if pipe
            .read_until(b'\n', &mut line)
            .context("cannot read what restic says")?
            == 0
        {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            on(Message::parse(text));
        }
    }
}

impl Outcome {
    fn take(&mut self, m: Message) {
        match m {
            Message::Summary(s) => self.summary = Some(s),
            Message::Problem(p) if self.problems.len() < MOST => self.problems.push(p),
            Message::Exit(t) | Message::Text(t) if self.said.len() < MOST => self.said.push(t),
            _ => {}
        }
    }

    /// Why it failed, and what to do.
    pub fn failure(&self, repository: &str) -> Error {
        let mut said = self.said.clone();
        said.extend(self.problems.iter().map(|p| match p.item.as_str() {
            "" => p.why.clone(),
            item => format!("{item}: {}", p.why),
        }));
        explain(self.code, &said, repository)
    }
}

/// restic's exit status (restic(1)) and what it said, as one error.
pub fn explain(code: Option<i32>, said: &[String], repository: &str) -> Error {
    let text = said.join("\n");
    let (what, hint) = match code {
        None => return Error::new("restic was killed"),
        Some(10) => (
            format!("there is no backup repository at {repository}"),
            "is its disk mounted, the address right? `lama-node backup setup` makes a new one",
        ),
        Some(11) => (
            format!("the repository {repository} is locked"),
            "another backup or check is running; try again when it is done",
        ),
        Some(12) => (
            format!("the password does not open the repository {repository}"),
            "`lama-node backup setup --password-file FILE` replaces the stored one",
        ),
        Some(130) => return Error::new("restic was interrupted"),
        Some(c) => {
            let last = said.iter().rev().take(3).rev();
            let last: Vec<&str> = last.map(|l| l.trim()).collect();
            let mut e = Error::new(format!("restic failed ({c}): {}", last.join("\n  ")));
            if let Some(h) = hint(&text) {
                e = e.hint(h);
            }
            return e;
        }
    };
    Error::new(what).hint(hint)
}

fn hint(said: &str) -> Option<&'static str> {
    const HINTS: [(&[&str], &str); 7] = [
        (
            &["no space left on device", "disk quota exceeded", "507 "],
            "the disk is full: free some space, or keep fewer snapshots and run `lama-node backup forget`",
        ),
        (
            &["no such host", "server misbehaving"],
            "the repository's host is not known: is the name right, does DNS answer?",
        ),
        (
            &[
                "connection refused",
                "i/o timeout",
                "no route to host",
                "network is unreachable",
                "connection reset",
                "subprocess ssh exited",
            ],
            "the repository cannot be reached: is the network up, the server running?",
        ),
        (
            &["x509:", "certificate"],
            "the server's certificate is not trusted: is the clock right, the authority known?",
        ),
        (
            &[
                "401 ",
                "403 ",
                "access denied",
                "accessdenied",
                "invalidaccesskeyid",
                "signaturedoesnotmatch",
                "unauthorized",
            ],
            "the server refuses the credentials: `lama-node backup setup --env-file FILE` replaces them",
        ),
        (
            &[
                "ciphertext verification failed",
                "does not match",
                "repository contains errors",
                "invalid data returned",
            ],
            "the repository is damaged: see docs/BACKUP.md, and check the disk it lies on",
        ),
        (
            &["permission denied", "operation not permitted"],
            "run it as root; where the service fails, see ReadWritePaths= in docs/BACKUP.md",
        ),
    ];
    let said = said.to_lowercase();
    HINTS
        .iter()
        .find(|(signs, _)| signs.iter().any(|s| said.contains(s)))
        .map(|(_, hint)| *hint)
}

/// The variables of a repository, from what was read.
///
/// # Errors
/// A line is wrong.
pub fn environment(data: Option<Vec<u8>>, origin: &str) -> Result<Vec<(String, String)>> {
    data.map_or(Ok(Vec::new()), |d| secret::environment(&d, origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> Repository {
        Repository {
            name: "s3:https://x/y".into(),
            password: "hunter2".into(),
            environment: vec![("AWS_SECRET_ACCESS_KEY".into(), "hush".into())],
            cache: "/var/cache/restic".into(),
            upload_limit: Some(50),
        }
    }

    #[test]
    fn no_secret_is_on_the_command_line_and_no_password_in_the_environment() {
        let c = repository().command(["check"]);
        let args: Vec<_> = c.get_args().map(|a| a.to_string_lossy()).collect();
        assert_eq!(
            args,
            ["--json", "--cleanup-cache", "--limit-upload=50", "check"]
        );
        let env: Vec<_> = c.get_envs().collect();
        let has = |n: &str| env.iter().any(|(k, v)| *k == n && v.is_some());
        assert!(has("AWS_SECRET_ACCESS_KEY") && has("RESTIC_REPOSITORY") && has("HOME"));
        assert!(!has("RESTIC_PASSWORD") && !format!("{env:?}").contains("hunter2"));
    }

    #[test]
    fn failures_in_plain_words() {
        for (code, said, want, help) in [
            (10, "", "there is no backup repository at R", "mounted"),
            (11, "", "the repository R is locked", "another"),
            (12, "", "the password does not open", "setup"),
            (
                1,
                "Fatal: write /x: no space left on device",
                "restic failed (1)",
                "full",
            ),
            (
                1,
                "dial tcp: lookup nas: no such host",
                "restic failed (1)",
                "DNS",
            ),
            (
                1,
                "Get: dial tcp 1.2.3.4:8000: connect: connection refused",
                "restic failed",
                "network",
            ),
            (
                1,
                "x509: certificate has expired",
                "restic failed (1)",
                "clock",
            ),
            (1, "Stat: Access Denied.", "restic failed (1)", "--env-file"),
            (
                1,
                "open /r/config: permission denied",
                "restic failed (1)",
                "root",
            ),
        ] {
            let e = explain(Some(code), &[said.to_owned()], "R");
            assert!(e.to_string().starts_with(want), "{e}");
            assert!(e.help().unwrap_or_default().contains(help), "{e:?}");
        }
        assert_eq!(explain(None, &[], "R").to_string(), "restic was killed");
        assert_eq!(explain(Some(1), &["what".into()], "R").help(), None);
    }
}
