// SPDX-License-Identifier: Apache-2.0
//! The build under test and machines that boot it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods
)]

pub mod dice;
pub mod installed;
pub mod serving;
pub mod updates;
pub mod watch;

use lama_exec::Tools;
use lama_image::index::Index;
use lama_keys::{KeySet, Role};
use lama_vm::{
    Arch, Disk, Firmware, Lifetime, NetBoot, Registry, SecureBoot, Smm, VariableStore, Variables,
    Vm, VmConfig,
};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

/// The checkout.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// A folder of this test run, kept between runs so that a second one is quick.
pub fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// The cache that builds of this test run share.
pub fn cache() -> PathBuf {
    std::env::var_os("LAMADIST_CACHE").map_or_else(
        || {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || std::env::home_dir().unwrap().join(".cache");
            base.filter(|d| d.is_absolute())
                .unwrap_or_else(home)
                .join("lamadist")
        },
        |d| project().join(d),
    )
}

/// The program, with keys and artefacts of the tests' own; packages come from the usual cache.
pub fn lamadist(args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_lamadist"));
    c.current_dir(project()).args(args);
    c.env("LAMADIST_KEYS", scratch().join("keys"));
    c.env("LAMADIST_DEPLOY", scratch().join("deploy"));
    c
}

/// How long one command of the program may take: a first build in an empty cache, at its slowest.
pub const PATIENCE: Duration = Duration::from_secs(1200);

/// Runs a command, and ends it when it takes longer than any should: a test that hangs tells nothing.
pub fn within(command: &mut Command, limit: Duration) -> Output {
    let command = command.stdin(Stdio::null());
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let (done, ended) = mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        let late = ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        late
    });
    let out = child.wait_with_output().unwrap();
    drop(done);
    assert!(
        !guard.join().unwrap(),
        "{command:?} was not done after {limit:?}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    out
}

/// Runs it, and panics with what it said where it failed.
pub fn run(args: &[&str]) -> Output {
    let out = within(&mut lamadist(args), PATIENCE);
    assert!(
        out.status.success(),
        "lamadist {}: {}\n{}",
        args.join(" "),
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    out
}

/// A finished build.
pub struct Built {
    /// Its artefacts.
    pub deploy: PathBuf,
    /// Its index.
    pub index: Index,
    /// The keys that signed it.
    pub keys: KeySet,
    /// The tools it was made with.
    pub tools: Tools,
}

impl Built {
    /// The file of the first artefact of a kind.
    pub fn file(&self, kind: lama_image::index::Kind) -> PathBuf {
        self.deploy.join(&self.index.find(kind).unwrap().file)
    }
}

/// Builds an image.
pub fn image(bsp: &str, image: &str) -> Built {
    let _watched = watch::watch();
    run(&[
        "--quiet", "build", "--locked", "--bsp", bsp, "--image", image,
    ]);
    let deploy = scratch().join("deploy").join(bsp).join(image);
    let tree = String::from_utf8(run(&["--quiet", "tools"]).stdout).unwrap();
    Built {
        index: Index::read(&deploy).unwrap(),
        deploy,
        keys: KeySet::open(scratch().join("keys/development")).unwrap(),
        tools: Tools::tree(tree.trim()),
    }
}

/// The image base for x86_64, built once in a test run.
pub fn base() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| image("x86_64", "base"))
}

/// Two machines at a time where there are two processors: under emulation each keeps one busy. More
/// would not be answered in time.
pub fn turn() -> Turn {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    while *running >= cores.clamp(1, 2) {
        running = ENDED.wait(running).unwrap_or_else(PoisonError::into_inner);
    }
    *running += 1;
    Turn(watch::watch())
}

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run a machine, as long as it is held.
pub struct Turn(#[allow(dead_code)] watch::Watched);

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

/// Waits until the boot is over; no unit may have failed.
pub fn well(vm: &Vm) {
    let state = vm.ssh("systemctl is-system-running --wait").unwrap().text();
    let failed = vm.ssh_ok("systemctl --failed --no-legend --plain").unwrap();
    if state == "running" && failed.is_empty() {
        return;
    }
    let units = failed.lines().filter_map(|l| l.split_whitespace().next());
    let units: Vec<String> = units.map(|u| format!("-u {u}")).collect();
    let journal = format!(
        "journalctl -b --no-pager -o short-monotonic {}",
        units.join(" ")
    );
    let said = vm.ssh(&format!("{journal} | tail -n 60")).unwrap().text();
    panic!("it is {state}\n{failed}\n{said}");
}

/// A machine's folder and registry, removed afterwards.
pub struct Bench {
    dir: tempfile::TempDir,
    registry: Registry,
    variables: PathBuf,
    /// What its machines have. One each: two machines run at a time, and under emulation the
    /// processors of a machine wait for each other more than they help where there are not as many.
    pub processors: u32,
}

/// A machine of a bench, before it is started.
pub struct Machine<'a> {
    bench: &'a Bench,
    /// All about it.
    pub config: VmConfig,
}

