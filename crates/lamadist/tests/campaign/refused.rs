// SPDX-License-Identifier: Apache-2.0
//! Bundles that a machine must not take, and places where it cannot put one: `mise run campaign`.

use crate::common::installed::{ask, healthy, node, reboot};
use crate::common::updates::{Next, SIGNED, VERSION, Web, judged, slot, standing, tries};
use crate::common::{Bench, Built, base, scratch, turn};
use lama_bundle::make::{self, Content, Seal};
use lama_bundle::manifest::{About, How};
use lama_exec::progress::Quiet;
use lama_keys::KeySet;
use lama_vm::{Stop, Vm};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Makes bundles of one image that differ in one thing from the right one.
struct Maker<'a> {
    built: &'a Built,
    images: PathBuf,
    about: About,
    node: PathBuf,
    dir: PathBuf,
}

impl Maker<'_> {
    fn make(&self, name: &str, keys: &KeySet, to: &[PathBuf], about: &About) -> PathBuf {
        let file = |name: &str| self.images.join(name);
        let addons = ["slot-a.addon.efi", "slot-b.addon.efi"];
        let addons = addons.map(|n| (n.to_owned(), file(n)));
        let images = ["root.erofs", "root.verity", "lamadist.efi"].map(file);
        let content = Content {
            about: about.clone(),
            images: vec![
                ("rootfs", &images[0], How::Adaptive),
                ("verity", &images[1], How::Adaptive),
                ("uki", &images[2], How::Hook),
            ],
            files: addons
                .iter()
                .map(|(n, p)| (n.clone(), p.as_path()))
                .collect(),
            epoch: 1_800_000_000,
        };
        let seal = Seal {
            keys,
            recipients: to,
        };
        let out = self.dir.join(name);
        make::make(&self.built.tools, &content, seal, &out, &Quiet).unwrap();
        out
    }

    /// The right one, with something else said of it.
    fn says(&self, name: &str, change: impl FnOnce(&mut About)) -> PathBuf {
        let mut about = self.about.clone();
        change(&mut about);
        let to = std::slice::from_ref(&self.node);
        self.make(name, &self.built.keys, to, &about)
    }

    /// A bundle of the format that RAUC had first, signed by our key.
    fn plain(&self) -> PathBuf {
        let folder = self.dir.join("plain");
        std::fs::create_dir_all(&folder).unwrap();
        let manifest = format!(
            "[update]\ncompatible={}\nversion={VERSION}\n[image.rootfs]\nfilename=root.img\n",
            self.about.compatible
        );
        std::fs::write(folder.join("manifest.raucm"), manifest).unwrap();
        std::fs::write(folder.join("root.img"), [1; 8192]).unwrap();
        let (keyring, conf) = (self.dir.join("keyring.pem"), self.dir.join("conf"));
        std::fs::write(&keyring, self.built.keys.rauc_keyring_pem().unwrap()).unwrap();
        std::fs::write(&conf, KeySet::rauc_conf(&keyring)).unwrap();
        let out = self.dir.join("plain.raucb");
        let _ = std::fs::remove_file(&out);
        let c = self.built.tools.command("rauc").arg("bundle");
        let c = self.built.keys.rauc_sign_args(&conf).unwrap().apply(c);
        c.arg(&folder).arg(&out).bind(&self.dir).run().unwrap();
        out
    }
}

/// Changes a byte of every 64 KiB in so much of a file: blocks that a slot has already are not read at
/// all, and damage in them is none.
fn flipped(next: &Next, name: &str, part: Range<f64>) -> PathBuf {
    next.altered(name, |b| {
        let at = |fraction: f64| (b.len() as f64 * fraction) as usize;
        for i in (at(part.start)..at(part.end)).step_by(64 << 10) {
            b[i] ^= 0x20;
        }
    })
}

