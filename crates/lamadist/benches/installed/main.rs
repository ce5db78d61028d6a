// SPDX-License-Identifier: Apache-2.0
//! What encryption and verity cost (docs/BENCHMARKS.md): `cargo bench -p lamadist --bench installed`.
//!
//! Boots an installed machine and the same image without encryption and verity by turns, installs to
//! a disk beside `dd`, updates it beside `dd`, reads through each layer of the root, and prints
//! tables. All of it in virtual machines, so only the ratios mean something.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod installation;
mod updating;

use common::installed::ask;
use common::{Bench, Built, base, lamadist, scratch};
use lama_image::index::Index;
use lama_image::pe;
use lama_keys::{CertificateInfo, KeySet, Role};
use lama_vm::{Stop, Vm};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(600);

/// A folder of this benchmark.
fn work() -> PathBuf {
    scratch().join("installed")
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp")
        .args(["-a", "--"])
        .args([from, to])
        .status();
    assert!(done.unwrap().success());
}

/// `lamadist`, with another description where `plain`.
fn ours(plain: bool, args: &[&str]) -> Command {
    let mut c = lamadist(args);
    c.env("XDG_STATE_HOME", work().join("state"))
        .env("LAMADIST_HOSTS", work().join("hosts"));
    if plain {
        c.env("LAMADIST_DISTRO", work().join("distro"))
            .env("LAMADIST_DEPLOY", work().join("deploy"));
    }
    c
}

fn run(mut c: Command) {
    let out = c.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{c:?}: {said}");
}

/// Installs a machine and returns its folder.
fn installed(name: &str, plain: bool) -> PathBuf {
    run(ours(plain, &["--quiet", "vm", "install", "--name", name]));
    work().join("state/lamadist/vm").join(name)
}

/// The same image on a disk without LUKS, started without verity: another layout, and an addon that
/// says so in place of the slot's, signed like it.
fn plain(built: &Built) -> PathBuf {
    copy(&common::project().join("distro"), &work().join("distro"));
    let layout = work().join("distro/layouts/uefi.toml");
    let text = std::fs::read_to_string(&layout).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with("encryption"));
    std::fs::write(&layout, lines.collect::<Vec<_>>().join("\n")).unwrap();
    run(ours(true, &["--quiet", "build", "--locked"]));
    let dir = installed("plain", true);

    let deploy = work().join("deploy/x86_64/base");
    let index = Index::read(&deploy).unwrap();
    let addon = index
        .artifacts
        .iter()
        .find(|a| a.file == "slot-a.addon.efi");
    let addon = std::fs::read(deploy.join(&addon.unwrap().file)).unwrap();
    let what = "the addon";
    let sbat = pe::section(&addon, ".sbat", what).unwrap().unwrap();
    let bare = pe::remove_sections(&addon, &[".cmdline", ".sbat"], what).unwrap();
    let cmdline = "lamadist.slot=a rauc.slot=A systemd.verity=0 rd.systemd.verity=0 \
                   root=/dev/lamadist/rootfs-a rootfstype=erofs";
    let sections = [(".cmdline", cmdline.as_bytes()), (".sbat", sbat)];
    let made = pe::add_sections(&bare, &sections, what).unwrap();
    let certificate = CertificateInfo::read(&built.keys.db_cert_path()).unwrap();
    let signer = built.keys.signer(Role::Db, None).unwrap();
    let signed = pe::sign(made, what, &certificate, signer.as_ref()).unwrap();
    let file = work().join("slot.addon.efi");
    std::fs::write(&file, signed).unwrap();
    // The ESP is the first partition, a MiB into the disk.
    let image = format!("{}@@1M", dir.join("disk-0.raw").display());
    for uki in ["EFI/Linux/lamadist-a.efi", "EFI/BOOT/BOOTX64.EFI"] {
        built
            .tools
            .command("mcopy")
            .bind(work())
            .args(["-o", "-i", &image])
            .arg(&file)
            .arg(format!("::/{uki}.extra.d/slot.addon.efi"))
            .run()
            .unwrap();
    }
    dir
}

fn median(mut all: Vec<f64>) -> (f64, f64, f64) {
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[0], all[all.len() - 1])
}

/// Machines that run alone.
fn bench(built: &Built) -> Bench {
    let mut bench = Bench::new(built);
    bench.processors = 2;
    bench
}

/// From power on to a shell, in seconds; a first boot.
fn first_boot(built: &Built, installed: &Path) -> (f64, String) {
    let bench = bench(built);
    let machine = bench.clone_of(installed, "boot");
    let start = Instant::now();
    let mut vm = machine.boot();
    vm.wait_ssh(Some(PATIENCE)).unwrap();
    let took = start.elapsed().as_secs_f64();
    let state = vm.ssh("systemctl is-system-running --wait").unwrap().text();
    let says = ask(&vm, "systemd-analyze time | head -1");
    let root = ask(&vm, "findmnt -no SOURCE /; findmnt -no SOURCE /var");
    eprintln!(
        "   {took:.1} s, {state}: {says} ({})",
        root.replace('\n', ", ")
    );
    vm.stop(Stop::Now).unwrap();
    (took, root)
}

