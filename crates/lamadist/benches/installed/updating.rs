// SPDX-License-Identifier: Apache-2.0
//! Updates beside `dd` of the blocks that they change.

use super::common::Built;
use super::common::installed::ask;
use super::common::updates::{Next, Web};
use super::installation::seal;
use super::{PATIENCE, bench, timed};
use lama_vm::{Disk, Stop};
use std::path::Path;

/// Bytes of a block, as RAUC compares them (RAUC 1.13, "block-hash-index").
const BLOCK: usize = 4096;

/// Bytes of the blocks in which a slot has to change.
fn changed(new: &Path, old: Option<&Path>) -> usize {
    let changed = |name: &str| {
        let new = std::fs::read(new.join(name)).unwrap();
        let old = old.map_or(Vec::new(), |o| std::fs::read(o.join(name)).unwrap());
        let mut old = old.chunks(BLOCK);
        new.chunks(BLOCK).filter(|b| old.next() != Some(b)).count() * BLOCK
    };
    // The UKI is a file that is written as a whole.
    let uki = std::fs::read(new.join("lamadist.efi")).unwrap().len();
    changed("root.erofs") + changed("root.verity") + uki
}

/// The first update, into a slot that is empty, and one of a slot that has the version before.
pub fn updating(built: &Built, secure: &Path) {
    let bench = bench(built);
    let machine = bench.clone_of(secure, "updating");
    let mut vm = machine.disk(Disk::blank(4 << 30)).boot();
    vm.wait_ssh(Some(PATIENCE)).unwrap();
    let _ = vm.ssh("systemctl is-system-running --wait");
    let keys = super::scratch().join("keys");
    let versions = ["9.9.8", "9.9.9"].map(|version| {
        let next = Next::version(&format!("bench-{version}"), version, &keys, |distro| {
            let file = distro.join("files/core/usr/share/lamadist-version");
            std::fs::write(file, version).unwrap();
        });
        next.encrypt_to(&vm);
        next
    });
    let names = ["first.raucb", "second.raucb"];
    let files: Vec<_> = names
        .into_iter()
        .zip(versions.iter().map(|v| &v.bundle))
        .collect();
    let web = Web::serve(&files);
    seal(&vm, "/dev/vdb");
    println!(
        "\n| An update, streamed, in the same machine | It | `dd` of what changes, to LUKS | |"
    );
    println!("|---|---|---|---|");
    let mut before = None;
    for (version, name) in versions.iter().zip(names) {
        let took = timed(&vm, &format!("lama-node update install {}", web.url(name)));
        eprintln!(
            "{}",
            ask(
                &vm,
                "journalctl -u rauc -o short-monotonic --no-pager | tail -n 40"
            )
        );
        let deploy = version.deploy();
        let bytes = changed(&deploy, before.as_deref());
        let write = format!(
            "dd if=/dev/zero of=/dev/mapper/sealed bs=1M count={bytes} \
             iflag=count_bytes,fullblock conv=fsync"
        );
        let dd = timed(&vm, &write);
        let mib = bytes >> 20;
        let what = if before.is_some() {
            "the slot has the version before"
        } else {
            "the slot is empty"
        };
        println!(
            "| {what} | {took:.1} s | {dd:.1} s ({mib} MiB) | {:.2} : 1 |",
            took / dd
        );
        before = Some(deploy);
    }
    vm.stop(Stop::Now).unwrap();
}
