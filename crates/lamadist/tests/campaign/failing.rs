// SPDX-License-Identifier: Apache-2.0
//! New systems that fail in ways of their own, and what a machine makes of that by itself:
//! `mise run campaign`. `LAMADIST_FAULTS` (a part of a name) takes those alone.

use crate::common::installed::{Node, ask, healthy, node, reboot};
use crate::common::updates::{Next, Web, judged, slot, tries};
use crate::common::{Bench, base, turn};
use lama_vm::{Stop, Vm};
use std::time::{Duration, Instant};

/// What has to be as it was.
const DATA: &str = "cat /etc/mine /etc/machine-id; sha256sum /var/lib/mine";

/// A unit that does something on slot b alone, once the update is being judged.
const UNIT: &str = "[Unit]
Description=A fault
DefaultDependencies=no
ConditionKernelCommandLine=lamadist.slot=b
After=lamadist-judge.service
[Service]
Type=exec
CPUSchedulingPolicy=POLICY
CPUSchedulingPriority=PRIORITY
ExecStartPre=/usr/bin/sleep 3
ExecStart=/bin/sh -c 'COMMAND'
";

/// A unit that every boot of slot b waits for.
const HANGS: &str = "[Unit]
Description=A fault
ConditionKernelCommandLine=lamadist.slot=b
[Service]
Type=oneshot
ExecStart=/usr/bin/sleep infinity
";

