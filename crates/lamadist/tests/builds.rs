// SPDX-License-Identifier: Apache-2.0
//! Builds that go wrong, and what is left of them: nothing half-made, and the next one works.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::{base, lamadist, turn};
use lama_image::index::Index;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A build into a folder of its own.
fn build(deploy: &Path) -> Command {
    let mut c = lamadist(&["--quiet", "build", "--locked"]);
    c.env("LAMADIST_DEPLOY", deploy);
    c.stdout(Stdio::piped()).stderr(Stdio::piped());
    c
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Everything below a folder, but for the lock that builds wait for each other by.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for e in std::fs::read_dir(dir).into_iter().flatten() {
        let path = e.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if !path.ends_with(".lock") {
            all.push(path);
        }
    }
    all
}

/// Every artefact that the index lists is there, and as it says.
fn assert_whole(target: &Path) {
    let index = Index::read(target).unwrap();
    assert_eq!(
        common::without_bundle(&index),
        common::without_bundle(&base().index)
    );
    for a in &index.artifacts {
        let found = lama_image::hash_file(&target.join(&a.file)).unwrap();
        assert_eq!(
            (found.size, &found.sha256),
            (a.size, &a.sha256),
            "{}",
            a.file
        );
    }
}

fn interrupt(child: &std::process::Child) {
    let status = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn interrupted_at_any_time_it_leaves_nothing_half_made() {
    let _turn = turn();
    base();
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("x86_64/base");
    // How long one takes here, to spread the interruptions over it.
    let start = Instant::now();
    assert!(build(dir.path()).output().unwrap().status.success());
    let whole = start.elapsed();
    let mut interrupted = 0;
    for tenth in [1, 2, 3, 4, 5, 6, 7, 8, 9] {
        std::fs::remove_dir_all(dir.path().join("x86_64")).unwrap_or_default();
        let child = build(dir.path()).spawn().unwrap();
        std::thread::sleep(whole * tenth / 10);
        interrupt(&child);
        let begun = Instant::now();
        let out = child.wait_with_output().unwrap();
        if out.status.success() {
            assert_whole(&target);
            continue;
        }
        assert_eq!(out.status.code(), Some(130), "{}", said(&out));
        assert!(begun.elapsed() < Duration::from_secs(5), "slow to stop");
        // Written last: where it is there, everything is.
        if target.join("index.json").exists() {
            assert_whole(&target);
            continue;
        }
        interrupted += 1;
        let base = &base().index;
        for f in files(dir.path()) {
            let name = f.file_name().unwrap().to_str().unwrap();
            if name == "lamadist.raucb" {
                // No two are the same.
                continue;
            }
            // A part that has its final name is whole.
            let part = base.artifacts.iter().find(|a| a.file == name);
            let part = part.unwrap_or_else(|| panic!("{} was left at {tenth}/10", f.display()));
            let found = lama_image::hash_file(&f).unwrap();
            assert_eq!(found.sha256, part.sha256, "{name} is half made");
        }
    }
    assert!(
        interrupted > 2,
        "only {interrupted} were interrupted in time"
    );
    assert!(build(dir.path()).output().unwrap().status.success());
    assert_whole(&target);
}

#[test]
fn two_at_once_into_one_folder_end_well() {
    let _turn = turn();
    base();
    let dir = tempfile::tempdir().unwrap();
    let both: Vec<_> = (0..2).map(|_| build(dir.path()).spawn().unwrap()).collect();
    for child in both {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", said(&out));
    }
    assert_whole(&dir.path().join("x86_64/base"));
}

#[test]
fn a_full_disk_is_named_and_nothing_is_left_of_it() {
    let _turn = turn();
    base();
    let dir = tempfile::tempdir().unwrap();
    let deploy = dir.path().join("small");
    std::fs::create_dir(&deploy).unwrap();
    let may = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .status();
    if !may.is_ok_and(|s| s.success()) {
        eprintln!("SKIP: no user namespace, so no small file system can be mounted");
        return;
    }
    // Too small for the root, for the disk, and for the compressed disk.
    for mib in [100, 300, 620] {
        let mut c = Command::new("unshare");
        c.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        c.arg(
            "mount -t tmpfs -o size=\"$1\"m none \"$LAMADIST_DEPLOY\" || exit 99
             shift; \"$@\"; s=$?; find \"$LAMADIST_DEPLOY\" -name '.tmp*'; \
             find \"$LAMADIST_DEPLOY\" -name index.json; exit $s",
        );
        c.args(["sh", &mib.to_string(), env!("CARGO_BIN_EXE_lamadist")]);
        c.args(["--quiet", "build", "--locked"]);
        c.current_dir(common::project())
            .env("LAMADIST_KEYS", common::scratch().join("keys"))
            .env("LAMADIST_DEPLOY", &deploy);
        let out = c.output().unwrap();
        let text = said(&out);
        assert_eq!(out.status.code(), Some(1), "{mib} MiB: {text}");
        assert!(
            text.contains("No space left on device"),
            "{mib} MiB: {text}"
        );
        assert!(text.contains("small/x86_64/base"), "{mib} MiB: {text}");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "", "{mib} MiB");
    }
}

