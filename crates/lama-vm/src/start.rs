// SPDX-License-Identifier: Apache-2.0
//! Starting a machine: its files, its TPM, QEMU.

use crate::accel;
use crate::config::{Display, Firmware, NetBoot, Source, Tpm, Variables, VmConfig};
use crate::console;
use crate::disk::{self, Outside, absolute};
use crate::error::{Error, Result};
use crate::firmware;
use crate::ports::parse_usernet;
use crate::process::ProcessId;
use crate::qemu::{ConsoleTo, Plan, command_line};
use crate::qmp::Qmp;
use crate::registry::{Record, Registry};
use crate::ssh;
use crate::terminal::Terminal;
use crate::vm::Vm;
use base64::Engine;
use lama_exec::{Cmd, Running, ToolError, fs};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long QEMU and swtpm may take until they answer.
const START: Duration = Duration::from_secs(60);

/// How long a machine lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until its [`Vm`] is dropped, or this process ends, however it does.
    Vm,
    /// Until it is stopped or its guest powers off.
    Detached,
}

/// One of the two programs, started.
struct Started {
    id: ProcessId,
    held: Option<Running>,
}

impl Started {
    fn alive(&mut self) -> bool {
        match &mut self.held {
            Some(r) => matches!(r.try_wait(), Ok(None)),
            None => self.id.is_alive(),
        }
    }
}

impl Registry {
    /// Starts a machine, making its directory where it is new. It comes up in the background; see
    /// [`Vm::wait_ssh`].
    ///
    /// # Errors
    /// [`Error::Running`], and whatever keeps it from being started.
    pub fn boot(&self, config: &VmConfig, lifetime: Lifetime) -> Result<Vm> {
        let _lock = self.lock(&config.name)?;
        self.start(config, lifetime, ConsoleTo::Socket)
    }

    /// Starts a machine with its console on this process's terminal, calls `started` when it runs,
    /// and waits for its end. Ctrl-A X ends it, Ctrl-A C reaches QEMU's monitor; the terminal is
    /// restored. Returns QEMU's exit status.
    ///
    /// # Errors
    /// As [`Registry::boot`].
    pub fn boot_attached(&self, config: &VmConfig, started: impl FnOnce(&Vm)) -> Result<i32> {
        let lock = self.lock(&config.name)?;
        let _terminal = Terminal::save();
        let mut vm = self.start(config, Lifetime::Vm, ConsoleTo::Terminal)?;
        drop(lock);
        started(&vm);
        vm.wait_exit()
    }

    fn start(&self, c: &VmConfig, lifetime: Lifetime, console: ConsoleTo) -> Result<Vm> {
        c.check()?;
        let dir = self.dir(&c.name)?;
        // A record that cannot be read must not keep a machine from being started anew.
        if let Ok(Some(r)) = Record::load(&dir) {
            if r.qemu.is_alive() {
                return Err(Error::Running {
                    name: c.name.clone(),
                    pid: r.qemu.pid,
                });
            }
            if let Some(s) = r.swtpm {
                s.kill();
            }
        }
        private_dir(&dir, &c.name)?;
        let accel = match c.accel {
            Some(a) => a,
            None => accel::probe(&self.tools, c.arch, Some(&self.root))?.accel,
        };
        ssh::make_key(&self.tools, &dir)?;
        variables(self, c, &dir)?;
        let (drives, outside) = disk::prepare(&self.tools, c, &dir)?;
        for f in [
            "console.log",
            "qmp.sock",
            "console.sock",
            "swtpm.sock",
            "vm.json",
        ] {
            fs::remove_file(dir.join(f))?;
        }
        let mut plan = Plan {
            accel,
            uuid: machine_uuid(&dir, &c.name)?,
            drives,
            console,
            spice_port: 0,
            smbios: smbios(c, &dir)?,
        };
        // A port that was free may be taken before QEMU listens on it: try again with another.
        let mut attempt = 0;
        let (mut qemu, swtpm, mut qmp) = loop {
            if c.display == Display::Spice {
                plan.spice_port = free_port(&c.name)?;
            }
            let mut swtpm = self.start_swtpm(c, &dir, lifetime)?;
            match self.start_qemu(c, &dir, lifetime, &plan, &outside) {
                Ok((q, m)) => break (q, swtpm, m),
                Err(e) => {
                    if let Some(s) = &mut swtpm {
                        s.held = None;
                        s.id.kill();
                    }
                    attempt += 1;
                    let taken =
                        matches!(&e, Error::StartFailed { log, .. } if log.contains("in use"));
                    if attempt < 5 && taken && c.display == Display::Spice {
                        continue;
                    }
                    return Err(e);
                }
            }
        };
        let ports = parse_usernet(&qmp.human("info usernet").unwrap_or_default());
        let record = Record {
            name: c.name.clone(),
            arch: c.arch,
            accel,
            uuid: plan.uuid.to_string(),
            image: c.disks.iter().find_map(|d| match &d.source {
                Source::Image { path, .. } => Some(absolute(path)),
                Source::Blank { .. } => None,
            }),
            qemu: qemu.id.clone(),
            swtpm: swtpm.as_ref().map(|s| s.id.clone()),
            ports,
            display: display_address(c, &plan, &mut qmp)?,
            netboot: c.netboot != NetBoot::Off,
        };
        record.store(&dir)?;
        // QEMU first: it is to be killed first.
        let mut held: Vec<Running> = qemu.held.take().into_iter().collect();
        held.extend(swtpm.and_then(|s| s.held));
        Ok(Vm::new(self.tools.clone(), dir, record, held))
    }

