// SPDX-License-Identifier: Apache-2.0
//! What an update makes a machine fetch (docs/BENCHMARKS.md, "Updates"):
//! `cargo bench -p lamadist --bench updates`.
//!
//! Builds `x86_64`/`base` without and with Debian's security suite, and once more with nothing but an
//! older krb5, and compares ways from the one to the other. casync, desync and xdelta3 are measured
//! where they are installed; all get the same images, root, hash tree and UKI in one file.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod measure;

use lama_exec::fs;
use measure::{Cost, copy, measure};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

/// RAUC's blocks (RAUC 1.13, "block-hash-index").
const BLOCK: usize = 4096;
/// The images of a version.
const IMAGES: [&str; 3] = ["root.erofs", "root.verity", "lamadist.efi"];
/// What krb5 makes that is in the image.
const SOURCE: &str = "krb5";

fn work() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("updates")
}

/// `lamadist` on one of the descriptions.
fn lamadist(version: &str, args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_lamadist"));
    c.arg("--quiet")
        .args(args)
        .env("LAMADIST_DISTRO", work().join(version).join("distro"))
        .env("LAMADIST_KEYS", work().join("keys"))
        .env("LAMADIST_DEPLOY", work().join(version).join("deploy"));
    c
}

fn deploy(version: &str) -> PathBuf {
    work().join(version).join("deploy/x86_64/base")
}

/// A copy of the description, with its lock.
fn describe(version: &str) -> PathBuf {
    let distro = work().join(version).join("distro");
    fs::remove_dir_all(&distro).unwrap();
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../distro"),
        &distro,
    );
    distro
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// The description without the security suite, and the lock that follows from it.
fn older() -> PathBuf {
    let distro = describe("older");
    let file = distro.join("lamadist.toml");
    let text = read(&file);
    let (before, _) = text.split_once("\n[feeds.debian-security]").unwrap();
    fs::write(&file, before).unwrap();
    fs::remove_file(distro.join("lamadist.lock")).unwrap();
    measure(lamadist("older", &["lock"]));
    distro.join("lamadist.lock")
}

/// Packages of krb5 in a lock: by name, the version and the table that says where it is from.
fn krb5(lock: &str) -> BTreeMap<String, (String, String)> {
    let tables = lock.split("\n\n").filter(|t| {
        t.contains(&format!("source = \"{SOURCE}\"")) && t.contains("architecture = \"amd64\"")
    });
    let value = |table: &str, key: &str| {
        let line = table
            .lines()
            .find_map(|l| l.strip_prefix(key).map(str::to_owned));
        line.unwrap().trim_matches(&[' ', '=', '"'][..]).to_owned()
    };
    tables
        .map(|t| {
            (
                value(t, "name"),
                (value(t, "version"), t.trim_end().to_owned()),
            )
        })
        .collect()
}

/// The description as it is, with krb5 as the older lock has it.
fn with_older_krb5(older: &Path) {
    let distro = describe("krb5");
    let file = distro.join("lamadist.lock");
    let mut lock = read(&file);
    let (old, new) = (krb5(&read(older)), krb5(&lock));
    assert!(!new.is_empty(), "krb5 is no part of the image any more");
    for (name, (version, table)) in &new {
        let (before, from) = &old[name];
        assert_ne!(version, before, "the security suite has no other {name}");
        lock = lock.replace(
            &format!("\"{name}={version}:amd64\""),
            &format!("\"{name}={before}:amd64\""),
        );
        lock = lock.replace(table, from);
    }
    fs::write(&file, lock).unwrap();
}

