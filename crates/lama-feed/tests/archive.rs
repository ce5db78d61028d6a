// SPDX-License-Identifier: Apache-2.0
//! Against the real archive, by the mirror that this machine knows. Skipped where none can be
//! reached.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use lama_exec::progress::Quiet;
use lama_feed::{
    Arch, Deb, Feed, FeedConfig, Lock, LockedPackage, Mirrors, Renew, Request, Sha256, Store,
};

fn keys(names: &[&str]) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../distro/keys");
    names
        .iter()
        .map(|n| dir.join(format!("debian-archive-trixie-{n}.asc")))
        .collect()
}

fn feeds() -> Vec<FeedConfig> {
    [
        ("debian", "debian", "trixie", &["automatic", "stable"][..]),
        ("debian-updates", "debian", "trixie-updates", &["automatic"]),
        (
            "debian-security",
            "debian-security",
            "trixie-security",
            &["security-automatic"],
        ),
    ]
    .into_iter()
    .map(|(name, archive, suite, k)| FeedConfig {
        name: name.into(),
        archive: archive.into(),
        suite: suite.into(),
        components: vec!["main".into()],
        keys: keys(k),
    })
    .collect()
}

/// A store that outlives the test run, so that a repeated run downloads little.
fn store() -> Store {
    Store::open(Path::new(env!("CARGO_TARGET_TMPDIR")).join("store")).unwrap()
}

fn feed() -> Option<Feed> {
    let named: Vec<String> = std::env::var("LAMADIST_MIRROR")
        .map(|v| v.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default();
    let mirrors = Mirrors::discover(&named, Path::new("/")).unwrap();
    let options = lama_feed::Options {
        attempts: 2,
        timeout: std::time::Duration::from_secs(15),
        ..Default::default()
    };
    let base = match mirrors.of("debian") {
        Ok(v) => v[0].clone(),
        Err(e) => {
            println!("SKIP: {e}");
            return None;
        }
    };
    let probe = lama_feed::download::Downloader::new(mirrors.proxies.clone(), options);
    if let Err(e) = probe.get(&format!("{base}/dists/trixie/InRelease"), 1 << 20) {
        println!("SKIP: the mirror cannot be reached: {e}");
        return None;
    }
    Some(Feed::new(feeds(), mirrors, store(), Arc::new(Quiet)).with_options(options))
}

#[test]
fn from_a_request_to_the_lock() {
    let Some(feed) = feed() else { return };
    let arch = Arch::new("amd64").unwrap();
    let universe = feed.refresh(&arch).unwrap();
    let request = Request {
        packages: vec!["systemd".into()],
        ..Request::default()
    };
    let t = Instant::now();
    let solved = universe.resolve(&request).unwrap();
    println!("systemd: {} packages in {:?}", solved.len(), t.elapsed());
    let mut lock = Lock::default();
    lock.replace_set(
        "test",
        "amd64",
        &request.packages,
        feed.pin(&solved).unwrap(),
    );
    let d = tempfile::tempdir().unwrap();
    lock.save(d.path().join("lock")).unwrap();
    let again = Lock::load(d.path().join("lock")).unwrap();
    assert_eq!(again, lock);
    assert!(
        lock.packages()
            .all(|p| p.component() == "main" && p.size > 0)
    );
    let prefer = again.prefer("test", &Renew::Nothing);
    let kept = universe.resolve(&Request { prefer, ..request }).unwrap();
    let mut second = again.clone();
    second.replace_set(
        "test",
        "amd64",
        &["systemd".into()],
        feed.pin(&kept).unwrap(),
    );
    assert_eq!(Lock::diff(&again, &second), []);
}

#[test]
fn from_the_mirror_to_the_package() {
    let Some(feed) = feed() else { return };
    for arch in ["amd64", "arm64"] {
        let arch = Arch::new(arch).unwrap();
        feed.records(&arch).unwrap();
        let t = Instant::now();
        let records = feed.records(&arch).unwrap();
        println!(
            "{arch}: {} records, warm in {:?}",
            records.len(),
            t.elapsed()
        );
        assert!(records.len() > 60_000, "{}", records.len());
        let wanted = ["hostname", "base-files", "tzdata"];
        let picked: Vec<_> = wanted
            .iter()
            .map(|n| records.iter().find(|r| r.package() == *n).unwrap())
            .collect();
        let pinned = feed.pin(picked).unwrap();
        let mut lock = Lock::default();
        lock.replace_set("test", arch.as_str(), &[], pinned);
        let lock = Lock::parse(&lock.render(), Path::new("lock")).unwrap();
        let packages: Vec<&LockedPackage> = lock.packages_of("test").unwrap();
        let paths = feed.fetch(packages.iter().copied()).unwrap();
        for (p, path) in packages.iter().zip(&paths) {
            let sum = Sha256::of_reader(lama_exec::fs::open(path).unwrap()).unwrap();
            assert_eq!(sum, p.sha256);
            let deb = Deb::open(path).unwrap();
            assert_eq!(deb.control().unwrap().fields.get("Package"), Some(p.name()));
            let mut size = 0;
            let r = deb
                .data(|r| std::io::copy(r, &mut std::io::sink()).map(|n| size = n))
                .unwrap();
            r.unwrap();
            assert!(size > 1024);
        }
    }
}
