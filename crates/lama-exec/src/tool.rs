// SPDX-License-Identifier: Apache-2.0
//! External programs: where they come from, how they are run, and errors that show what they said.
//!
//! A program runs in a *tools tree* (a directory with a whole `/usr`, composed from pinned
//! packages) or, with [`Tools::host`], straight from the machine. In a tools tree it sees only that
//! tree, a private `/tmp`, `/proc`, `/dev` and the paths it is given by [`Cmd::bind`]; every bound
//! path keeps its name, so arguments need no translation. As an ordinary user this happens in a user
//! namespace in which the caller appears as root; as root in a mount namespace alone.

use crate::error::tail;
pub use crate::error::{ToolError, sandbox_hint};
use crate::sandbox::{Bind, Sandbox};
use serde::de::DeserializeOwned;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Where external programs come from.
#[derive(Debug, Clone)]
pub struct Tools {
    tree: Option<PathBuf>,
}

impl Tools {
    /// The machine's own programs, by `PATH`, without a sandbox.
    pub fn host() -> Self {
        Self { tree: None }
    }

    /// The programs of a tools tree at `root` (absolute; it has `usr/bin`, `usr/lib` …).
    pub fn tree(root: impl Into<PathBuf>) -> Self {
        Self {
            tree: Some(root.into()),
        }
    }

    /// The root of the tools tree, where there is one.
    pub fn root(&self) -> Option<&Path> {
        self.tree.as_deref()
    }