/// The images of a version in one file.
fn blob(version: &str) -> PathBuf {
    let out = work().join(version).join("images");
    let mut to = File::create(&out).unwrap();
    for i in IMAGES {
        std::io::copy(&mut File::open(deploy(version).join(i)).unwrap(), &mut to).unwrap();
    }
    out
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// Reads a file piece by piece: what this process has in memory counts as its children's, too, where
/// they take over its address space for a moment (vfork(2)).
fn pieces(file: &Path, size: usize, mut what: impl FnMut(&[u8])) {
    let mut from = BufReader::with_capacity(1 << 20, File::open(file).unwrap());
    let mut piece = Vec::with_capacity(size);
    loop {
        piece.clear();
        let limited = &mut from.by_ref().take(size as u64);
        if limited.read_to_end(&mut piece).unwrap() == 0 {
            return;
        }
        what(&piece);
    }
}

/// Bytes of the blocks of these files that none of the others has.
fn blocks(new: &[PathBuf], old: &[PathBuf]) -> u64 {
    let each = |files: &[PathBuf], what: &mut dyn FnMut([u8; 32])| {
        for f in files {
            pieces(f, BLOCK, |b| what(Sha256::digest(b).into()));
        }
    };
    let mut known = HashSet::new();
    each(old, &mut |d| {
        let _ = known.insert(d);
    });
    let mut bytes = 0;
    // What comes twice is fetched once, and read from the slot then.
    each(new, &mut |d| {
        bytes += u64::from(known.insert(d)) * BLOCK as u64
    });
    bytes
}

/// Ends a row.
fn row(name: &str, fetched: u64, full: u64, node: Option<Cost>) {
    let mib = |n: u64| n as f64 / f64::from(1 << 20);
    let node = node.map_or("| |".to_owned(), |c| {
        format!(
            "{:.1} s ({:.1} s) | {:.0} MiB",
            c.wall.as_secs_f64(),
            c.cpu.as_secs_f64(),
            mib(c.memory)
        )
    });
    println!(
        "| {name} | {:.2} MiB | {:.4} | {node} |",
        mib(fetched),
        fetched as f64 / full as f64
    );
}

fn installed(program: &str) -> bool {
    let there = Command::new(program).arg("--help").output().is_ok();
    if !there {
        eprintln!("SKIP: {program} is not installed");
    }
    there
}

fn run(dir: &Path, program: &str, args: &[&str]) -> Cost {
    let mut c = Command::new(program);
    c.args(args).current_dir(dir);
    measure(c)
}

/// One from the tools tree.
fn tool(dir: &Path, args: &[&str]) -> Cost {
    let mut c = lamadist("newer", &["tools", "--"]);
    c.args(args).current_dir(dir);
    measure(c)
}

/// An EROFS of the same content as mkfs.erofs makes it by itself, with modules as Debian packs them.
fn ordinary(version: &str) -> PathBuf {
    let dir = work().join(version);
    let out = dir.join("ordinary.erofs");
    let root = dir.join("root");
    let _ = std::fs::remove_dir_all(&root);
    let image = "deploy/x86_64/base/root.erofs";
    tool(
        &dir,
        &["fsck.erofs", "--extract=root", "--overwrite", image],
    );
    let find = "find usr/lib/modules -name '*.ko' -print0 | xargs -0 -P 2 -n 50 xz --check=crc32";
    run(&root, "sh", &["-c", find]);
    let options = ["-zlz4hc", "-T0", "-Uclear", "--quiet"];
    tool(
        &dir,
        &[&["mkfs.erofs"], &options[..], &["ordinary.erofs", "root"]].concat(),
    );
    std::fs::remove_dir_all(&root).unwrap();
    out
}

fn casync(dir: &Path, from: &Path, to: &Path) -> (u64, Cost) {
    let store = |name: &str, file: &Path| {
        let s = dir.join(name);
        let _ = std::fs::remove_dir_all(&s);
        let (index, store) = (format!("{name}.caibx"), format!("--store={name}"));
        run(
            dir,
            "casync",
            &["make", &store, &index, &file.display().to_string()],
        );
        chunks(&s)
    };
    let old = store("old.castr", from);
    let new = store("new.castr", to);
    let fetched = new
        .iter()
        .filter(|(n, _)| !old.contains_key(*n))
        .map(|(_, s)| s)
        .sum::<u64>()
        + size(&dir.join("new.castr.caibx"));
    let seed = format!("--seed={}", dir.join("seed").display());
    let _ = std::fs::copy(from, dir.join("seed"));
    let node = run(
        dir,
        "casync",
        &[
            "extract",
            "--store=new.castr",
            &seed,
            "new.castr.caibx",
            "made",
        ],
    );
    same(&dir.join("made"), to);
    (fetched, node)
}

fn desync(dir: &Path, from: &Path, to: &Path) -> (u64, Cost) {
    let store = |name: &str, file: &Path| {
        let s = dir.join(name);
        let _ = std::fs::remove_dir_all(&s);
        std::fs::create_dir_all(&s).unwrap();
        let index = format!("{name}.caibx");
        run(
            dir,
            "desync",
            &["make", "-s", name, &index, &file.display().to_string()],
        );
        chunks(&s)
    };
    let old = store("old.desync", from);
    let new = store("new.desync", to);
    let fetched = new
        .iter()
        .filter(|(n, _)| !old.contains_key(*n))
        .map(|(_, s)| s)
        .sum::<u64>()
        + size(&dir.join("new.desync.caibx"));
    std::fs::copy(from, dir.join("old.desync.img")).unwrap();
    std::fs::rename(
        dir.join("old.desync.caibx"),
        dir.join("old.desync.img.caibx"),
    )
    .unwrap();
    let seed = ["--seed", "old.desync.img.caibx"];
    let args = [
        &["extract", "-s", "new.desync"],
        &seed[..],
        &["new.desync.caibx", "made"],
    ];
    let node = run(dir, "desync", &args.concat());
    same(&dir.join("made"), to);
    (fetched, node)
}

/// Sizes of a store's chunks by name.
fn chunks(store: &Path) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for folder in std::fs::read_dir(store).unwrap() {
        for e in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let e = e.unwrap();
            out.insert(
                e.file_name().to_string_lossy().into_owned(),
                e.metadata().unwrap().len(),
            );
        }
    }
    out
}

