// SPDX-License-Identifier: Apache-2.0
//! Backup and restore with the real restic: what comes back is what was there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PASSWORD: &str = "correct horse";
const ID: &str = "0123456789abcdef0123456789abcdef";

/// The work directory of the overlay of /etc, below /var, and what overlayfs makes in it.
const WORK: &str = "lib/lamadist/etc/work";
const WORK_INSIDE: &str = "work";

/// The directory restic lies in, or the reason is printed.
fn restic() -> Option<PathBuf> {
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

fn is_root() -> bool {
    // SAFETY: it takes and changes nothing.
    unsafe { libc::geteuid() == 0 }
}

/// A system in a directory, and a repository beside it.
struct Node {
    dir: tempfile::TempDir,
    path: std::ffi::OsString,
}

impl Node {
    fn new() -> Option<Self> {
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

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, data: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }

    fn password(&self, password: &str) {
        self.write("credentials/lamadist.backup.password", password);
    }

    fn repository(&self) -> String {
        self.at("repository").display().to_string()
    }

    fn configure(&self, more: &str) {
        let text = format!("repository={}\n{more}", self.repository());
        self.write("root/etc/lamadist/backup.conf", text);
    }

    fn command(&self, args: &[&str]) -> Command {
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
    fn run(&self, args: &[&str]) -> Output {
        let root = self.at("root").display().to_string();
        let args = [args, &["--root", &root]].concat();
        self.command(&args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", said(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}", said(&out));
        said(&out)
    }

    /// Files of all kinds that the user may make.
    fn fill(&self) {
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
    fn fill_with_what_stays(&self) {
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
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn noise(len: usize) -> Vec<u8> {
    let mut x: u64 = 88_172_645_463_325_252;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    };
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend(next());
    }
    out.truncate(len);
    out
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn device(path: &Path, kind: libc::mode_t, number: libc::dev_t) {
    // SAFETY: the string ends in a zero byte.
    let r = unsafe { libc::mknod(c(path).as_ptr(), kind | 0o644, number) };
    assert_eq!(
        r,
        0,
        "{}: {}",
        path.display(),
        std::io::Error::last_os_error()
    );
}

/// Not every file system has them.
fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    let n = CString::new(name).unwrap();
    // SAFETY: pointers and length belong together.
    let r = unsafe {
        libc::setxattr(
            c(path).as_ptr(),
            n.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if r != 0 {
        eprintln!("SKIP: {name}: {}", std::io::Error::last_os_error());
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0u8; 4096];
    // SAFETY: the buffer is as long as is said.
    let n = unsafe { libc::llistxattr(c(path).as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(n).unwrap_or(0));
    let mut out = BTreeMap::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0u8; 4096];
        let z = CString::new(name).unwrap();
        // SAFETY: as above.
        let n = unsafe {
            libc::lgetxattr(
                c(path).as_ptr(),
                z.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        value.truncate(usize::try_from(n).unwrap_or(0));
        out.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    out
}

/// Everything that a file is, besides its name and inode.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    content: Vec<u8>,
    device: u64,
    modified: (i64, i64),
    links: u64,
    attributes: BTreeMap<String, Vec<u8>>,
}

/// All below a directory, by path.
fn tree(dir: &Path) -> BTreeMap<String, Entry> {
    let mut out = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(d) = todo.pop() {
        for e in fs::read_dir(&d).unwrap() {
            let path = e.unwrap().path();
            let m = path.symlink_metadata().unwrap();
            let kind = m.file_type();
            if kind.is_dir() {
                todo.push(path.clone());
            }
            let content = if kind.is_file() {
                fs::read(&path).unwrap()
            } else if kind.is_symlink() {
                let to = fs::read_link(&path).unwrap();
                to.as_os_str().as_bytes().to_vec()
            } else {
                Vec::new()
            };
            let entry = Entry {
                mode: m.mode(),
                owner: (m.uid(), m.gid()),
                content,
                device: if kind.is_char_device() { m.rdev() } else { 0 },
                modified: if kind.is_dir() {
                    (0, 0)
                } else {
                    (m.mtime(), m.mtime_nsec())
                },
                links: if kind.is_dir() { 0 } else { m.nlink() },
                attributes: xattrs(&path),
            };
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap();
            out.insert(name.to_owned(), entry);
        }
    }
    out
}

/// Compares without printing megabytes.
fn same(a: &BTreeMap<String, Entry>, b: &BTreeMap<String, Entry>) {
    for (name, entry) in a {
        let other = b.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(
            entry == other,
            "{name}: {:?} {:?}",
            (
                entry.mode,
                entry.owner,
                entry.modified,
                entry.links,
                &entry.attributes
            ),
            (
                other.mode,
                other.owner,
                other.modified,
                other.links,
                &other.attributes
            )
        );
    }
    for name in b.keys() {
        assert!(a.contains_key(name), "{name} is new");
    }
}

#[test]
fn what_was_backed_up_comes_back() {
    let Some(n) = Node::new() else { return };
    n.fill();
    n.configure(
        "exclude=*.iso\nkeep-last=1\nkeep-daily=0\nkeep-weekly=0\nkeep-monthly=0\nkeep-yearly=0\n",
    );
    assert_eq!(n.json(&["backup", "status"])["health"], "never");
    let first = n.json(&["backup", "--init", "--no-forget"]);
    assert!(first["added"].as_u64().unwrap() > 3 << 20, "{first}");
    assert_eq!(first["unreadable"], serde_json::json!([]));

    // Only what changed is stored, and nothing of what is left out.
    n.write("root/var/data/small", "two");
    n.fill_with_what_stays();
    let second = n.json(&["backup", "--no-forget"]);
    assert!(second["added"].as_u64().unwrap() < 100 << 10, "{second}");
    let status = n.json(&["backup", "status"]);
    assert_eq!(status["health"], "ok");
    assert_eq!(status["snapshot"], second["snapshot"]);

    let list = n.json(&["backup", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(
        (&list[0]["host"], &list[1]["id"]),
        (&"nas".into(), &second["snapshot"])
    );
    assert_eq!(
        n.json(&["backup", "list", "--host", "web"]),
        serde_json::json!([])
    );
    n.ok(&["backup", "check"]);
    n.ok(&["backup", "check", "--read-data-subset", "50%"]);
    n.ok(&["backup", "check", "--read-data"]);

    let target = n.at("target");
    let to = target.display().to_string();
    fs::create_dir_all(target.join("lost+found")).unwrap();
    let plan = n.run(&["restore", "--target", &to, "--dry-run"]);
    assert!(plan.status.success() && said(&plan).contains("Restoring everything of nas"));
    let done = n.json(&["restore", "--target", &to, "--verify"]);
    assert_eq!(
        (&done["host"]["hostname"], &done["staged"]),
        (&"nas".into(), &false.into())
    );

    let (was, mut is) = (tree(&n.at("root/var")), tree(&target));
    for missing in [
        "cache/x",
        "tmp/x",
        "data/marked/x",
        "lib/systemd/random-seed",
        "lib/lamadist/machine",
        "lib/lamadist/backup",
        &format!("{WORK}/{WORK_INSIDE}"),
        "lib/rauc",
        "lib/containers/storage/overlay/x",
        "lib/containers/storage/db.sql",
        "log/journal/x",
        "data/film.iso",
    ] {
        assert!(was.keys().any(|k| k.starts_with(missing)), "{missing}");
        assert!(!is.contains_key(missing), "{missing}");
    }
    is.remove("lost+found");
    let work = "lib/lamadist/etc/work";
    assert!(is.remove(work).is_some());
    // The name and ID that only the host's addon gave.
    for (file, want) in [("hostname", "nas\n"), ("machine-id", &format!("{ID}\n"))] {
        let e = is
            .remove(&format!("lib/lamadist/etc/upper/{file}"))
            .unwrap();
        assert_eq!(e.content, want.as_bytes());
    }
    let was: BTreeMap<_, _> = was
        .into_iter()
        .filter(|(k, _)| is.contains_key(k))
        .collect();
    same(&was, &is);
    for there in [
        "data/big",
        "data/link",
        "data/fifo",
        "lib/containers/storage/volumes/v/_data/f",
    ] {
        assert!(is.contains_key(there), "{there}");
    }
    assert_eq!(is["data/small"].links, 2);
    if is_root() {
        assert!(is.contains_key("lib/lamadist/etc/upper/gone"));
        assert_eq!(is["data/setuid"].owner, (1234, 5678));
    }
    let blocks = target.join("data/sparse").metadata().unwrap().blocks();
    assert!(blocks < 2048, "a hole became {blocks} blocks");
    assert_eq!(target.metadata().unwrap().mode() & 0o7777, 0o755);

    // A directory with something in it is left alone.
    let e = n.fails(&["restore", "--target", &to]);
    assert!(e.contains("is not empty") && e.contains("hint: "), "{e}");
    fs::write(target.join("data/small"), "mine").unwrap();
    n.ok(&[
        "restore",
        "--target",
        &to,
        "--force",
        "--snapshot",
        first["snapshot"].as_str().unwrap(),
    ]);
    assert_eq!(fs::read(target.join("data/small")).unwrap(), b"one");

    let f = n.json(&["backup", "forget", "--dry-run"]);
    assert_eq!(
        (&f["kept"], &f["removed"]),
        (&1.into(), &serde_json::json!([first["snapshot"]]))
    );
    n.json(&["backup"]);
    assert_eq!(n.json(&["backup", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_flipped_byte_is_found() {
    let Some(n) = Node::new() else { return };
    n.write("root/var/data/big", noise(1 << 20));
    n.ok(&["backup", "--init"]);
    n.ok(&["backup", "check", "--read-data"]);
    let packs = tree(&n.at("repository/data"));
    let (name, pack) = packs.iter().max_by_key(|(_, e)| e.content.len()).unwrap();
    let mut data = pack.content.clone();
    let middle = data.len() / 2;
    data[middle] ^= 1;
    let pack = n.at("repository/data").join(name);
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, data).unwrap();
    let e = n.fails(&["backup", "check", "--read-data"]);
    assert!(e.contains("is damaged") && e.contains("hint: "), "{e}");
    fs::create_dir(n.at("target")).unwrap();
    let to = n.at("target").display().to_string();
    let e = n.fails(&["restore", "--target", &to]);
    assert!(e.contains("the restore is not whole"), "{e}");
    // It can be told from a whole one, and taken up again.
    assert!(n.at("target/.lamadist-restore-unfinished").exists());
}

#[test]
fn an_interrupted_restore_is_taken_up() {
    let Some(n) = Node::new() else { return };
    n.fill();
    n.ok(&["backup", "--init"]);
    let to = n.at("target").display().to_string();
    fs::create_dir(n.at("target")).unwrap();
    n.ok(&["restore", "--target", &to]);
    let want = tree(&n.at("target"));
    let full = n.ok(&["backup", "list", "--json"]);
    let short = serde_json::from_str::<Value>(&full).unwrap()[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let id = fs::read_dir(n.at("repository/snapshots"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with(&short))
        .unwrap();
    n.write("target/.lamadist-restore-unfinished", id);
    n.write("target/data/big", "half of it");
    fs::remove_file(n.at("target/data/small")).unwrap();
    n.ok(&["restore", "--target", &to]);
    same(&want, &tree(&n.at("target")));
}

#[test]
fn failures_say_what_to_do() {
    let Some(n) = Node::new() else { return };
    n.write("root/var/x", "x");
    let e = n.fails(&["backup"]);
    assert!(
        e.contains("there is no backup repository at") && e.contains("mounted"),
        "{e}"
    );
    assert!(n.json_status_failed());
    n.ok(&["backup", "--init"]);

    n.password("wrong");
    for command in [
        &["backup"][..],
        &["backup", "list"],
        &["backup", "check"],
        &["backup", "forget"],
    ] {
        let e = n.fails(command);
        assert!(e.contains("the password does not open"), "{e}");
        assert!(e.contains("hint: ") && !e.contains("wrong"), "{e}");
    }
    n.password(PASSWORD);

    let e = n.fails(&["restore", "--target", "/", "--dry-run"]);
    assert!(e.contains("/ is not empty"), "{e}");
    let e = n.fails(&["restore", "--target", "/nonexistent"]);
    assert!(e.contains("cannot find /nonexistent"), "{e}");
    let to = n.at("credentials").display().to_string();
    let e = n.fails(&["restore", "--target", &to, "--host", "web"]);
    assert!(
        e.contains("there is no snapshot of web") && e.contains("of nas"),
        "{e}"
    );

    n.configure("keep-day=3\n");
    let e = n.fails(&["backup"]);
    assert!(
        e.contains("backup.conf:2: there is no setting \"keep-day\""),
        "{e}"
    );
    n.configure("");
    let out = n
        .command(&["backup", "--root", n.at("root").to_str().unwrap()])
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert!(said(&out).contains("cannot run restic"), "{}", said(&out));
    // A relative root is the same system.
    let mut c = n.command(&["backup", "--root", "root"]);
    let out = c.current_dir(n.dir.path()).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    fs::create_dir(n.at("empty")).unwrap();
    n.ok(&["restore", "--target", n.at("empty").to_str().unwrap()]);
    assert!(n.at("empty/x").exists());
    let e = n.fails(&["backup", "nonsense"]);
    assert!(e.contains("there is no argument nonsense here"), "{e}");
    let e = n.fails(&["backup", "check", "--read-data-subset", "all"]);
    assert!(e.contains("is not a part of the data"), "{e}");
}

impl Node {
    fn json_status_failed(&self) -> bool {
        let out = self.run(&["backup", "status", "--json"]);
        let v: Value = serde_json::from_slice(&out.stdout).unwrap();
        out.status.code() == Some(1) && v["health"] == "failed" && v["error"].is_string()
    }
}

/// A lock that a power cut left is removed; one of a living process is respected.
#[test]
fn a_stale_lock_stops_nothing() {
    let Some(n) = Node::new() else { return };
    n.write("root/var/x", noise(1 << 20));
    n.ok(&["backup", "--init"]);
    // restic removes its locks when it ends, unless it is killed.
    let mut child = Command::new(n.at("bin/restic"))
        .args(["--repo", &n.repository(), "backup", "--stdin"])
        .env("RESTIC_PASSWORD", PASSWORD)
        .env("RESTIC_CACHE_DIR", n.at("cache"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // While one is being written it has a longer name, and is none yet.
    let locks = || {
        let all = fs::read_dir(n.at("repository/locks")).unwrap();
        all.filter(|e| e.as_ref().unwrap().file_name().len() == 64)
            .count()
    };
    for _ in 0..200 {
        if locks() > 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(locks(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(locks(), 1);
    n.ok(&["backup"]);
    assert_eq!(locks(), 0);
}

/// Onto a machine that runs: beside the data, then in its place, with what is the machine's.
#[test]
fn a_running_system_is_restored_by_the_next_boot() {
    let Some(n) = Node::new() else { return };
    n.fill();
    n.ok(&["backup", "--init"]);
    let was = tree(&n.at("root/var"));

    let other = n.at("other");
    let root = other.display().to_string();
    let node = |args: &[&str]| {
        let all = [args, &["--root", &root]].concat();
        let out = n.command(&all).output().unwrap();
        assert!(out.status.success(), "{all:?}: {}", said(&out));
        out
    };
    n.write("other/var/lib/installed", "x");
    n.write("other/var/lib/systemd/random-seed", "seed");
    n.write(
        "other/var/lib/lamadist/etc/upper/ssh/ssh_host_ed25519_key",
        "another",
    );
    n.write("other/var/log/journal/x/system.journal", "log");
    n.write("other/var/lost+found/x", "x");
    n.write("other/etc/hostname", "fresh\n");

    // Only the identity first: the data stays.
    let repository = n.repository();
    let from = ["restore", "--repository", &repository];
    node(&[&from[..], &["--identity-only"]].concat());
    assert!(n.run(&["restore", "--clean"]).status.success());
    let key = "var/lib/lamadist/etc/upper/ssh/ssh_host_ed25519_key";
    assert_eq!(fs::read(other.join(key)).unwrap(), b"another");
    let again = n
        .command(&[&from[..], &["--root", &root]].concat())
        .output()
        .unwrap();
    assert!(
        said(&again).contains("waits for the next boot"),
        "{}",
        said(&again)
    );
    node(&["restore", "--finish"]);
    assert_eq!(fs::read(other.join(key)).unwrap(), b"key");
    assert!(other.join("var/lib/installed").exists() && !other.join("var/data").exists());
    for d in [
        "lib",
        "lib/lamadist",
        "lib/lamadist/etc",
        "lib/lamadist/etc/upper",
    ] {
        let mode = other.join("var").join(d).metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o755, "{d}");
    }
    node(&["restore", "--clean"]);

    node(&from);
    assert!(other.join("var/lib/installed").exists());
    node(&["restore", "--finish"]);
    node(&["restore", "--finish"]);
    let is = tree(&other.join("var"));
    for (name, there) in [
        ("lib/installed", false),
        (".lamadist-restore/old/lib/installed", true),
        ("lib/systemd/random-seed", true),
        ("log/journal/x/system.journal", true),
        ("lost+found/x", true),
        ("data/big", true),
    ] {
        assert_eq!(is.contains_key(name), there, "{name}");
    }
    node(&["restore", "--clean"]);
    let now: BTreeMap<_, _> = tree(&other.join("var"))
        .into_iter()
        .filter(|(k, _)| was.contains_key(k))
        .collect();
    let was: BTreeMap<_, _> = was
        .into_iter()
        .filter(|(k, _)| !k.starts_with("lib/lamadist/backup"))
        .collect();
    same(&was, &now);
}

/// A real overlay shows the same after its upper layer went through a backup.
#[test]
fn an_overlay_of_etc_survives() {
    let Some(n) = Node::new() else { return };
    if !is_root() {
        eprintln!("SKIP: mounting an overlay needs root");
        return;
    }
    for (path, text) in [
        ("a", "a"),
        ("gone", "x"),
        ("dir/old", "x"),
        ("dir2/keep", "x"),
    ] {
        n.write(&format!("root/etc/{path}"), text);
    }
    let overlay = |var: &Path, script: &str| {
        let (etc, l) = (n.at("merged"), var.join("lib/lamadist/etc"));
        for d in [&etc, &l.join("upper"), &l.join("work")] {
            fs::create_dir_all(d).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            n.at("root/etc").display(),
            l.join("upper").display(),
            l.join("work").display()
        );
        Command::new("unshare")
            .args(["-m", "sh", "-euc"])
            .arg(format!(
                "mount -t overlay -o \"$1\" overlay \"$2\"; cd \"$2\"; {script}"
            ))
            .args(["sh", &options])
            .arg(&etc)
            .output()
            .unwrap()
    };
    let change =
        "rm gone; rm -r dir; mkdir dir; echo new > dir/new; echo b > a; chown 7:8 a; rm dir2/keep";
    let out = overlay(&n.at("root/var"), change);
    if !out.status.success() {
        eprintln!("SKIP: no overlay can be mounted here: {}", said(&out));
        return;
    }
    let look = "find . -printf '%p %y %m %U:%G %s\\n' | sort; cat a dir/*";
    let was = overlay(&n.at("root/var"), look).stdout;
    let text = String::from_utf8_lossy(&was).into_owned();
    assert!(
        !text.contains("gone") && !text.contains("dir/old") && text.contains("7:8"),
        "{text}"
    );
    n.ok(&["backup", "--init"]);
    fs::create_dir(n.at("target")).unwrap();
    n.ok(&["restore", "--target", n.at("target").to_str().unwrap()]);
    // Name and machine ID were the lower layer's, and are the upper's now.
    let is = overlay(&n.at("target"), look).stdout;
    assert_eq!(text, String::from_utf8_lossy(&is));

    // Without the right to see them, the marks of the overlay would be lost: why the service keeps it.
    let upper = n.at("root/var/lib/lamadist/etc/upper/dir");
    assert!(xattrs(&upper).contains_key("trusted.overlay.opaque"));
}

/// `setup` seals what opens the repository; a new machine is told what it cannot open.
#[test]
fn secrets_are_sealed_and_named() {
    let Some(n) = Node::new() else { return };
    n.fill();
    fs::remove_file(n.at("credentials/lamadist.backup.password")).unwrap();
    fs::remove_file(n.at("root/etc/lamadist/backup.conf")).unwrap();
    fs::create_dir_all(n.at("root/var/lib/lamadist/etc/upper")).unwrap();
    let e = n.fails(&["backup"]);
    assert!(
        e.contains("there is no") && e.contains("lama-node backup setup"),
        "{e}"
    );
    n.write("env", "# for a remote one\nAWS_ACCESS_KEY_ID=hush\n");
    let repository = n.repository();
    let env = n.at("env").display().to_string();
    let setup = ["backup", "setup", "--repository", &repository];
    let out = n.run(&[&setup[..], &["--env-file", &env, "--json"]].concat());
    if said(&out).contains("cannot seal") {
        eprintln!("SKIP: systemd-creds does not work here: {}", said(&out));
        return;
    }
    assert!(out.status.success(), "{}", said(&out));
    let done: Value = serde_json::from_slice(&out.stdout).unwrap();
    let password = done["password"].as_str().unwrap().to_owned();
    assert_eq!(done["made"], true);
    let store = n.at("root/etc/credstore.encrypted");
    for name in ["lamadist.backup.password", "lamadist.backup.env"] {
        let data = fs::read(store.join(name)).unwrap();
        let text = String::from_utf8_lossy(&data);
        assert!(
            !text.contains(&password) && !text.contains("hush"),
            "{text}"
        );
        assert_eq!(store.join(name).metadata().unwrap().mode() & 0o777, 0o600);
    }
    n.ok(&["backup"]);
    // Again: the sealed password opens what is there.
    let again = n.json(&setup);
    assert_eq!(
        (&again["made"], &again["password"]),
        (&false.into(), &Value::Null)
    );
    // A repository with another password is not taken over.
    let e = n.fails(&[&setup[..], &["--password-file", &env]].concat());
    assert!(e.contains("the password"), "{e}");

    // As on a machine: what is changed in /etc lies in the upper layer.
    let upper = "root/var/lib/lamadist/etc/upper";
    for f in [
        "lamadist/backup.conf",
        "credstore.encrypted/lamadist.backup.password",
    ] {
        n.write(
            &format!("{upper}/{f}"),
            fs::read(n.at("root/etc").join(f)).unwrap(),
        );
    }
    let foreign = n.at("foreign.secret");
    let sealed = Command::new("systemd-creds")
        .args(["encrypt", "--with-key=host", "--name=wireguard", "-"])
        .arg(n.at("sealed"))
        .env("SYSTEMD_CREDENTIAL_SECRET", &foreign)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(sealed.status.success(), "{}", said(&sealed));
    n.write(
        &format!("{upper}/credstore.encrypted/wireguard"),
        fs::read(n.at("sealed")).unwrap(),
    );
    n.ok(&["backup"]);

    fs::create_dir(n.at("target")).unwrap();
    fs::write(n.at("password"), format!("{password}\n")).unwrap();
    let target = n.at("target").display().to_string();
    let new = n.at("new").display().to_string();
    fs::create_dir_all(n.at("new/var")).unwrap();
    let mut c = n.command(&[
        "restore",
        "--root",
        &new,
        "--repository",
        &repository,
        "--target",
        &target,
        "--json",
    ]);
    // The password by standard input, as an installer gives it.
    let out = c
        .stdin(fs::File::open(n.at("password")).unwrap())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", said(&out));
    let done: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(done["password-sealed"], true, "{done}");
    let opens = |name: &str| {
        let all = done["credentials"].as_array().unwrap();
        all.iter().find(|c| c["name"] == name).unwrap()["opens"].clone()
    };
    assert_eq!(opens("wireguard"), false);
    assert_eq!(opens("lamadist.backup.password"), true);
}

/// The commands of the documentation are understood.
#[test]
fn documented_commands_are_valid() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/BACKUP.md");
    let page = fs::read_to_string(page).unwrap();
    let nowhere = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for line in page.lines() {
        let line = line.trim_start_matches("$ ").split(" # ").next().unwrap();
        let Some(rest) = line.strip_prefix("lama-node ") else {
            continue;
        };
        let rest = rest.split(" < ").next().unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_lama-node"))
            .args(rest.split_whitespace())
            .arg("--root")
            .arg(nowhere.path())
            .env("PATH", nowhere.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = said(&out);
        assert!(
            !said.contains("see --help") && !said.contains("there is no argument"),
            "{line}: {said}"
        );
        checked += 1;
    }
    assert!(checked > 8, "only {checked} commands were found");
}
