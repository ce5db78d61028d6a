// SPDX-License-Identifier: Apache-2.0
//! The benchmark of docs/BENCHMARKS.md: ours, and mkosi and mmdebstrap where they are installed.
//!
//! `cargo bench -p lamadist -- [--runs N] [WORD]` prints a table; only cases whose name has WORD in
//! it are run. It works on a copy of `distro/` with keys and a deploy folder of its own; the cache is
//! the user's, whose intermediate results it removes. `LAMADIST_BENCH_SOURCES` is a file of apt
//! sources (sources.list(5), deb822) for the two others, which keep the packages they fetched in
//! `target/tmp`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod measure;

use lama_exec::fs;
use measure::{Cost, copy, measure};
use std::path::{Path, PathBuf};
use std::process::Command;

struct Bench {
    runs: usize,
    word: String,
    work: PathBuf,
}

impl Bench {
    /// One run that is not counted, then the counted ones, each after `before`; prints a row.
    fn case(&self, name: &str, mut before: impl FnMut(), command: impl Fn() -> Command) {
        if !name.contains(&self.word) {
            return;
        }
        eprintln!("== {name}");
        let mut costs: Vec<Cost> = (0..=self.runs)
            .map(|_| {
                before();
                measure(command())
            })
            .skip(1)
            .collect();
        costs.sort_by_key(|c| c.wall);
        let Some(median) = costs.get(costs.len() / 2).copied() else {
            return;
        };
        let wall: Vec<f64> = costs.iter().map(|c| c.wall.as_secs_f64()).collect();
        println!(
            "| {name} | {:.2} s ({:.2}–{:.2}) | {:.1} s | {} MiB |",
            median.wall.as_secs_f64(),
            wall.first().unwrap(),
            wall.last().unwrap(),
            median.cpu.as_secs_f64(),
            costs.iter().map(|c| c.memory).max().unwrap_or(0) >> 20,
        );
    }

    /// Ours, on the copy of the description.
    fn lamadist(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_lamadist"));
        c.args(args)
            .arg("--quiet")
            .env("LAMADIST_DISTRO", self.work.join("project/distro"))
            .env("LAMADIST_KEYS", self.work.join("keys"))
            .env("LAMADIST_DEPLOY", self.work.join("deploy"));
        c
    }

    /// The node's program stays: the others compile none.
    fn forget_results(&self, more: &[&str]) {
        let tools = self.lamadist(&["tools"]).output().unwrap().stdout;
        let tools = String::from_utf8(tools).unwrap();
        let cache = Path::new(tools.trim()).ancestors().nth(2).unwrap();
        let (node, aside) = (cache.join("node"), cache.join("node.aside"));
        let moved = fs::rename(&node, &aside).is_ok();
        measure(self.lamadist(&[&["clean", "--results"], more].concat()));
        if moved {
            fs::rename(&aside, &node).unwrap();
        }
        fs::remove_dir_all(self.work.join("deploy")).unwrap();
    }

    fn ours(&self) {
        let build = || self.lamadist(&["build"]);
        let forget = || self.forget_results(&[]);
        self.case("whole build, lamadist", forget, build);
        let unpack = || self.forget_results(&["--unpacked"]);
        self.case("whole build and unpacking, lamadist", unpack, build);
        self.case("nothing changed, lamadist", || (), build);
        let bundle = || self.lamadist(&["bundle"]);
        self.case("bundle alone, lamadist", || (), bundle);
        let file = self.work.join("project/distro/files/core/etc/bench");
        let mut n = 0;
        let change = || {
            n += 1;
            fs::write(&file, format!("{n}\n")).unwrap();
        };
        self.case("one file changed, lamadist", change, build);
        fs::remove_file(&file).unwrap();
        for bsp in ["x86_64", "qemu-arm64"] {
            let root = || self.lamadist(&["build", "--bsp", bsp, "--until", "root"]);
            let name = format!("root tree {bsp}, lamadist");
            self.case(&name, forget, root);
            self.case(&format!("{name}, and unpacking"), unpack, root);
        }
    }