/// What is wrong with a new system.
enum Fault {
    /// A command on the old slot, after the installation.
    Spoilt(&'static str),
    /// What a unit does on the new slot, as an ordinary process.
    Does(&'static str),
    /// The same, before everything else that the machine has to do.
    Hogs(&'static str),
    /// A service that does not come up, and does not fail either.
    Hangs,
    /// Nothing; it was built so.
    Built,
}

/// The one that comes, and what its reason has to say.
struct Case {
    name: &'static str,
    fault: Fault,
    says: &'static [&'static str],
}

const CASES: [Case; 8] = [
    Case {
        name: "the firmware refuses the UKI",
        // In the kernel; the headers stay as they are.
        fault: Fault::Spoilt(
            "mount /dev/lamadist/esp /mnt && \
             printf XXXX | dd of=/mnt/EFI/Linux/lamadist-b.efi bs=1 seek=9000000 conv=notrunc,fsync \
             status=none && umount /mnt",
        ),
        says: &["did not come as far as /var"],
    },
    Case {
        name: "the initrd finds the root damaged",
        fault: Fault::Spoilt(
            "dd if=/dev/urandom of=/dev/mapper/rootfs_b bs=4096 count=1 conv=notrunc,fsync status=none",
        ),
        says: &[
            "did not come as far as /var",
            "Kernel panic - not syncing: dm-verity",
        ],
    },
    Case {
        name: "the initrd finds the hash tree damaged",
        fault: Fault::Spoilt(
            "dd if=/dev/urandom of=/dev/lamadist/verity-b bs=4096 count=1 conv=notrunc,fsync status=none",
        ),
        says: &[
            "did not come as far as /var",
            "the initrd could not start systemd-veritysetup@root.service",
        ],
    },
    Case {
        name: "the kernel panics",
        fault: Fault::Does("echo c > /proc/sysrq-trigger"),
        says: &["ended before it was judged", "Kernel panic - not syncing"],
    },
    Case {
        name: "the first process hangs",
        // Frozen, it no longer tells the watchdog that it is there.
        fault: Fault::Does("echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze"),
        says: &["ended before it was judged"],
    },
    Case {
        // No hang: since Linux 6.12 the scheduler leaves ordinary processes a twentieth of each
        // processor all the same, and with that the machine comes to a late end by itself.
        name: "nothing gets a processor any more",
        fault: Fault::Hogs(
            "echo -1 > /proc/sys/kernel/sched_rt_runtime_us; \
             for c in $(seq $(nproc)); do while :; do :; done & done; wait",
        ),
        says: &["ended before it was judged"],
    },
    Case {
        name: "a service never comes up",
        fault: Fault::Hangs,
        says: &["multi-user.target is not reached, it waits for fault.service"],
    },
    Case {
        name: "RAUC never answers",
        fault: Fault::Does("systemctl mask --runtime --now rauc.service"),
        says: &["RAUC does not mark it good"],
    },
];

fn does(command: &str, policy: &str, priority: &str) -> String {
    UNIT.replace("COMMAND", command)
        .replace("POLICY", policy)
        .replace("PRIORITY", priority)
}

fn put(vm: &Vm, unit: &str, target: &str) {
    ask(
        vm,
        &format!(
            "mkdir -p /etc/systemd/system/{target}.wants; cd /etc/systemd/system; \
             cat > fault.service <<'E'\n{unit}E\n\
             ln -sf ../fault.service {target}.wants/"
        ),
    );
}

/// Restarts into the new slot, and waits until the machine has come back to the old one by itself.
fn falls_back(vm: &mut Vm) -> Duration {
    const LOOK: &str = "cat /proc/sys/kernel/random/boot_id /proc/cmdline";
    let before = ask(vm, "cat /proc/sys/kernel/random/boot_id");
    let start = Instant::now();
    // The connection goes away with the machine.
    let _ = vm.ssh("systemctl reboot");
    loop {
        std::thread::sleep(Duration::from_secs(3));
        let said = vm.ssh_within(LOOK, b"", Duration::from_secs(8));
        let said = said.map(|s| s.text()).unwrap_or_default();
        if said.contains("lamadist.slot=a") && !said.contains(&before) {
            // What its console said of the new system's failing is none of the old one's.
            vm.mark().unwrap();
            return start.elapsed();
        }
        assert!(
            start.elapsed().as_secs() < 900,
            "it did not come back: {said}"
        );
    }
}

/// Installs the update with this fault, and waits for the old slot.
fn fails(vm: &mut Vm, url: &str, data: &str, case: &Case) {
    ask(
        vm,
        "rm -f /etc/systemd/system/fault.service \
         /etc/systemd/system/*.target.wants/fault.service",
    );
    let (ok, said) = tries(vm, &format!("lama-node update install {url}"));
    assert!(ok, "{}: {said}", case.name);
    match case.fault {
        Fault::Spoilt(command) => drop(ask(vm, command)),
        Fault::Does(command) => put(vm, &does(command, "other", "0"), "sysinit.target"),
        Fault::Hogs(command) => put(vm, &does(command, "fifo", "99"), "sysinit.target"),
        Fault::Hangs => put(vm, HANGS, "multi-user.target"),
        Fault::Built => {}
    }
    let time = falls_back(vm);
    println!("{}: back after {:.0} s", case.name, time.as_secs_f64());
    healthy(vm);
    let status = judged(vm);
    assert_eq!(status["last"]["kept"], false, "{}: {status}", case.name);
    let reason = status["last"]["reason"].as_str().unwrap();
    println!("    {reason}");
    for says in case.says {
        assert!(reason.contains(says), "{}: {reason}", case.name);
    }
    assert_eq!(ask(vm, DATA), data, "{}", case.name);
}

/// An installed machine, and what it has.
fn with_data(bench: &Bench, node: &Node, name: &str) -> (Vm, String) {
    let mut vm = bench.clone_of(&node.dir, name).boot();
    healthy(&mut vm);
    ask(
        &vm,
        "head -c 5000000 /dev/urandom > /var/lib/mine && echo mine > /etc/mine && sync",
    );
    let data = ask(&vm, DATA);
    (vm, data)
}

#[test]
#[ignore = "a campaign: half an hour (mise run campaign)"]
fn a_new_system_that_fails_gives_the_old_one_back() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let bench = Bench::new(built);
    let (mut vm, data) = with_data(&bench, node, "failing");
    // What is waited for to its end.
    ask(
        &vm,
        "mkdir -p /etc/lamadist && echo patience=6 > /etc/lamadist/update.conf",
    );
    let wanted = std::env::var("LAMADIST_FAULTS").unwrap_or_default();
    let next = Next::build();
    next.encrypt_to(&vm);
    // Its kernel has nothing to start.
    let panics = Next::of("panics", |distro| {
        let file = distro.join("machines/x86_64.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replace("\ncmdline = []", "\ncmdline = [\"rdinit=/nonexistent\"]");
        assert!(text.contains("rdinit"));
        std::fs::write(&file, text).unwrap();
    });
    panics.encrypt_to(&vm);
    let web = Web::serve(&[
        ("next.raucb", &next.bundle),
        ("panics.raucb", &panics.bundle),
    ]);
    let case = Case {
        name: "the kernel panics before the initrd",
        fault: Fault::Built,
        says: &["did not come as far as /var"],
    };
    if case.name.contains(&wanted) {
        fails(&mut vm, &web.url("panics.raucb"), &data, &case);
    }
    for case in CASES.iter().filter(|c| c.name.contains(&wanted)) {
        fails(&mut vm, &web.url("next.raucb"), &data, case);
    }
    vm.stop(Stop::Now).unwrap();
}

/// Installs the update, and restarts into it.
fn is_kept(vm: &mut Vm, url: &str) {
    let (ok, said) = tries(vm, &format!("lama-node update install {url}"));
    assert!(ok, "{said}");
    reboot(vm);
    healthy(vm);
    let status = judged(vm);
    assert_eq!(status["last"]["kept"], true, "{status}");
    assert_eq!(slot(vm), "b");
}

#[test]
#[ignore = "a campaign: twenty minutes (mise run campaign)"]
fn a_kept_system_that_goes_bad_gives_the_other_one_its_turn() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let bench = Bench::new(built);
    let (mut vm, data) = with_data(&bench, node, "bad");
    let next = Next::build();
    next.encrypt_to(&vm);
    let web = Web::serve(&[("next.raucb", &next.bundle)]);
    let url = web.url("next.raucb");
    is_kept(&mut vm, &url);
    const NOTE: &str = "/var/lib/lamadist/update/given-up.json";
    assert_eq!(ask(&vm, &format!("ls {NOTE} || true")), "");

    // A disk that has lost the block that is read first.
    ask(
        &vm,
        "dd if=/dev/urandom of=/dev/mapper/rootfs_b bs=4096 count=1 conv=notrunc,fsync status=none",
    );
    let time = falls_back(&mut vm);
    println!("the other slot runs after {:.0} s", time.as_secs_f64());
    healthy(&mut vm);
    assert_eq!(ask(&vm, DATA), data);
    let told = format!("for i in $(seq 60); do [ -e {NOTE} ] && break; sleep 2; done; cat {NOTE}");
    println!("    {}", ask(&vm, &told));
    let shown = ask(&vm, "lama-node update");
    assert!(
        shown.contains("slot b did not come up in 3 starts"),
        "{shown}"
    );
    assert!(shown.contains("dm-verity device corrupted"), "{shown}");
    let health = ask(&vm, "lama-node health --json || true");
    assert!(
        health.contains("slot a is running, since slot b"),
        "{health}"
    );

    // The update mends the slot.
    is_kept(&mut vm, &url);
    assert_eq!(ask(&vm, &format!("ls {NOTE} || true")), "");
    assert_eq!(ask(&vm, DATA), data);
    vm.stop(Stop::Now).unwrap();
}
