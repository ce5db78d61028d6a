// SPDX-License-Identifier: Apache-2.0
//! Installations that the power cuts off, over the network, at the console, and hosts that come back on
//! new hardware.
//!
//! `LAMADIST_SEED` (a number) repeats the moments of an earlier run, `LAMADIST_CUTS` (10) is how many
//! there are.

use crate::common::dice::{Dice, cuts as asked};
use crate::common::installed::{
    Installation, STAGES, ask, healthy, install, node, reboot, sparse_copy,
};
use crate::common::serving::Serving;
use crate::common::{Bench, Built, base, scratch, turn};
use lama_image::index::Kind;
use lama_vm::{Bus, Disk, NetBoot, Stop, Tpm, Vm};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn medium(built: &Built) -> Disk {
    Disk::image(built.file(Kind::Disk)).on(Bus::Usb)
}

/// A disk as a power cut left it.
struct Cut {
    /// The stage.
    stage: &'static str,
    /// Seconds in it.
    after: f64,
    disk: PathBuf,
    /// Whether the firmware starts it.
    starts: bool,
}

/// What the firmware makes of a disk that an installation was cut off on: it starts a whole system,
/// or nothing at all.
fn starts(bench: &Bench, name: &str, disk: &Path, tpm: &Path) -> bool {
    let mut vm = bench
        .machine(name)
        .variables(&disk.with_extension("vars"))
        .tpm_of(tpm)
        .disk(Disk::image(disk))
        .boot();
    let nothing = [
        "UEFI Interactive Shell",
        "No bootable option",
        ">>Start PXE",
    ];
    let started = vm
        .wait_console("the start or its failure", Duration::from_secs(120), |t| {
            if t.contains("Linux version") || t.contains("systemd-stub") || t.contains("EFI stub") {
                return Some(true);
            }
            nothing.iter().any(|n| t.contains(n)).then_some(false)
        })
        .unwrap();
    if started {
        // It must not be a half one: whole, and known as installed from now on.
        healthy(&mut vm);
        let labels = ask(&vm, "lsblk --noheadings --output PARTLABEL /dev/vda");
        assert!(labels.lines().any(|l| l.trim() == "esp"), "{labels}");
        let entries = ask(&vm, "efibootmgr");
        assert!(
            entries.contains("* A\t") && entries.contains("* B\t"),
            "{entries}"
        );
        println!("{}", ask(&vm, "journalctl -b -u lamadist-repair -o cat"));
    }
    vm.stop(Stop::Now).unwrap();
    started
}