#[test]
fn a_release_refuses_what_would_not_be_one() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("project");
    std::fs::create_dir(&project).unwrap();
    let git = |args: &[&str]| {
        let mut c = Command::new("git");
        c.arg("-C").arg(&project).args(args);
        c.env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null");
        c.output()
    };
    if !git(&["init", "-q"]).is_ok_and(|o| o.status.success()) {
        eprintln!("SKIP: git is not installed");
        return;
    }
    let copy = |what: &str| {
        let to = project.join(what);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let from = common::project().join(what);
        let status = Command::new("cp").arg("-R").arg(from).arg(&to).status();
        assert!(status.unwrap().success());
    };
    copy("distro");
    let commit = || {
        assert!(git(&["add", "-A"]).unwrap().status.success());
        let identity = ["-c", "user.name=t", "-c", "user.email=t@t"];
        let words = ["commit", "-q", "-m", "test"];
        assert!(
            git(&[&identity[..], &words].concat())
                .unwrap()
                .status
                .success()
        );
    };
    commit();
    let release = |keys: &str, more: &[&str]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_lamadist"));
        c.current_dir(&project)
            .args(["--quiet", "build", "--release", "--until", "root"])
            .args(more)
            .env("LAMADIST_KEYS", dir.path().join(keys))
            .env("LAMADIST_DEPLOY", dir.path().join("deploy"));
        c.output().unwrap()
    };
    let refused = |out: Output, words: &[&str]| {
        let text = said(&out);
        assert_eq!(out.status.code(), Some(1), "{text}");
        for w in words {
            assert!(text.contains(w), "no `{w}`: {text}");
        }
        assert!(files(&dir.path().join("deploy")).is_empty());
    };

    refused(
        release("none", &[]),
        &["development", "keys init --release"],
    );
    let out = Command::new(env!("CARGO_BIN_EXE_lamadist"))
        .current_dir(&project)
        .args([
            "--quiet",
            "keys",
            "init",
            "--release",
            "--name",
            "test-2026",
        ])
        .env("LAMADIST_KEYS", dir.path().join("keys"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", said(&out));

    let stray = project.join("distro/files/core/etc/stray");
    std::fs::write(&stray, "x").unwrap();
    refused(release("keys", &[]), &["uncommitted", "stray"]);
    // An ignored file would be built in as well.
    std::fs::write(project.join(".git/info/exclude"), "stray\n").unwrap();
    refused(release("keys", &[]), &["uncommitted", "stray"]);
    std::fs::remove_file(&stray).unwrap();
    std::fs::write(project.join(".git/info/exclude"), "").unwrap();

    refused(release("keys", &[]), &["one checkout", "crates/lama-node"]);
    copy("crates/lama-node");
    copy("Cargo.toml");
    copy("Cargo.lock");
    commit();

    let mut c = Command::new(env!("CARGO_BIN_EXE_lamadist"));
    c.current_dir(&project)
        .args(["--quiet", "build", "--release"])
        .env("LAMADIST_KEYS", dir.path().join("keys"))
        .env("LAMADIST_TOOLS", dir.path())
        .env("LAMADIST_DEPLOY", dir.path().join("deploy"));
    refused(c.output().unwrap(), &["LAMADIST_TOOLS", "unset it"]);

    // Another suite than the one that the lock was made from, and a package more than it has.
    let main = project.join("distro/lamadist.toml");
    let text = std::fs::read_to_string(&main).unwrap();
    let other = text.replacen("trixie-updates", "trixie-backports", 1);
    assert_ne!(text, other);
    std::fs::write(&main, other).unwrap();
    commit();
    refused(release("keys", &[]), &["was made for another description"]);
    std::fs::write(&main, text).unwrap();
    let group = project.join("distro/packagegroups/core.toml");
    let text = std::fs::read_to_string(&group).unwrap();
    let more = text.replacen("packages = [", "packages = [\n    \"hello\",", 1);
    assert_ne!(text, more);
    std::fs::write(&group, more).unwrap();
    commit();
    refused(release("keys", &[]), &["lamadist.lock", "lamadist lock"]);
    std::fs::write(&group, text).unwrap();
    commit();

    let out = release("keys", &[]);
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(files(&dir.path().join("deploy")).len(), 1);
}
