// SPDX-License-Identifier: Apache-2.0
//! `/etc/lamadist/backup.conf`: lines of `name=value`, as in os-release(5).

use crate::error::{Context, Error, Result};
use crate::fs;
use std::path::Path;

/// Where it lies, below the root.
pub const PATH: &str = "etc/lamadist/backup.conf";

/// What a new configuration says besides the repository.
pub const TEMPLATE: &str = "\
# What lama-node backup does; see docs/BACKUP.md of LamaDist. Lines of name=value.
# The password and credentials of the repository do not belong here: `lama-node backup setup`
# seals them to the machine.
repository=REPOSITORY

# Snapshots to keep: how many days, weeks, months and years back one of each.
#keep-daily=7
#keep-weekly=5
#keep-monthly=12
#keep-yearly=3
# Paths that are left out, in restic's patterns; any number of lines.
#exclude=/var/home/*/Downloads
# Other file systems mounted below /var that belong in it; any number of lines.
#include=/var/mnt/data
";

/// What is left out unless `omit=` says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Omit {
    /// What can be made again: `/var/cache`, `/var/tmp`, folders marked by a `CACHEDIR.TAG`.
    Caches,
    /// Images and layers of containers, which can be pulled again; volumes stay in.
    Containers,
    /// What crashed programs left in memory.
    Coredumps,
    /// The journal: large, always changing, and of no use to a restored host.
    Journal,
}

impl Omit {
    /// All of them; the default.
    pub const ALL: [Self; 4] = [
        Self::Caches,
        Self::Containers,
        Self::Coredumps,
        Self::Journal,
    ];

    /// As in `omit=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Caches => "caches",
            Self::Containers => "containers",
            Self::Coredumps => "coredumps",
            Self::Journal => "journal",
        }
    }

    /// restic's patterns, below `/var`.
    pub fn patterns(self) -> &'static [&'static str] {
        match self {
            Self::Caches => &["cache/*", "tmp/*"],
            // Not `volumes`. The database names layers, so it goes with them: podman takes up a
            // volume's folder that it finds.
            Self::Containers => &[
                "lib/containers/storage/overlay*",
                "lib/containers/storage/libpod",
                "lib/containers/storage/db.sql*",
                "lib/containers/storage/*.lock",
                "home/*/.local/share/containers/storage/overlay*",
                "home/*/.local/share/containers/storage/libpod",
                "home/*/.local/share/containers/storage/db.sql*",
                "home/*/.local/share/containers/storage/*.lock",
            ],
            Self::Coredumps => &["lib/systemd/coredump/*", "crash/*"],
            Self::Journal => &["log/journal/*"],
        }
    }
}

/// How many snapshots are kept (restic-forget(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The newest ones.
    pub last: u32,
    /// Hours of which the last is kept.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// Weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            last: 0,
            hourly: 0,
            daily: 7,
            weekly: 5,
            monthly: 12,
            yearly: 3,
        }
    }
}

impl Keep {
    /// restic's arguments.
    pub fn args(&self) -> Vec<String> {
        [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ]
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("--keep-{name}={n}"))
        .collect()
    }
}

/// Whether old snapshots are removed after a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Those that [`Keep`] does not keep are.
    On,
    /// Somebody else does it: repositories that can only be added to.
    Off,
}

/// The configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// restic's name of the repository.
    pub repository: String,
    /// Mounted file systems below `/var` that are backed up, too.
    pub include: Vec<String>,
    /// restic's patterns of what is left out.
    pub exclude: Vec<String>,
    /// What is left out besides.
    pub omit: Vec<Omit>,
    /// What is kept.
    pub keep: Keep,
    /// Whether the rest is removed.
    pub retention: Retention,
    /// Days after which `status` calls the last backup stale.
    pub max_age: u32,
    /// At most so many KiB a second are sent.
    pub upload_limit: Option<u32>,
}

const NAMES: [&str; 13] = [
    "repository",
    "include",
    "exclude",
    "omit",
    "retention",
    "keep-last",
    "keep-hourly",
    "keep-daily",
    "keep-weekly",
    "keep-monthly",
    "keep-yearly",
    "max-age",
    "upload-limit",
];

