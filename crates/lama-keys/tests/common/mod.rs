// SPDX-License-Identifier: Apache-2.0
//! What the tests of key sets share.
#![allow(dead_code)]

use lama_exec::progress::{Progress, Quiet, Task, Unit};
use lama_exec::{Tools, fs};
use lama_keys::KeySet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// Collects the notes.
#[derive(Default)]
pub struct Notes(pub Mutex<Vec<String>>);

impl Progress for Notes {
    fn task(&self, _: &str, _: Unit, _: u64) -> Arc<dyn Task> {
        Arc::new(Quiet)
    }
    fn note(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

/// A development set of its own for one test; keys are made once for all, since that takes time.
pub fn development() -> (tempfile::TempDir, KeySet) {
    static MASTER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let master = MASTER.get_or_init(|| {
        let d = tempfile::tempdir().unwrap();
        KeySet::open_or_create_development(d.path().join("keys"), &Quiet).unwrap();
        d
    });
    let d = tempfile::tempdir().unwrap();
    let dir = d.path().join("keys");
    copy(&master.path().join("keys"), &dir);
    let set = KeySet::open(&dir).unwrap();
    (d, set)
}

/// Copies a directory with the modes of its files.
pub fn copy(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
    for e in fs::read_dir(from).unwrap() {
        if e.file_type().unwrap().is_dir() {
            copy(&e.path(), &to.join(e.file_name()));
        } else {
            std::fs::copy(e.path(), to.join(e.file_name())).unwrap();
        }
    }
}

/// The named programs of the machine, or the reason to skip.
pub fn tools(programs: &[&str]) -> Option<Tools> {
    for p in programs {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|d| d.join(p).is_file()) {
            println!("SKIP: {p} is not installed");
            return None;
        }
    }
    Some(Tools::host())
}

/// Runs a program and expects success; returns what it says.
pub fn run(tools: &Tools, program: &str, args: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let cmd = args.iter().fold(tools.command(program), |c, a| c.arg(a));
    let out = cmd.run().unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

/// Names of all files below a directory, relative, sorted.
pub fn files(dir: &Path) -> Vec<String> {
    fn walk(base: &Path, dir: &Path, out: &mut Vec<PathBuf>) {
        for e in fs::read_dir(dir).unwrap() {
            match e.file_type().unwrap().is_dir() {
                true => walk(base, &e.path(), out),
                false => out.push(e.path().strip_prefix(base).unwrap().to_owned()),
            }
        }
    }
    let mut out = Vec::new();
    walk(dir, dir, &mut out);
    let mut names: Vec<String> = out.iter().map(|p| p.display().to_string()).collect();
    names.sort();
    names
}
