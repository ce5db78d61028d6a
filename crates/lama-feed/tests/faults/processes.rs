// SPDX-License-Identifier: Apache-2.0
//! Several at once, killed ones, and a full disk.

use super::*;

#[test]
fn several_at_once_fetch_each_file_once() {
    let c = Case::new();
    let a = c.archive.clone();
    let s = Server::new(move |r| {
        let mut reply = Server::file(&a, r);
        reply.slow = 2;
        reply
    });
    let pinned = c.pinned();
    std::thread::scope(|t| {
        for _ in 0..5 {
            t.spawn(|| feed_at(c.path(), &[s.base()]).fetch(&pinned).unwrap());
        }
    });
    assert_eq!(s.log().len(), 8, "{:?}", s.log());
    store_is_sound(c.path());
    assert!(files(&c.path().join("store/partial")).is_empty());
}

/// Not a test of its own: what `a_killed_process…` starts and kills.
#[test]
fn child_that_fetches() {
    let (Ok(dir), Ok(base)) = (
        std::env::var("FEED_TEST_DIR"),
        std::env::var("FEED_TEST_BASE"),
    ) else {
        return;
    };
    let feed = feed_at(Path::new(&dir), &[base]);
    let pinned = feed.pin(&feed.records(&amd64()).unwrap()).unwrap();
    feed.fetch(&pinned).unwrap();
}

#[test]
fn a_killed_process_leaves_nothing_half_and_is_continued() {
    let c = Case::new();
    let a = c.archive.clone();
    let s = Server::new(move |r| {
        let mut reply = Server::file(&a, r);
        reply.slow = 5;
        reply
    });
    // The child has the same key by its file.
    Archive::config(c.path());
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::child_that_fetches"])
        .env("FEED_TEST_DIR", c.path())
        .env("FEED_TEST_BASE", s.base())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let partial = c.path().join("store/partial");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let grown = || {
        partial.is_dir()
            && files(&partial)
                .iter()
                .any(|f| fs::metadata(f).is_ok_and(|m| m.len() > 20_000))
    };
    while !grown() {
        assert!(std::time::Instant::now() < deadline, "nothing was fetched");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    store_is_sound(c.path());
    let log = c.fetch(|r, d| Reply::part(d, r.from)).unwrap();
    let resumed = |l: &&String| {
        l.rsplit_once(".deb ")
            .is_some_and(|(_, n)| n.parse::<u64>().unwrap() > 10_000)
    };
    assert!(log.iter().any(|l| resumed(&l)), "{log:?}");
}

#[test]
fn a_full_disk() {
    let c = Case::new();
    let disk = c.path().join("store");
    fs::create_dir_all(&disk).unwrap();
    let mounted = rustix::mount::mount(
        "tmpfs",
        &disk,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=300k"),
    );
    if let Err(e) = mounted {
        println!("SKIP: a small tmpfs cannot be mounted here: {e}");
        return;
    }
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        }
    }
    let unmount = Unmount(disk.clone());
    let s = Server::honest(c.archive.clone());
    let pinned = c.pinned();
    let e = feed_at(c.path(), &[s.base()]).fetch(&pinned).unwrap_err();
    assert!(e.to_string().contains("No space left"), "{e}");
    let help = miette::Diagnostic::help(&e).unwrap().to_string();
    assert!(help.contains("free some space"), "{help}");
    store_is_sound(c.path());
    // With room again, it goes on where it stopped.
    rustix::mount::mount_remount(&disk, rustix::mount::MountFlags::empty(), c"size=10m").unwrap();
    feed_at(c.path(), &[s.base()]).fetch(&pinned).unwrap();
    store_is_sound(c.path());
    drop(unmount);
}
