// SPDX-License-Identifier: Apache-2.0
//! The container that BitBake can run in: composed twice it is the same, and podman runs it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::{lamadist, project, run, scratch};
use lama_tree::{Tree, read_dir};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The archive is in the cache, and one test takes it away.
static ALONE: Mutex<()> = Mutex::new(());

/// What `lamadist oe container` says of it.
fn container() -> Value {
    serde_json::from_slice(&run(&["--quiet", "--json", "oe", "container"]).stdout).unwrap()
}

fn file(made: &Value) -> PathBuf {
    made["file"].as_str().unwrap().into()
}

/// The archive, unpacked.
fn unpacked(archive: &Path) -> PathBuf {
    let dir = scratch().join("container");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let tar = Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .current_dir(&dir)
        .status();
    assert!(tar.unwrap().success());
    dir
}

/// The blob that a descriptor names, whose size and digest are as it says.
fn blob(tree: &Tree, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let digest = digest.strip_prefix("sha256:").unwrap();
    let data = tree.read(&format!("blobs/sha256/{digest}")).unwrap();
    assert_eq!(hex::encode(Sha256::digest(data)), digest);
    assert_eq!(data.len() as u64, descriptor["size"].as_u64().unwrap());
    data.to_vec()
}

#[test]
fn the_container_is_the_same_twice_and_what_it_says() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let first = container();
    std::fs::remove_file(file(&first)).unwrap();
    let second = container();
    assert_eq!(first, second);

    let dir = unpacked(&file(&second));
    let tree = read_dir(&dir).unwrap();
    let json = |data: &[u8]| -> Value { serde_json::from_slice(data).unwrap() };
    let layout = json(tree.read("oci-layout").unwrap());
    assert_eq!(layout["imageLayoutVersion"], "1.0.0");
    let index = json(tree.read("index.json").unwrap());
    let manifest = json(&blob(&tree, &index["manifests"][0]));
    let config = json(&blob(&tree, &manifest["config"]));
    assert_eq!(config["os"], "linux");
    let packed = blob(&tree, &manifest["layers"][0]);
    let mut layer = Vec::new();
    let mut decoder = zstd::Decoder::new(packed.as_slice()).unwrap();
    decoder.read_to_end(&mut layer).unwrap();
    let diff = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
    assert_eq!(config["rootfs"]["diff_ids"][0], diff);
    let mut missing = vec![
        "usr/bin/kas",
        "usr/bin/awk",
        "usr/lib/locale/en_US.utf8/LC_CTYPE",
        "etc/ssl/certs/ca-certificates.crt",
    ];
    for e in tar::Archive::new(layer.as_slice()).entries().unwrap() {
        let path = e.unwrap().path().unwrap().into_owned();
        missing.retain(|m| Path::new(m) != path);
    }
    assert!(missing.is_empty(), "{missing:?}");
    std::fs::remove_dir_all(dir).unwrap();
}

fn podman(args: &[&str]) -> Option<Output> {
    Command::new("podman").args(args).output().ok()
}

#[test]
fn podman_runs_kas_and_a_machine_in_it() {
    // As `.ci/run` has it; a podman that cannot run anything is no reason either.
    if !podman(&["info"]).is_some_and(|o| o.status.success()) {
        println!("SKIP: there is no podman that works here");
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = container();
    let name = made["name"].as_str().unwrap().to_owned();
    let loaded = podman(&["load", "--quiet", "--input", made["file"].as_str().unwrap()]).unwrap();
    assert!(loaded.status.success(), "{loaded:?}");
    let inside = ["run", "--rm", "--network=host", "--pull=never"];
    let can = podman(&[&inside[..], &[&name, "true"]].concat()).unwrap();
    if !can.status.success() {
        let why = String::from_utf8_lossy(&can.stderr);
        println!("SKIP: podman cannot run a container here: {}", why.trim());
        return;
    }

    // The program itself, with the checkout as it is seen in there.
    if project().join(".git").is_dir() {
        let dump = lamadist(&["oe", "dump", "--container", "--bsp", "rk1"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&dump.stdout);
        let why = String::from_utf8_lossy(&dump.stderr);
        assert!(
            dump.status.success() && said.contains("lamadist-rk1"),
            "{why}"
        );
    }

    // A machine in it is seen from here.
    let vnc = "exec qemu-system-x86_64 -machine q35 -nodefaults -vga std -vnc 127.0.0.1:57 -S";
    let mut machine = Command::new("podman")
        .args(inside)
        .args(["--name", "lamadist-test-machine", &name, "sh", "-c", vnc])
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let mut greeting = [0; 12];
    loop {
        let seen =
            TcpStream::connect(("127.0.0.1", 5957)).and_then(|mut c| c.read_exact(&mut greeting));
        if seen.is_ok() {
            break;
        }
        assert!(Instant::now() < end, "no machine is seen: {seen:?}");
        std::thread::sleep(Duration::from_millis(300));
    }
    // RFC 6143, section 7.1.1.
    assert!(greeting.starts_with(b"RFB 003."), "{greeting:?}");
    podman(&["kill", "lamadist-test-machine"]).unwrap();
    machine.wait().unwrap();
}