impl Config {
    /// Reads the file; none where there is no such file.
    ///
    /// # Errors
    /// It cannot be read, or is wrong: `PATH:LINE: what`.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match fs::read_optional(path)? {
            None => Ok(None),
            Some(data) => {
                Self::parse(&String::from_utf8_lossy(&data), &path.display().to_string()).map(Some)
            }
        }
    }

    /// Parses the text of a file called `name` in errors.
    ///
    /// # Errors
    /// A line is wrong, or there is no repository.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let mut repository = None;
        let mut c = Self {
            repository: String::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            omit: Omit::ALL.to_vec(),
            keep: Keep::default(),
            retention: Retention::On,
            max_age: 3,
            upload_limit: None,
        };
        let mut seen: Vec<&str> = Vec::new();
        for (number, line) in (1u32..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            c.line(line, &mut repository, &mut seen)
                .context(format_args!("{name}:{number}"))?;
        }
        c.repository = repository.ok_or_else(|| {
            Error::new(format!("{name}: there is no repository"))
                .hint("`lama-node backup setup --repository …` writes one")
        })?;
        if c.retention == Retention::On && c.keep.args().is_empty() {
            return Err(Error::new(format!("{name}: no snapshot would be kept"))
                .hint("raise one of the keep- settings, or keep all of them by retention=off"));
        }
        Ok(c)
    }

    fn line<'a>(
        &mut self,
        line: &'a str,
        repository: &mut Option<String>,
        seen: &mut Vec<&'a str>,
    ) -> Result<()> {
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| Error::new("this is not name=value"))?;
        let (key, value) = (key.trim(), unquote(value.trim())?);
        if !NAMES.contains(&key) {
            return Err(Error::new(format!("there is no setting \"{key}\""))
                .hint(format!("there are {}", NAMES.join(", "))));
        }
        if seen.contains(&key) && !matches!(key, "include" | "exclude") {
            return Err(Error::new(format!("{key} is set twice")));
        }
        seen.push(key);
        match key {
            "repository" => *repository = Some(repository_name(value)?),
            "include" => self.include.push(below_var(value)?),
            "exclude" => {
                if value.is_empty() || value.chars().any(char::is_control) {
                    return Err(Error::new("this is not a pattern"));
                }
                self.exclude.push(value.to_owned());
            }
            "omit" => {
                self.omit = value
                    .split([' ', ','])
                    .filter(|w| !w.is_empty())
                    .map(omit)
                    .collect::<Result<_>>()?;
            }
            "retention" => {
                self.retention = match value {
                    "on" => Retention::On,
                    "off" => Retention::Off,
                    _ => return Err(Error::new("retention is on or off")),
                }
            }
            "keep-last" => self.keep.last = count(value)?,
            "keep-hourly" => self.keep.hourly = count(value)?,
            "keep-daily" => self.keep.daily = count(value)?,
            "keep-weekly" => self.keep.weekly = count(value)?,
            "keep-monthly" => self.keep.monthly = count(value)?,
            "keep-yearly" => self.keep.yearly = count(value)?,
            "max-age" => self.max_age = count(value)?,
            _ => self.upload_limit = Some(count(value)?).filter(|n| *n > 0),
        }
        Ok(())
    }
}

fn unquote(value: &str) -> Result<&str> {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return rest
                .strip_suffix(quote)
                .ok_or_else(|| Error::new("a quotation mark is not closed"));
        }
    }
    Ok(value)
}

fn count(value: &str) -> Result<u32> {
    value
        .parse()
        .ok()
        .filter(|n| *n <= 100_000_000)
        .ok_or_else(|| Error::new(format!("\"{value}\" is not a number")))
}

fn omit(word: &str) -> Result<Omit> {
    let known = || Omit::ALL.iter().map(|o| o.name()).collect::<Vec<_>>();
    Omit::ALL
        .into_iter()
        .find(|o| o.name() == word)
        .ok_or_else(|| {
            Error::new(format!("\"{word}\" is nothing to omit"))
                .hint(format!("there are {}", known().join(", ")))
        })
}

fn below_var(value: &str) -> Result<String> {
    let clean = value.trim_end_matches('/');
    let ok = clean.strip_prefix("/var/").is_some_and(|rest| {
        rest.split('/')
            .all(|p| !p.is_empty() && p != "." && p != "..")
    });
    if ok && !clean.chars().any(char::is_control) {
        return Ok(clean.to_owned());
    }
    Err(Error::new(format!(
        "\"{value}\" is not a path below /var, where all of a node's data lies"
    )))
}

/// Checks the name of a repository: restic's syntax, without a password.
///
/// # Errors
/// It is empty, a relative path, or holds a password.
pub fn repository_name(name: &str) -> Result<String> {
    if name.is_empty() || name.starts_with('-') || name.chars().any(char::is_control) {
        return Err(Error::new(format!("\"{name}\" is not a repository")));
    }
    let authority = name
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next());
    let user = authority.and_then(|a| a.rsplit_once('@')).map(|(u, _)| u);
    if user.is_some_and(|u| u.contains(':')) {
        // Not repeated in the message.
        return Err(Error::new("the repository's address holds a password").hint(
            "give RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD to `lama-node backup setup --env-file`",
        ));
    }
    if local(name).is_some_and(|p| !p.starts_with('/')) {
        return Err(
            Error::new(format!("the repository \"{name}\" is a relative path"))
                .hint("give a path from /, or an address such as sftp:user@host:/path"),
        );
    }
    Ok(name.to_owned())
}