#[test]
#[ignore = "a campaign: half an hour and more (mise run campaign)"]
fn an_installation_is_cut_off_at_seeded_moments() {
    let _turn = turn();
    let built = base();
    let whole = node(built);
    let mut dice = Dice::from_environment();
    let count = asked(10);
    // As many in each stage, at moments of the time that it took before.
    println!(
        "the stages of an installation take {:.1?} here",
        whole.stages
    );
    let dir = scratch().join("cuts");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let mut cuts = Vec::new();
    let mut installation = Installation::start(built, "cuts", &[]);
    let tpm = scratch().join("state/lamadist/vm/cuts");
    'stages: for (n, (stage, length)) in STAGES.iter().zip(&whole.stages).enumerate() {
        let mut moments: Vec<f64> = (n..count)
            .step_by(STAGES.len())
            .map(|_| dice.fraction() * length.as_secs_f64())
            .collect();
        moments.sort_by(f64::total_cmp);
        installation.wait(stage);
        let began = Instant::now();
        for m in moments {
            while began.elapsed().as_secs_f64() < m {
                std::thread::sleep(Duration::from_millis(5));
            }
            let disk = dir.join(format!("{}.raw", cuts.len()));
            if !installation.copy(&disk) {
                println!("it was done before {m:.1} s of its last stage");
                break 'stages;
            }
            cuts.push(Cut {
                stage,
                after: m,
                disk,
                starts: false,
            });
        }
    }
    installation.finish();

    let bench = Bench::new(built);
    for (n, c) in cuts.iter_mut().enumerate() {
        c.starts = starts(&bench, &format!("cut{n}"), &c.disk, &tpm);
        println!(
            "{n}: {:.1} s after {:?}: starts: {}",
            c.after, c.stage, c.starts
        );
    }

    // Each of the others again, by the same medium, in one session of it. (A machine that starts is
    // one, and to erase it takes another answer.)
    let started = cuts.iter().filter(|c| c.starts).count();
    let count = cuts.len();
    cuts.retain(|c| !c.starts);
    let mut machine = bench.machine("again").disk(medium(built));
    for (n, c) in cuts.iter().enumerate() {
        let again = Disk::image(&c.disk).direct();
        machine = machine.disk(again.serial(format!("cut{n}")));
    }
    let mut vm = machine.boot();
    vm.wait_ssh(Some(Duration::from_secs(300))).unwrap();
    for n in 0..cuts.len() {
        let link = format!("/dev/disk/by-id/virtio-cut{n}");
        let answers = format!("disk=serial:cut{n}\\nfinish=stay");
        let (ok, said) = install(&vm, &answers, "");
        println!("{n}: again: {ok}");
        assert!(
            ok && said.contains("LamaDist is installed on"),
            "{n}: {said}"
        );
        // It goes away, so that the next one is the only one.
        ask(
            &vm,
            &format!(
                "sync; basename $(readlink -f /sys/block/$(basename $(readlink -f {link}))/device) \
                 > /sys/bus/virtio/drivers/virtio_blk/unbind"
            ),
        );
    }
    vm.stop(Stop::Gracefully(Duration::from_secs(60))).unwrap();
    let again = bench.dir("again");
    for (n, c) in cuts.iter().enumerate() {
        // A firmware that knows nothing of it, and the TPM that it was installed with.
        let mut vm = bench
            .machine(&format!("clean{n}"))
            .tpm_of(&again)
            .disk(Disk::image(&c.disk))
            .boot();
        healthy(&mut vm);
        let entries = ask(&vm, "efibootmgr");
        assert!(entries.contains("* A\t"), "{entries}");
        println!("{n}: {:.1} s after {:?}: clean", c.after, c.stage);
        vm.stop(Stop::Now).unwrap();
    }
    println!(
        "{count} cuts: {started} left a machine that starts and is whole, {} nothing that starts, \
         and were installed anew",
        cuts.len()
    );
}

#[test]
#[ignore = "a campaign: several minutes (mise run campaign)"]
fn a_machine_is_installed_over_the_network() {
    let _turn = turn();
    let built = base();
    let answers = [
        "--answer",
        "disk=serial:disk",
        "--answer",
        "finish=poweroff",
    ];
    let serving = Serving::start(built, &answers);
    let bench = Bench::starting_at(built, Some(serving.url("hosts/nas/installer.efi")));
    let disk = || Disk::blank(16 << 30).serial("disk");
    let mut vm = bench.network("nas").disk(disk()).boot();
    assert_eq!(vm.wait_exit().unwrap(), 0);
    let console = vm.console_text().unwrap();
    assert!(console.contains("LamaDist is installed on"), "{console}");
    drop(serving);
    // Nobody serves any more: from its disk, as the firmware remembers.
    let mut vm = {
        let mut m = bench.network("nas").disk(disk());
        m.config.netboot = NetBoot::Off;
        m.boot()
    };
    vm.mark().unwrap();
    healthy(&mut vm);
    assert_eq!(ask(&vm, "hostname"), "nas");
    assert!(ask(&vm, "cat /proc/cmdline").contains("lamadist.slot=a"));
    vm.stop(Stop::Now).unwrap();
}

/// A backup by the service; why not, where there is none.
const BACKUP: &str = "systemctl start lamadist-backup.service || \
                      { journalctl -b -u lamadist-backup -o cat --no-pager >&2; exit 1; }";

/// What makes a host this one.
fn identity(vm: &Vm) -> String {
    ask(
        vm,
        "hostname; cat /etc/machine-id /etc/ssh/ssh_host_*_key.pub; \
         cd /var/lib/things && find . -printf '%p %m %U %G %s %l\\n' | sort && \
         find . -type f -exec sha256sum {} + | sort; getfattr -R -d -m - . 2>/dev/null; cat /etc/mine",
    )
}

