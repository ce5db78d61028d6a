// SPDX-License-Identifier: Apache-2.0
//! What restic says with `--json`: an object a line
//! (<https://restic.readthedocs.io/en/stable/075_scripting.html>).

use serde::Deserialize;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// How far it is.
    Status(Status),
    /// What was done.
    Summary(Summary),
    /// Something could not be read or written; it goes on.
    Problem(Problem),
    /// Why it ends.
    Exit(String),
    /// A message that nobody needs here.
    Other,
    /// No message: a result, or text.
    Text(String),
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// 0 to 1.
    pub percent_done: f64,
    /// Files known of.
    pub total_files: u64,
    /// Files done, of a backup.
    pub files_done: u64,
    /// Files done, of a restore.
    pub files_restored: u64,
    /// Bytes known of.
    pub total_bytes: u64,
    /// Bytes done, of a backup.
    pub bytes_done: u64,
    /// Bytes done, of a restore.
    pub bytes_restored: u64,
}

/// What was done: by a backup, a restore, or a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Files read (backup).
    pub total_files_processed: u64,
    /// Bytes read (backup).
    pub total_bytes_processed: u64,
    /// Bytes added to the repository (backup).
    pub data_added_packed: u64,
    /// The snapshot (backup).
    pub snapshot_id: Option<String>,
    /// Files written (restore).
    pub files_restored: u64,
    /// Bytes written (restore).
    pub bytes_restored: u64,
    /// Damages found (check).
    pub num_errors: u64,
}

/// Something could not be read or written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    /// Which file; empty where it is none.
    pub item: String,
    /// Why.
    pub why: String,
}

impl Problem {
    /// Whether the file was removed while the backup ran, as files in use are.
    pub fn vanished(&self) -> bool {
        self.why.contains("no such file or directory")
    }
}

#[derive(Deserialize)]
struct Raw {
    message_type: String,
}

#[derive(Deserialize)]
struct RawProblem {
    #[serde(default)]
    item: String,
    error: RawWhy,
}

#[derive(Deserialize)]
struct RawWhy {
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct RawExit {
    message: String,
}

impl Message {
    /// Parses a line without its newline.
    pub fn parse(line: &str) -> Self {
        let Ok(raw) = serde_json::from_str::<Raw>(line) else {
            return Self::Text(line.to_owned());
        };
        let parsed = match raw.message_type.as_str() {
            "status" => serde_json::from_str(line).map(Self::Status),
            "summary" => serde_json::from_str(line).map(Self::Summary),
            "error" => serde_json::from_str(line).map(|p: RawProblem| {
                Self::Problem(Problem {
                    item: p.item,
                    why: p.error.message,
                })
            }),
            "exit_error" => serde_json::from_str(line).map(|e: RawExit| Self::Exit(e.message)),
            _ => Ok(Self::Other),
        };
        parsed.unwrap_or(Self::Other)
    }
}

/// A snapshot, of `restic snapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Snapshot {
    /// 64 hexadecimal digits.
    pub id: String,
    /// RFC 3339.
    pub time: String,
    /// Of which host.
    #[serde(default)]
    pub hostname: String,
    /// What was backed up.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
    /// What was done.
    #[serde(default)]
    pub summary: Option<Summary>,
}

impl Snapshot {
    /// The first eight digits, as restic shows them.
    pub fn short(&self) -> &str {
        self.id.get(..8).unwrap_or(&self.id)
    }

    /// The `/var` in it; what else was backed up lies below.
    pub fn var(&self) -> Option<&str> {
        self.paths
            .iter()
            .min_by_key(|p| p.len())
            .map(String::as_str)
    }

    /// Seconds and nanoseconds since 1970.
    pub fn when(&self) -> (i64, u32) {
        super::time::parse(&self.time).unwrap_or_default()
    }

    /// Bytes of the files in it, where that is known.
    pub fn bytes(&self) -> Option<u64> {
        self.summary.as_ref().map(|s| s.total_bytes_processed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_restic_prints() {
        let s = Message::parse(
            r#"{"message_type":"status","percent_done":0.5,"total_files":2,"files_done":1,"total_bytes":6,"bytes_done":3,"current_files":["/x"]}"#,
        );
        assert!(matches!(s, Message::Status(s) if s.files_done == 1 && s.total_bytes == 6));
        let s = Message::parse(
            r#"{"message_type":"summary","files_new":2,"data_added_packed":1251,"total_files_processed":2,"total_duration":0.8,"snapshot_id":"788531a9"}"#,
        );
        assert!(
            matches!(s, Message::Summary(s) if s.data_added_packed == 1251 && s.snapshot_id.as_deref() == Some("788531a9"))
        );
        assert_eq!(
            Message::parse(
                r#"{"message_type":"error","error":{"message":"lstat /x: no such file or directory"},"during":"archival","item":"/x"}"#
            ),
            Message::Problem(Problem {
                item: "/x".to_owned(),
                why: "lstat /x: no such file or directory".to_owned()
            })
        );
        assert_eq!(
            Message::parse(
                r#"{"message_type":"exit_error","code":12,"message":"Fatal: wrong password or no key found"}"#
            ),
            Message::Exit("Fatal: wrong password or no key found".to_owned())
        );
        for other in [
            r#"{"message_type":"initialized","id":"f0"}"#,
            r#"{"message_type":"exit_error"}"#,
        ] {
            assert_eq!(Message::parse(other), Message::Other);
        }
        assert_eq!(Message::parse("[]"), Message::Text("[]".to_owned()));
    }

    #[test]
    fn a_snapshots_var_is_above_what_else_is_in_it() {
        let s: Snapshot = serde_json::from_str(
            r#"{"time":"2026-11-24T20:24:41.39Z","paths":["/var/mnt/d","/var"],"id":"f91c04cc56"}"#,
        )
        .unwrap();
        assert_eq!((s.var(), s.short()), (Some("/var"), "f91c04cc"));
        assert_eq!(s.bytes(), None);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*", kind in "status|summary|error|exit_error", rest in "\\PC*", n in any::<f64>()) {
            let _ = Message::parse(&line);
            let _ = Message::parse(&format!(r#"{{"message_type":"{kind}",{rest}}}"#));
            let _ = Message::parse(&format!(r#"{{"message_type":"{kind}","percent_done":{n},"error":{{}},"total_files":{n}}}"#));
            let _ = serde_json::from_str::<Vec<Snapshot>>(&line);
        }
    }
}