impl Machine<'_> {
    /// With these firmware variables.
    pub fn variables(mut self, file: &Path) -> Self {
        self.config.firmware = Firmware::Uefi {
            variables: Variables::Copy(file.to_owned()),
            smm: Smm::On,
        };
        self
    }

    /// With a copy of another machine's TPM, unless it has been started before.
    pub fn tpm_of(self, machine: &Path) -> Self {
        let to = self.bench.dir(&self.config.name).join("tpm");
        if to.exists() {
            return self;
        }
        std::fs::create_dir_all(&to).unwrap();
        for e in std::fs::read_dir(machine.join("tpm")).unwrap() {
            let e = e.unwrap();
            if e.file_type().unwrap().is_file() {
                std::fs::copy(e.path(), to.join(e.file_name())).unwrap();
            }
        }
        self
    }

    /// With a TPM that no other machine has had.
    pub fn new_tpm(self) -> Self {
        let _ = std::fs::remove_dir_all(self.bench.dir(&self.config.name).join("tpm"));
        self
    }

    /// With one more disk.
    pub fn disk(mut self, disk: Disk) -> Self {
        self.config = self.config.disk(disk);
        self
    }

    /// With one more credential.
    pub fn credential(mut self, name: &str, value: &str) -> Self {
        self.config = self.config.credential(name, value);
        self
    }

    /// Starts it.
    pub fn boot(self) -> Vm {
        self.bench
            .registry
            .boot(&self.config, Lifetime::Vm)
            .unwrap()
    }
}

impl Bench {
    /// The folder of its machine with this name.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.registry.dir(name).unwrap()
    }

    /// With our keys enrolled and Secure Boot on.
    pub fn new(built: &Built) -> Self {
        Self::starting_at(built, None)
    }

    /// The same, and its machines start from this URL.
    pub fn starting_at(built: &Built, boot_uri: Option<String>) -> Self {
        Self::with(built, SecureBoot::On, boot_uri)
    }

    /// With our keys enrolled, but the firmware checks nothing.
    pub fn insecure(built: &Built) -> Self {
        Self::with(built, SecureBoot::Off, None)
    }

    fn with(built: &Built, secure_boot: SecureBoot, boot_uri: Option<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let certificates = |role| {
            built
                .keys
                .certificates(role)
                .into_iter()
                .map(|c| c.path)
                .collect()
        };
        let store = VariableStore {
            arch: Arch::X86_64,
            owner: built.keys.owner_guid(),
            pk: built.keys.certificate_path(Role::Pk),
            kek: certificates(Role::Kek),
            db: certificates(Role::Db),
            secure_boot,
            boot_uri,
        };
        let variables = store
            .make(&built.tools, &scratch().join("firmware"))
            .unwrap();
        let registry = Registry::new(dir.path(), built.tools.clone());
        Self {
            dir,
            registry,
            variables,
            processors: 1,
        }
    }

    /// A machine to be put together.
    pub fn machine(&self, name: &str) -> Machine<'_> {
        let mut config = VmConfig::new(name);
        config.cpus = self.processors;
        config.firmware = Firmware::Uefi {
            variables: Variables::Copy(self.variables.clone()),
            smm: Smm::On,
        };
        Machine {
            bench: self,
            config,
        }
    }

    /// A machine that starts from an installed one's disk, as it was left, without changing it, with
    /// its TPM and its firmware's variables, and a second, empty disk.
    pub fn clone_of(&self, installed: &Path, name: &str) -> Machine<'_> {
        self.machine(name)
            .variables(&installed.join("vars.fd"))
            .tpm_of(installed)
            .disk(Disk::image(installed.join("disk-0.raw")))
            .disk(Disk::blank(1 << 30).serial("other"))
    }

    /// Boots a disk.
    pub fn boot(&self, name: &str, disk: &Path) -> Vm {
        self.machine(name).disk(Disk::image(disk)).boot()
    }

    /// A machine that starts over the network. The installer is in memory several times meanwhile.
    pub fn network(&self, name: &str) -> Machine<'_> {
        let mut m = self.machine(name);
        m.config.memory_mib = 3072;
        m.config.netboot = NetBoot::Http;
        m
    }

    /// Boots a machine with a BIOS and iPXE, which DHCP gives this URL.
    pub fn boot_ipxe(&self, name: &str, url: &str) -> Vm {
        let mut config = VmConfig::new(name);
        config.cpus = self.processors;
        config.netboot = NetBoot::Ipxe(url.to_owned());
        config.firmware = Firmware::Bios;
        self.registry.boot(&config, Lifetime::Vm).unwrap()
    }

    /// A copy of the disk with one byte changed, `at` bytes after the first place where `needle`
    /// stands.
    pub fn flipped(&self, disk: &Path, offset: u64) -> PathBuf {
        use std::io::{Read, Seek, SeekFrom, Write};
        let copy = self.dir.path().join("flipped.raw");
        std::fs::copy(disk, &copy).unwrap();
        let mut f = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&copy)
            .unwrap();
        let mut b = [0];
        f.seek(SeekFrom::Start(offset)).unwrap();
        f.read_exact(&mut b).unwrap();
        f.seek(SeekFrom::Start(offset)).unwrap();
        f.write_all(&[b[0] ^ 0x40]).unwrap();
        copy
    }
}

/// An index without the bundle, no two of which are the same (docs/UPDATE.md).
pub fn without_bundle(index: &Index) -> Index {
    let mut index = index.clone();
    let bundle = lama_image::index::Kind::Bundle;
    index.artifacts.retain(|a| a.kind != bundle);
    index
}
