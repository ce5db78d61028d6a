// SPDX-License-Identifier: Apache-2.0
//! A system in a directory, which the program backs up and restores.

use crate::files::*;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

pub const PASSWORD: &str = "correct horse";
pub const ID: &str = "0123456789abcdef0123456789abcdef";

/// The work directory of the overlay of /etc, below /var, and what overlayfs makes in it.
pub const WORK: &str = "lib/lamadist/etc/work";
pub const WORK_INSIDE: &str = "work";

/// The directory restic lies in, or the reason is printed.
pub fn restic() -> Option<PathBuf> {
    let tools = lama_testkit::tools_or_host(&["restic"])?;
    let dir = match tools.root() {
        Some(root) => root.join("usr/bin"),
        None => std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .find(|d| d.join("restic").is_file())
            .unwrap(),
    };
    let runs = Command::new(dir.join("restic")).arg("version").output();
    if runs.is_ok_and(|o| o.status.success()) {
        return Some(dir);
    }
    eprintln!("SKIP: the tools tree's restic does not run here (an older C library?)");
    None
}

pub fn is_root() -> bool {
    // SAFETY: it takes and changes nothing.
    unsafe { libc::geteuid() == 0 }
}

/// A system in a directory, and a repository beside it.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub path: std::ffi::OsString,
}

impl Node {
    pub fn new() -> Option<Self> {
        let restic = restic()?;
        let dir = tempfile::tempdir().unwrap();
        // Only restic of the tools tree, and the machine's own programs.
        fs::create_dir(dir.path().join("bin")).unwrap();
        symlink(restic.join("restic"), dir.path().join("bin/restic")).unwrap();
        let mut path = dir.path().join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let node = Self { dir, path };
        for d in ["credentials", "root/var", "root/etc/lamadist"] {
            fs::create_dir_all(node.at(d)).unwrap();
        }
        node.password(PASSWORD);
        node.write("root/etc/hostname", "nas\n");
        node.write("root/etc/machine-id", format!("{ID}\n"));
        node.configure("");
        Some(node)
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn write(&self, path: &str, data: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }

    pub fn password(&self, password: &str) {
        self.write("credentials/lamadist.backup.password", password);
    }

    pub fn repository(&self) -> String {
        self.at("repository").display().to_string()
    }

    pub fn configure(&self, more: &str) {
        let text = format!("repository={}\n{more}", self.repository());
        self.write("root/etc/lamadist/backup.conf", text);
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_lama-node"));
        c.args(args)
            .env("PATH", &self.path)
            .env("CREDENTIALS_DIRECTORY", self.at("credentials"))
            .env("CACHE_DIRECTORY", self.at("cache"))
            // What the caller's environment says of restic does not count.
            .env("RESTIC_REPOSITORY", "/nonexistent/other")
            .env("RESTIC_PASSWORD", "other")
            .stdin(Stdio::null());
        c
    }

    /// Runs it on the system in the directory.
    pub fn run(&self, args: &[&str]) -> Output {
        let root = self.at("root").display().to_string();
        let args = [args, &["--root", &root]].concat();
        self.command(&args).output().unwrap()
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", said(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    pub fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}", said(&out));
        said(&out)
    }

    /// Files of all kinds that the user may make.
    pub fn fill(&self) {
        self.write("root/var/data/big", noise(3 << 20));
        self.write("root/var/data/small", "one");
        self.write("root/var/home/me/n\u{e4}me with [brackets]*", "x");
        fs::hard_link(
            self.at("root/var/data/small"),
            self.at("root/var/data/link"),
        )
        .unwrap();
        symlink("nowhere/at all", self.at("root/var/data/dangling")).unwrap();
        let sparse = fs::File::create(self.at("root/var/data/sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        self.write("root/var/data/setuid", "x");
        let mode = |path: &str, mode| {
            fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        mode("root/var/data/setuid", 0o4751);
        fs::create_dir_all(self.at("root/var/tmp")).unwrap();
        mode("root/var/tmp", 0o1777);
        let upper = "root/var/lib/lamadist/etc/upper";
        self.write(&format!("{upper}/ssh/ssh_host_ed25519_key"), "key");
        mode(&format!("{upper}/ssh/ssh_host_ed25519_key"), 0o600);
        fs::create_dir_all(self.at(upper).join("opaque")).unwrap();
        self.write(
            "root/var/lib/containers/storage/volumes/v/_data/f",
            "volume",
        );
        set_xattr(&self.at("root/var/data/small"), "user.lamadist", b"1");
        if is_root() {
            let file = self.at("root/var/data/setuid");
            std::os::unix::fs::chown(&file, Some(1234), Some(5678)).unwrap();
            mode("root/var/data/setuid", 0o4751);
            device(&self.at(upper).join("gone"), libc::S_IFCHR, 0);
            set_xattr(
                &self.at(upper).join("opaque"),
                "trusted.overlay.opaque",
                b"y",
            );
        } else {
            eprintln!("SKIP: owners, whiteouts and trusted attributes need root");
        }
        let fifo = self.at("root/var/data/fifo");
        device(&fifo, libc::S_IFIFO, 0);
    }

    /// What no backup holds.
    pub fn fill_with_what_stays(&self) {
        for p in [
            "cache/x",
            "tmp/x",
            "data/marked/x",
            "lib/systemd/random-seed",
            "lib/systemd/coredump/x",
            &format!("{WORK}/{WORK_INSIDE}/x"),
            "lib/lamadist/machine/x",
            "lib/rauc/central.raucs",
            "lib/containers/storage/overlay/x",
            "lib/containers/storage/overlay-images/images.json",
            "lib/containers/storage/db.sql",
            "log/journal/x/system.journal",
            "data/film.iso",
        ] {
            self.write(&format!("root/var/{p}"), "x");
        }
        self.write(
            "root/var/data/marked/CACHEDIR.TAG",
            "Signature: 8a477f597d28d172789f06886806bc55",
        );
    }

    pub fn json_status_failed(&self) -> bool {
        let out = self.run(&["backup", "status", "--json"]);
        let v: Value = serde_json::from_slice(&out.stdout).unwrap();
        out.status.code() == Some(1) && v["health"] == "failed" && v["error"].is_string()
    }
}

pub fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}
