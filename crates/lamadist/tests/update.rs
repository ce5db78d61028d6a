// SPDX-License-Identifier: Apache-2.0
//! A machine is updated over HTTP: what is well is kept, what is not gives the old system back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::installed::{ask, healthy, node, reboot};
use common::{Bench, PATIENCE, base, lamadist, project, scratch, turn, within};
use lama_netboot::{Files, Options, Server};
use lama_vm::{Stop, Vm};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The version that machines are updated to.
const VERSION: &str = "9.9.9";
/// The same as development keys sign it.
const SIGNED: &str = "9.9.9-dev";

/// Another version of the image: its number, and a file that the first one has not.
fn next_version() -> PathBuf {
    let work = scratch().join("next");
    let distro = work.join("distro");
    let _ = std::fs::remove_dir_all(&distro);
    std::fs::create_dir_all(&work).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .args([project().join("distro"), distro.clone()])
        .status();
    assert!(copied.unwrap().success());
    let file = distro.join("lamadist.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(|l| match l.starts_with("version = ") {
        true => format!("version = {VERSION:?}"),
        false => l.to_owned(),
    });
    std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    std::fs::write(distro.join("files/core/usr/share/lamadist-next"), "next\n").unwrap();
    work
}

fn ours(work: &Path, args: &[&str]) {
    let mut c = lamadist(args);
    c.env("LAMADIST_DISTRO", work.join("distro"))
        .env("LAMADIST_DEPLOY", work.join("deploy"));
    let out = within(&mut c, PATIENCE);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?}: {said}");
}

/// Runs something that may fail, and returns whether it did not and what it said.
fn tries(vm: &Vm, command: &str) -> (bool, String) {
    let c = format!("{command} 2>&1");
    let out = vm.ssh_within(&c, b"", Duration::from_secs(1800)).unwrap();
    (out.ok(), out.text())
}

/// Waits until what came of a trial is known.
fn judged(vm: &Vm) -> serde_json::Value {
    let end = Instant::now() + Duration::from_secs(400);
    loop {
        let status: serde_json::Value =
            serde_json::from_str(&ask(vm, "lama-node update --json")).unwrap();
        if status["trial"].is_null() {
            return status;
        }
        assert!(Instant::now() < end, "{status}");
        std::thread::sleep(Duration::from_secs(3));
    }
}

