// SPDX-License-Identifier: Apache-2.0
//! A machine without any medium boots over the network under Secure Boot; a file that was changed
//! or signed by others is refused.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::{Bench, Built, base, lamadist, turn};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The machine with which QEMU's card is one.
const MAC: &str = "52:54:00:12:34:56";

/// `lamadist netboot`, running.
struct Serving {
    child: Child,
    said: serde_json::Value,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Serving {
    /// With a host `nas`, described in `hosts`.
    fn start(built: &Built, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        std::fs::create_dir(&hosts).unwrap();
        std::fs::write(
            hosts.join("nas.toml"),
            format!(
                "bsp = \"x86_64\"\nmachine-id = \"0123456789abcdef0123456789abcdef\"\n\
                 [[network]]\nmac = \"{MAC}\"\n"
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

    fn port(&self, key: &str) -> u64 {
        self.said[key].as_u64().unwrap()
    }

    /// A name's URL, as machines in QEMU's network reach it.
    fn url(&self, name: &str) -> String {
        assert!(self.said["urls"][name].is_string(), "{name}: {}", self.said);
        format!("http://10.0.2.2:{}/{name}", self.port("http_port"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it as Ctrl-C does.
    fn interrupt(&mut self) -> Option<i32> {
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

#[test]
fn a_machine_without_a_medium_boots_over_http() {
    let _turn = turn();
    let built = base();
    let answers = ["--answer", "disk=/dev/vda", "--answer", "finish=poweroff"];
    let mut serving = Serving::start(built, &answers);
    let start = Instant::now();
    let bench = Bench::starting_at(built, Some(serving.url("hosts/nas/installer.efi")));
    let mut vm = bench.boot_network("netboot");
    // Fetching, hashing and measuring 300 MB takes an emulated firmware minutes.
    let time = vm.accel().scale(Duration::from_secs(120));
    vm.wait_ssh(Some(time)).unwrap();
    println!("up after {:.0} s", start.elapsed().as_secs_f64());
    let ask = |command: &str| vm.ssh_ok(command).unwrap();
    let state = vm.ssh("systemctl is-system-running --wait").unwrap().text();
    let failed = ask("systemctl --failed --no-legend --plain");
    assert_eq!((state.as_str(), failed.as_str()), ("running", ""));
    assert_eq!(
        ask(
            "od -An -tu1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
        )
        .trim(),
        "1"
    );
    assert_eq!(ask("lsblk -dno TYPE | sort -u"), "loop");

    // The root that was in the file, verified.
    let mounts = ask("findmnt -n -o SOURCE,FSTYPE,OPTIONS /");
    assert!(mounts.starts_with("/dev/mapper/root erofs ro"), "{mounts}");
    let verity = ask("dmsetup table root");
    assert!(
        verity.contains(&built.index.root_hash) && verity.contains("panic_on_corruption"),
        "{verity}"
    );
    assert!(ask("dmsetup status root").ends_with(" V"));
    // What an installer finds: the root by the command line, the rest in /run.
    let cmdline = ask("cat /proc/cmdline");
    for word in [
        "lamadist.slot=live",
        "systemd.hostname=nas",
        "lamadist.install.disk=/dev/vda",
        "lamadist.install.finish=poweroff",
    ] {
        assert!(cmdline.split(' ').any(|w| w == word), "{word}: {cmdline}");
    }
    for (parameter, file) in [("data", "root.erofs"), ("hash", "root.verity")] {
        let key = format!("systemd.verity_root_{parameter}=");
        let device = cmdline
            .split(' ')
            .find_map(|w| w.strip_prefix(&key))
            .unwrap();
        let entry = built
            .index
            .artifacts
            .iter()
            .find(|a| a.file == file)
            .unwrap();
        let sum = ask(&format!("sha256sum < {device}"));
        assert!(sum.starts_with(&entry.sha256), "{device}: {sum}");
        assert_eq!(ask(&format!("blockdev --getro {device}")), "1");
    }
    let source = "/run/lamadist/source";
    for file in ["lamadist.efi", "slot-a.addon.efi", "slot-b.addon.efi"] {
        let entry = built
            .index
            .artifacts
            .iter()
            .find(|a| a.file == file)
            .unwrap();
        let sum = ask(&format!("sha256sum {source}/{file}"));
        assert!(sum.starts_with(&entry.sha256), "{file}: {sum}");
    }
    assert_eq!(
        ask(&format!("stat -c %a:%U {source} {source}/*")).replace('\n', " "),
        "700:root 600:root 600:root 600:root 600:root"
    );
    assert!(ask(&format!("ls {source}")).contains("host.addon.efi"));
    let addon = ask(&format!(
        "strings {source}/host.addon.efi || cat {source}/host.addon.efi"
    ));
    assert!(addon.contains("systemd.hostname=nas"), "{addon}");
    // Nothing of it is in memory twice.
    assert_eq!(ask("ls -d /lamadist 2>/dev/null || true"), "");
    println!("{}", ask("free -m; losetup -l; systemd-analyze time"));

    // Who it is.
    assert_eq!(ask("hostname"), "nas");
    assert_eq!(
        ask("cat /etc/machine-id"),
        "0123456789abcdef0123456789abcdef"
    );

    let log = serving.log();
    assert!(log.contains("HTTP /hosts/nas/installer.efi: sent"), "{log}");
    assert_eq!(serving.interrupt(), Some(0), "{}", serving.log());
    assert!(serving.log().contains("stopped after"), "{}", serving.log());
}