#[test]
#[ignore = "a campaign: several minutes (mise run campaign)"]
fn a_host_is_restored_on_new_hardware() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let bench = Bench::new(built);
    let mut vm = bench.clone_of(&node.dir, "old").boot();
    healthy(&mut vm);
    ask(
        &vm,
        "mkfs.ext4 -q /dev/disk/by-id/virtio-other && mkdir -p /var/mnt/backup && \
         mount /dev/disk/by-id/virtio-other /var/mnt/backup",
    );
    ask(
        &vm,
        "mkdir -p /var/lib/things/sub && cd /var/lib/things && \
         head -c 20000000 /dev/urandom > big && echo text > sub/small && ln -s sub/small link && \
         chown 1234:4321 sub/small && chmod 4711 sub/small && mkfifo pipe && \
         truncate -s 1G sparse && echo mine > /etc/mine && sync",
    );
    let before = identity(&vm);
    let setup = ask(
        &vm,
        "lama-node backup setup --repository /var/mnt/backup/restic 2>&1",
    );
    println!("{setup}");
    // As the timer does it.
    ask(&vm, BACKUP);
    println!("{}", ask(&vm, "journalctl -b -u lamadist-backup -o cat"));
    let status = ask(&vm, "lama-node backup status");
    println!("{status}");
    ask(&vm, "umount /var/mnt/backup; sync");
    vm.stop(Stop::Gracefully(Duration::from_secs(60))).unwrap();
    let password = setup
        .split_whitespace()
        .find(|w| w.len() > 30 && w.contains('-'))
        .unwrap_or_else(|| panic!("no password: {setup}"))
        .to_owned();
    let repository = bench.dir("old").join("disk-1.raw");

    // Another TPM, a larger disk, and a medium that knows nothing of the host.
    let large = || Disk::blank(24 << 30).serial("large");
    let with_repository = || {
        bench
            .machine("new")
            .disk(large())
            .disk(Disk::image(&repository))
    };
    let mut vm = with_repository().disk(medium(built)).boot();
    vm.wait_ssh(Some(Duration::from_secs(300))).unwrap();
    let (ok, said) = install(&vm, "disk=serial:large\\nfinish=stay", "");
    assert!(ok, "{said}");
    ask(&vm, "mount /dev/vdb /mnt");
    let restore = |vm: &Vm, at: &str| {
        let c =
            format!("lama-node restore --repository {at}/restic --password-file - --verify 2>&1");
        let input = format!("{password}\n");
        let out = vm
            .ssh_within(&c, input.as_bytes(), Duration::from_secs(300))
            .unwrap();
        println!("{}", out.text());
        assert!(out.ok());
    };
    restore(&vm, "/mnt");
    // Closed again, and not done twice.
    assert!(!vm.ssh("ls /dev/mapper/lamadist-restore").unwrap().ok());
    ask(&vm, "sync");
    vm.stop(Stop::Gracefully(Duration::from_secs(60))).unwrap();

    // Who may log in is the host's, too.
    for key in ["id_ed25519", "id_ed25519.pub"] {
        std::fs::copy(bench.dir("old").join(key), bench.dir("new").join(key)).unwrap();
    }
    let mut vm = with_repository().boot();
    vm.mark().unwrap();
    healthy(&mut vm);
    assert_eq!(identity(&vm), before);
    let size: u64 = ask(&vm, "findmnt -bno SIZE /var").parse().unwrap();
    // What the larger disk has for it, less what ext4 keeps for itself.
    assert!(size > (14 << 30), "{size}");
    // Backups go on by themselves.
    ask(
        &vm,
        "mkdir -p /var/mnt/backup && mount /dev/vdb /var/mnt/backup",
    );
    ask(&vm, BACKUP);
    println!("{}", ask(&vm, "lama-node backup list --all"));

    // On the installed machine: what was lost since comes back at the next boot.
    ask(
        &vm,
        "rm -r /var/lib/things/sub /etc/mine && echo other > /var/lib/things/big && \
         echo other > /etc/ssh/ssh_host_ed25519_key.pub",
    );
    restore(&vm, "/var/mnt/backup");
    ask(&vm, "umount /var/mnt/backup");
    reboot(&mut vm);
    healthy(&mut vm);
    assert_eq!(identity(&vm), before);
    ask(&vm, "lama-node restore --clean");
    assert!(!vm.ssh("ls /var/.lamadist-restore").unwrap().ok());
    vm.stop(Stop::Now).unwrap();
}

