// SPDX-License-Identifier: Apache-2.0
//! Virtual machines by name: a directory each, under one root.
//!
//! `ROOT/NAME/` holds `vm.json` (the record), `uuid`, `id_ed25519` and `.pub`, `vars.fd`,
//! `disk-N.*`, `tpm/`, `smbios-*`, `console.log`, `qemu.log`, `swtpm.log` and the sockets `qmp.sock`,
//! `console.sock`, `swtpm.sock`, `ssh-PID.sock`. `ROOT/.NAME.lock` is held while a machine is started
//! or ended.

use crate::accel::Accel;
use crate::config::{Arch, check_name};
use crate::disk::absolute;
use crate::error::{Error, Result};
use crate::ports::Forward;
use crate::process::ProcessId;
use crate::vm::Vm;
use lama_exec::{Tools, fs};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A directory of virtual machines.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(crate) root: PathBuf,
    pub(crate) tools: Tools,
}

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// QEMU runs.
    Running,
    /// It does not: the machine was stopped, or ended by itself.
    Stopped,
}

/// What `lamadist vm list` shows.
#[derive(Debug, Clone, Serialize)]
pub struct VmInfo {
    /// The machine's name.
    pub name: String,
    /// Whether it runs.
    pub state: State,
    /// Its architecture.
    pub arch: Arch,
    /// Its accelerator when it was last started.
    pub accel: Accel,
    /// QEMU's process ID, while it runs.
    pub pid: Option<u32>,
    /// The port on 127.0.0.1 that leads to the guest's SSH, while it runs.
    pub ssh_port: Option<u16>,
    /// All forwarded ports, while it runs.
    pub ports: Vec<Forward>,
    /// `spice://127.0.0.1:PORT` or `vnc://127.0.0.1:PORT`, while it runs with a screen.
    pub display: Option<String>,
    /// Its first disk's image.
    pub image: Option<PathBuf>,
    /// Seconds since it was started, while it runs.
    pub uptime: Option<u64>,
    /// Its directory.
    pub dir: PathBuf,
}

/// `vm.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub name: String,
    pub arch: Arch,
    pub accel: Accel,
    pub uuid: String,
    pub image: Option<PathBuf>,
    pub qemu: ProcessId,
    pub swtpm: Option<ProcessId>,
    pub ports: Vec<Forward>,
    pub display: Option<String>,
    /// Whether it is meant to start from the network.
    #[serde(default)]
    pub netboot: bool,
}

impl Record {
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("vm.json");
        let Some(data) = fs::read_optional(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&data)
            .map(Some)
            .map_err(|e| Error::Record {
                path,
                what: e.to_string(),
            })
    }

    pub fn store(&self, dir: &Path) -> Result<()> {
        let path = dir.join("vm.json");
        let mut data = serde_json::to_vec_pretty(self).map_err(|e| Error::Record {
            path: path.clone(),
            what: e.to_string(),
        })?;
        data.push(b'\n');
        Ok(fs::write_atomic(path, data)?)
    }

    pub fn info(&self, dir: &Path) -> VmInfo {
        let alive = self.qemu.is_alive();
        let ports = if alive {
            self.ports.clone()
        } else {
            Vec::new()
        };
        VmInfo {
            name: self.name.clone(),
            state: if alive {
                State::Running
            } else {
                State::Stopped
            },
            arch: self.arch,
            accel: self.accel,
            pid: alive.then_some(self.qemu.pid),
            ssh_port: ports.iter().find(|f| f.guest == 22).map(|f| f.host),
            ports,
            display: self.display.clone().filter(|_| alive),
            image: self.image.clone(),
            uptime: self.qemu.uptime().filter(|_| alive).map(|d| d.as_secs()),
            dir: dir.to_owned(),
        }
    }
}

impl Registry {
    /// The machines under `root`; the directory need not exist yet.
    pub fn new(root: impl AsRef<Path>, tools: Tools) -> Self {
        Self {
            root: absolute(root.as_ref()),
            tools,
        }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A machine's directory, whether there is one or not.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    pub(crate) fn lock(&self, name: &str) -> Result<fs::FileLock> {
        check_name(name)?;
        Ok(fs::FileLock::exclusive(
            self.root.join(format!(".{name}.lock")),
        )?)
    }

    /// All machines, by name. One that was never started completely is left out.
    ///
    /// # Errors
    /// A directory or record that cannot be read.
    pub fn list(&self) -> Result<Vec<VmInfo>> {
        if fs::symlink_metadata(&self.root).is_err() {
            return Ok(Vec::new());
        }
        let mut v = Vec::new();
        for e in fs::read_dir(&self.root)? {
            let dir = e.path();
            if dir.is_dir()
                && let Some(r) = Record::load(&dir)?
            {
                v.push(r.info(&dir));
            }
        }
        Ok(v)
    }

    /// One machine, `None` where there is none of that name.
    ///
    /// # Errors
    /// A bad name, or a record that cannot be read.
    pub fn info(&self, name: &str) -> Result<Option<VmInfo>> {
        let dir = self.dir(name)?;
        Ok(Record::load(&dir)?.map(|r| r.info(&dir)))
    }

    /// A machine that runs.
    ///
    /// # Errors
    /// [`Error::Unknown`] and [`Error::NotRunning`].
    pub fn open(&self, name: &str) -> Result<Vm> {
        let dir = self.dir(name)?;
        let record = Record::load(&dir)?.ok_or_else(|| Error::Unknown {
            name: name.into(),
            root: self.root.clone(),
        })?;
        if !record.qemu.is_alive() {
            return Err(Error::NotRunning { name: name.into() });
        }
        Ok(Vm::new(self.tools.clone(), dir, record, Vec::new()))
    }

    /// Removes a machine with its overlays, variables and TPM.
    ///
    /// # Errors
    /// [`Error::Unknown`]; [`Error::Running`] where it has not been stopped.
    pub fn remove(&self, name: &str) -> Result<()> {
        let dir = self.dir(name)?;
        let _lock = self.lock(name)?;
        if fs::symlink_metadata(&dir).is_err() {
            fs::remove_file(self.root.join(format!(".{name}.lock")))?;
            return Err(Error::Unknown {
                name: name.into(),
                root: self.root.clone(),
            });
        }
        // A record that cannot be read must not keep the machine for ever.
        if let Ok(Some(r)) = Record::load(&dir) {
            if r.qemu.is_alive() {
                return Err(Error::Running {
                    name: name.into(),
                    pid: r.qemu.pid,
                });
            }
            if let Some(s) = r.swtpm {
                s.kill();
            }
        }
        Ok(fs::remove_dir_all(&dir)?)
    }
}