#[test]
#[ignore = "a campaign: a quarter of an hour (mise run campaign)"]
fn an_update_is_kept_when_it_is_well_and_taken_back_when_it_is_not() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let bench = Bench::new(built);
    let mut vm = bench.clone_of(&node.dir, "updated").boot();
    healthy(&mut vm);

    // Encrypted to this machine, and to nobody else but the builder.
    let certificate = scratch().join("node.crt");
    std::fs::write(&certificate, ask(&vm, "lama-node key") + "\n").unwrap();
    let work = next_version();
    ours(&work, &["--quiet", "build", "--locked"]);
    let to = certificate.display().to_string();
    ours(&work, &["--quiet", "bundle", "--to", &to]);
    let bundle = work.join("deploy/x86_64/base/lamadist.raucb");
    let size = std::fs::metadata(&bundle).unwrap().len();

    let server = Server::bind(&Options {
        listen: [127, 0, 0, 1].into(),
        http_port: 0,
        tftp_port: None,
        count: None,
    })
    .unwrap();
    let mut files = Files::new();
    files.add_file("update.raucb", &bundle).unwrap();
    let mut cut = std::fs::read(&bundle).unwrap();
    cut.truncate(cut.len() / 2);
    let cut_file = work.join("cut.raucb");
    std::fs::write(&cut_file, cut).unwrap();
    files.add_file("cut.raucb", &cut_file).unwrap();
    let url = |name: &str| format!("http://10.0.2.2:{}/{name}", server.http_port());
    let (good, cut) = (url("update.raucb"), url("cut.raucb"));
    let stopper = server.stopper();
    let serving = std::thread::spawn(move || server.run(files, |_| ()).unwrap());

    // What must not be installed is not, and says why.
    for (bundle, says) in [
        (cut.as_str(), "nothing was installed"),
        ("http://10.0.2.2:1/x.raucb", "nothing was installed"),
        ("/nonexistent", "nothing was installed"),
    ] {
        let (ok, said) = tries(&vm, &format!("lama-node update install {bundle}"));
        assert!(!ok && said.contains(says), "{bundle}: {said}");
    }
    assert!(!tries(&vm, "lama-node rollback").0);

    ask(
        &vm,
        "touch /var/lib/lamadist/mine; echo 1 > /etc/mine; mkdir -p /etc/lamadist; sync",
    );
    let start = Instant::now();
    let (ok, said) = tries(&vm, &format!("lama-node update install {good}"));
    assert!(ok, "{said}\n{}", ask(&vm, "dmesg | tail -20"));
    // RAUC looks through no whole partition, and fetches what the machine has not got.
    let rauc = ask(&vm, "journalctl -b -u rauc -o short-monotonic --no-pager");
    println!("{rauc}");
    assert!(!rauc.contains("Building new hash index"), "{rauc}");
    println!(
        "{} MiB were installed in {:.0} s",
        size >> 20,
        start.elapsed().as_secs_f64()
    );
    println!("{}", ask(&vm, "lama-node update; efibootmgr"));
    reboot(&mut vm);
    healthy(&mut vm);
    assert!(ask(&vm, "cat /proc/cmdline").contains("lamadist.slot=b rauc.slot=B"));
    assert_eq!(ask(&vm, "cat /usr/share/lamadist-next"), "next");
    ask(&vm, "ls /etc/mine /var/lib/lamadist/mine");
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], true, "{status}");
    assert_eq!(status["version"], SIGNED, "{status}");
    let entries = ask(&vm, "efibootmgr");
    let number = |slot: &str| {
        let line = entries
            .lines()
            .find(|l| l.contains(&format!("* {slot}\t")))
            .unwrap();
        line[4..8].to_owned()
    };
    let order = entries
        .lines()
        .find_map(|l| l.strip_prefix("BootOrder: "))
        .unwrap();
    assert!(order.starts_with(&number("B")), "{entries}");
    let (ok, said) = tries(&vm, &format!("lama-node update install {good}"));
    assert!(
        !ok && said.contains(&format!("is not newer than {SIGNED}")),
        "{said}"
    );

    // Back by hand, and forward again to a system that is not well.
    ask(&vm, "lama-node rollback");
    reboot(&mut vm);
    healthy(&mut vm);
    assert!(ask(&vm, "cat /proc/cmdline").contains("lamadist.slot=a"));
    assert!(!vm.ssh("ls /usr/share/lamadist-next").unwrap().ok());
    ask(
        &vm,
        "mkdir -p /etc/lamadist/health.d && chmod 755 /etc/lamadist/health.d && \
         echo 'if grep -q slot=b /proc/cmdline; then echo the pool is gone; exit 1; fi' \
         > /etc/lamadist/health.d/pool.sh && echo patience=3 > /etc/lamadist/update.conf",
    );
    let (ok, said) = tries(&vm, &format!("lama-node update install {good}"));
    assert!(ok, "{said}");
    let start = Instant::now();
    reboot(&mut vm);
    // It comes up on B, is not well, and goes back by itself.
    let end = Instant::now() + Duration::from_secs(600);
    loop {
        let there = vm.wait_ssh(Some(Duration::from_secs(300)));
        let slot = there.and_then(|()| vm.ssh("cat /proc/cmdline"));
        if slot.is_ok_and(|s| s.text().contains("lamadist.slot=a")) {
            break;
        }
        assert!(Instant::now() < end, "it stayed on slot b");
        std::thread::sleep(Duration::from_secs(5));
    }
    println!("back after {:.0} s", start.elapsed().as_secs_f64());
    healthy(&mut vm);
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], false, "{status}");
    let reason = status["last"]["reason"].as_str().unwrap();
    assert!(reason.contains("the pool is gone"), "{reason}");
    ask(&vm, "ls /etc/mine /var/lib/lamadist/mine");
    vm.stop(Stop::Now).unwrap();
    stopper.stop();
    serving.join().unwrap();
}