fn same(a: &Path, b: &Path) {
    let digest = |p: &Path| {
        let mut all = Sha256::new();
        pieces(p, 1 << 16, |b| all.update(b));
        all.finalize()
    };
    assert!(digest(a) == digest(b), "{} is another", a.display());
    std::fs::remove_file(a).unwrap();
}

/// Prints a table of ways from one version to another.
fn table(from: &str, to: &str) {
    let dir = work().join("ways");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let bundle = deploy(to).join("lamadist.raucb");
    let full = size(&bundle);
    println!("| From {from} to {to} | Fetched | ÷ bundle | Node: time (CPU) | memory |");
    println!("|---|---|---|---|---|");
    row("bundle", full, full, None);

    let delta = dir.join("delta");
    let old = deploy(from).join("lamadist.raucb").display().to_string();
    let made = delta.display().to_string();
    measure(lamadist(to, &["bundle", "--from", &old, "--output", &made]));
    let mut node = Command::new(std::env::current_exe().unwrap());
    node.arg("node")
        .arg(&delta)
        .arg(deploy(from))
        .arg(dir.join("made"));
    let cost = measure(node);
    same(&dir.join("made"), &bundle);
    row("**delta bundle**", size(&delta), full, Some(cost));

    let at = |v: &str| IMAGES.map(|i| deploy(v).join(i));
    let [root, verity, uki] = at(to);
    let [old_root, old_verity, _] = at(from);
    let uki = size(&uki);
    let n = blocks(&[root], &[old_root]) + blocks(&[verity], &[old_verity]) + uki;
    row("RAUC, block-hash-index", n, full, None);
    let n = blocks(&[ordinary(to)], &[ordinary(from)]) + uki;
    row("RAUC, the same of an ordinary EROFS", n, full, None);

    let blobs = [blob(from), blob(to)];
    let [old, new] = &blobs;
    if installed("casync") {
        let (n, cost) = casync(&dir, old, new);
        row("casync", n, full, Some(cost));
    }
    if installed("desync") {
        let (n, cost) = desync(&dir, old, new);
        row("desync", n, full, Some(cost));
    }
    if installed("xdelta3") {
        let [old, new] = blobs.each_ref().map(|b| b.display().to_string());
        let window = ["-f", "-B", "536870912", "-s", &old];
        run(
            &dir,
            "xdelta3",
            &[&["-e", "-9"], &window[..], &[&new, "x"]].concat(),
        );
        let cost = run(
            &dir,
            "xdelta3",
            &[&["-d"], &window[..], &["x", "made"]].concat(),
        );
        same(&dir.join("made"), &blobs[1]);
        row(
            "xdelta3 -9, all of the old in its window",
            size(&dir.join("x")),
            full,
            Some(cost),
        );
    }
    let (old, new) = (format!("{from}/images"), format!("{to}/images"));
    let patch = format!("--patch-from={old}");
    let long = ["-q", "-f", "--long=31", "--memory=2048MB", &patch];
    let zstd =
        |how: &[&str], files: &[&str]| tool(&work(), &[&["zstd"], how, &long[..], files].concat());
    zstd(&["-19", "-T0"], &[&new, "-o", "ways/z"]);
    let cost = zstd(&["-d"], &["ways/z", "-o", "ways/made"]);
    same(&dir.join("made"), &blobs[1]);
    row(
        "zstd -19 --patch-from",
        size(&dir.join("z")),
        full,
        Some(cost),
    );
    println!();
    let _ = std::fs::remove_dir_all(&dir);
}

