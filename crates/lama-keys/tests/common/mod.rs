// SPDX-License-Identifier: Apache-2.0
//! What the tests of key sets share.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

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

/// Programs of others, as oracles: those of the tools tree, or the machine's own. `None`, with the
/// reason told, where one is missing.
pub fn tools(programs: &[&str]) -> Option<Tools> {
    lama_testkit::tools_or_host(programs)
}

/// Runs `program args…` (split at spaces) in directory `dir`, which it may write to, and returns
/// what it says. Fails where it fails.
pub fn run(tools: &Tools, dir: &Path, line: &str) -> String {
    let (ok, text) = attempt(tools, dir, line);
    assert!(ok, "{line}: {text}");
    text
}

/// [`run`], telling whether it succeeded.
pub fn attempt(tools: &Tools, dir: &Path, line: &str) -> (bool, String) {
    let mut words = line.split_whitespace();
    let cmd = tools
        .command(words.next().unwrap())
        .args(words)
        .bind(dir)
        .cwd(dir);
    let (status, out) = cmd.run_any().unwrap();
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    (status.success(), text)
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
