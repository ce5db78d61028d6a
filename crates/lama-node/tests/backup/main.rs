// SPDX-License-Identifier: Apache-2.0
//! Backup and restore with the real restic: what comes back is what was there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod elsewhere;
mod files;
mod node;

use files::*;
use node::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn what_was_backed_up_comes_back() {
    let Some(n) = Node::new() else { return };
    n.fill();
    n.configure(
        "exclude=*.iso\nkeep-last=1\nkeep-daily=0\nkeep-weekly=0\nkeep-monthly=0\nkeep-yearly=0\n",
    );
    assert_eq!(n.json(&["backup", "status"])["health"], "never");
    let first = n.json(&["backup", "--init", "--no-forget"]);
    assert!(first["added"].as_u64().unwrap() > 3 << 20, "{first}");
    assert_eq!(first["unreadable"], serde_json::json!([]));

    // Only what changed is stored, and nothing of what is left out.
    n.write("root/var/data/small", "two");
    n.fill_with_what_stays();
    let second = n.json(&["backup", "--no-forget"]);
    assert!(second["added"].as_u64().unwrap() < 100 << 10, "{second}");
    let status = n.json(&["backup", "status"]);
    assert_eq!(status["health"], "ok");
    assert_eq!(status["snapshot"], second["snapshot"]);

    let list = n.json(&["backup", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(
        (&list[0]["host"], &list[1]["id"]),
        (&"nas".into(), &second["snapshot"])
    );
    assert_eq!(
        n.json(&["backup", "list", "--host", "web"]),
        serde_json::json!([])
    );
    n.ok(&["backup", "check"]);
    n.ok(&["backup", "check", "--read-data-subset", "50%"]);
    n.ok(&["backup", "check", "--read-data"]);

    let target = n.at("target");
    let to = target.display().to_string();
    fs::create_dir_all(target.join("lost+found")).unwrap();
    let plan = n.run(&["restore", "--target", &to, "--dry-run"]);
    assert!(plan.status.success() && said(&plan).contains("Restoring everything of nas"));
    let done = n.json(&["restore", "--target", &to, "--verify"]);
    assert_eq!(
        (&done["host"]["hostname"], &done["staged"]),
        (&"nas".into(), &false.into())
    );

    let (was, mut is) = (tree(&n.at("root/var")), tree(&target));
    for missing in [
        "cache/x",
        "tmp/x",
        "data/marked/x",
        "lib/systemd/random-seed",
        "lib/lamadist/machine",
        "lib/lamadist/backup",
        &format!("{WORK}/{WORK_INSIDE}"),
        "lib/rauc",
        "lib/containers/storage/overlay/x",
        "lib/containers/storage/db.sql",
        "log/journal/x",
        "data/film.iso",
    ] {
        assert!(was.keys().any(|k| k.starts_with(missing)), "{missing}");
        assert!(!is.contains_key(missing), "{missing}");
    }
    is.remove("lost+found");
    let work = "lib/lamadist/etc/work";
    assert!(is.remove(work).is_some());
    // The name and ID that only the host's addon gave.
    for (file, want) in [("hostname", "nas\n"), ("machine-id", &format!("{ID}\n"))] {
        let e = is
            .remove(&format!("lib/lamadist/etc/upper/{file}"))
            .unwrap();
        assert_eq!(e.content, want.as_bytes());
    }
    let was: BTreeMap<_, _> = was
        .into_iter()
        .filter(|(k, _)| is.contains_key(k))
        .collect();
    same(&was, &is);
    for there in [
        "data/big",
        "data/link",
        "data/fifo",
        "lib/containers/storage/volumes/v/_data/f",
    ] {
        assert!(is.contains_key(there), "{there}");
    }
    assert_eq!(is["data/small"].links, 2);
    if is_root() {
        assert!(is.contains_key("lib/lamadist/etc/upper/gone"));
        assert_eq!(is["data/setuid"].owner, (1234, 5678));
    }
    let blocks = target.join("data/sparse").metadata().unwrap().blocks();
    assert!(blocks < 2048, "a hole became {blocks} blocks");
    assert_eq!(target.metadata().unwrap().mode() & 0o7777, 0o755);

    // A directory with something in it is left alone.
    let e = n.fails(&["restore", "--target", &to]);
    assert!(e.contains("is not empty") && e.contains("hint: "), "{e}");
    fs::write(target.join("data/small"), "mine").unwrap();
    n.ok(&[
        "restore",
        "--target",
        &to,
        "--force",
        "--snapshot",
        first["snapshot"].as_str().unwrap(),
    ]);
    assert_eq!(fs::read(target.join("data/small")).unwrap(), b"one");

    let f = n.json(&["backup", "forget", "--dry-run"]);
    assert_eq!(
        (&f["kept"], &f["removed"]),
        (&1.into(), &serde_json::json!([first["snapshot"]]))
    );
    n.json(&["backup"]);
    assert_eq!(n.json(&["backup", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_flipped_byte_is_found() {
    let Some(n) = Node::new() else { return };
    n.write("root/var/data/big", noise(1 << 20));
    n.ok(&["backup", "--init"]);
    n.ok(&["backup", "check", "--read-data"]);
    let packs = tree(&n.at("repository/data"));
    let (name, pack) = packs.iter().max_by_key(|(_, e)| e.content.len()).unwrap();
    let mut data = pack.content.clone();
    let middle = data.len() / 2;
    data[middle] ^= 1;
    let pack = n.at("repository/data").join(name);
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, data).unwrap();
    let e = n.fails(&["backup", "check", "--read-data"]);
    assert!(e.contains("is damaged") && e.contains("hint: "), "{e}");
    fs::create_dir(n.at("target")).unwrap();
    let to = n.at("target").display().to_string();
    let e = n.fails(&["restore", "--target", &to]);
    assert!(e.contains("the restore is not whole"), "{e}");
    // It can be told from a whole one, and taken up again.
    assert!(n.at("target/.lamadist-restore-unfinished").exists());
}

#[test]
fn an_interrupted_restore_is_taken_up() {
    let Some(n) = Node::new() else { return };
    n.fill();
    n.ok(&["backup", "--init"]);
    let to = n.at("target").display().to_string();
    fs::create_dir(n.at("target")).unwrap();
    n.ok(&["restore", "--target", &to]);
    let want = tree(&n.at("target"));
    let full = n.ok(&["backup", "list", "--json"]);
    let short = serde_json::from_str::<Value>(&full).unwrap()[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let id = fs::read_dir(n.at("repository/snapshots"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with(&short))
        .unwrap();
    n.write("target/.lamadist-restore-unfinished", id);
    n.write("target/data/big", "half of it");
    fs::remove_file(n.at("target/data/small")).unwrap();
    n.ok(&["restore", "--target", &to]);
    same(&want, &tree(&n.at("target")));
}

#[test]
fn failures_say_what_to_do() {
    let Some(n) = Node::new() else { return };
    n.write("root/var/x", "x");
    let e = n.fails(&["backup"]);
    assert!(
        e.contains("there is no backup repository at") && e.contains("mounted"),
        "{e}"
    );
    assert!(n.json_status_failed());
    n.ok(&["backup", "--init"]);

    n.password("wrong");
    for command in [
        &["backup"][..],
        &["backup", "list"],
        &["backup", "check"],
        &["backup", "forget"],
    ] {
        let e = n.fails(command);
        assert!(e.contains("the password does not open"), "{e}");
        assert!(e.contains("hint: ") && !e.contains("wrong"), "{e}");
    }
    n.password(PASSWORD);

    let e = n.fails(&["restore", "--target", "/", "--dry-run"]);
    assert!(e.contains("/ is not empty"), "{e}");
    let e = n.fails(&["restore", "--target", "/nonexistent"]);
    assert!(e.contains("cannot find /nonexistent"), "{e}");
    let to = n.at("credentials").display().to_string();
    let e = n.fails(&["restore", "--target", &to, "--host", "web"]);
    assert!(
        e.contains("there is no snapshot of web") && e.contains("of nas"),
        "{e}"
    );

    n.configure("keep-day=3\n");
    let e = n.fails(&["backup"]);
    assert!(
        e.contains("backup.conf:2: there is no setting \"keep-day\""),
        "{e}"
    );
    n.configure("");
    let out = n
        .command(&["backup", "--root", n.at("root").to_str().unwrap()])
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert!(said(&out).contains("cannot run restic"), "{}", said(&out));
    // A relative root is the same system.
    let mut c = n.command(&["backup", "--root", "root"]);
    let out = c.current_dir(n.dir.path()).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    fs::create_dir(n.at("empty")).unwrap();
    n.ok(&["restore", "--target", n.at("empty").to_str().unwrap()]);
    assert!(n.at("empty/x").exists());
    let e = n.fails(&["backup", "nonsense"]);
    assert!(e.contains("there is no argument nonsense here"), "{e}");
    let e = n.fails(&["backup", "check", "--read-data-subset", "all"]);
    assert!(e.contains("is not a part of the data"), "{e}");
}

/// A lock that a power cut left is removed; one of a living process is respected.
#[test]
fn a_stale_lock_stops_nothing() {
    let Some(n) = Node::new() else { return };
    n.write("root/var/x", noise(1 << 20));
    n.ok(&["backup", "--init"]);
    // restic removes its locks when it ends, unless it is killed.
    let mut child = Command::new(n.at("bin/restic"))
        .args(["--repo", &n.repository(), "backup", "--stdin"])
        .env("RESTIC_PASSWORD", PASSWORD)
        .env("RESTIC_CACHE_DIR", n.at("cache"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // While one is being written it has a longer name, and is none yet.
    let locks = || {
        let all = fs::read_dir(n.at("repository/locks")).unwrap();
        all.filter(|e| e.as_ref().unwrap().file_name().len() == 64)
            .count()
    };
    for _ in 0..200 {
        if locks() > 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(locks(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(locks(), 1);
    n.ok(&["backup"]);
    assert_eq!(locks(), 0);
}

/// The commands of the documentation are understood.
#[test]
fn documented_commands_are_valid() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/BACKUP.md");
    let page = fs::read_to_string(page).unwrap();
    let nowhere = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for line in page.lines() {
        let line = line.trim_start_matches("$ ").split(" # ").next().unwrap();
        let Some(rest) = line.strip_prefix("lama-node ") else {
            continue;
        };
        let rest = rest.split(" < ").next().unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_lama-node"))
            .args(rest.split_whitespace())
            .arg("--root")
            .arg(nowhere.path())
            .env("PATH", nowhere.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = said(&out);
        assert!(
            !said.contains("see --help") && !said.contains("there is no argument"),
            "{line}: {said}"
        );
        checked += 1;
    }
    assert!(checked > 8, "only {checked} commands were found");
}
