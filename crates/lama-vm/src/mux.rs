// SPDX-License-Identifier: Apache-2.0
//! One SSH connection that all commands share (ssh_config(5), `ControlMaster`). Under emulation a
//! guest needs a second and more for each key exchange and login.

use crate::error::{Error, Result};
use crate::start::keeper;
use crate::vm::Vm;
use lama_exec::{Cmd, Running, fs};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The connection. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Master {
    running: Running,
    said: File,
    /// Where it waits for commands, in the machine's directory.
    name: String,
    socket: PathBuf,
}

impl Master {
    /// Connects.
    ///
    /// # Errors
    /// ssh cannot be started.
    fn start(vm: &Vm) -> Result<Self> {
        // Other processes may look at the machine, too, and this one more than once.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ssh-{}-{count}.sock", std::process::id());
        // What one leaves behind that was killed would keep the next from listening.
        let socket = vm.dir().join(&name);
        fs::remove_file(&socket)?;
        let os = |source| Error::Os {
            name: vm.name().into(),
            action: "make a temporary file",
            source,
        };
        let said = tempfile::tempfile().map_err(os)?;
        let to = said.try_clone().map_err(os)?;
        let c = vm.ssh_command()?;
        let c = c.args(["-M", "-S", &name, "-N", "-n", "root@127.0.0.1"]);
        Ok(Self {
            running: keeper(move || c.spawn(Stdio::null(), to.into()))?,
            said,
            name,
            socket,
        })
    }

    /// Whether commands can go this way, waiting so long for it; else what ssh said.
    fn ready(&mut self, time: Duration) -> std::result::Result<(), String> {
        let end = Instant::now() + time;
        loop {
            if !matches!(self.running.try_wait(), Ok(None)) {
                let mut said = String::new();
                let _ = self.said.rewind();
                let _ = self.said.read_to_string(&mut said);
                return Err(said);
            }
            if fs::symlink_metadata(&self.socket).is_ok() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("no login within {} s", time.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = fs::remove_file(&self.socket);
    }
}

impl Vm {
    /// Lets a command go by the shared connection, where there is one.
    pub(crate) fn shared(&self, c: Cmd) -> Cmd {
        let there = |m: &&Master| fs::symlink_metadata(&m.socket).is_ok();
        match self.master.as_ref().filter(there) {
            Some(m) => c.args(["-S", &m.name, "-o", "ControlMaster=no"]),
            None => c,
        }
    }

    /// Tries a command over the shared connection, and makes that where it is missing. Returns what was
    /// said where it doesn't work; then the connection is given up.
    ///
    /// # Errors
    /// ssh cannot be started.
    pub(crate) fn try_ssh(&mut self, time: Duration) -> Result<std::result::Result<(), String>> {
        if self.master.is_none() {
            self.master = Some(Master::start(self)?);
        }
        let ready = self.master.as_mut().map_or(Ok(()), |m| m.ready(time));
        let said = match ready.map(|()| self.ssh_within("true", b"", time)) {
            Ok(Ok(o)) if o.ok() => return Ok(Ok(())),
            Ok(Ok(o)) => String::from_utf8_lossy(&o.stderr).into_owned(),
            Ok(Err(e @ (Error::Tool(_) | Error::Config { .. }))) => return Err(e),
            Ok(Err(e)) => e.to_string(),
            Err(said) => said,
        };
        self.master = None;
        Ok(Err(said))
    }
}
