// SPDX-License-Identifier: Apache-2.0
//! Another version of the image, its bundle, and a server for it.

use super::installed::ask;
use super::{Bench, Built, PATIENCE, lamadist, project, scratch, within};
use lama_netboot::{Event, Files, Options, Server, Stopper};
use lama_vm::Vm;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The version that machines are updated to.
pub const VERSION: &str = "9.9.9";
/// The same as development keys sign it.
pub const SIGNED: &str = "9.9.9-dev";
/// A file that the other version has, and the first one has not.
pub const NEW_FILE: &str = "/usr/share/lamadist-next";

/// The build of another version.
pub struct Next {
    work: PathBuf,
    keys: PathBuf,
    /// Its bundle.
    pub bundle: PathBuf,
}

/// Copies the description into this folder, and changes the copy.
pub fn describe(work: &Path, change: impl FnOnce(&Path)) {
    let distro = work.join("distro");
    let _ = std::fs::remove_dir_all(&distro);
    std::fs::create_dir_all(work).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .args([project().join("distro"), distro.clone()])
        .status();
    assert!(copied.unwrap().success());
    change(&distro);
}

impl Next {
    /// Builds it.
    pub fn build() -> Self {
        Self::of("next", |_| ())
    }

    /// Builds it of a description that is changed further, in a folder of this name.
    pub fn of(name: &str, change: impl FnOnce(&Path)) -> Self {
        Self::version(name, VERSION, &scratch().join("keys"), change)
    }

    /// The same, of this version, signed by the keys of this folder.
    pub fn version(name: &str, version: &str, keys: &Path, change: impl FnOnce(&Path)) -> Self {
        let work = scratch().join(name);
        let distro = work.join("distro");
        describe(&work, change);
        let file = distro.join("lamadist.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().map(|l| match l.starts_with("version = ") {
            true => format!("version = {version:?}"),
            false => l.to_owned(),
        });
        std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
        let new = distro.join("files/core").join(&NEW_FILE[1..]);
        std::fs::write(new, "next\n").unwrap();
        let this = Self {
            bundle: work.join("deploy/x86_64/base/lamadist.raucb"),
            work,
            keys: keys.to_owned(),
        };
        this.run(&["build", "--locked"]);
        this
    }

    /// Where its images are.
    pub fn deploy(&self) -> PathBuf {
        self.work.join("deploy/x86_64/base")
    }

    /// Its root hash.
    pub fn root_hash(&self) -> String {
        lama_image::index::Index::read(&self.deploy())
            .unwrap()
            .root_hash
    }

    /// Runs `lamadist` for it.
    pub fn run(&self, args: &[&str]) {
        let mut c = lamadist(&["--quiet"]);
        c.args(args)
            .env("LAMADIST_DISTRO", self.work.join("distro"))
            .env("LAMADIST_DEPLOY", self.work.join("deploy"))
            .env("LAMADIST_KEYS", &self.keys);
        let out = within(&mut c, PATIENCE);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?}: {said}");
    }

    /// Encrypts its bundle to a machine, and to nobody else but the builder.
    pub fn encrypt_to(&self, vm: &Vm) {
        let certificate = self.work.join("node.crt");
        std::fs::write(&certificate, ask(vm, "lama-node key") + "\n").unwrap();
        self.run(&["bundle", "--to", &certificate.display().to_string()]);
    }

    /// Publishes it on the track `stable`, with a delta bundle from an earlier version, and returns all
    /// files by the names that a server has them under.
    pub fn publish(&self, older: &Built) -> Vec<(String, PathBuf)> {
        let site = self.work.join("site");
        let _ = std::fs::remove_dir_all(&site);
        let older = older.deploy.display().to_string();
        let to = site.display().to_string();
        self.run(&[
            "channel",
            "--track",
            "stable",
            "--delta-from",
            &older,
            "--output",
            &to,
        ]);
        let mut files = Vec::new();
        for e in std::fs::read_dir(site.join("stable")).unwrap() {
            let e = e.unwrap();
            let name = e.file_name().into_string().unwrap();
            if e.file_type().unwrap().is_file() && !name.starts_with('.') {
                files.push((format!("stable/{name}"), e.path()));
            }
        }
        files
    }

    /// The bundle with something done to it, under another name.
    pub fn altered(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let mut data = std::fs::read(&self.bundle).unwrap();
        change(&mut data);
        let path = self.work.join(name);
        std::fs::write(&path, data).unwrap();
        path
    }
}