    /// A run of `program` (a name looked up in the tree's `PATH`, or an absolute path in it).
    pub fn command(&self, program: impl AsRef<OsStr>) -> Cmd {
        Cmd {
            tree: self.tree.clone(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            binds: Vec::new(),
            cwd: None,
            stdin: Input::Null,
            limit: None,
        }
    }
}

type Feeder = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

enum Input {
    Null,
    Bytes(Vec<u8>),
    Feed(Feeder),
    Inherit,
}

/// What an external program said.
#[derive(Debug)]
pub struct Output {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// Result of running a tool.
pub type Result<T> = std::result::Result<T, ToolError>;

/// One run of an external program.
pub struct Cmd {
    tree: Option<PathBuf>,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    binds: Vec<Bind>,
    cwd: Option<PathBuf>,
    stdin: Input,
    limit: Option<Duration>,
}

impl Cmd {
    /// Adds an argument.
    pub fn arg(mut self, a: impl AsRef<OsStr>) -> Self {
        self.args.push(a.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, a: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(a.into_iter().map(|s| s.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable. A sandboxed program otherwise sees only `PATH`, `HOME=/`,
    /// `LC_ALL=C.UTF-8`, `TZ=UTC` and `TERM`.
    pub fn env(mut self, k: impl AsRef<OsStr>, v: impl AsRef<OsStr>) -> Self {
        self.env
            .push((k.as_ref().to_owned(), v.as_ref().to_owned()));
        self
    }

    /// Makes a host path (file or directory, absolute) visible and writable at the same place.
    pub fn bind(mut self, path: impl AsRef<Path>) -> Self {
        let p = path.as_ref().to_owned();
        self.binds.push(Bind {
            source: p.clone(),
            target: p,
            writable: true,
        });
        self
    }

    /// Makes a host path visible, read-only, at the same place.
    pub fn bind_ro(mut self, path: impl AsRef<Path>) -> Self {
        let p = path.as_ref().to_owned();
        self.binds.push(Bind {
            source: p.clone(),
            target: p,
            writable: false,
        });
        self
    }

    /// Makes host path `source` visible and writable at `target` inside.
    pub fn bind_at(mut self, source: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        self.binds.push(Bind {
            source: source.as_ref().to_owned(),
            target: target.as_ref().to_owned(),
            writable: true,
        });
        self
    }

    /// Makes host path `source` visible at `target` inside, read-only.
    pub fn bind_ro_at(mut self, source: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        self.binds.push(Bind {
            source: source.as_ref().to_owned(),
            target: target.as_ref().to_owned(),
            writable: false,
        });
        self
    }

    /// The working directory (inside).
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// What it reads on standard input.
    pub fn stdin_bytes(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.stdin = Input::Bytes(data.into());
        self
    }

    /// A function that writes its standard input, on a thread of its own.
    pub fn stdin_with(
        mut self,
        f: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Self {
        self.stdin = Input::Feed(Box::new(f));
        self
    }

    /// Gives it the caller's standard input.
    pub fn stdin_inherit(mut self) -> Self {
        self.stdin = Input::Inherit;
        self
    }

    /// Ends it when it is not done after this time: for programs that are known to wait for ever in
    /// some cases. Counts for [`Cmd::run`] and what is like it.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The command line as text, for messages.
    pub fn line(&self) -> String {
        let mut s = self.program.to_string_lossy().into_owned();
        for a in &self.args {
            s.push(' ');
            let a = a.to_string_lossy();
            if a.is_empty() || a.contains([' ', '"', '\'', '\n', '$']) {
                s.push_str(&format!("{a:?}"));
            } else {
                s.push_str(&a);
            }
        }
        s
    }

    fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// Builds the process. The pipe of `Sandbox` tells which step failed, if one did.
    fn prepare(&self) -> Result<(Command, Option<Sandbox>)> {
        tracing::debug!(tree = ?self.tree, "run: {}", self.line());
        let Some(tree) = &self.tree else {
            let mut c = Command::new(&self.program);
            c.args(&self.args)
                .envs(self.env.iter().map(|(k, v)| (k, v)));
            if let Some(d) = &self.cwd {
                c.current_dir(d);
            }
            // SAFETY: prctl is async-signal-safe.
            unsafe { c.pre_exec(crate::sandbox::die_with_parent) };
            return Ok((c, None));
        };
        let program = resolve(tree, &self.program).ok_or_else(|| ToolError::Start {
            program: self.name(),
            source: io::Error::new(io::ErrorKind::NotFound, "not in the tools tree"),
        })?;
        let sandbox =
            Sandbox::new(tree, &self.binds, self.cwd.as_deref()).map_err(|(step, source)| {
                ToolError::Sandbox {
                    program: self.name(),
                    step,
                    source,
                }
            })?;
        let mut c = Command::new(program);
        c.args(&self.args).env_clear();
        c.env("PATH", "/usr/bin:/usr/sbin:/usr/lib/systemd")
            .env("HOME", "/");
        c.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        if let Some(t) = std::env::var_os("TERM") {
            c.env("TERM", t);
        }
        c.envs(self.env.iter().map(|(k, v)| (k, v)));
        sandbox.attach(&mut c);
        Ok((c, Some(sandbox)))
    }

    fn start(&self, c: &mut Command, sandbox: Option<Sandbox>) -> Result<Child> {
        match c.spawn() {
            Ok(child) => Ok(child),
            Err(source) => Err(match sandbox.and_then(|s| s.failed_step()) {
                Some(step) => ToolError::Sandbox {
                    program: self.name(),
                    step,
                    source,
                },
                None => ToolError::Start {
                    program: self.name(),
                    source,
                },
            }),
        }
    }

    /// Runs it to its end; a status other than 0 is an error that carries what it said.
    pub fn run(self) -> Result<Output> {
        let line = self.line();
        let (status, out) = self.run_any()?;
        if status.success() {
            return Ok(out);
        }
        Err(ToolError::Failed {
            command: line,
            status,
            output: tail(&out),
        })
    }

    /// Runs it to its end, whatever its status.
    pub fn run_any(mut self) -> Result<(ExitStatus, Output)> {
        let line = self.line();
        let pipe = |source| ToolError::Pipe {
            command: line.clone(),
            source,
        };
        let (mut c, sandbox) = self.prepare()?;
        let stdin = std::mem::replace(&mut self.stdin, Input::Null);
        c.stdin(match stdin {
            Input::Null => Stdio::null(),
            Input::Inherit => Stdio::inherit(),
            _ => Stdio::piped(),
        });
        c.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.start(&mut c, sandbox)?;
        let feeder = child.stdin.take().map(|mut w| {
            std::thread::spawn(move || match stdin {
                Input::Bytes(b) => w.write_all(&b),
                Input::Feed(f) => {
                    let mut w = io::BufWriter::with_capacity(1 << 18, w);
                    f(&mut w).and_then(|()| w.flush())
                }
                Input::Null | Input::Inherit => Ok(()),
            })
        });
        let err = child.stderr.take().map(|mut r| {
            std::thread::spawn(move || {
                let mut v = Vec::new();
                r.read_to_end(&mut v).map(|_| v)
            })
        });
        let watch = self.limit.map(|limit| Watch::begin(&child, limit));
        let mut stdout = Vec::new();
        if let Some(mut r) = child.stdout.take() {
            r.read_to_end(&mut stdout).map_err(pipe)?;
        }
        let stderr = match err.map(std::thread::JoinHandle::join) {
            Some(Ok(r)) => r.map_err(pipe)?,
            _ => Vec::new(),
        };
        // Before it is waited for: until then its number is nobody else's.
        let stalled = watch.is_some_and(Watch::end);
        let status = child.wait().map_err(pipe)?;
        if let (true, Some(after)) = (stalled, self.limit) {
            return Err(ToolError::Stalled {
                command: line,
                after,
            });
        }
        if let Some(Ok(r)) = feeder.map(std::thread::JoinHandle::join) {
            match r {
                // A program that fails closes its input; its own words explain that better.
                Err(e) if status.success() && e.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(pipe(e));
                }
                Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(pipe(e)),
                _ => {}
            }
        }
        Ok((status, Output { stdout, stderr }))
    }

    /// Runs it and returns its standard output as text, without the last newline.
    pub fn text(self) -> Result<String> {
        let out = self.run()?;
        let mut s = String::from_utf8_lossy(&out.stdout).into_owned();
        if s.ends_with('\n') {
            s.pop();
        }
        Ok(s)
    }

    /// Runs it and parses its standard output as JSON.
    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        let command = self.line();
        let out = self.run()?;
        serde_json::from_slice(&out.stdout).map_err(|source| ToolError::Json { command, source })
    }

    /// Starts it and leaves it running; it is killed when the [`Running`] is dropped.
    pub fn spawn(self, stdout: Stdio, stderr: Stdio) -> Result<Running> {
        let (mut c, sandbox) = self.prepare()?;
        c.stdin(match self.stdin {
            Input::Inherit => Stdio::inherit(),
            _ => Stdio::null(),
        });
        c.stdout(stdout).stderr(stderr);
        let child = self.start(&mut c, sandbox)?;
        Ok(Running {
            child,
            command: self.line(),
            keep: false,
        })
    }

    /// Starts it detached: in its own session, not killed with the caller. Its output goes to
    /// `log`. Returns its process ID.
    pub fn detach(self, log: File) -> Result<u32> {
        let (mut c, sandbox) = self.prepare()?;
        let log2 = log.try_clone().map_err(|source| ToolError::Pipe {
            command: self.line(),
            source,
        })?;
        c.stdin(Stdio::null()).stdout(log).stderr(log2);
        // SAFETY: setsid and prctl are async-signal-safe.
        unsafe { c.pre_exec(crate::sandbox::leave_parent) };
        Ok(self.start(&mut c, sandbox)?.id())
    }

    /// Runs it on the caller's terminal and returns its exit code (128 + signal where killed).
    pub fn interactive(self) -> Result<i32> {
        let line = self.line();
        let mut r = Cmd {
            stdin: Input::Inherit,
            ..self
        }
        .spawn(Stdio::inherit(), Stdio::inherit())?;
        let status = r.wait().map_err(|source| ToolError::Pipe {
            command: line,
            source,
        })?;
        Ok(status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }
}

/// Kills a program that is not done in time.
struct Watch {
    done: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<bool>,
}

impl Watch {
    fn begin(child: &Child, limit: Duration) -> Self {
        let pid = rustix::process::Pid::from_child(child);
        let (done, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let late = ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            late
        });
        Self { done, thread }
    }

    /// Whether it was killed.
    fn end(self) -> bool {
        drop(self.done);
        self.thread.join().unwrap_or(false)
    }
}

/// A program left running in the background.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
    keep: bool,
}

impl Running {
    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
    /// Its command line.
    pub fn command(&self) -> &str {
        &self.command
    }
    /// Its status, if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
    /// Kills it (SIGKILL) and waits.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.keep {
            let _ = self.kill();
        }
    }
}

/// Where in the tree `program` is, as seen from inside.
fn resolve(tree: &Path, program: &OsStr) -> Option<PathBuf> {
    let p = Path::new(program);
    if p.is_absolute() {
        return Some(p.to_owned());
    }
    ["usr/bin", "usr/sbin", "usr/lib/systemd"]
        .iter()
        .map(|d| Path::new(d).join(p))
        .find(|c| crate::fs::symlink_metadata(tree.join(c)).is_ok())
        .map(|c| Path::new("/").join(c))
}
