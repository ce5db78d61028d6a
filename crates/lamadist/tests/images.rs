// SPDX-License-Identifier: Apache-2.0
//! Every image that the debian engine builds: accepted by the tools of others, and booted.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::{Bench, Built, image, turn, well};
use lama_image::index::Kind;

fn fs_json(path: &std::path::Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The tools of others accept the artefacts.
fn accepted(built: &Built) {
    let dir = &built.deploy;
    let ok = |program: &str, args: &[&str]| {
        let (status, out) = built
            .tools
            .command(program)
            .args(args)
            .bind_ro(dir)
            .cwd(dir)
            .run_any()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(status.success(), "{program} {args:?}: {said}{err}");
        said
    };
    ok("fsck.erofs", &["root.erofs"]);
    let node = ok("dump.erofs", &["--path=/usr/bin/lama-node", "root.erofs"]);
    assert!(
        node.contains("0755") || node.contains("rwxr-xr-x"),
        "{node}"
    );
    let machine = ["--cat", "--path=/usr/lib/lamadist/machine.json"];
    let machine = ok("dump.erofs", &[&machine[..], &["root.erofs"]].concat());
    let machine: serde_json::Value = serde_json::from_str(&machine).unwrap();
    assert_eq!(machine["bsp"], *built.index.bsp);
    // The program is in the manifest, which is in the root, with what it was made from.
    let manifest = fs_json(&built.file(Kind::Manifest));
    let list = ["--cat", "--path=/usr/lib/lamadist/packages.json"];
    let list = ok("dump.erofs", &[&list[..], &["root.erofs"]].concat());
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list, manifest);
    let listed = list.as_array().unwrap();
    let entry = listed.iter().find(|e| e["name"] == "lama-node").unwrap();
    assert_eq!(
        (&entry["kind"], &entry["license"]),
        (&"program".into(), &"Apache-2.0".into())
    );
    let cat = ["--cat", "--path=/usr/bin/lama-node", "root.erofs"];
    let cmd = built.tools.command("dump.erofs").args(cat);
    let program = cmd.bind_ro(dir).cwd(dir).run().unwrap().stdout;
    let digest: String = <sha2::Sha256 as sha2::Digest>::digest(program)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(entry["sha256"], digest);
    let crates = entry["crates"].as_array().unwrap();
    let part = |name: &str| {
        let c = crates.iter().find(|c| c["name"] == name)?;
        assert!(
            c["license"].is_string() && c["sha256"].as_str()?.len() == 64,
            "{c}"
        );
        Some(c["part"].as_str()?.to_owned())
    };
    assert_eq!(part("serde_json").as_deref(), Some("linked"));
    assert_eq!(part("serde_derive").as_deref(), Some("build"));
    assert_eq!(part("wasi"), None);
    let hash = &built.index.root_hash;
    ok(
        "veritysetup",
        &["verify", "root.erofs", "root.verity", hash],
    );
    ok("sfdisk", &["--verify", "disk.raw"]);
    ok("zstd", &["--test", "--quiet", "disk.raw.zst"]);
    let db = built.keys.db_cert_path();
    let certificate = dir.join("db.crt");
    std::fs::copy(db, &certificate).unwrap();
    for a in &built.index.artifacts {
        if matches!(a.kind, Kind::Uki | Kind::Addon | Kind::Loader) {
            ok("sbverify", &["--cert", "db.crt", &a.file]);
        }
    }
    std::fs::remove_file(certificate).unwrap();
}

/// Boots to the end, with no unit failed.
fn runs(built: &Built, name: &str) -> (Bench, lama_vm::Vm) {
    let bench = Bench::new(built);
    let mut vm = bench.boot(name, &built.file(Kind::Disk));
    vm.wait_ssh(None).unwrap();
    well(&vm);
    let node = vm.ssh_ok("lama-node --help").unwrap();
    assert!(node.contains("lama-node COMMAND"), "{node}");
    (bench, vm)
}

#[test]
fn base_is_accepted_by_others() {
    let built = common::base();
    accepted(built);
    // It looks for partitions of the running architecture only.
    if cfg!(target_arch = "x86_64") {
        let disk = built.file(Kind::Disk);
        let policy = "--image-policy=root=verity:esp=unprotected:=unused+absent";
        let cmd = built.tools.command("systemd-dissect");
        cmd.args(["--validate", policy])
            .arg(&disk)
            .bind_ro(&disk)
            .run()
            .unwrap();
    }
}

#[test]
fn homelab_runs() {
    let _turn = turn();
    let built = image("x86_64", "homelab");
    accepted(&built);
    let (_bench, vm) = runs(&built, "homelab");
    // What it is for, without which it would be base.
    for program in [
        "podman", "smbd", "exportfs", "smartctl", "upsd", "btrfs", "mkfs.xfs",
    ] {
        vm.ssh_ok(&format!("command -v {program}")).unwrap();
    }
    let open = vm.ssh_ok("nft list ruleset").unwrap();
    assert!(open.contains("policy drop"), "{open}");
}

#[test]
fn dev_logs_in_on_the_console() {
    let _turn = turn();
    let built = image("x86_64", "dev");
    accepted(&built);
    let (_bench, vm) = runs(&built, "dev");
    let getty = vm
        .ssh_ok("systemctl list-units --no-legend --plain --state=active '*getty@*'")
        .unwrap();
    assert!(!getty.is_empty(), "nobody can log in on the console");
    // Nothing takes the terminals from the shells that have them.
    let terminals = "getty@tty1 serial-getty@ttyS0";
    let restarts = format!("systemctl show --value -P NRestarts {terminals}");
    assert_eq!(vm.ssh_ok(&restarts).unwrap(), "0\n\n0");
    let shells = vm.ssh_ok("ps -o tty= -C bash | sort -u").unwrap();
    let shells: Vec<&str> = shells.split_whitespace().collect();
    assert!(
        ["tty1", "ttyS0"].iter().all(|t| shells.contains(t)),
        "{shells:?}"
    );
    for program in ["gdb", "strace", "tcpdump"] {
        vm.ssh_ok(&format!("command -v {program}")).unwrap();
    }
}

#[test]
fn a_foreign_architecture_is_built_like_ones_own() {
    accepted(&image("qemu-arm64", "base"));
}