/// A web server that machines reach, as long as it is held.
pub struct Web {
    port: u16,
    sent: Arc<AtomicU64>,
    stopper: Stopper,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Web {
    /// Serves files by name.
    pub fn serve(files: &[(impl AsRef<str>, impl AsRef<Path>)]) -> Self {
        let server = Server::bind(&Options {
            listen: [127, 0, 0, 1].into(),
            http_port: 0,
            tftp_port: None,
            count: None,
        })
        .unwrap();
        let mut all = Files::new();
        for (name, path) in files {
            all.add_file(name.as_ref(), path.as_ref()).unwrap();
        }
        let (port, stopper) = (server.http_port(), server.stopper());
        let sent = Arc::new(AtomicU64::new(0));
        let count = sent.clone();
        let tell = move |e| {
            if let Event::Finished { sent, .. } = e {
                count.fetch_add(sent, Relaxed);
            }
        };
        let thread = std::thread::spawn(move || {
            server.run(all, tell).unwrap();
        });
        Self {
            port,
            sent,
            stopper,
            thread: Some(thread),
        }
    }

    /// Where a machine finds a file.
    pub fn url(&self, name: &str) -> String {
        // Where QEMU's own network has the host.
        format!("http://10.0.2.2:{}/{name}", self.port)
    }

    /// Bytes that it has sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Where this machine does.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

/// Runs something that may fail, and returns whether it did not and what it said.
pub fn tries(vm: &Vm, command: &str) -> (bool, String) {
    let c = format!("{command} 2>&1");
    let out = vm.ssh_within(&c, b"", Duration::from_secs(1800)).unwrap();
    (out.ok(), out.text())
}

/// How a machine stands in its updates.
pub fn standing(vm: &Vm) -> serde_json::Value {
    serde_json::from_str(&ask(vm, "lama-node update --json")).unwrap()
}

/// Waits until what came of a trial is known.
pub fn judged(vm: &Vm) -> serde_json::Value {
    let end = Instant::now() + Duration::from_secs(400);
    loop {
        let status = standing(vm);
        if status["trial"].is_null() {
            return status;
        }
        assert!(Instant::now() < end, "{status}");
        std::thread::sleep(Duration::from_secs(3));
    }
}

/// The slot that runs.
pub fn slot(vm: &Vm) -> &'static str {
    let line = ask(vm, "cat /proc/cmdline");
    match line.contains("lamadist.slot=b rauc.slot=B") {
        true => "b",
        false => {
            assert!(line.contains("lamadist.slot=a rauc.slot=A"), "{line}");
            "a"
        }
    }
}

impl Bench {
    /// Copies a machine as a power cut at this moment would leave it: its first disk, firmware
    /// variables and TPM.
    pub fn cut(&self, vm: &Vm, name: &str) {
        let from = vm.dir().to_owned();
        let copy = || self.copy(&from, name);
        vm.frozen(copy).unwrap();
    }

    /// Copies a machine that does not run.
    pub fn copy(&self, from: &Path, name: &str) {
        let to = self.dir(name);
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir_all(&to).unwrap();
        let done = Command::new("cp")
            .args(["-a", "--sparse=always", "--reflink=auto", "--"])
            // The key, too: it is on the disk already who may log in.
            .args(
                [
                    "disk-0.qcow2",
                    "disk-0.base.json",
                    "vars.fd",
                    "tpm",
                    "uuid",
                    "id_ed25519",
                    "id_ed25519.pub",
                ]
                .map(|f| from.join(f)),
            )
            .arg(&to)
            .status();
        assert!(done.unwrap().success());
        std::fs::rename(to.join("vars.fd"), to.join("was.fd")).unwrap();
    }

    /// Boots such a copy of a machine that started from this disk.
    pub fn boot_copy(&self, disk: &Path, name: &str) -> Vm {
        let variables = self.dir(name).join("was.fd");
        let machine = self.machine(name).variables(&variables);
        machine.disk(lama_vm::Disk::image(disk)).boot()
    }
}
