// SPDX-License-Identifier: Apache-2.0
//! The keys that sign systems are replaced, and a machine in use follows by its updates
//! (docs/SECURITY.md). Part of `mise run campaign`.

use crate::common::installed::{Node, ask, healthy, hosts, node, reboot};
use crate::common::updates::{Next, Web, judged, slot, tries};
use crate::common::{Bench, PATIENCE, base, lamadist, scratch, turn, within};
use lama_keys::{KeySet, Role};
use lama_vm::{Stop, Vm};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What has to be as it was.
const DATA: &str = "hostname; cat /etc/mine /etc/machine-id; sha256sum /var/lib/mine; \
                    lama-node secret list --json | grep -c '\"opens\": true'; \
                    systemd-creds decrypt --name=mine /etc/credstore.encrypted/mine -";
/// The roles that are replaced, all at once.
const ROLES: [&str; 3] = ["rauc-ca", "pcr", "db"];

/// A copy of the tests' keys, which are replaced.
struct Keys(PathBuf);

impl Keys {
    fn copied() -> Self {
        let this = Self(scratch().join("rotation/keys"));
        let _ = std::fs::remove_dir_all(&this.0);
        std::fs::create_dir_all(&this.0).unwrap();
        let mut c = std::process::Command::new("cp");
        c.arg("-a").arg(scratch().join("keys/development"));
        assert!(c.arg(&this.0).status().unwrap().success());
        this
    }

    fn run(&self, args: &[&str]) {
        let mut c = lamadist(&["--quiet"]);
        c.args(args)
            .env("LAMADIST_KEYS", &self.0)
            .env("LAMADIST_HOSTS", hosts());
        let out = within(&mut c, PATIENCE);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?}: {said}");
    }

    fn set(&self) -> KeySet {
        KeySet::open(self.0.join("development")).unwrap()
    }

    fn fingerprints(&self, role: Role) -> Vec<String> {
        let all = self.set().certificates(role);
        all.into_iter().map(|c| c.fingerprint).collect()
    }
}

/// A machine that follows, and what it has.
struct Machine {
    vm: Vm,
    data: String,
}

impl Machine {
    fn start(bench: &Bench, node: &Node) -> Self {
        let mut vm = bench.clone_of(&node.dir, "followed").boot();
        healthy(&mut vm);
        ask(
            &vm,
            "head -c 5000000 /dev/urandom > /var/lib/mine && echo mine > /etc/mine && \
             printf hush | lama-node secret set mine && sync",
        );
        let data = ask(&vm, DATA);
        assert!(data.ends_with("hush"), "{data}");
        Self { vm, data }
    }

    /// Installs a version, which is kept.
    fn update(&mut self, next: &Next, to: &str) {
        next.encrypt_to(&self.vm);
        let web = Web::serve(&[("update.raucb", &next.bundle)]);
        let url = web.url("update.raucb");
        let (ok, said) = tries(&self.vm, &format!("lama-node update install {url}"));
        assert!(ok, "{said}");
        self.restart(to);
        let status = judged(&self.vm);
        assert_eq!(status["last"]["kept"], true, "{status}");
    }

    /// Starts anew: without a question, into this slot, and with all that it had.
    fn restart(&mut self, to: &str) {
        reboot(&mut self.vm);
        healthy(&mut self.vm);
        assert_eq!(slot(&self.vm), to);
        assert_eq!(ask(&self.vm, DATA), self.data);
    }

    /// How its keys stand, once the service has done what is due.
    fn keys(&self) -> Value {
        // It may be at it already.
        ask(&self.vm, "systemctl start lamadist-keys.service");
        println!(
            "{}",
            ask(&self.vm, "journalctl -b -u lamadist-keys -o cat --no-pager")
        );
        let state = ask(&self.vm, "lama-node keys --json");
        println!("{state}");
        assert_eq!(ask(&self.vm, DATA), self.data);
        serde_json::from_str(&state).unwrap()
    }

    /// How many seals of the TPM's each volume has.
    fn seals(&self) -> Vec<u64> {
        let status: Value =
            serde_json::from_str(&ask(&self.vm, "lama-node status --json")).unwrap();
        let volumes = status["volumes"].as_array().unwrap();
        volumes.iter().map(|v| v["tpm"].as_u64().unwrap()).collect()
    }

    /// The certificates in the firmware's db, by which it let the system through.
    fn trusted(&self) -> (Vec<String>, Vec<String>) {
        let report = tries(&self.vm, "lama-node attest --json 2>/dev/null").1;
        let report: Value = serde_json::from_str(&report).unwrap();
        let list = |name: &str| {
            let all = report["secure-boot"][name].as_array().unwrap();
            all.iter().map(|v| v.as_str().unwrap().to_owned()).collect()
        };
        (list("db"), list("used"))
    }
}

