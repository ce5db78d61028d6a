// SPDX-License-Identifier: Apache-2.0
//! A running machine.

use crate::accel::Accel;
use crate::console::{Console, tail, trouble};
use crate::error::{Error, Result};
use crate::mux::Master;
use crate::qmp::Qmp;
use crate::registry::{Record, VmInfo};
use lama_exec::{Running, Tools, fs};
use serde_json::json;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a guest may take over what is typed.
const TYPING: Duration = Duration::from_secs(60);

/// How to end a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Press its power button, wait so long for the guest, then pull the plug.
    Gracefully(Duration),
    /// Pull the plug.
    Now,
}

/// A machine that has been started. With [`crate::Lifetime::Vm`] it is killed when this is dropped.
#[derive(Debug)]
pub struct Vm {
    /// The connection that commands share; ended before the machine is.
    pub(crate) master: Option<Master>,
    pub(crate) tools: Tools,
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    /// QEMU and swtpm, in this order, where their life depends on ours.
    held: Vec<Running>,
    /// How much of the console is history.
    mark: usize,
}

impl Vm {
    pub(crate) fn new(tools: Tools, dir: PathBuf, record: Record, held: Vec<Running>) -> Self {
        Self {
            master: None,
            tools,
            dir,
            record,
            held,
            mark: 0,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its accelerator.
    pub fn accel(&self) -> Accel {
        self.record.accel
    }

    /// The host port that leads to a guest port.
    pub fn port(&self, guest: u16) -> Option<u16> {
        self.record
            .ports
            .iter()
            .find(|f| f.guest == guest)
            .map(|f| f.host)
    }

    /// All about it.
    pub fn info(&self) -> VmInfo {
        self.record.info(&self.dir)
    }

    /// Its console log.
    pub fn console(&self) -> Console {
        Console::new(self.dir.join("console.log"))
    }

    /// What its console said so far, as plain text.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn console_text(&self) -> Result<String> {
        Ok(self.console().text()?)
    }

    /// Makes history of what the console has said so far: what waits for a text or watches for
    /// trouble looks only at what comes after. To be called before a reset or reboot.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn mark(&mut self) -> Result<()> {
        self.mark = self.console().raw()?.len();
        Ok(())
    }