/// It is refused, for this reason, and the machine is as it was.
fn refused(vm: &Vm, what: &str, command: &str, says: &str) {
    let order = "efibootmgr | grep -E '^Boot(Next|Order)'";
    let before = ask(vm, order);
    let (ok, said) = tries(vm, command);
    println!("{what}:");
    for l in said.lines().filter(|l| !l.trim().is_empty()) {
        println!("    {l}");
    }
    assert!(!ok && said.contains(says), "{what}: {said}");
    let status = standing(vm);
    assert_eq!(
        (&status["slot"], &status["trial"]),
        (&"a".into(), &().into())
    );
    // What was being written may have been taken out of the order; nothing else.
    let after = ask(vm, order);
    assert!(!after.contains("BootNext"), "{what}: {after}");
    let first = |s: &str| s.lines().last().unwrap()[..15].to_owned();
    assert_eq!(first(&after), first(&before), "{what}");
}

fn folder(name: &str) -> PathBuf {
    let dir = scratch().join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
#[ignore = "a campaign: half an hour (mise run campaign)"]
fn what_must_not_be_installed_is_refused() {
    let _turn = turn();
    let built = base();
    let node = node(built);
    let bench = Bench::new(built);
    let mut vm = bench.clone_of(&node.dir, "refuses").boot();
    healthy(&mut vm);
    let next = Next::build();
    // Before it is encrypted to the machine.
    let unknown = next.altered("unknown.raucb", |_| ());
    next.encrypt_to(&vm);

    let dir = folder("refused");
    let certificate = dir.join("node.crt");
    std::fs::write(&certificate, ask(&vm, "lama-node key") + "\n").unwrap();
    let others = KeySet::open_or_create_development(dir.join("keys"), &Quiet).unwrap();
    let maker = Maker {
        built,
        images: next.deploy(),
        about: About {
            compatible: "lamadist-x86_64".into(),
            version: SIGNED.into(),
            bsp: "x86_64".into(),
            image: "base".into(),
            root_hash: next.root_hash(),
            min_version: None,
            migration: None,
            development: true,
        },
        node: certificate.clone(),
        dir,
    };
    let foreign = maker.make("foreign.raucb", &others, &[certificate], &maker.about);
    let cases: Vec<(&str, PathBuf, &str)> = vec![
        ("signed by somebody else", foreign, "nothing was installed"),
        ("encrypted to others", unknown, "nothing was installed"),
        (
            "for another machine",
            maker.says("machine.raucb", |a| a.compatible = "lamadist-rk1".into()),
            "the bundle is for lamadist-rk1",
        ),
        (
            "an older version",
            maker.says("older.raucb", |a| a.version = "0.0.1-dev".into()),
            "0.0.1-dev is not newer than",
        ),
        (
            "of the format plain",
            maker.plain(),
            "nothing was installed",
        ),
        (
            "cut off",
            next.altered("short.raucb", |b| b.truncate(b.len() - 100_000)),
            "nothing was installed",
        ),
        (
            "a byte of its signature changed",
            next.altered("signature.raucb", |b| {
                let at = b.len() - 300;
                b[at] ^= 1;
            }),
            "nothing was installed",
        ),
    ];
    let served: Vec<(String, &Path)> = cases
        .iter()
        .enumerate()
        .map(|(n, (_, path, _))| (format!("{n}.raucb"), path.as_path()))
        .collect();
    let web = Web::serve(&served);
    for (n, (what, _, says)) in cases.iter().enumerate() {
        let url = web.url(&format!("{n}.raucb"));
        refused(&vm, what, &format!("lama-node update install {url}"), says);
    }
    drop(web);

    // What is only seen while it is written: bytes of the root, from its first block on, which differs in
    // every version, and of the UKI behind it.
    let root = flipped(&next, "root.raucb", 0.00003..0.8);
    let uki = flipped(&next, "uki.raucb", 0.86..0.97);
    let web = Web::serve(&[
        ("root.raucb", &root),
        ("uki.raucb", &uki),
        ("good.raucb", &next.bundle),
    ]);
    for name in ["root.raucb", "uki.raucb"] {
        let command = format!("lama-node update install {}", web.url(name));
        refused(&vm, name, &command, "the running system is as before");
        refused(&vm, "back", "lama-node rollback", "slot b");
    }
    let install = format!("lama-node update install {}", web.url("good.raucb"));

    // A server that showed RAUC another bundle when it was asked what is in it.
    let trial = format!(
        "D=/var/lib/lamadist/update/trial.json; B=$(cat /proc/sys/kernel/random/boot_id); \
         printf '{{\"from\":\"a\",\"to\":\"b\",\"before\":\"1\",\"version\":\"2\",\"boot\":\"%s\",\"uki\":\"{}\", \
         \"installed\":\"t\",\"stage\":{{\"stage\":\"installing\"}}}}' $B > $D; \
         rauc install {}; r=$?; cat /run/lamadist/slot-hook.error; rm $D; exit $r",
        "0".repeat(64),
        web.url("good.raucb")
    );
    refused(
        &vm,
        "another bundle than was looked at",
        &trial,
        "than the one that was looked at",
    );

    // A version that was revoked, also by force; RAUC alone is asked by root alone.
    ask(
        &vm,
        "mkdir -p /etc/lamadist; printf 'url=http://10.0.2.2:1\ntrack=stable\nautomatic=off\n' \
         > /etc/lamadist/update.conf; echo 99.0.0 > /var/lib/lamadist/update/minimum.stable",
    );
    refused(
        &vm,
        "a revoked version",
        &format!("{install} --force"),
        "has been revoked",
    );
    let health = tries(&vm, "lama-node health").1;
    assert!(
        health.contains("was revoked, 99.0.0 is the oldest"),
        "{health}"
    );
    ask(
        &vm,
        "rm /etc/lamadist/update.conf /var/lib/lamadist/update/minimum.stable",
    );
    let bus = "runuser -u nobody -- busctl call de.pengutronix.rauc / \
               de.pengutronix.rauc.Installer GetSlotStatus";
    let (ok, said) = tries(&vm, bus);
    assert!(!ok && said.contains("denied"), "{said}");
    assert!(tries(&vm, &bus["runuser -u nobody -- ".len()..]).0);

    // No room for the UKI.
    let fill = "mount /dev/lamadist/esp /mnt && \
                head -c $(($(df --output=avail -B1 /mnt | tail -1) - 30000000)) /dev/zero \
                > /mnt/others; umount /mnt";
    ask(&vm, fill);
    refused(&vm, "a full boot partition", &install, "MiB free");
    refused(&vm, "back", "lama-node rollback", "not whole");
    ask(
        &vm,
        "mount /dev/lamadist/esp /mnt && rm /mnt/others && umount /mnt",
    );

    // No room for what is noted of it.
    ask(
        &vm,
        "fallocate -l $(($(df --output=avail -B1 /var | tail -1) - 4096)) /var/others || true; \
         head -c 20000000 /dev/zero > /var/more 2>/dev/null || true; df /var",
    );
    refused(&vm, "a full /var", &install, "No space left");
    ask(&vm, "rm -f /var/others /var/more");

    // A disk that fails in the middle of the slot.
    ask(
        &vm,
        "systemctl start systemd-cryptsetup@rootfs_b.service; \
         n=$(blockdev --getsz /dev/mapper/rootfs_b) && dmsetup rename rootfs_b whole && \
         printf '0 200000 linear /dev/mapper/whole 0\n200000 100000 error\n300000 %s linear \
         /dev/mapper/whole 300000\n' $((n - 300000)) | dmsetup create rootfs_b && udevadm settle",
    );
    refused(
        &vm,
        "a broken disk",
        &install,
        "the running system is as before",
    );
    refused(&vm, "back", "lama-node rollback", "not whole");
    reboot(&mut vm);
    healthy(&mut vm);
    assert_eq!(slot(&vm), "a");

    // And after all of that it is updated.
    let (ok, said) = tries(&vm, &install);
    assert!(ok, "{said}");
    reboot(&mut vm);
    healthy(&mut vm);
    let status = judged(&vm);
    assert_eq!(status["last"]["kept"], true, "{status}");
    assert_eq!(slot(&vm), "b");
    vm.stop(Stop::Now).unwrap();
}