    fn start_swtpm(&self, c: &VmConfig, dir: &Path, life: Lifetime) -> Result<Option<Started>> {
        let state = match &c.tpm {
            Tpm::None => return Ok(None),
            Tpm::Fresh => {
                fs::remove_dir_all(dir.join("tpm"))?;
                dir.join("tpm")
            }
            Tpm::Own => dir.join("tpm"),
            Tpm::State(d) => absolute(d),
        };
        private_dir(&state, &c.name)?;
        let cmd = self
            .tools
            .command("swtpm")
            .bind(&state)
            .bind(dir)
            .cwd(dir)
            .args([
                "socket",
                "--tpm2",
                "--terminate",
                "--ctrl",
                "type=unixio,path=swtpm.sock",
            ])
            .arg("--tpmstate")
            .arg(format!("dir={},mode=0600", state.display()));
        let log = dir.join("swtpm.log");
        let mut s = launch(cmd, &log, life, ConsoleTo::Socket, &c.name)?;
        let socket = dir.join("swtpm.sock");
        let end = Instant::now() + START;
        while fs::symlink_metadata(&socket).is_err() {
            if !s.alive() || Instant::now() > end {
                s.held = None;
                s.id.kill();
                return Err(start_failed(&c.name, "swtpm", log));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Some(s))
    }

    fn start_qemu(
        &self,
        c: &VmConfig,
        dir: &Path,
        life: Lifetime,
        plan: &Plan,
        outside: &Outside,
    ) -> Result<(Started, Qmp)> {
        let mut cmd = self.tools.command(c.arch.qemu()).cwd(dir);
        for p in &outside.read {
            cmd = cmd.bind_ro(p);
        }
        for p in &outside.write {
            cmd = cmd.bind(p);
        }
        cmd = cmd.bind(dir).args(command_line(c, plan));
        let log = dir.join("qemu.log");
        let mut q = launch(cmd, &log, life, plan.console, &c.name)?;
        let end = Instant::now() + START;
        loop {
            match Qmp::connect(dir.join("qmp.sock"), Duration::from_secs(10)) {
                Ok(m) => return Ok((q, m)),
                Err(_) if q.alive() && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(_) => {
                    q.held = None;
                    q.id.kill();
                    return Err(start_failed(&c.name, c.arch.qemu(), log));
                }
            }
        }
    }
}

fn start_failed(name: &str, program: &'static str, path: PathBuf) -> Error {
    let text = fs::read(&path).map(|b| String::from_utf8_lossy(&b).into_owned());
    let log = console::tail(&text.unwrap_or_default(), 12);
    Error::StartFailed {
        name: name.into(),
        program,
        log,
        path,
    }
}

fn os(name: &str, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Os {
        name: name.into(),
        action,
        source,
    }
}

/// Starts a program with its output in `log`.
fn launch(cmd: Cmd, log: &Path, life: Lifetime, to: ConsoleTo, name: &str) -> Result<Started> {
    let file = fs::create(log)?;
    let (pid, held) = match (life, to) {
        (Lifetime::Detached, _) => (cmd.detach(file)?, None),
        (Lifetime::Vm, ConsoleTo::Terminal) => {
            let r = keeper(move || {
                cmd.stdin_inherit()
                    .spawn(Stdio::inherit(), Stdio::from(file))
            })?;
            (r.id(), Some(r))
        }
        (Lifetime::Vm, ConsoleTo::Socket) => {
            let out = file.try_clone().map_err(os(name, "share the log file"))?;
            let r = keeper(move || cmd.spawn(Stdio::from(out), Stdio::from(file)))?;
            (r.id(), Some(r))
        }
    };
    let id = ProcessId::of(pid).ok_or_else(|| start_failed(name, "program", log.to_owned()))?;
    Ok(Started { id, held })
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs `start` on a thread that lives as long as this process. A child is killed with the *thread*
/// that started it (PR_SET_PDEATHSIG), and a machine shared by tests must outlive one test's thread.
pub(crate) fn keeper(
    start: impl FnOnce() -> std::result::Result<Running, ToolError> + Send + 'static,
) -> std::result::Result<Running, ToolError> {
    static KEEPER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let gone = || ToolError::Start {
        program: "virtual machine".into(),
        source: std::io::Error::other("the thread that starts it has ended"),
    };
    let jobs = KEEPER.get_or_init(|| {
        let (send, receive) = channel::<Job>();
        std::thread::spawn(move || {
            for job in receive {
                job();
            }
        });
        Mutex::new(send)
    });
    let (send, receive) = channel();
    let job: Job = Box::new(move || {
        let _ = send.send(start());
    });
    jobs.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(job)
        .map_err(|_| gone())?;
    receive.recv().map_err(|_| gone())?
}

fn private_dir(dir: &Path, name: &str) -> Result<()> {
    fs::create_dir_all(dir)?;
    rustix::fs::chmod(dir, rustix::fs::Mode::RWXU)
        .map_err(|e| os(name, "make its directory private")(e.into()))
}

/// The machine's UUID, made up when the machine is.
fn machine_uuid(dir: &Path, name: &str) -> Result<Uuid> {
    let path = dir.join("uuid");
    if let Some(u) = fs::read_optional(&path)?
        .and_then(|b| String::from_utf8(b).ok())
        .and_then(|s| Uuid::parse_str(s.trim()).ok())
    {
        return Ok(u);
    }
    // The kernel makes up a new one at every reading (random(4)).
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let u = Uuid::parse_str(text.trim())
        .map_err(|e| os(name, "make up a UUID")(std::io::Error::other(e)))?;
    fs::write_atomic(&path, format!("{u}\n"))?;
    Ok(u)
}

/// Copies the variable store where the machine has none, or where another one is wanted now.
fn variables(r: &Registry, c: &VmConfig, dir: &Path) -> Result<()> {
    let Firmware::Uefi { variables, smm } = &c.firmware else {
        return Ok(());
    };
    firmware::seen_from_here(&r.tools, &firmware::code(c.arch, *smm), c.arch)?;
    let template = match variables {
        Variables::Blank => {
            firmware::seen_from_here(&r.tools, &firmware::variables(c.arch), c.arch)?
        }
        Variables::Copy(f) => f.clone(),
    };
    let data = fs::read(&template)?;
    let hash = hex::encode(Sha256::digest(&data));
    let stamp = dir.join("vars.template");
    let (vars, known) = (dir.join("vars.fd"), fs::read_optional(&stamp)?);
    if known.as_deref() == Some(hash.as_bytes()) && fs::symlink_metadata(&vars).is_ok() {
        return Ok(());
    }
    fs::write_atomic_mode(&vars, data, 0o600)?;
    Ok(fs::write_atomic(&stamp, hash)?)
}

/// Writes the SMBIOS type 11 strings, one file each: they may be secret or longer than an argument.
fn smbios(c: &VmConfig, dir: &Path) -> Result<Vec<String>> {
    let b64 = base64::engine::general_purpose::STANDARD;
    let mut strings = Vec::new();
    let mut credential = |name: &str, value: &[u8]| {
        strings.push(format!(
            "io.systemd.credential.binary:{name}={}",
            b64.encode(value)
        ));
    };
    credential(
        "ssh.authorized_keys.root",
        &fs::read(dir.join(ssh::KEY_PUB))?,
    );
    for x in &c.credentials {
        credential(&x.name, &x.value);
    }
    if let Some(k) = &c.kernel_cmdline_extra {
        strings.push(format!("io.systemd.stub.kernel-cmdline-extra={k}"));
    }
    let mut names = Vec::new();
    for (n, s) in strings.iter().enumerate() {
        let name = format!("smbios-{n}");
        fs::write_atomic_mode(dir.join(&name), s, 0o600)?;
        names.push(name);
    }
    Ok(names)
}

fn free_port(name: &str) -> Result<u16> {
    let l = TcpListener::bind(("127.0.0.1", 0)).map_err(os(name, "find a free port"))?;
    Ok(l.local_addr().map_err(os(name, "find a free port"))?.port())
}

fn display_address(c: &VmConfig, plan: &Plan, qmp: &mut Qmp) -> Result<Option<String>> {
    Ok(match c.display {
        Display::None => None,
        Display::Spice => Some(format!("spice://127.0.0.1:{}", plan.spice_port)),
        Display::Vnc => {
            let v = qmp.execute("query-vnc", json!({}))?;
            let port = v
                .get("service")
                .and_then(|s| s.as_str())
                .unwrap_or_default();
            Some(format!("vnc://127.0.0.1:{port}"))
        }
    })
}
