// SPDX-License-Identifier: Apache-2.0
//! Commands in the guest, over SSH with the machine's own key.

use crate::console::tail;
use crate::error::{Error, Result};
use crate::vm::Vm;
use lama_exec::{Cmd, Tools, fs};
use std::io::{Read, Seek};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const KEY: &str = "id_ed25519";
pub(crate) const KEY_PUB: &str = "id_ed25519.pub";

/// What a command in the guest said, and how it ended.
#[derive(Debug, Clone)]
pub struct SshOutput {
    /// Its exit status; 255 where SSH itself failed.
    pub status: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl SshOutput {
    /// Its standard output as text, without white space at the end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
    /// Whether it ended with status 0.
    pub fn ok(&self) -> bool {
        self.status == 0
    }
}

/// Makes the machine's key where it has none.
pub(crate) fn make_key(tools: &Tools, dir: &Path) -> Result<()> {
    if fs::symlink_metadata(dir.join(KEY_PUB)).is_ok() {
        return Ok(());
    }
    let tmp = tempfile::Builder::new()
        .prefix(".key-")
        .tempdir_in(dir)
        .map_err(|source| fs::FsError {
            action: "create a directory in",
            path: dir.to_owned(),
            source,
        })?;
    tools
        .command("ssh-keygen")
        .bind(dir)
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "lamadist-vm", "-f"])
        .arg(tmp.path().join(KEY))
        .run()?;
    fs::rename(tmp.path().join(KEY), dir.join(KEY))?;
    // Last: its presence says that both are there.
    Ok(fs::rename(tmp.path().join(KEY_PUB), dir.join(KEY_PUB))?)
}

impl Vm {
    /// ssh, with all options for this machine.
    pub(crate) fn ssh_command(&self) -> Result<Cmd> {
        let port = self
            .port(22)
            .ok_or_else(|| Error::Config {
                name: self.name().into(),
                what: "it has no network, so there is no SSH".into(),
                hint: "give it `Network::User`",
            })?
            .to_string();
        let mut c = self
            .tools
            .command("ssh")
            .bind(&self.dir)
            .cwd(&self.dir)
            .env("HOME", "/");
        c = c.args(["-F", "none", "-i", KEY, "-p", &port]);
        for o in [
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "PreferredAuthentications=publickey",
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "UpdateHostKeys=no",
            "LogLevel=ERROR",
            "ConnectTimeout=30",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=8",
        ] {
            c = c.args(["-o", o]);
        }
        Ok(c)
    }

    /// Runs a shell command in the guest as root and waits for it, for 2 minutes under KVM and
    /// longer under emulation.
    ///
    /// # Errors
    /// A command that cannot be run or takes too long. A status other than 0 is no error; see
    /// [`Vm::ssh_ok`].
    pub fn ssh(&self, command: &str) -> Result<SshOutput> {
        self.ssh_within(command, b"", self.accel().scale(Duration::from_secs(120)))
    }

    /// Runs a shell command in the guest as root; a status other than 0 is an error. Returns its
    /// standard output, without white space at the end.
    ///
    /// # Errors
    /// As [`Vm::ssh`], and [`Error::Command`].
    pub fn ssh_ok(&self, command: &str) -> Result<String> {
        let o = self.ssh(command)?;
        if o.ok() {
            return Ok(o.text());
        }
        let said = if o.stderr.is_empty() {
            &o.stdout
        } else {
            &o.stderr
        };
        Err(Error::Command {
            name: self.name().into(),
            command: command.into(),
            status: o.status,
            output: tail(&String::from_utf8_lossy(said), 20),
        })
    }