/// A machine that has the images of a version, and a key that the bundle is encrypted to.
struct Node {
    images: PathBuf,
    version: String,
    key: PathBuf,
    certificate: PathBuf,
    keyring: PathBuf,
}

impl lama_node::update::node::Node for Node {
    fn compatible(&self) -> &'static str {
        "lamadist-x86_64"
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn images(&self, classes: &[&str]) -> lama_node::Result<Vec<File>> {
        let name = |c: &&str| if *c == "rootfs" { IMAGES[0] } else { IMAGES[2] };
        let open = |c: &&str| Ok(File::open(self.images.join(name(c))).unwrap());
        classes.iter().map(open).collect()
    }

    fn key(&self) -> lama_node::Result<Vec<u8>> {
        Ok(fs::read(&self.key).unwrap())
    }

    fn certificate(&self) -> &Path {
        &self.certificate
    }

    fn keyring(&self) -> &Path {
        &self.keyring
    }
}

/// What a machine does with a delta bundle, in a process of its own.
fn node(delta: &Path, images: &Path, out: &Path) {
    use lama_node::update::delta;
    let keys = work().join("keys/development");
    let set = lama_keys::KeySet::open(&keys).unwrap();
    let keyring = work().join("keyring.pem");
    fs::write(&keyring, set.rauc_keyring_pem().unwrap()).unwrap();
    let node = Node {
        images: images.to_owned(),
        version: delta::header(delta).unwrap().from,
        key: keys.join("rauc-encryption.key"),
        certificate: keys.join("rauc-encryption.crt"),
        keyring,
    };
    delta::make(delta, &node, &out.with_extension("new"), out).unwrap();
}

fn main() {
    // cargo adds `--bench`.
    let args: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    if let [word, delta, images, out] = args.as_slice()
        && word == Path::new("node")
    {
        return node(delta, images, out);
    }
    let lock = older();
    describe("newer");
    with_older_krb5(&lock);
    for version in ["older", "newer", "krb5"] {
        eprintln!("== {version}");
        // A delta bundle leads from one version to another.
        let file = work().join(version).join("distro/lamadist.toml");
        let number = if version == "newer" { "2.0.0" } else { "1.0.0" };
        let text = read(&file);
        let lines = text.lines().map(|l| match l.starts_with("version = ") {
            true => format!("version = \"{number}\""),
            false => l.to_owned(),
        });
        fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
        measure(lamadist(version, &["build", "--locked"]));
    }
    table("older", "newer");
    table("krb5", "newer");
}
