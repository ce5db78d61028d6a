// SPDX-License-Identifier: Apache-2.0
//! What a snapshot holds: `/var` without what is this machine's alone and what can be made again.

use super::config::{Config, Omit, local};
use super::{System, state, swap};
use std::path::Path;

/// Below `/var`: what belongs to this machine or disk and would be wrong on another. It is neither
/// backed up nor restored; a restore into a running system keeps what is there.
pub const MACHINE: &[&str] = &[
    // a seed that two machines share is none
    "lib/systemd/random-seed",
    // public halves of this TPM's keys, and a policy of its PCRs
    "lib/systemd/tpm2-srk-public-key.pem",
    "lib/systemd/tpm2-srk-public-key.tpm2b_public",
    "lib/systemd/pcrlock.json",
    // what is in the slots of this disk
    "lib/rauc",
    // how this machine was enrolled
    "lib/lamadist/machine",
    state::DIR,
];

/// Below `/var`: what only means something while it is mounted or being written.
const TRANSIENT: &[&str] = &[
    "lib/lamadist/etc/work",
    // updates that were loaded and not installed yet
    "lib/lamadist/update/load",
    swap::STAGING,
    "lost+found",
];

/// All paths below `/var` that a restore leaves out.
pub fn never() -> impl Iterator<Item = &'static str> {
    MACHINE.iter().chain(TRANSIENT).copied()
}

/// restic's arguments that say what is left out. `swaps` is the text of /proc/swaps.
pub fn excludes(system: &System, config: &Config, swaps: &str) -> Vec<String> {
    let var = system.var();
    let var = literal(&var);
    let mut out = Vec::new();
    let mut add = |p: String| out.push(format!("--exclude={p}"));
    never().for_each(|p| add(format!("{var}/{p}")));
    for omit in &config.omit {
        omit.patterns()
            .iter()
            .for_each(|p| add(format!("{var}/{p}")));
    }
    for file in swap_files(swaps) {
        let path = system.path(file.trim_start_matches('/'));
        add(literal(&path));
    }
    // A repository in /var would grow by itself each time.
    if let Some(path) = local(&config.repository) {
        if Path::new(path).starts_with(system.var()) {
            add(literal(Path::new(path)));
        }
    }
    for p in &config.exclude {
        match p.strip_prefix('/') {
            Some(p) if !system.running() => add(format!("{}/{p}", literal(&system.path("")))),
            _ => add(p.clone()),
        }
    }
    if config.omit.contains(&Omit::Caches) {
        out.push("--exclude-caches".to_owned());
    }
    out
}

/// A path as a pattern that means only itself.
fn literal(path: &Path) -> String {
    let mut out = String::new();
    for c in path.to_string_lossy().trim_end_matches('/').chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The files (not partitions) in the text of /proc/swaps.
fn swap_files(text: &str) -> Vec<String> {
    text.lines()
        .skip(1)
        .filter_map(|l| {
            let mut words = l.split_whitespace();
            let (name, kind) = (words.next()?, words.next()?);
            // A blank in a name is written in octal.
            (kind == "file").then(|| name.replace("\\040", " "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, "x").unwrap()
    }

    #[test]
    fn what_is_left_out() {
        let swaps = "Filename Type Size Used Priority\n/var/swap\\040file file 1 0 -2\n/dev/dm-3 partition 1 0 -3\n";
        let c = config("repository=/var/mnt/x\nexclude=/var/home/*/x\nexclude=*.iso\nomit=caches");
        let e = excludes(&System::default(), &c, swaps);
        for want in [
            "--exclude=/var/lib/systemd/random-seed",
            "--exclude=/var/lib/lamadist/etc/work",
            "--exclude=/var/lib/lamadist/update/load",
            "--exclude=/var/.lamadist-restore",
            "--exclude=/var/cache/*",
            "--exclude=/var/swap file",
            "--exclude=/var/mnt/x",
            "--exclude=/var/home/*/x",
            "--exclude=*.iso",
            "--exclude-caches",
        ] {
            assert!(e.iter().any(|x| x == want), "{want}: {e:?}");
        }
        assert!(
            !e.iter()
                .any(|x| x.contains("dm-3") || x.contains("journal"))
        );
    }

    #[test]
    fn another_root_and_names_that_look_like_patterns() {
        let c = config("repository=/srv/x\nexclude=/var/a*\nomit=");
        let e = excludes(&System::at("/tmp/[x]"), &c, "");
        assert!(e.contains(&"--exclude=/tmp/\\[x]/var/lost+found".to_owned()));
        assert!(e.contains(&"--exclude=/tmp/\\[x]/var/a*".to_owned()));
        assert!(!e.contains(&"--exclude-caches".to_owned()));
    }
}