fn boots(built: &Built, secure: &Path, plain: &Path, runs: usize) {
    let mut times = [Vec::new(), Vec::new()];
    for n in 0..runs {
        // By turns, and each first as often as last.
        let order = if n % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let (dir, mapped) = [(secure, true), (plain, false)][which];
            let (took, root) = first_boot(built, dir);
            assert_eq!(root.matches("/dev/mapper/").count() == 2, mapped, "{root}");
            times[which].push(took);
        }
    }
    println!("\n| First boot, power on to shell | Median (smallest–largest) | Runs |");
    println!("|---|---|---|");
    let [secure, plain] = times.map(median);
    for (name, t) in [("encrypted, verity", secure), ("neither", plain)] {
        println!("| {name} | {:.1} s ({:.1}–{:.1}) | {runs} |", t.0, t.1, t.2);
    }
    println!("| ratio | {:.2} : 1 | |", secure.0 / plain.0);
}

/// Seconds that a command takes inside.
fn timed(vm: &Vm, command: &str) -> f64 {
    let c = format!(
        "sync; echo 3 > /proc/sys/vm/drop_caches; s=$(date +%s%N); {{ {command}; }} >/run/said 2>&1 \
         || {{ cat /run/said; exit 1; }}; e=$(date +%s%N); echo $((e - s))"
    );
    let out = vm.ssh_within(&c, b"", PATIENCE).unwrap();
    let text = out.text();
    assert!(out.ok(), "{text}");
    text.lines().last().unwrap().parse::<f64>().unwrap() / 1e9
}

fn reading(built: &Built, secure: &Path, runs: usize) {
    let bench = bench(built);
    let mut vm = bench.clone_of(secure, "reading").boot();
    vm.wait_ssh(Some(PATIENCE)).unwrap();
    let _ = vm.ssh("systemctl is-system-running --wait");
    let mib: u64 = 64;
    println!(
        "\n| Reading {mib} MiB of the root in the same machine | Median (smallest–largest) | |"
    );
    println!("|---|---|---|");
    let mut first = None;
    for (name, device) in [
        ("the partition", "/dev/lamadist/rootfs-a"),
        ("LUKS", "/dev/mapper/rootfs_a"),
        ("verity on LUKS", "/dev/mapper/root"),
    ] {
        let rates = (0..runs)
            .map(|_| {
                let c = format!("dd if={device} of=/dev/null bs=1M count={mib} iflag=fullblock");
                f64::from(u32::try_from(mib).unwrap()) / timed(&vm, &c)
            })
            .collect();
        let (mid, least, most) = median(rates);
        let plain = *first.get_or_insert(mid);
        println!(
            "| {name} | {mid:.0} MiB/s ({least:.0}–{most:.0}) | {:.2} |",
            mid / plain
        );
    }
    println!("\n| lama-node | |\n|---|---|");
    let size = ask(&vm, "stat -c %s /usr/bin/lama-node");
    println!(
        "| size, stripped | {} KiB |",
        size.parse::<u64>().unwrap() / 1024
    );
    let time = |command: &str| {
        timed(
            &vm,
            &format!("for i in 1 2 3 4 5 6 7 8 9 10; do {command}; done"),
        ) * 100.0
    };
    let (node, nothing) = (time("lama-node --version"), time("/usr/bin/true"));
    println!(
        "| start, `lama-node --version` beside `true` | {node:.0} ms beside {nothing:.0} ms |"
    );
    vm.stop(Stop::Now).unwrap();
}

fn main() {
    let mut runs = 3;
    let mut word = String::new();
    // cargo adds `--bench`.
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(a) = args.next() {
        if a == "--runs" {
            runs = args.next().and_then(|n| n.parse().ok()).unwrap_or(3).max(1);
        } else {
            word = a;
        }
    }
    let wanted = |name: &str| name.contains(&word);
    let _ = std::fs::remove_dir_all(work());
    std::fs::create_dir_all(work().join("hosts")).unwrap();
    let built = base();
    assert!(KeySet::open(scratch().join("keys/development")).is_ok());
    if wanted("installation") {
        installation::installation(built, runs);
    }
    if ["reading", "boot", "updating"].into_iter().any(wanted) {
        let secure = installed("secure", false);
        if wanted("updating") {
            updating::updating(built, &secure);
        }
        if wanted("reading") {
            reading(built, &secure, runs);
        }
        if wanted("boot") {
            let plain = plain(built);
            boots(built, &secure, &plain, runs);
        }
    }
}