    /// Names of the locked packages of x86_64/base.
    fn packages(&self) -> Vec<String> {
        let set = self.lamadist(&["lock", "--print", "x86_64/base"]).output();
        let set = String::from_utf8(set.unwrap().stdout).unwrap();
        let names = set.lines().filter_map(|l| l.split(' ').next());
        names.map(str::to_owned).collect()
    }

    fn mkosi(&self, packages: &[String]) {
        let Some(sources) = sources_for("mkosi") else {
            return;
        };
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/mkosi");
        let folder = |name: &str| {
            let folder = self.work.join("mkosi").join(name);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        // Its own guess of sources asks for an archive of debugging symbols, which few mirrors have.
        let sandbox = folder("sandbox/etc/apt/sources.list.d");
        fs::write(sandbox.join("mkosi.sources"), &sources).unwrap();
        let sandbox = folder("sandbox");
        let cache = folder("packages");
        self.case(
            "whole build, mkosi",
            || (),
            || {
                let mut c = Command::new("mkosi");
                c.arg("--directory").arg(&here).arg("--force");
                c.arg("--sandbox-tree").arg(&sandbox);
                c.arg("--package-cache-dir").arg(&cache);
                c.arg("--output-directory").arg(folder("out"));
                c.arg("--workspace-directory").arg(folder("work"));
                // After the run that is not counted it needs no network.
                if !fs::read_dir(&cache).unwrap().is_empty() {
                    c.arg("--cache-only=always");
                }
                for p in packages {
                    c.arg("--package").arg(p);
                }
                c.arg("build");
                c
            },
        );
    }

    fn mmdebstrap(&self, packages: &[String]) {
        let Some(sources) = sources_for("mmdebstrap") else {
            return;
        };
        let cache = self.work.join("mmdebstrap");
        fs::create_dir_all(&cache).unwrap();
        let list = self.work.join("mmdebstrap.sources");
        fs::write(&list, sources).unwrap();
        let cache = cache.display();
        self.case(
            "root tree x86_64, mmdebstrap",
            || (),
            || {
                let mut c = Command::new("mmdebstrap");
                c.args(["--variant=custom", "--quiet"]);
                // Its manual page's way to keep packages between runs.
                c.args(["--skip=download/empty", "--skip=essential/unlink"]);
                c.arg("--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives");
                c.arg(format!(
                    "--setup-hook=sync-in {cache} /var/cache/apt/archives/"
                ));
                c.arg(format!(
                    "--customize-hook=sync-out /var/cache/apt/archives {cache}"
                ));
                c.arg(format!("--include={}", packages.join(",")));
                c.args(["--format=tar", "trixie", "/dev/null"]).arg(&list);
                c
            },
        );
    }
}

/// The apt sources for a program of others, where that program is.
fn sources_for(program: &str) -> Option<String> {
    let found = Command::new(program).arg("--version").output();
    let Ok(list) = std::env::var("LAMADIST_BENCH_SOURCES") else {
        eprintln!("SKIP: {program} needs LAMADIST_BENCH_SOURCES, a file of apt sources");
        return None;
    };
    if !found.is_ok_and(|o| o.status.success()) {
        eprintln!("SKIP: {program} is not installed");
        return None;
    }
    Some(fs::read_to_string(list).unwrap())
}

fn main() {
    let mut bench = Bench {
        runs: 5,
        word: String::new(),
        work: Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench"),
    };
    // cargo adds `--bench`.
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(a) = args.next() {
        if a == "--runs" {
            bench.runs = args.next().and_then(|n| n.parse().ok()).unwrap_or(5).max(1);
        } else {
            bench.word = a;
        }
    }
    let distro = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../distro");
    let project = bench.work.join("project");
    fs::remove_dir_all(&project).unwrap();
    copy(&distro, &project.join("distro"));

    println!("| Case | Wall, median (smallest–largest) | CPU | Peak memory |");
    println!("|---|---|---|---|");
    bench.ours();
    let packages = bench.packages();
    bench.mmdebstrap(&packages);
    bench.mkosi(&packages);
}
