// SPDX-License-Identifier: Apache-2.0
//! A machine whose firmware's variables cannot be written at run time is updated by systemd-boot's
//! counting (docs/UPDATE.md). Part of `mise run campaign`.
//!
//! It is x86_64 by another description: systemd-boot starts it, and the variables are mounted
//! read-only, which is what Linux makes of U-Boot's.

use crate::common::installed::{ask, healthy, reboot};
use crate::common::updates::{Next, SIGNED, Web, describe, judged, slot, tries};
use crate::common::{Bench, Built, PATIENCE, lamadist, run, scratch, turn, within};
use lama_exec::Tools;
use lama_image::index::{Index, Kind};
use lama_keys::KeySet;
use lama_vm::{Stop, Vm};
use std::path::Path;

/// What mounts the variables read-only, before anything of the system could write them.
const UNIT: &str = "[Unit]\nDescription=Variables as U-Boot has them\nDefaultDependencies=no\n\
    Before=sysinit.target lamadist-judge.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
    ExecStart=/usr/bin/mount -o remount,ro /sys/firmware/efi/efivars\n";

/// Makes x86_64 such a machine.
fn without_variables(distro: &Path) {
    let machine = distro.join("machines/x86_64.toml");
    let text = std::fs::read_to_string(&machine).unwrap();
    let text = format!("{text}\n[boot]\nloader = \"systemd-boot\"\n");
    std::fs::write(&machine, text).unwrap();
    let units = distro.join("files/core/usr/lib/systemd/system");
    std::fs::write(units.join("test-variables.service"), UNIT).unwrap();
    let wants = units.join("sysinit.target.wants");
    std::fs::create_dir_all(&wants).unwrap();
    let link = wants.join("test-variables.service");
    std::os::unix::fs::symlink("../test-variables.service", link).unwrap();
}

/// Its first version, and where `lamadist vm install` puts machines with it.
fn first() -> (Built, impl Fn(&[&str])) {
    let work = scratch().join("bootcount");
    describe(&work, without_variables);
    let deploy = work.join("deploy/x86_64/base");
    let ours = move |args: &[&str]| {
        let mut c = lamadist(args);
        c.env("LAMADIST_DISTRO", work.join("distro"))
            .env("LAMADIST_DEPLOY", work.join("deploy"))
            .env("XDG_STATE_HOME", work.join("state"));
        let out = within(&mut c, PATIENCE);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?}: {said}");
    };
    ours(&["--quiet", "build", "--locked"]);
    let tree = String::from_utf8(run(&["--quiet", "tools"]).stdout).unwrap();
    let built = Built {
        index: Index::read(&deploy).unwrap(),
        deploy,
        keys: KeySet::open(scratch().join("keys/development")).unwrap(),
        tools: Tools::tree(tree.trim()),
    };
    (built, ours)
}

/// The names of systemd-boot's entries.
fn entries(vm: &Vm) -> String {
    let at = "/run/test-esp";
    ask(
        vm,
        &format!(
            "mkdir -p {at} && mount -o ro /dev/lamadist/esp {at} && \
             ls {at}/loader/entries && umount {at}"
        ),
    )
}

#[test]
#[ignore = "a campaign: half an hour (mise run campaign)"]
fn without_variables_systemd_boot_counts() {
    let _turn = turn();
    let (built, ours) = first();
    assert!(built.file(Kind::Loader).is_file());
    let state = scratch().join("bootcount/state");
    let _ = std::fs::remove_dir_all(&state);
    ours(&["--quiet", "vm", "install", "--name", "counted"]);
    let installed = state.join("lamadist/vm/counted");

    let bench = Bench::new(&built);
    let machine = || bench.clone_of(&installed, "updated");
    let mut vm = machine().boot();
    healthy(&mut vm);
    assert_eq!(slot(&vm), "a");
    assert!(!tries(&vm, "efibootmgr --timeout 1").0, "it can be written");
    println!("{}", ask(&vm, "journalctl -b -u lamadist-repair -o cat"));
    // The first start was counted.
    assert_eq!(entries(&vm), "lamadist-a.conf");
    assert_eq!(ask(&vm, "lama-node repair"), "nothing to mend");
    println!("{}", ask(&vm, "rauc status"));

    let next = Next::of("bootcount-next", without_variables);
    next.encrypt_to(&vm);
    let web = Web::serve(&[("update.raucb", &next.bundle)]);
    let url = web.url("update.raucb");
    let install = |vm: &Vm| {
        let (ok, said) = tries(vm, &format!("lama-node update install {url}"));
        assert!(ok, "{said}");
        assert_eq!(entries(vm), "lamadist-a.conf\nlamadist-once-b+1.conf");
    };

    // The power fails while it is tried: one start is all there is.
    install(&vm);
    reboot(&mut vm);
    assert_eq!(slot(&vm), "b");
    vm.stop(Stop::Now).unwrap();
    let mut vm = machine().boot();
    healthy(&mut vm);
    assert_eq!(slot(&vm), "a");
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], false, "{status}");
    assert_eq!(entries(&vm), "lamadist-a.conf");

    // It is well, and kept.
    install(&vm);
    reboot(&mut vm);
    healthy(&mut vm);
    assert_eq!(slot(&vm), "b");
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], true, "{status}");
    assert_eq!(status["version"], SIGNED, "{status}");
    assert_eq!(entries(&vm), "lamadist-a.conf\nlamadist-b.conf");
    reboot(&mut vm);
    healthy(&mut vm);
    assert_eq!(slot(&vm), "b");

    // Back by hand.
    ask(&vm, "lama-node rollback");
    reboot(&mut vm);
    healthy(&mut vm);
    assert_eq!(slot(&vm), "a");
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], true, "{status}");
    assert_eq!(entries(&vm), "lamadist-a.conf\nlamadist-b.conf");
    vm.stop(Stop::Now).unwrap();
}