/// Whether the hook of a bundle would put this UKI into the other slot, and what it says.
fn hook(vm: &Vm, uki: &Path) -> (bool, String) {
    let data = std::fs::read(uki).unwrap();
    let put = vm.ssh_within(
        "mkdir -p /var/tmp/bundle && cat > /var/tmp/bundle/uki.img && \
         touch /var/tmp/bundle/slot-b.addon.efi",
        &data,
        PATIENCE,
    );
    assert!(put.unwrap().ok());
    tries(
        vm,
        "RAUC_SLOT_CLASS=uki RAUC_SLOT_BOOTNAME=B RAUC_SLOT_DEVICE=/dev/lamadist/esp \
         RAUC_BUNDLE_MOUNT_POINT=/var/tmp/bundle RAUC_IMAGE_NAME=uki.img \
         RAUC_IMAGE_DIGEST=$(sha256sum < /var/tmp/bundle/uki.img | cut -d' ' -f1) \
         lama-node slot-hook slot-install",
    )
}

#[test]
#[ignore = "a campaign: half an hour (mise run campaign)"]
fn three_updates_carry_a_machine_over_to_other_keys() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let bench = Bench::new(built);
    let keys = Keys::copied();
    let before = keys.fingerprints(Role::Db);
    let version = |v: &str| Next::version("rotation", v, &keys.0, |_| ());

    let mut m = Machine::start(&bench, node);
    let state = m.keys();
    assert_eq!(state["firmware"], "current", "{state}");
    let one = m.seals();
    assert!(one.iter().all(|n| *n == 1), "{one:?}");

    // The first version that both keys have signed: the disk gets a seal by the new one beside.
    ROLES.iter().for_each(|r| keys.run(&["keys", "rotate", r]));
    let both = keys.fingerprints(Role::Db);
    m.update(&version("9.9.1"), "b");
    let state = m.keys();
    assert_eq!(state["everywhere"], false, "{state}");
    assert!(state["older"].as_array().unwrap().len() > 1, "{state}");
    assert_eq!(state["firmware"], "waiting", "{state}");
    assert!(m.seals().iter().all(|n| *n == 2), "{:?}", m.seals());
    // Nothing is lost by going back.
    ask(&m.vm, "lama-node rollback");
    m.restart("a");
    ask(&m.vm, "lama-node rollback");
    m.restart("b");

    // The second: both slots are signed by both.
    m.update(&version("9.9.2"), "a");
    let state = m.keys();
    assert_eq!(state["older"].as_array().unwrap().len(), 0, "{state}");
    assert_eq!(state["firmware"], "restart", "{state}");
    // Either slot starts with the db that it now has.
    m.restart("a");
    let (db, used) = m.trusted();
    assert_eq!((db.len(), used.first()), (2, both.first()), "{used:?}");
    let state = m.keys();
    assert_eq!(state["firmware"], "current", "{state}");
    assert!(m.seals().iter().all(|n| *n == 1), "{:?}", m.seals());
    ask(&m.vm, "lama-node rollback");
    m.restart("b");

    // The third: the new key alone.
    for r in ROLES {
        keys.run(&["keys", "rotate", "--finish", r]);
    }
    keys.run(&["keys", "rotate", "--finish", "rauc-signing"]);
    let last = version("9.9.3");
    m.update(&last, "a");
    let state = m.keys();
    assert_eq!(state["firmware"], "waiting", "{state}");
    let note = state["firmware-note"].as_str().unwrap();
    assert!(note.contains("loader/addons/host.addon.efi"), "{note}");

    // The host's own addon, signed anew; then the old key goes.
    let addon = scratch().join("rotation/host.addon.efi");
    keys.run(&[
        "host",
        "addon",
        "node1",
        "--output",
        &addon.display().to_string(),
    ]);
    let put =
        "mount /dev/lamadist/esp /mnt && cat > /mnt/loader/addons/host.addon.efi && umount /mnt";
    let put =
        m.vm.ssh_within(put, &std::fs::read(&addon).unwrap(), PATIENCE);
    assert!(put.unwrap().ok());
    let state = m.keys();
    assert_eq!(state["firmware"], "restart", "{state}");
    m.restart("a");
    let (db, used) = m.trusted();
    assert_eq!(db, used);
    assert_eq!(db, both[..1]);
    assert_ne!(db, before);
    let state = m.keys();
    assert_eq!(state["firmware"], "current", "{state}");
    assert!(m.seals().iter().all(|n| *n == 1), "{:?}", m.seals());
    // The other slot has both signatures, and starts by the one that is left.
    ask(&m.vm, "lama-node rollback");
    m.restart("b");
    // What the old key signed alone does not come back.
    let (ok, said) = hook(&m.vm, &built.deploy.join("lamadist.efi"));
    assert!(!ok && said.contains("could not open"), "{said}");
    m.vm.stop(Stop::Now).unwrap();

    // A machine that has slept through it all is not locked out by the last version.
    let mut late = bench.clone_of(&node.dir, "late").boot();
    healthy(&mut late);
    let (ok, said) = hook(&late, &last.deploy().join("lamadist.efi"));
    assert!(!ok && said.contains("could not open"), "{said}");
    assert!(said.contains("by way of a version"), "{said}");
    late.stop(Stop::Now).unwrap();
}
