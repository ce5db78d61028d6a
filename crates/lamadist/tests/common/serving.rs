// SPDX-License-Identifier: Apache-2.0
//! `lamadist netboot`, as machines under test see it.

use super::{Built, lamadist};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The network card of QEMU's machines.
pub const MAC: &str = "52:54:00:12:34:56";

/// `lamadist netboot`, running.
pub struct Serving {
    child: Child,
    /// What it printed.
    pub said: serde_json::Value,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Serving {
    /// With a host `nas` that answers two of the installer's questions.
    pub fn start(built: &Built, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        std::fs::create_dir(&hosts).unwrap();
        std::fs::write(
            hosts.join("nas.toml"),
            format!(
                "bsp = \"x86_64\"\nmachine-id = \"0123456789abcdef0123456789abcdef\"\n\
                 [[network]]\nmac = \"{MAC}\"\n\
                 [install]\nwipe = \"yes\"\nsecure-boot = \"required\"\n"
            ),
        )
        .unwrap();
        let log = dir.path().join("log");
        let mut c = lamadist(&["--json", "netboot", "--host", "nas"]);
        c.args([
            "--listen",
            "127.0.0.1",
            "--http-port",
            "0",
            "--tftp-port",
            "0",
        ]);
        c.args(more).env("LAMADIST_HOSTS", &hosts);
        c.stdout(Stdio::piped());
        c.stderr(std::fs::File::create(&log).unwrap());
        let mut child = c.spawn().unwrap();
        // One object, and then the pipe stays open as long as it serves.
        let out = child.stdout.take().unwrap();
        let mut values = serde_json::Deserializer::from_reader(out).into_iter();
        let Some(Ok(said)) = values.next() else {
            child.wait().unwrap();
            panic!("{}", std::fs::read_to_string(&log).unwrap());
        };
        assert!(built.deploy.join("netboot/installer.efi").is_file());
        Self {
            child,
            said,
            log,
            _dir: dir,
        }
    }

    /// A port that it was given.
    pub fn port(&self, key: &str) -> u64 {
        self.said[key].as_u64().unwrap()
    }

    /// A name's URL, as machines in QEMU's network reach it.
    pub fn url(&self, name: &str) -> String {
        assert!(self.said["urls"][name].is_string(), "{name}: {}", self.said);
        format!("http://10.0.2.2:{}/{name}", self.port("http_port"))
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it as Ctrl-C does.
    pub fn interrupt(&mut self) -> Option<i32> {
        Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status()
            .unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
