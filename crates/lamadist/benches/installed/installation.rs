// SPDX-License-Identifier: Apache-2.0
//! An installation beside `dd`.

use super::common::Built;
use super::common::installed::{ask, installing};
use super::{PATIENCE, bench, median, timed};
use lama_image::index::Kind;
use lama_vm::{Bus, Disk, Stop, Vm};
use std::os::unix::fs::MetadataExt;

/// Opens the disk as a LUKS volume, /dev/mapper/sealed.
pub fn seal(vm: &Vm, disk: &str) {
    ask(
        vm,
        &format!(
            "echo x | cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
             --key-file - {disk} && echo x | cryptsetup open --key-file - {disk} sealed"
        ),
    );
}

pub fn installation(built: &Built, runs: usize) {
    println!("\n| Installation, in the same machine | Median (smallest–largest) | Runs |");
    println!("|---|---|---|");
    let bench = bench(built);
    let mut vm = bench
        .machine("medium")
        .disk(Disk::blank(16 << 30).serial("a"))
        .disk(Disk::blank(16 << 30).serial("b"))
        .disk(Disk::image(built.file(Kind::Disk)).on(Bus::Usb))
        .boot();
    vm.wait_ssh(Some(PATIENCE)).unwrap();
    // What the kernel counts as written has all in it that mkfs only wants to be zero.
    let file = bench.dir("medium").join("disk-0.raw");
    let mut mib = 0;
    let (mut whole, mut dd, mut sealed) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..runs {
        let id = ask(&vm, "lsblk -dno PTUUID /dev/vda");
        let answers = format!("disk=serial:a\\nwipe=yes\\nreinstall={id}\\nfinish=stay");
        whole.push(timed(&vm, &installing(&answers, "")));
        if n == 0 {
            ask(&vm, "sync");
            mib = (std::fs::metadata(&file).unwrap().blocks() * 512).div_ceil(1 << 20);
            eprintln!("   {mib} MiB are written");
        }
        // What is installed, over and over, until it is as much.
        let write = |to: &str| {
            format!(
                "while cat /dev/mapper/root; do :; done 2>/dev/null | \
                 dd of={to} bs=1M count={mib} iflag=fullblock conv=fsync"
            )
        };
        dd.push(timed(&vm, &write("/dev/vdb")));
        seal(&vm, "/dev/vdb");
        sealed.push(timed(&vm, &write("/dev/mapper/sealed")));
        ask(&vm, "cryptsetup close sealed");
    }
    let whole = median(whole);
    println!(
        "| lama-node install | {:.1} s ({:.1}–{:.1}) | {runs} |",
        whole.0, whole.1, whole.2
    );
    for (name, t) in [
        ("dd of as many bytes", median(dd)),
        ("dd of as many bytes, to LUKS", median(sealed)),
    ] {
        println!("| {name} | {:.1} s ({:.1}–{:.1}) | {runs} |", t.0, t.1, t.2);
        println!("| · ratio | {:.2} : 1 | |", whole.0 / t.0);
    }
    vm.stop(Stop::Now).unwrap();
}
