// SPDX-License-Identifier: Apache-2.0
//! apt as the oracle: the same indexes, the same requests, the same answers, for every package
//! group, every image, the tools and many single packages, on two architectures.
//!
//! apt runs with a private configuration on an empty system; nothing of this machine but its
//! mirror and proxy is used. What differs and may is listed in [`DIFFERENCES`] with the reason.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use lama_exec::fs;
use lama_solver::{Error, Essential, Request, Universe};

/// Valid answers that differ from apt's: name of the set, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    ("podman", EQUALS),
    ("docker.io podman containers-storage", EQUALS),
    (
        "gawk awk",
        "apt refuses a virtual package that several provide, even if one is asked for",
    ),
];

const EQUALS: &str = "container-network-stack has two equal providers; apt takes the one whose \
    name its cache met last, in whatever field, we the last in the index (and get 10 packages less)";

/// Packages that are asked for one at a time; those an architecture doesn't have are asked for
/// all the same, both must refuse.
const SINGLES: &str = "systemd openssh-server rauc cryptsetup podman samba nfs-kernel-server nut \
    smartmontools btrfs-progs linux-image-amd64 linux-image-arm64 firmware-realtek systemd-ukify \
    qemu-system-x86 ovmf swtpm python3-virt-firmware mkosi default-mta exim4 postfix apache2 nginx \
    postgresql default-jre-headless build-essential gnome-shell network-manager ifupdown docker.io \
    git vim emacs-nox avahi-daemon libvirt-daemon-system mdadm lvm2 kde-plasma-desktop \
    libreoffice php wordpress cups mailutils debhelper ruby-rails texlive-latex-base \
    openjdk-21-jdk golang rustc cargo mysql-server mariadb-server bind9 dovecot-imapd k3d \
    zfs-dkms initramfs-tools grub-efi bootlogd no-such-package";

/// Combinations in which requests bear on each other's dependencies.
const TOGETHER: &[&str] = &[
    "mailutils postfix",
    "postfix mailutils",
    "php nginx",
    "apache2 php php-fpm",
    "exim4 postfix",
    "dracut systemd-ukify linux-image-amd64",
    "network-manager systemd-resolved openresolv",
    "sysvinit-core openssh-server",
    "elogind libpam-systemd",
    "gawk awk",
    "docker.io podman containers-storage",
    "mawk original-awk bsdutils",
];

const ARCHES: [&str; 2] = ["amd64", "arm64"];
/// Downloaded indexes are used again for so long.
const FRESH: Duration = Duration::from_secs(12 * 3600);

fn distro() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../distro")
}

/// Addresses in this machine's apt configuration whose last component is `name`.
fn mirror(name: &str) -> Option<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(dir) = std::fs::read_dir("/etc/apt/sources.list.d") {
        let mut more: Vec<_> = dir.filter_map(|e| Some(e.ok()?.path())).collect();
        more.sort();
        files.extend(
            more.into_iter()
                .filter(|p| p.extension().is_some_and(|e| e == "sources" || e == "list")),
        );
    }
    let text: Vec<String> = files
        .iter()
        .filter_map(|f| fs::read_to_string(f).ok())
        .collect();
    text.iter()
        .flat_map(|t| t.lines())
        .filter(|l| !l.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|w| w.trim_end_matches('/'))
        .find(|w| w.contains("://") && w.rsplit('/').next() == Some(name))
        .map(str::to_owned)
}

fn keys() -> Option<String> {
    let system = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
    if system.exists() {
        return Some(system.display().to_string());
    }
    let dir = distro().join("keys").canonicalize().ok()?;
    let mut own: Vec<String> = std::fs::read_dir(dir)
        .ok()?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "asc"))
        .map(|p| p.display().to_string())
        .collect();
    own.sort();
    (!own.is_empty()).then(|| own.join(","))
}

struct Apt {
    dir: PathBuf,
    arch: &'static str,
}

impl Apt {
    /// A private apt with current indexes, or why there is none.
    fn new(arch: &'static str) -> Result<Self, String> {
        Command::new("apt-get")
            .arg("--version")
            .output()
            .map_err(|e| format!("apt-get: {e}"))?;
        let debian = mirror("debian").ok_or("apt here has no Debian mirror")?;
        let security = mirror("debian-security").ok_or("apt here has no security mirror")?;
        let keys = keys().ok_or("no keys of the Debian archive")?;
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("apt-oracle")
            .join(arch);
        for d in ["lists/partial", "archives/partial", "etc", "parts"] {
            fs::create_dir_all(dir.join(d)).map_err(|e| e.to_string())?;
        }
        let sources: String = [
            (&debian, "trixie"),
            (&debian, "trixie-updates"),
            (&security, "trixie-security"),
        ]
        .map(|(uri, suite)| {
            format!("deb [signed-by={keys}] {uri} {suite} main non-free-firmware\n")
        })
        .concat();
        let apt = Self { dir, arch };
        fs::write(apt.dir.join("status"), "").map_err(|e| e.to_string())?;
        let list = apt.dir.join("etc/sources.list");
        let stamp = apt.dir.join("updated");
        let fresh = fs::read_to_string(&list).is_ok_and(|old| old == sources)
            && fs::metadata(&stamp)
                .ok()
                .and_then(|m| m.modified().ok())
                .and_then(|t| SystemTime::now().duration_since(t).ok())
                .is_some_and(|age| age < FRESH);
        if !fresh {
            fs::write(&list, &sources).map_err(|e| e.to_string())?;
            let out = apt
                .command()
                .args(["-qq", "update"])
                .output()
                .map_err(|e| e.to_string())?;
            if !out.status.success() {
                return Err(format!(
                    "apt-get update: {}",
                    String::from_utf8_lossy(&out.stderr)
                ));
            }
            fs::write(&stamp, "").map_err(|e| e.to_string())?;
        }
        Ok(apt)
    }

