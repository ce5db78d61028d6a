// SPDX-License-Identifier: Apache-2.0
//! The administrator's own checks.

use super::{Answer, Check, Verdict};
use crate::run::Run;
use crate::{Error, Result, fs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where they lie. /etc is mounted so that nothing in it can be executed: they are scripts that
/// sh(1) reads.
pub const DIR: &str = "/etc/lamadist/health.d";
/// Exit status of a warning.
pub const WARNING: i32 = 3;
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(30);

/// All `*.sh` in [`DIR`].
pub fn all() -> Vec<Check> {
    within(Path::new(DIR), 0, LIMIT)
}

/// All `*.sh` in a directory that belongs, with them, to `owner`.
fn within(dir: &Path, owner: u32, limit: Duration) -> Vec<Check> {
    let names = match fs::names(dir) {
        Ok(n) => n,
        Err(e) => return vec![Check::new("own", move || Err(e))],
    };
    let mut out = Vec::new();
    for name in names.iter().filter_map(|n| n.strip_suffix(".sh")) {
        let file = dir.join(format!("{name}.sh"));
        let dir = dir.to_owned();
        out.push(Check {
            name: format!("own/{}", super::parse::line(name)),
            limit,
            run: Box::new(move || {
                safe(&dir, owner)?;
                safe(&file, owner)?;
                script(file, limit)
            }),
        });
    }
    out
}

/// What others can write is not run.
fn safe(path: &Path, owner: u32) -> Result<()> {
    use crate::Context;
    let meta = std::fs::symlink_metadata(path).context(path.display())?;
    if meta.is_symlink() || meta.uid() != owner || meta.mode() & 0o022 != 0 {
        let p = path.display();
        return Err(Error::new(format!(
            "not run: {p} is a link or can be written by others than root"
        )));
    }
    Ok(())
}

fn script(file: PathBuf, limit: Duration) -> Result<Answer> {
    let out = Run::new("/bin/sh").arg(file).within(limit)?;
    let text = String::from_utf8_lossy(&out.stdout);
    let said = text.lines().find(|l| !l.trim().is_empty());
    let verdict = match out.status.code() {
        Some(0) => Verdict::Ok,
        Some(WARNING) => Verdict::Warning,
        _ => Verdict::Failed,
    };
    let reason = said.map_or_else(|| out.status.to_string(), str::to_owned);
    Ok((verdict, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn scripts_say_how_it_is() {
        let t = tempfile::tempdir().unwrap();
        let dir = t.path().join("health.d");
        let owner = t.path().metadata().unwrap().uid();
        for (name, text, mode) in [
            ("a.sh", "echo; echo all well; echo more\n", 0o644),
            ("b.sh", "echo soon; exit 3\n", 0o644),
            ("c.sh", "exit 1\n", 0o644),
            ("d.sh", "echo never\n", 0o666),
            ("e.sh", "sleep 600\n", 0o644),
            ("README", "no check\n", 0o644),
        ] {
            fs::write(dir.join(name), text, mode).unwrap();
        }
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        let h = Health::of(within(&dir, owner, Duration::from_secs(2)));
        let found: Vec<_> = h
            .checks
            .iter()
            .map(|c| (c.name.as_str(), c.result, c.reason.as_str()))
            .collect();
        assert_eq!(found[0], ("own/a", Verdict::Ok, "all well"));
        assert_eq!(found[1], ("own/b", Verdict::Warning, "soon"));
        assert_eq!(found[2], ("own/c", Verdict::Failed, "exit status: 1"));
        assert!(found[3].2.starts_with("not run: "), "{found:?}");
        assert_eq!(
            found[4],
            ("own/e", Verdict::Failed, "/bin/sh: no end after 2 s")
        );
        assert_eq!(found.len(), 5);
        assert!(within(Path::new("/nonexistent"), 0, LIMIT).is_empty());
    }
}
