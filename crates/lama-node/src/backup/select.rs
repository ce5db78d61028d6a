// SPDX-License-Identifier: Apache-2.0
//! Which snapshot is restored.

use super::message::Snapshot;
use crate::error::{Error, Result};

/// Picks a snapshot: `latest`, or one by the beginning of its ID; of `host`, or of the only host.
///
/// # Errors
/// There is none, or more than one fits.
pub fn select<'a>(all: &'a [Snapshot], id: &str, host: Option<&str>) -> Result<&'a Snapshot> {
    let of_host: Vec<&Snapshot> = all
        .iter()
        .filter(|s| host.is_none_or(|h| s.hostname == h))
        .collect();
    let mut hosts: Vec<&str> = all.iter().map(|s| s.hostname.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let there = format!("there are snapshots of {}", hosts.join(", "));
    if of_host.is_empty() {
        return Err(match host {
            Some(h) if !hosts.is_empty() => {
                Error::new(format!("there is no snapshot of {h}")).hint(there)
            }
            _ => Error::new("there is no snapshot in the repository"),
        });
    }
    if id == "latest" {
        if host.is_none() && hosts.len() > 1 {
            return Err(Error::new("the repository holds more than one host")
                .hint(format!("{there}; say which by --host")));
        }
        return of_host
            .into_iter()
            .max_by_key(|s| s.when())
            .ok_or_else(|| Error::new("there is no snapshot in the repository"));
    }
    let hex = id.len() >= 4 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if !hex {
        return Err(Error::new(format!("\"{id}\" is not a snapshot")).hint(
            "`latest`, or at least four digits of an ID; `lama-node backup list` shows them",
        ));
    }
    let mut found = of_host.into_iter().filter(|s| s.id.starts_with(id));
    match (found.next(), found.next()) {
        (Some(s), None) => Ok(s),
        (Some(_), Some(_)) => Err(Error::new(format!(
            "more than one snapshot begins with {id}"
        ))),
        (None, _) => Err(Error::new(format!("there is no snapshot {id}"))
            .hint("`lama-node backup list --all` shows them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(id: &str, host: &str, time: &str) -> Snapshot {
        Snapshot {
            id: id.into(),
            time: time.into(),
            hostname: host.into(),
            paths: vec!["/var".into()],
            tags: None,
            summary: None,
        }
    }

    #[test]
    fn which_one() {
        let one = [
            snapshot("aaaa1", "nas", "2026-01-02T00:00:00+02:00"),
            snapshot("aaaa2", "nas", "2026-01-01T23:00:00Z"),
        ];
        let two = [
            one[0].clone(),
            one[1].clone(),
            snapshot("bbbb1", "web", "2027-01-01T00:00:00Z"),
        ];
        let id = |all: &[Snapshot], id: &str, host| {
            select(all, id, host)
                .map(|s| s.id.clone())
                .map_err(|e| e.to_string())
        };
        assert_eq!(id(&one, "latest", None).unwrap(), "aaaa2");
        assert_eq!(id(&two, "latest", Some("nas")).unwrap(), "aaaa2");
        assert_eq!(id(&two, "bbbb", None).unwrap(), "bbbb1");
        for (all, name, host, want) in [
            (&two[..], "latest", None, "the repository holds more"),
            (&two, "aaaa", None, "more than one snapshot"),
            (&two, "cccc", None, "there is no snapshot cccc"),
            (&two, "latest", Some("x"), "there is no snapshot of x"),
            (&two, "; rm", None, "\"; rm\" is not a snapshot"),
            (&[], "latest", None, "there is no snapshot in"),
        ] {
            let e = id(all, name, host).unwrap_err();
            assert!(e.starts_with(want), "{e}");
        }
    }
}
