// SPDX-License-Identifier: Apache-2.0
//! Updates that the power cuts off: `mise run campaign`. `LAMADIST_SEED` repeats the moments of an
//! earlier run, `LAMADIST_CUTS` (10) is how many there are.

use crate::common::dice::{Dice, cuts};
use crate::common::installed::{ask, healthy, node, reboot};
use crate::common::updates::{Next, SIGNED, Web, judged, slot, tries};
use crate::common::{Bench, base, turn};
use lama_vm::{Stop, Vm};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Cuts that one run of an update gives. Each holds it up while its disk is copied.
const EACH: usize = 40;
/// Of so many cuts one is followed until the update is complete.
const COMPLETED: usize = 10;

/// What has to be as it was.
const DATA: &str = "hostname; cat /etc/machine-id /etc/mine; sha256sum /var/lib/mine/*; \
                    sha256sum /etc/ssh/ssh_host_ed25519_key.pub";

/// An update from its beginning until it is kept, with something at moments of it. Returns how long
/// it took to be installed, and in all.
fn update(vm: &mut Vm, url: &str, mut at: Vec<(f64, String)>, bench: &Bench) -> (f64, f64) {
    let start = Instant::now();
    at.sort_by(|a, b| a.0.total_cmp(&b.0));
    at.reverse();
    // Runs in the machine by itself, so that this side can look at the clock.
    ask(
        vm,
        &format!(
            "systemd-run --quiet --unit=cut --collect sh -c \
             'lama-node update install {url} > /run/cut 2>&1; echo $? > /run/cut.done; \
              [ $(cat /run/cut.done) != 0 ] || systemctl reboot'"
        ),
    );
    let (mut installed, mut asked) = (None, start);
    loop {
        if let Some((_, name)) = at.pop_if(|(t, _)| start.elapsed().as_secs_f64() >= *t) {
            bench.cut(vm, &name);
            continue;
        }
        let pause = at
            .last()
            .map_or(1.0, |(t, _)| t - start.elapsed().as_secs_f64());
        std::thread::sleep(Duration::from_secs_f64(pause.clamp(0.0, 0.2)));
        if asked.elapsed() < Duration::from_secs(8) {
            continue;
        }
        asked = Instant::now();
        let Ok(line) = vm.ssh_within(
            "cat /proc/cmdline /run/cut.done",
            b"",
            Duration::from_secs(8),
        ) else {
            continue;
        };
        let said = line.text();
        if installed.is_none() && said.lines().nth(1).is_some_and(|l| l == "0") {
            installed = Some(start.elapsed().as_secs_f64());
        }
        assert!(
            said.lines().nth(1).is_none_or(|l| l == "0"),
            "{}",
            ask(vm, "cat /run/cut")
        );
        if said.contains("lamadist.slot=b") && at.is_empty() {
            let status = judged(vm);
            assert_eq!(status["last"]["kept"], true, "{status}");
            let all = start.elapsed().as_secs_f64();
            return (installed.unwrap_or(all / 2.0), all);
        }
        assert!(start.elapsed().as_secs() < 1800, "the update does not end");
    }
}

/// What is left after a cut: a machine that starts, is whole, and can be updated.
fn look(bench: &Bench, disk: &Path, name: &str, data: &str, then: Option<&str>) -> String {
    let mut vm = bench.boot_copy(disk, name);
    healthy(&mut vm);
    let now = slot(&vm);
    let mut told = format!("slot {now}");
    assert_eq!(ask(&vm, DATA), data, "{name}");
    let status = judged(&vm);
    assert_eq!(now == "b", status["version"] == SIGNED, "{name}: {status}");
    if let Some(url) = then {
        if now == "a" {
            let (ok, said) = tries(&vm, &format!("lama-node update install {url}"));
            assert!(ok, "{name}: {said}");
            reboot(&mut vm);
            healthy(&mut vm);
            let status = judged(&vm);
            assert_eq!(status["last"]["kept"], true, "{name}: {status}");
        }
        assert_eq!(slot(&vm), "b", "{name}");
        assert_eq!(ask(&vm, DATA), data, "{name}");
        told += ", updated";
    }
    vm.stop(Stop::Now).unwrap();
    std::fs::remove_dir_all(bench.dir(name)).unwrap();
    told
}

#[test]
#[ignore = "a campaign: an hour and more (mise run campaign)"]
fn an_update_is_cut_off_at_seeded_moments() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let disk = node.dir.join("disk-0.raw");
    let mut bench = Bench::new(built);
    bench.processors = 2;
    let mut dice = Dice::from_environment();
    let count = cuts(10);

    let mut vm = bench.clone_of(&node.dir, "ready").boot();
    healthy(&mut vm);
    ask(
        &vm,
        "mkdir /var/lib/mine && head -c 5000000 /dev/urandom > /var/lib/mine/a && \
         echo mine > /etc/mine && sync",
    );
    let data = ask(&vm, DATA);
    let next = Next::build();
    next.encrypt_to(&vm);
    let web = Web::serve(&[("update.raucb", &next.bundle)]);
    let url = web.url("update.raucb");
    vm.stop(Stop::Gracefully(Duration::from_secs(60))).unwrap();
    let ready = bench.dir("ready");

    // Once without a cut, for the clock.
    bench.copy(&ready, "whole");
    let mut vm = bench.boot_copy(&disk, "whole");
    healthy(&mut vm);
    let (installed, all) = update(&mut vm, &url, Vec::new(), &bench);
    vm.stop(Stop::Now).unwrap();
    println!("installed after {installed:.0} s, kept after {all:.0} s");

    let mut results = BTreeMap::new();
    let mut done = 0;
    while done < count {
        let now = EACH.min(count - done);
        let at: Vec<(f64, String)> = (done..done + now)
            .map(|n| (dice.fraction() * all, format!("cut{n}")))
            .collect();
        bench.processors = 2;
        bench.copy(&ready, "round");
        let mut vm = bench.boot_copy(&disk, "round");
        healthy(&mut vm);
        update(&mut vm, &url, at.clone(), &bench);
        vm.stop(Stop::Now).unwrap();
        // Two at a time.
        bench.processors = 1;
        let waiting = Mutex::new(at);
        std::thread::scope(|s| {
            let work = || {
                let mut told = Vec::new();
                loop {
                    let Some((t, name)) = waiting.lock().unwrap().pop() else {
                        return told;
                    };
                    let n: usize = name["cut".len()..].parse().unwrap();
                    let then = n.is_multiple_of(COMPLETED).then_some(url.as_str());
                    let what = look(&bench, &disk, &name, &data, then);
                    println!("{n}: cut after {t:.1} s: {what}");
                    told.push((n, what));
                }
            };
            let (a, b) = (s.spawn(work), s.spawn(work));
            results.extend(a.join().unwrap());
            results.extend(b.join().unwrap());
        });
        done += now;
    }
    let of = |what: &str| results.values().filter(|w| w.contains(what)).count();
    println!(
        "{count} cuts: {} left slot a, {} slot b, {} were updated afterwards",
        of("slot a"),
        of("slot b"),
        of("updated")
    );
}