    fn command(&self) -> Command {
        let dir = self.dir.display();
        let mut c = Command::new("apt-get");
        c.env("LC_ALL", "C");
        for option in [
            format!("Dir={dir}"),
            format!("Dir::State={dir}"),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::State::status={dir}/status"),
            format!("Dir::Cache={dir}"),
            format!("Dir::Cache::archives={dir}/archives"),
            "Dir::Cache::pkgcache=pkgcache.bin".into(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".into(),
            format!("Dir::Etc={dir}/etc"),
            format!("Dir::Etc::sourcelist={dir}/etc/sources.list"),
            format!("Dir::Etc::sourceparts={dir}/parts"),
            format!("Dir::Etc::preferences={dir}/none"),
            format!("Dir::Etc::preferencesparts={dir}/parts"),
            format!("APT::Architecture={}", self.arch),
            format!("APT::Architectures={}", self.arch),
            // What newer versions of apt may use in its place is no oracle for its choices.
            "APT::Solver=internal".into(),
            "APT::Sandbox::User=".into(),
            "Acquire::Languages=none".into(),
            "Acquire::ForceHash=SHA256".into(),
            "Acquire::GzipIndexes=false".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
        ] {
            c.arg("-o").arg(option);
        }
        c
    }

    fn universe(&self) -> Universe {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.dir.join("lists"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.to_string_lossy().ends_with("_Packages"))
            .collect();
        // trixie, trixie-updates, trixie-security: as in sources.list.
        files.sort_by_key(|p| {
            let p = p.to_string_lossy().into_owned();
            (
                p.contains("trixie-security"),
                p.contains("trixie-updates"),
                p,
            )
        });
        let mut all = Vec::new();
        for f in files {
            let text = fs::read_to_string(&f).unwrap();
            all.extend(common::records(&text, "debian"));
        }
        let count = all.len();
        let start = Instant::now();
        let u = Universe::new(all, self.arch);
        println!(
            "{}: universe of {count} records built in {:?}",
            self.arch,
            start.elapsed()
        );
        u
    }

    /// `name version sha256` of everything that apt would install; None where it refuses.
    fn install(&self, set: &[String]) -> Option<BTreeSet<String>> {
        let mut c = self.command();
        // Faster than -s, which also works out an order, and it tells the hash.
        c.args(["-qq", "--print-uris", "--no-install-recommends", "install"])
            .args(set);
        let out = c.output().unwrap();
        if !out.status.success() {
            return None;
        }
        let text = String::from_utf8(out.stdout).unwrap();
        let mut found = BTreeSet::new();
        for line in text.lines().filter(|l| l.starts_with('\'')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let parts: Vec<&str> = words[1].trim_end_matches(".deb").split('_').collect();
            let hash = words[3].trim_start_matches("SHA256:");
            found.insert(format!(
                "{} {} {hash}",
                parts[0],
                parts[1].replace("%3a", ":")
            ));
        }
        Some(found)
    }
}

#[derive(Clone)]
struct Set {
    name: String,
    packages: Vec<String>,
    essential: Essential,
    /// It stands in the description, so there must be an answer.
    ours: bool,
}

fn strings(v: Option<&toml::Value>) -> Vec<String> {
    let array = v
        .and_then(toml::Value::as_array)
        .cloned()
        .unwrap_or_default();
    array
        .iter()
        .filter_map(|s| s.as_str().map(str::to_owned))
        .collect()
}

fn tables(dir: &str) -> BTreeMap<String, toml::Table> {
    std::fs::read_dir(distro().join(dir))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .map(|p| {
            let table = fs::read_to_string(&p).unwrap().parse().unwrap();
            (p.file_stem().unwrap().to_string_lossy().into_owned(), table)
        })
        .collect()
}

/// Every set for an architecture.
fn sets(arch: &str) -> Vec<Set> {
    let mut out = Vec::new();
    let mut add = |name: String, packages: Vec<String>, essential| {
        let ours = ["group ", "image ", "tools"]
            .iter()
            .any(|p| name.starts_with(p));
        out.push(Set {
            name,
            packages,
            essential,
            ours,
        });
    };
    let groups = tables("packagegroups");
    let images = tables("images");
    for (name, t) in &groups {
        add(
            format!("group {name}"),
            strings(t.get("packages")),
            Essential::Leave,
        );
    }
    for (machine, m) in tables("machines") {
        if m.get("arch").and_then(toml::Value::as_str) != Some(arch) {
            continue;
        }
        for name in images.keys() {
            let mut packages = strings(m.get("packages"));
            let mut at = Some(name.clone());
            while let Some(image) = at {
                let t = &images[&image];
                packages.extend(strings(t.get("packages")));
                for g in strings(t.get("groups")) {
                    packages.extend(strings(groups[&g].get("packages")));
                }
                at = t
                    .get("extends")
                    .and_then(toml::Value::as_str)
                    .map(str::to_owned);
            }
            packages.sort();
            packages.dedup();
            add(
                format!("image {name} on {machine}"),
                packages,
                Essential::Include,
            );
        }
    }
    let main: toml::Table = fs::read_to_string(distro().join("lamadist.toml"))
        .unwrap()
        .parse()
        .unwrap();
    add("tools".into(), strings(main.get("tools")), Essential::Leave);
    // The second architecture makes do with two thirds of them, for the sake of time.
    let two_thirds = |i: usize| arch == ARCHES[0] || !i.is_multiple_of(3);
    for (i, set) in SINGLES
        .split_whitespace()
        .chain(TOGETHER.iter().copied())
        .enumerate()
    {
        if two_thirds(i) {
            let packages = set.split_whitespace().map(str::to_owned).collect();
            add(set.into(), packages, Essential::Leave);
        }
    }
    // Machines may ask for the same.
    let mut seen = BTreeSet::new();
    out.retain(|s| seen.insert(s.packages.clone()));
    out
}

/// Compares one set; what differs, if anything does.
fn compare(apt: &Apt, u: &Universe, set: &Set) -> (Option<String>, Duration) {
    let request = Request {
        packages: set.packages.clone(),
        essential: set.essential,
        ..Request::default()
    };
    let start = Instant::now();
    let ours = u.resolve(&request);
    let took = start.elapsed();
    let mut asked = set.packages.clone();
    if set.essential == Essential::Include {
        // apt has no such switch: it is told.
        let all = u.resolve(&Request::default()).unwrap();
        asked.extend(
            all.iter()
                .filter(|r| r.is_essential())
                .map(|r| r.package().to_owned()),
        );
    }
    let difference = match (apt.install(&asked), ours) {
        (Some(theirs), Ok(ours)) => {
            let ours: BTreeSet<String> = ours
                .iter()
                .map(|r| format!("{} {} {}", r.package(), r.version(), r.sha256()))
                .collect();
            let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| {
                let names = a.difference(b).map(|s| s.rsplit_once(' ').unwrap().0);
                names
                    .map(|s| s.replace(' ', "="))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            (ours != theirs).then(|| {
                format!(
                    "only apt: [{}] only we: [{}]",
                    only(&theirs, &ours),
                    only(&ours, &theirs)
                )
            })
        }
        (None, Err(e)) if set.ours => Some(format!("neither finds an answer; we: {e}")),
        (None, Err(Error::Unknown { .. } | Error::Unsatisfiable { .. })) => None,
        (None, Ok(ours)) => Some(format!("apt refuses, we find {} packages", ours.len())),
        (Some(theirs), Err(e)) => Some(format!("apt finds {} packages, we: {e}", theirs.len())),
        (None, Err(e)) => Some(format!("unexpected error: {e}")),
    };
    (difference, took)
}

#[test]
fn same_answers_as_apt() {
    let start = Instant::now();
    let results: Vec<Result<Vec<String>, String>> = std::thread::scope(|scope| {
        let threads = ARCHES.map(|arch| {
            scope.spawn(move || {
                let apt = Apt::new(arch)?;
                let u = apt.universe();
                let sets = sets(arch);
                let mut wrong = Vec::new();
                for set in &sets {
                    let (difference, took) = compare(&apt, &u, set);
                    if set.name.starts_with("image") || set.name == "tools" {
                        println!("{arch} {}: resolved in {took:?}", set.name);
                    }
                    let known = DIFFERENCES.iter().find(|(n, _)| *n == set.name);
                    match (difference, known) {
                        (Some(d), None) => wrong.push(format!("{arch} {}: {d}", set.name)),
                        (Some(d), Some((_, why))) => {
                            println!("{arch} {}: differs ({why}): {d}", set.name);
                        }
                        (None, _) => {}
                    }
                }
                println!("{arch}: {} sets compared", sets.len());
                Ok(wrong)
            })
        });
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    println!("apt oracle: {:?}", start.elapsed());
    let mut wrong = Vec::new();
    for r in results {
        match r {
            Ok(w) => wrong.extend(w),
            Err(why) => {
                println!("SKIP: {why}");
                return;
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