    /// Connects to its monitor.
    ///
    /// # Errors
    /// [`Error::Monitor`].
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(self.dir.join("qmp.sock"), Duration::from_secs(20))
    }

    /// Whether QEMU runs.
    pub fn is_running(&mut self) -> bool {
        match self.held.first_mut() {
            Some(r) => matches!(r.try_wait(), Ok(None)),
            None => self.record.qemu.is_alive(),
        }
    }

    pub(crate) fn check_alive(&mut self, what: &str) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let mut console = self.console().tail(15);
        let log = fs::read(self.dir.join("qemu.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        if !log.trim().is_empty() {
            console = format!("{console}\n{}", tail(&log, 5));
        }
        Err(Error::Ended {
            name: self.name().into(),
            what: what.into(),
            console,
            path: self.console().path().to_owned(),
        })
    }

    pub(crate) fn check_trouble(&self) -> Result<()> {
        let text = self.console().text_from(self.mark)?;
        // Where the network is what it starts from, trying is no trouble; what comes after may be.
        let tried = text.rfind(">>Start ").filter(|_| self.record.netboot);
        let rest = tried.and_then(|at| text.get(at..)?.split_once('\n'));
        let seen = match (tried, rest) {
            (None, _) => text.as_str(),
            (Some(_), rest) => rest.map_or("", |(_, after)| after),
        };
        match trouble(seen) {
            None => Ok(()),
            Some(line) => Err(Error::GuestFailed {
                name: self.name().into(),
                reason: line.into(),
                console: tail(&text, 15),
                path: self.console().path().to_owned(),
            }),
        }
    }

    pub(crate) fn timeout(&self, what: &str, after: Duration, said: &str) -> Error {
        let mut console = self.console().tail(15);
        if !said.trim().is_empty() {
            console = format!("{console}\nthe last attempt said:\n{}", tail(said, 3));
        }
        Error::Timeout {
            name: self.name().into(),
            what: what.into(),
            after,
            console,
            path: self.console().path().to_owned(),
        }
    }

    /// Waits until `find` makes something of the console's text since [`Vm::mark`]. A guest that ends meanwhile is
    /// given a last look; a panic is not an error here, since it may be what is waited for.
    ///
    /// # Errors
    /// [`Error::Ended`] and [`Error::Timeout`].
    pub fn wait_console<T>(
        &mut self,
        what: &str,
        time: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + time;
        loop {
            let alive = self.check_alive(what);
            if let Some(t) = find(&self.console().text_from(self.mark)?) {
                return Ok(t);
            }
            alive?;
            if Instant::now() > end {
                return Err(self.timeout(what, time, ""));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the console has said `text`, and returns that line.
    ///
    /// # Errors
    /// As [`Vm::wait_console`].
    pub fn wait_text(&mut self, text: &str, time: Duration) -> Result<String> {
        self.wait_console(&format!("`{text}` on the console"), time, |t| {
            t.lines().find(|l| l.contains(text)).map(str::to_owned)
        })
    }

    /// Waits for the machine to end by itself and returns QEMU's exit status (128 + signal where it
    /// was killed; 0 where it is not ours to know).
    ///
    /// # Errors
    /// A wait that fails.
    pub fn wait_exit(&mut self) -> Result<i32> {
        let Some(r) = self.held.first_mut() else {
            while self.record.qemu.is_alive() {
                std::thread::sleep(Duration::from_millis(100));
            }
            return Ok(0);
        };
        let s = r.wait().map_err(|source| Error::Os {
            name: self.record.name.clone(),
            action: "wait for QEMU",
            source,
        })?;
        Ok(s.code().unwrap_or_else(|| 128 + s.signal().unwrap_or(0)))
    }

    fn wait_gone(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while self.is_running() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Resets it, as its reset button does. See [`Vm::mark`].
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn reset(&self) -> Result<()> {
        self.qmp()?.execute("system_reset", json!({})).map(|_| ())
    }

    /// Types on its console. Newline is the Enter key. Returns when the guest's serial port has taken
    /// it all.
    ///
    /// # Errors
    /// Its console is not connected, somebody else is, or the guest takes nothing.
    pub fn enter(&self, text: &str) -> Result<()> {
        let path = self.dir.join("console.sock");
        let typed = UnixStream::connect(&path).and_then(|mut s| {
            s.write_all(text.replace('\n', "\r").as_bytes())?;
            // QEMU hands it over as the port has room, and forgets the rest of a connection that is
            // closed; one that is half closed it reads to its end, and closes then.
            s.shutdown(Shutdown::Write)?;
            s.set_read_timeout(Some(TYPING))?;
            let end = Instant::now() + TYPING;
            let mut said = [0; 4096];
            while s.read(&mut said)? > 0 {
                if Instant::now() > end {
                    return Err(std::io::ErrorKind::TimedOut.into());
                }
            }
            Ok(())
        });
        typed.map_err(|source| Error::Os {
            name: self.name().into(),
            action: "type on its console",
            source,
        })
    }

    /// Stops its processors, does something, and lets them go on. What its disks hold meanwhile is what
    /// a power cut at this moment would leave: all that the guest has handed to its disks, and nothing
    /// of what is still in its memory. (That a disk loses what it had not been told to flush is not
    /// modelled.)
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn frozen<T>(&self, meanwhile: impl FnOnce() -> T) -> Result<T> {
        let mut qmp = self.qmp()?;
        qmp.execute("stop", json!({}))?;
        let t = meanwhile();
        qmp.execute("cont", json!({}))?;
        Ok(t)
    }

    /// Writes what its screen shows to a PNG file in its directory, and returns the path.
    ///
    /// # Errors
    /// As [`Qmp::execute`]; a machine without a screen has nothing to show.
    pub fn screenshot(&self) -> Result<PathBuf> {
        let args = json!({ "filename": "screen.png", "format": "png" });
        self.qmp()?.execute("screendump", args)?;
        Ok(self.dir.join("screen.png"))
    }

    /// Ends it, and its TPM. No error where it has ended already.
    ///
    /// # Errors
    /// A process that cannot be killed.
    pub fn stop(&mut self, how: Stop) -> Result<()> {
        if let Stop::Gracefully(time) = how
            && self.is_running()
            && self
                .qmp()
                .and_then(|mut q| q.execute("system_powerdown", json!({})))
                .is_ok()
        {
            self.wait_gone(time);
        }
        if self.is_running()
            && self
                .qmp()
                .and_then(|mut q| q.execute("quit", json!({})))
                .is_ok()
        {
            self.wait_gone(Duration::from_secs(10));
        }
        // Whatever is left; dropping kills and reaps.
        self.held.clear();
        let gone = self.record.qemu.kill();
        if let Some(s) = &self.record.swtpm {
            // It ends with its connection; its state is written with each command.
            if !s.wait_end(Duration::from_secs(2)) {
                s.kill();
            }
        }
        if gone {
            return Ok(());
        }
        Err(Error::Os {
            name: self.name().into(),
            action: "kill QEMU",
            source: std::io::Error::other("it is still there"),
        })
    }
}
