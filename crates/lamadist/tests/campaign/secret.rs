// SPDX-License-Identifier: Apache-2.0
//! A secret on an installed machine: a service gets it, another TPM does not, and the recovery key
//! brings it back. And the installation is one that the host's description answers.

use crate::common::{Bench, base, lamadist, scratch, turn};
use lama_vm::{Stop, Vm};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(300);
/// What a unit that imports the secret reads.
const READ: &str = "systemd-run --quiet --wait --pipe --collect --property=ImportCredential=token \
     sh -c 'cat $CREDENTIALS_DIRECTORY/token; stat -c %a $CREDENTIALS_DIRECTORY/token'";

fn ask(vm: &Vm, command: &str) -> String {
    vm.ssh_ok(command).unwrap()
}

fn feed(vm: &Vm, command: &str, input: &str) -> (bool, String) {
    let out = vm
        .ssh_within(command, input.as_bytes(), Duration::from_secs(120))
        .unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    (out.ok(), format!("{}{err}", out.text()))
}

#[test]
#[ignore = "a campaign: several minutes (mise run campaign)"]
fn a_secret_is_the_machines_and_the_recovery_keys() {
    let _turn = turn();
    let built = base();
    let state = scratch().join("secret");
    let _ = std::fs::remove_dir_all(&state);
    let hosts = state.join("hosts");
    std::fs::create_dir_all(&hosts).unwrap();
    let ok = |args: &[&str]| {
        let mut c = lamadist(args);
        c.env("XDG_STATE_HOME", &state)
            .env("LAMADIST_HOSTS", &hosts);
        let out = c.output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{err}");
        String::from_utf8(out.stdout).unwrap()
    };
    // Answered for a machine of its own: `vm install` names the disk of this one.
    ok(&[
        "--quiet",
        "host",
        "add",
        "node2",
        "--answer",
        "disk=serial:elsewhere",
        "--answer",
        "recovery-show=yes",
    ]);
    let said = ok(&[
        "--quiet", "vm", "install", "--name", "node2", "--host", "node2",
    ]);
    let recovery = said
        .split_whitespace()
        .find(|w| w.len() == 71 && w.split('-').count() == 8)
        .unwrap_or_else(|| panic!("no recovery key: {said}"));
    let dir = state.join("lamadist/vm/node2");
    let console = std::fs::read(dir.join("console.log")).unwrap();
    let console = String::from_utf8_lossy(&console);
    assert!(
        console.contains("lamadist.install.recovery-show=yes"),
        "{console}"
    );

    let bench = Bench::new(built);
    let mut vm = bench.clone_of(&dir, "secret").boot();
    vm.wait_ssh(Some(PATIENCE)).unwrap();
    // What it was installed with is not there any more.
    let cmdline = ask(&vm, "cat /proc/cmdline");
    assert!(
        cmdline.contains("lamadist.slot=a") && !cmdline.contains("lamadist.install"),
        "{cmdline}"
    );
    let (set, text) = feed(&vm, "lama-node secret set token", "hush\n");
    assert!(set, "{text}");
    assert_eq!(ask(&vm, READ), "hush\n400");
    assert!(!feed(&vm, "lama-node secret set ../token", "x").0);
    let token = |vm: &Vm| {
        let list = ask(vm, "lama-node secret");
        // The other one is the machine's own key for updates.
        let mut lines = list.lines().filter(|l| l.starts_with("token"));
        lines
            .next()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let sealed = "token opens recovery key TPM, signed policy, host key";
    assert_eq!(token(&vm).as_deref(), Some(sealed));
    // To the registers that the disk's key is sealed to.
    ask(&vm, "sync");
    vm.stop(Stop::Gracefully(Duration::from_secs(60))).unwrap();

    // The same disk with another TPM.
    let other = bench.clone_of(&dir, "secret").new_tpm();
    let mut vm = other.credential("cryptsetup.passphrase", recovery).boot();
    vm.wait_ssh(Some(PATIENCE)).unwrap();
    assert!(!vm.ssh(READ).unwrap().text().contains("hush"));
    assert!(ask(&vm, "lama-node secret").contains("DOES NOT OPEN"));
    let (ok, text) = feed(&vm, "lama-node secret reseal", "");
    assert!(!ok && text.contains("--recovery-key"), "{text}");
    let enroll = "lama-node enroll --recovery-key";
    let (ok, text) = feed(&vm, enroll, &format!("{recovery}\n"));
    assert!(ok && text.contains("secret token"), "{text}");
    assert_eq!(ask(&vm, READ), "hush\n400");
    assert!(!ask(&vm, "lama-node secret").contains("NOT"));
    let (ok, text) = feed(&vm, "lama-node secret reseal", "");
    assert!(ok, "{text}");
    ask(&vm, "lama-node secret rm token");
    assert_eq!(token(&vm), None);
    assert!(!vm.ssh(READ).unwrap().text().contains("hush"));
    vm.stop(Stop::Now).unwrap();
}
