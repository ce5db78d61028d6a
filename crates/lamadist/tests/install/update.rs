// SPDX-License-Identifier: Apache-2.0
//! A machine is updated over HTTP: what is well is kept, what is not gives the old system back.

use crate::common::installed::{ask, healthy, node, reboot};
use crate::common::updates::{NEW_FILE, Next, SIGNED, Web, judged, slot, tries};
use crate::common::{Bench, base, turn};
use lama_vm::{Stop, Vm};
use std::time::{Duration, Instant};

/// What has to be there before and after.
const MINE: &str = "ls /etc/mine /var/lib/lamadist/mine";

/// The number of a slot's boot entry.
fn entry(entries: &str, slot: &str) -> String {
    let has = |l: &&str| l.contains(&format!("* {slot}\t"));
    entries.lines().find(has).unwrap()[4..8].to_owned()
}

/// Waits until the machine has come back to slot a by itself.
fn falls_back(vm: &mut Vm) -> Duration {
    let start = Instant::now();
    loop {
        let there = vm.wait_ssh(Some(Duration::from_secs(300)));
        let slot = there.and_then(|()| vm.ssh("cat /proc/cmdline"));
        if slot.is_ok_and(|s| s.text().contains("lamadist.slot=a")) {
            return start.elapsed();
        }
        assert!(start.elapsed().as_secs() < 900, "it stayed on slot b");
        std::thread::sleep(Duration::from_secs(5));
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
    let next = Next::build();
    next.encrypt_to(&vm);
    let size = std::fs::metadata(&next.bundle).unwrap().len();
    let cut = next.altered("cut.raucb", |b| b.truncate(b.len() / 2));
    let web = Web::serve(&[("update.raucb", &next.bundle), ("cut.raucb", &cut)]);
    let good = web.url("update.raucb");

    // What must not be installed is not, and says why.
    for bundle in [
        web.url("cut.raucb").as_str(),
        "http://10.0.2.2:1/x.raucb",
        "/nonexistent",
    ] {
        let (ok, said) = tries(&vm, &format!("lama-node update install {bundle}"));
        assert!(
            !ok && said.contains("nothing was installed"),
            "{bundle}: {said}"
        );
    }
    assert!(!tries(&vm, "lama-node rollback").0);

    ask(
        &vm,
        "touch /var/lib/lamadist/mine; echo 1 > /etc/mine; mkdir -p /etc/lamadist; sync",
    );
    let (start, before) = (Instant::now(), web.sent());
    let (ok, said) = tries(&vm, &format!("lama-node update install {good}"));
    assert!(ok, "{said}\n{}", ask(&vm, "dmesg | tail -20"));
    let streamed = web.sent() - before;
    println!(
        "{streamed} bytes were streamed of {size}, installed in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    // The UKI, and of the root what differs.
    assert!(streamed > 0 && streamed < size / 4, "{streamed} of {size}");
    // RAUC looks through no whole partition.
    let rauc = ask(&vm, "journalctl -b -u rauc -o short-monotonic --no-pager");
    assert!(!rauc.contains("Building new hash index"), "{rauc}");
    reboot(&mut vm);
    healthy(&mut vm);
    assert_eq!(slot(&vm), "b");
    assert_eq!(ask(&vm, &format!("cat {NEW_FILE}")), "next");
    ask(&vm, MINE);
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], true, "{status}");
    assert_eq!(status["version"], SIGNED, "{status}");
    let entries = ask(&vm, "efibootmgr");
    let order = entries.lines().find_map(|l| l.strip_prefix("BootOrder: "));
    assert!(
        order.unwrap().starts_with(&entry(&entries, "B")),
        "{entries}"
    );
    let (ok, said) = tries(&vm, &format!("lama-node update install {good}"));
    let older = format!("is not newer than {SIGNED}");
    assert!(!ok && said.contains(&older), "{said}");

    // Back by hand, and forward again to a system that is not well.
    ask(&vm, "lama-node rollback");
    reboot(&mut vm);
    healthy(&mut vm);
    assert_eq!(slot(&vm), "a");
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], true, "{status}");
    assert_eq!(status["last"]["before"], SIGNED, "{status}");
    assert!(!vm.ssh(&format!("ls {NEW_FILE}")).unwrap().ok());
    ask(
        &vm,
        "mkdir -p /etc/lamadist/health.d && chmod 755 /etc/lamadist/health.d && \
         echo 'if grep -q slot=b /proc/cmdline; then echo the pool is gone; exit 1; fi' \
         > /etc/lamadist/health.d/pool.sh && echo patience=3 > /etc/lamadist/update.conf",
    );
    let (ok, said) = tries(&vm, &format!("lama-node update install {good}"));
    assert!(ok, "{said}");
    reboot(&mut vm);
    println!("back after {:.0} s", falls_back(&mut vm).as_secs_f64());
    healthy(&mut vm);
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], false, "{status}");
    let reason = status["last"]["reason"].as_str().unwrap();
    assert!(reason.contains("the pool is gone"), "{reason}");
    ask(&vm, MINE);
    vm.stop(Stop::Now).unwrap();
}

#[test]
fn a_small_update_comes_by_the_channel_file() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let mut bench = Bench::new(built);
    // It makes a bundle, and is the last one to run here.
    bench.processors = 2;
    let mut vm = bench.clone_of(&node.dir, "follows").boot();
    healthy(&mut vm);
    let next = Next::build();
    next.encrypt_to(&vm);
    let web = Web::serve(&next.publish(built));
    let url = web.url("");
    ask(
        &vm,
        &format!(
            "mkdir -p /etc/lamadist; echo 1 > /etc/mine; touch /var/lib/lamadist/mine; \
             printf 'url=%s\ntrack=stable\nautomatic=install\n' {url} > /etc/lamadist/update.conf"
        ),
    );
    let found = ask(&vm, "lama-node update check --json");
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["newer"], true, "{found}");
    assert_eq!(found["version"], SIGNED, "{found}");
    // As the timer does it: it restarts by itself, since there is no window.
    let start = Instant::now();
    vm.mark().unwrap();
    ask(&vm, "systemctl start --no-block lamadist-update.service");
    let end = start + Duration::from_secs(1200);
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let line = vm.ssh("cat /proc/cmdline; systemctl is-failed lamadist-update");
        let line = line.map(|l| l.text()).unwrap_or_default();
        if line.contains("lamadist.slot=b") {
            break;
        }
        assert!(
            !line.lines().any(|l| l == "failed") && Instant::now() < end,
            "{}",
            ask(&vm, "journalctl -b -u lamadist-update -u rauc --no-pager")
        );
    }
    healthy(&mut vm);
    let rauc = ask(&vm, "journalctl -b -1 -u rauc --no-pager");
    assert!(!rauc.contains("Building new hash index"), "{rauc}");
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], true, "{status}");
    assert_eq!(status["version"], SIGNED, "{status}");
    let (loaded, size) = (&status["last"]["loaded"], &status["last"]["size"]);
    let (loaded, size) = (loaded.as_u64().unwrap(), size.as_u64().unwrap());
    println!(
        "{loaded} bytes were loaded of {size}, kept after {:.0} s",
        start.elapsed().as_secs_f64()
    );
    assert!(loaded < size / 5, "{loaded} of {size}");
    ask(&vm, MINE);
    println!(
        "{}",
        ask(&vm, "lama-node update; ls -lR /var/lib/lamadist/update")
    );
    vm.stop(Stop::Now).unwrap();
}