    /// Runs a shell command in the guest as root with `input` as its standard input.
    ///
    /// # Errors
    /// As [`Vm::ssh`].
    pub fn ssh_within(&self, command: &str, input: &[u8], time: Duration) -> Result<SshOutput> {
        if !input.is_empty() {
            // The guest keeps the time here; a guest that is gone shows in ServerAlive.
            let guarded = format!("timeout {} sh -c {}", time.as_secs().max(1), quote(command));
            let c = self.shared(self.ssh_command()?).stdin_bytes(input);
            let (status, o) = c.args(["root@127.0.0.1", "--", &guarded]).run_any()?;
            let status = status.code().unwrap_or(255);
            return Ok(SshOutput {
                status,
                stdout: o.stdout,
                stderr: o.stderr,
            });
        }
        let name = self.name();
        let os = |action| {
            move |source| Error::Os {
                name: name.into(),
                action,
                source,
            }
        };
        let scratch = || tempfile::tempfile().map_err(os("make a temporary file"));
        let (mut out, mut err) = (scratch()?, scratch()?);
        let share = |f: &std::fs::File| f.try_clone().map(Stdio::from).map_err(os("share a file"));
        let c = self.shared(self.ssh_command()?);
        let c = c.args(["-n", "root@127.0.0.1", "--", command]);
        let mut run = c.spawn(share(&out)?, share(&err)?)?;
        let end = Instant::now() + time;
        let mut nap = 2;
        let status = loop {
            if let Some(s) = run.try_wait().map_err(os("wait for ssh"))? {
                break s;
            }
            if Instant::now() > end {
                return Err(self.timeout(&format!("`{command}`"), time, ""));
            }
            std::thread::sleep(Duration::from_millis(nap));
            nap = (nap * 2).min(50);
        };
        let slurp = |f: &mut std::fs::File| {
            let mut v = Vec::new();
            f.rewind()
                .and_then(|()| f.read_to_end(&mut v))
                .map(|_| v)
                .map_err(os("read a file"))
        };
        Ok(SshOutput {
            status: status.code().unwrap_or(255),
            stdout: slurp(&mut out)?,
            stderr: slurp(&mut err)?,
        })
    }

    /// Writes a file in the guest (mode 0644, through a temporary name).
    ///
    /// # Errors
    /// As [`Vm::ssh_ok`].
    pub fn put(&self, path: &str, data: &[u8]) -> Result<()> {
        let q = quote(path);
        let command = format!("cat > {q}.new && chmod 0644 {q}.new && mv {q}.new {q}");
        let o = self.ssh_within(&command, data, self.accel().scale(Duration::from_secs(300)))?;
        if o.ok() {
            return Ok(());
        }
        Err(Error::Command {
            name: self.name().into(),
            command,
            status: o.status,
            output: tail(&String::from_utf8_lossy(&o.stderr), 20),
        })
    }

    /// A root shell in the guest, or `command` there, on the caller's terminal. Returns the exit
    /// status.
    ///
    /// # Errors
    /// A shell that cannot be started.
    pub fn shell(&self, command: &[String]) -> Result<i32> {
        let c = self.ssh_command()?.stdin_inherit();
        let c = if command.is_empty() { c.arg("-t") } else { c };
        let words: Vec<String> = command.iter().map(|w| quote(w)).collect();
        let c = c.arg("root@127.0.0.1");
        let c = if words.is_empty() {
            c
        } else {
            c.arg("--").arg(words.join(" "))
        };
        Ok(c.interactive()?)
    }

    /// Waits until the guest answers over SSH. Without a time, it may take as long as its console
    /// is not silent for [`crate::Accel::boot_timeout`], and three times that altogether: an
    /// emulated guest on a busy machine is slow, but not stuck.
    ///
    /// # Errors
    /// At once [`Error::Ended`] where QEMU has ended and [`Error::GuestFailed`] where the console
    /// shows a panic or the like; [`Error::Timeout`].
    pub fn wait_ssh(&mut self, time: Option<Duration>) -> Result<()> {
        let patience = time.unwrap_or_else(|| self.accel().boot_timeout());
        let total = time.unwrap_or(patience * 3);
        let start = Instant::now();
        let mut heard = (0, start);
        let mut said = String::new();
        while start.elapsed() < total && (time.is_some() || heard.1.elapsed() < patience) {
            self.check_alive("SSH")?;
            self.check_trouble()?;
            let length = fs::metadata(self.console().path()).map_or(0, |m| m.len());
            if length != heard.0 {
                heard = (length, Instant::now());
            }
            if self.port(22).is_none_or(greets) {
                match self.try_ssh(Duration::from_secs(60).min(total))? {
                    Ok(()) => return Ok(()),
                    Err(why) => said = why,
                }
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.check_alive("SSH")?;
        self.check_trouble()?;
        Err(self.timeout("SSH", start.elapsed(), &said))
    }
}

/// Whether an SSH server greets behind a forwarded port. QEMU itself accepts the connection at
/// once, whether the guest listens or not.
fn greets(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let wait = Duration::from_secs(5);
    let Ok(mut s) = TcpStream::connect_timeout(&address, wait) else {
        return false;
    };
    let mut head = [0; 4];
    let _ = s.set_read_timeout(Some(wait));
    s.read_exact(&mut head).is_ok() && &head == b"SSH-"
}

/// A word as a POSIX shell reads it.
pub(crate) fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (w, want) in [
            ("a/b", "a/b"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("$x", "'$x'"),
        ] {
            assert_eq!(quote(w), want);
        }
    }
}
