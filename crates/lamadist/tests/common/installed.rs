// SPDX-License-Identifier: Apache-2.0
//! A machine that `lamadist vm install` made, and disks as a power cut leaves them.

use super::{Built, lamadist, scratch, well};
use lama_vm::{Registry, Vm};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What the installer says at the beginning of each of its stages, before it writes anything of it; and
/// in the middle of the longest.
pub const STAGES: [&str; 5] = [
    "lamadist-install> Marking",
    "lamadist-install> Partitioning",
    "lamadist-install> Encrypting",
    "lamadist-install> 50 % of the root",
    "  The recovery key ",
];
/// What it says when it is done.
const END: &str = "lamadist-install ends";

/// A machine that was installed once in this test run; others start from its disk.
pub struct Node {
    /// Its folder: disk, firmware variables, TPM.
    pub dir: PathBuf,
    /// What the installer said at its end.
    pub said: String,
    /// Its recovery key.
    pub recovery: String,
    /// Its disk, had the power failed about in the middle.
    pub cut: PathBuf,
    /// How long each of [`STAGES`] took.
    pub stages: Vec<Duration>,
}

/// Where hosts of the tests are described.
pub fn hosts() -> PathBuf {
    scratch().join("hosts")
}

fn state() -> PathBuf {
    scratch().join("state")
}

/// It, installed once.
pub fn node(built: &Built) -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| {
        let _ = std::fs::remove_dir_all(state());
        let _ = std::fs::remove_dir_all(hosts());
        std::fs::create_dir_all(hosts()).unwrap();
        ssh_key(built, &hosts());
        let key = hosts().join("key.pub").display().to_string();
        let add = lamadist(&["--quiet", "host", "add", "node1", "--ssh-key", &key])
            .env("LAMADIST_HOSTS", hosts())
            .output()
            .unwrap();
        assert!(add.status.success(), "{add:?}");
        let cut = scratch().join("cut.raw");
        let mut installation = Installation::start(built, "node1", &["--host", "node1"]);
        let mut began = Vec::new();
        for (n, stage) in STAGES.iter().enumerate() {
            installation.wait(stage);
            began.push(installation.elapsed());
            if n == 3 {
                installation.copy(&cut);
            }
        }
        let done = installation.finish();
        began.push(done.took);
        let stages = began
            .windows(2)
            .map(|w| w[1].saturating_sub(w[0]))
            .collect();
        let recovery = done
            .said
            .split_whitespace()
            .find(|w| w.len() == 71 && w.split('-').count() == 8)
            .unwrap_or_else(|| panic!("no recovery key: {}", done.said))
            .to_owned();
        Node {
            dir: state().join("lamadist/vm/node1"),
            said: done.said,
            recovery,
            cut,
            stages,
        }
    })
}

/// `lamadist vm install`, running.
pub struct Installation {
    child: Child,
    name: String,
    vm: Option<Vm>,
    registry: Registry,
    began: Instant,
}

/// What came of it.
pub struct Finished {
    /// What it printed.
    pub said: String,
    /// From the first write to the last.
    pub took: Duration,
}

impl Installation {
    /// Starts it. Returns when the first thing is about to be written.
    pub fn start(built: &Built, name: &str, more: &[&str]) -> Self {
        let mut c = lamadist(&["--quiet", "vm", "install", "--name", name]);
        c.args(more)
            .env("XDG_STATE_HOME", state())
            .env("LAMADIST_HOSTS", hosts())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut this = Self {
            child: c.spawn().unwrap(),
            name: name.to_owned(),
            vm: None,
            registry: Registry::new(state().join("lamadist/vm"), built.tools.clone()),
            began: Instant::now(),
        };
        this.wait(STAGES[0]);
        this.began = Instant::now();
        this
    }

    /// Waits until its console says this.
    pub fn wait(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(600);
        let log = state()
            .join("lamadist/vm")
            .join(&self.name)
            .join("console.log");
        loop {
            let said = std::fs::read(&log).unwrap_or_default();
            if String::from_utf8_lossy(&said).contains(text) {
                return;
            }
            let gone = self.child.try_wait().unwrap().is_some();
            assert!(!gone, "vm install ended before it said {text:?}");
            assert!(Instant::now() < end, "{text:?} was not said");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Since the first thing was written.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Copies its disk as it is at this moment. Returns false where the machine has gone off.
    pub fn copy(&mut self, to: &Path) -> bool {
        let dir = state().join("lamadist/vm").join(&self.name);
        if self.vm.is_none() {
            self.vm = self.registry.open(&self.name).ok();
        }
        let Some(vm) = &self.vm else { return false };
        let copied = vm.frozen(|| {
            sparse_copy(&dir.join("disk-0.raw"), to);
            sparse_copy(&dir.join("vars.fd"), &to.with_extension("vars"));
        });
        copied.is_ok()
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Finished {
        self.wait(END);
        let took = self.began.elapsed();
        let out = self.child.wait_with_output().unwrap();
        assert!(out.status.success());
        Finished {
            said: String::from_utf8(out.stdout).unwrap(),
            took,
        }
    }
}

/// Copies a file without filling its holes.
pub fn sparse_copy(from: &Path, to: &Path) {
    let done = Command::new("cp")
        .args(["--sparse=always", "--reflink=auto", "--"])
        .args([from, to])
        .status()
        .unwrap();
    assert!(done.success(), "cannot copy {}", from.display());
}

fn ssh_key(built: &Built, dir: &Path) {
    built
        .tools
        .command("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "admin", "-f", "key"])
        .bind(dir)
        .cwd(dir)
        .run()
        .unwrap();
}

/// What a command said in a machine; it has to succeed.
pub fn ask(vm: &Vm, command: &str) -> String {
    vm.ssh_ok(command).unwrap()
}

/// Waits for a machine, which then runs without a failed unit.
pub fn healthy(vm: &mut Vm) {
    vm.wait_ssh(Some(Duration::from_secs(300))).unwrap();
    well(vm);
}

/// Starts the machine anew from within.
pub fn reboot(vm: &mut Vm) {
    vm.mark().unwrap();
    let before = ask(vm, "cat /proc/sys/kernel/random/boot_id");
    // The connection goes away with the machine.
    let _ = vm.ssh("systemctl reboot");
    let end = Instant::now() + Duration::from_secs(400);
    loop {
        std::thread::sleep(Duration::from_secs(3));
        vm.wait_ssh(Some(Duration::from_secs(300))).unwrap();
        let now = vm.ssh("cat /proc/sys/kernel/random/boot_id");
        if now.is_ok_and(|o| o.ok() && o.text() != before) {
            return;
        }
        assert!(Instant::now() < end, "it did not start anew");
    }
}

/// Runs the installer of a live system with these answers (lines with `\\n` between), and returns
/// whether it succeeded and what it said.
pub fn install(vm: &Vm, answers: &str, more: &str) -> (bool, String) {
    let c = installing(answers, more) + " 2>&1";
    let out = vm.ssh_within(&c, b"", Duration::from_secs(300)).unwrap();
    (out.ok(), out.text())
}

/// The command that does.
pub fn installing(answers: &str, more: &str) -> String {
    format!(
        "mkdir -p /run/c && printf '{answers}' > /run/c/lamadist.install && \
         CREDENTIALS_DIRECTORY=/run/c lama-node install {more}"
    )
}