#[test]
#[ignore = "a campaign: several minutes (mise run campaign)"]
fn a_larger_disk_is_taken_up() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let larger = scratch().join("larger.raw");
    sparse_copy(&node.dir.join("disk-0.raw"), &larger);
    let file = std::fs::File::options().write(true).open(&larger).unwrap();
    let size = file.metadata().unwrap().len() + (8 << 30);
    file.set_len(size).unwrap();
    let bench = Bench::new(built);
    let mut vm = bench
        .machine("larger")
        .variables(&node.dir.join("vars.fd"))
        .tpm_of(&node.dir)
        .disk(Disk::image(&larger))
        .boot();
    healthy(&mut vm);
    println!("{}", ask(&vm, "journalctl -b -u lamadist-grow -o cat"));
    let plan = ask(&vm, "lama-node grow --plan");
    assert!(plan.contains("fills its disk"), "{plan}");
    let disk: u64 = ask(&vm, "blockdev --getsize64 /dev/vda").parse().unwrap();
    assert_eq!(disk, size);
    let var: u64 = ask(&vm, "findmnt -bno SIZE /var").parse().unwrap();
    assert!(var > (8 << 30), "{var}");
    ask(&vm, "sfdisk --verify --quiet /dev/vda");
    vm.stop(Stop::Now).unwrap();
}

#[test]
#[ignore = "a campaign: several minutes (mise run campaign)"]
fn without_a_tpm_somebody_installs_at_the_console() {
    let _turn = turn();
    let built = base();
    let bench = Bench::new(built);
    let disk = || Disk::blank(16 << 30).serial("disk");
    let patience = Duration::from_secs(300);
    let passphrase = "correct horse battery";
    let mut vm = {
        let mut m = bench.machine("typed").disk(disk()).disk(medium(built));
        m.config.tpm = Tpm::None;
        m.boot()
    };
    let say = |vm: &mut Vm, question: &str, answer: &str| {
        vm.wait_text(question, patience).unwrap();
        vm.mark().unwrap();
        vm.enter(answer).unwrap();
    };
    say(&mut vm, "Press Enter to install", "\n");
    say(
        &mut vm,
        "Type \"passphrase\" to install all the same",
        "passphrase\n",
    );
    let number = vm
        .wait_console("the list of disks", patience, |t| {
            let line = t.lines().find(|l| l.contains("serial disk"))?;
            t.contains("Number of the disk").then_some(())?;
            line.trim().split(')').next().map(str::to_owned)
        })
        .unwrap();
    vm.enter("99\n").unwrap();
    say(&mut vm, "There is no such number", &format!("{number}\n"));
    say(&mut vm, "Type \"yes\" to do that", "yes\n");
    say(&mut vm, "Passphrase that opens the disk", "short\n");
    say(
        &mut vm,
        "at least 12 characters",
        &format!("{passphrase}\n"),
    );
    say(&mut vm, "The same again", &format!("{passphrase}\n"));
    say(&mut vm, "Remove the medium", "p\n");
    assert_eq!(vm.wait_exit().unwrap(), 0);
    let console = vm.console_text().unwrap();
    assert!(console.contains("LamaDist is installed on"), "{console}");
    assert!(!console.contains(passphrase), "it is on the console");

    let mut vm = {
        let mut m = bench.machine("typed").disk(disk());
        m.config.tpm = Tpm::None;
        m.boot()
    };
    vm.mark().unwrap();
    say(&mut vm, "passphrase", &format!("{passphrase}\n"));
    healthy(&mut vm);
    let status = ask(&vm, "lama-node status");
    println!("{status}");
    assert!(status.contains("passphrase"), "{status}");
    println!("{}", ask(&vm, "lama-node report; lama-node health; true"));
    vm.stop(Stop::Now).unwrap();
}
