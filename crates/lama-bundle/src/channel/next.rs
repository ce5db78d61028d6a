// SPDX-License-Identifier: Apache-2.0
//! What the next channel file says: it goes forward only.

use super::{Channel, Delta, File};
use crate::Result;
use crate::error::issue;
use lama_node::clock::rfc3339;
use lama_node::update::channel::FORMAT;
use lama_node::update::version::Version;

/// What is to be issued.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The line of releases.
    pub track: String,
    /// RAUC's `compatible`.
    pub compatible: String,
    /// The image.
    pub image: String,
    /// The version to be at.
    pub version: String,
    /// Its bundle.
    pub bundle: File,
    /// Delta bundles to it.
    pub deltas: Vec<Delta>,
    /// The oldest version that may run; none leaves what the last file said.
    pub minimum: Option<String>,
    /// Seconds that the file counts.
    pub valid: u64,
    /// Whether it may go back.
    pub back: Back,
}

/// Whether version, oldest version and time may be before those of the last file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// No.
    Refused,
    /// Yes: the administrator insists.
    Allowed,
}

/// The next file after `last`, at `now` (seconds since 1970).
///
/// # Errors
/// It would go back, or say what a node could not follow.
pub fn next(last: Option<&Channel>, wanted: Wanted, now: u64) -> Result<Channel> {
    let parse = |text: &str| {
        Version::parse(text).map_err(|e| issue(e.to_string(), e.help().unwrap_or_default()))
    };
    let version = parse(&wanted.version)?;
    let issued = rfc3339(now);
    let allowed = wanted.back == Back::Allowed;
    let insist = "--force issues it all the same";
    if let Some(last) = last.filter(|_| !allowed) {
        if version < parse(&last.version)? {
            return Err(issue(
                format!(
                    "the track {} is at {} already, and would go back to {version}",
                    last.track, last.version
                ),
                format!("{insist}; machines that run {} stay with it", last.version),
            ));
        }
        // Both are RFC 3339 in UTC, of the same form: their order is that of time.
        if issued < last.issued {
            return Err(issue(
                format!(
                    "the last channel file was issued at {}, and here it is {issued}",
                    last.issued
                ),
                format!("set this machine's clock (timedatectl); {insist}"),
            ));
        }
    }
    let before = last.and_then(|l| l.minimum.as_deref());
    let minimum = match (&wanted.minimum, before) {
        (Some(new), Some(old)) if !allowed && parse(new)? < parse(old)? => {
            return Err(issue(
                format!("no version before {old} may run, and with {new} older ones could again"),
                insist,
            ));
        }
        (Some(new), _) => Some(new.clone()),
        (None, old) => old.map(str::to_owned),
    };
    if let Some(m) = &minimum
        && version < parse(m)?
    {
        return Err(issue(
            format!("{version} is to be issued, and no version before {m} may run"),
            "publish a newer version, or name a lower --minimum",
        ));
    }
    // The time alone does where the folder was lost; the last number, where the clock was wrong.
    let after = last.map_or(0, |l| l.serial.saturating_add(1));
    Ok(Channel {
        format: FORMAT,
        track: wanted.track,
        compatible: wanted.compatible,
        image: wanted.image,
        serial: now.max(after),
        issued,
        expires: rfc3339(now.saturating_add(wanted.valid)),
        version: wanted.version,
        bundle: wanted.bundle,
        minimum,
        deltas: wanted.deltas,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(version: &str, minimum: Option<&str>) -> Wanted {
        Wanted {
            track: "stable".into(),
            compatible: "c".into(),
            image: "base".into(),
            version: version.into(),
            bundle: File {
                url: "b.raucb".into(),
                size: 1,
                sha256: "0".repeat(64),
            },
            deltas: Vec::new(),
            minimum: minimum.map(str::to_owned),
            valid: 86400,
            back: Back::Refused,
        }
    }

    #[test]
    fn it_goes_forward_only() {
        let first = next(None, wanted("1.0.0", Some("0.9.0")), 1_000_000_000).unwrap();
        assert_eq!(first.serial, 1_000_000_000);
        assert_eq!(first.issued, "2001-09-09T01:46:40Z");
        assert_eq!(first.expires, "2001-09-10T01:46:40Z");
        // Issued anew within the same second.
        let again = next(Some(&first), wanted("1.0.0", None), 1_000_000_000).unwrap();
        assert_eq!(again.serial, 1_000_000_001);
        assert_eq!(again.minimum.as_deref(), Some("0.9.0"));

        for (version, minimum, now, says) in [
            ("0.9.9", None, 1_000_000_001, "would go back to 0.9.9"),
            ("1.0.0-rc.1", None, 1_000_000_001, "would go back"),
            ("1.0.0", None, 999_999_999, "was issued at"),
            (
                "1.0.0",
                Some("0.8.0"),
                1_000_000_001,
                "older ones could again",
            ),
        ] {
            let mut w = wanted(version, minimum);
            let e = next(Some(&first), w.clone(), now).unwrap_err();
            assert!(e.to_string().contains(says), "{e}");
            w.back = Back::Allowed;
            let forced = next(Some(&first), w, now).unwrap();
            assert!(forced.serial > first.serial);
            assert_eq!(forced.version, version);
        }
        // What a node could not follow is not issued by force either.
        for (version, minimum) in [("1.0.0", "1.0.1"), ("x", "0.1.0"), ("1.0.0", "x")] {
            let mut w = wanted(version, Some(minimum));
            w.back = Back::Allowed;
            assert!(next(Some(&first), w, 1_000_000_001).is_err());
        }
    }

    #[test]
    fn what_is_issued_can_be_read() {
        let c = next(None, wanted("1.0.0", Some("0.9.0")), u64::from(u32::MAX)).unwrap();
        let json = serde_json::to_vec(&c).unwrap();
        assert_eq!(Channel::parse(&json).unwrap(), c);
    }
}