/// The path of a repository that is a folder of this machine.
pub fn local(name: &str) -> Option<&str> {
    const SCHEMES: [&str; 8] = ["b2", "sftp", "s3", "swift", "azure", "gs", "rest", "rclone"];
    match name.split_once(':') {
        Some(("local", path)) => Some(path),
        Some((scheme, _)) if SCHEMES.contains(&scheme) => None,
        _ => Some(name),
    }
}

/// The text of a configuration with another repository; a new one where there is none.
pub fn with_repository(text: Option<&str>, repository: &str) -> String {
    let line = format!("repository={repository}");
    let Some(text) = text else {
        return TEMPLATE.replace("repository=REPOSITORY", &line);
    };
    let is = |l: &str| {
        l.split_once('=')
            .is_some_and(|(k, _)| k.trim() == "repository")
    };
    let mut out: Vec<&str> = text.lines().collect();
    match out.iter().position(|l| is(l)) {
        Some(at) => out[at] = &line,
        None => out.insert(0, &line),
    }
    out.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, "backup.conf")
    }

    #[test]
    fn all_settings() {
        let c = parse(
            "# a comment\n\nrepository = \"rest:https://nas/host\"\ninclude=/var/mnt/data/\n\
             exclude=*.iso\nexclude='/var/home/*/a b'\nomit=caches, journal\nkeep-last=2\n\
             keep-hourly=0\nkeep-daily=1\nkeep-weekly=0\nkeep-monthly=0\nkeep-yearly=9\n\
             max-age=7\nupload-limit=500\nretention=on\n",
        )
        .unwrap();
        assert_eq!(c.repository, "rest:https://nas/host");
        assert_eq!(c.include, ["/var/mnt/data"]);
        assert_eq!(c.exclude, ["*.iso", "/var/home/*/a b"]);
        assert_eq!(c.omit, [Omit::Caches, Omit::Journal]);
        assert_eq!((c.max_age, c.upload_limit), (7, Some(500)));
        assert_eq!(
            c.keep.args(),
            ["--keep-last=2", "--keep-daily=1", "--keep-yearly=9"]
        );
    }

    #[test]
    fn errors_name_the_line() {
        for (text, want) in [
            ("", "x.conf: there is no repository"),
            ("\nnonsense", "x.conf:2: this is not name=value"),
            ("keep-day=3", "x.conf:1: there is no setting \"keep-day\""),
            (
                "repository=/a\nrepository=/b",
                "x.conf:2: repository is set twice",
            ),
            ("keep-daily=-1", "x.conf:1: \"-1\" is not a number"),
            ("omit=home", "x.conf:1: \"home\" is nothing to omit"),
            ("repository=\"/a", "x.conf:1: a quotation mark is not"),
            ("repository=a/b", "x.conf:1: the repository \"a/b\" is a re"),
            ("repository=-x", "x.conf:1: \"-x\" is not a repository"),
            ("include=/etc", "x.conf:1: \"/etc\" is not a path below"),
            ("include=/var/../etc", "x.conf:1: \"/var/../etc\" is not"),
            ("retention=maybe", "x.conf:1: retention is on or off"),
            ("exclude=", "x.conf:1: this is not a pattern"),
            (
                "repository=/a\nkeep-daily=0\nkeep-weekly=0\nkeep-monthly=0\nkeep-yearly=0",
                "x.conf: no snapshot would be kept",
            ),
        ] {
            let e = Config::parse(text, "x.conf").unwrap_err().to_string();
            assert!(e.starts_with(want), "{text:?}: {e}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let e = parse("repository=rest:https://me:hunter2@nas/").unwrap_err();
        assert!(!e.to_string().contains("hunter2") && e.help().is_some());
        for good in [
            "rest:https://me@nas:8000/x",
            "s3:https://minio:9000/bucket",
            "sftp:me@nas:/srv/restic",
            "sftp://me@nas:2222//srv/restic",
            "/var/mnt/usb/restic",
            "local:/srv/x",
        ] {
            assert_eq!(repository_name(good).unwrap(), good);
        }
    }

    #[test]
    fn the_repository_is_replaced_and_the_rest_stays() {
        let new = with_repository(None, "/a");
        assert_eq!(parse(&new).unwrap().repository, "/a");
        let other = with_repository(Some("# x\n repository=/a\nkeep-last=3"), "/b");
        assert_eq!(other, "# x\nrepository=/b\nkeep-last=3\n");
        assert_eq!(
            with_repository(Some("max-age=1\n"), "/c"),
            "repository=/c\nmax-age=1\n"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", line in "(repository|include|exclude|omit|keep-last|max-age) ?= ?\\PC*") {
            let _ = parse(&text);
            if let Ok(c) = parse(&format!("repository=/x\n{line}")) {
                prop_assert!(!c.repository.is_empty());
            }
            let _ = with_repository(Some(&text), "/x");
        }
    }
}
