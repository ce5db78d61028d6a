// SPDX-License-Identifier: Apache-2.0
//! What this machine has seen of a track: the highest serial number of its channel files, and the
//! oldest version that may run.

use super::channel::Channel;
use super::version::Version;
use crate::{Error, Result, fs};
use std::path::Path;

/// The serial number that was seen of a track; 0 where none was.
///
/// # Errors
/// The file cannot be read: nothing is believed then.
pub fn serial(dir: &Path, track: &str) -> Result<u64> {
    let Some(data) = fs::read_optional(dir.join(format!("serial.{track}")))? else {
        return Ok(0);
    };
    let text = String::from_utf8_lossy(&data);
    text.trim().parse().map_err(|_| {
        Error::new(format!(
            "{text:?} is no serial number of a channel file, in {}",
            dir.display()
        ))
        .hint("remove the file serial.TRACK there when you trust the server")
    })
}

/// The oldest version that may run, as the last channel file of a track says that names one.
///
/// # Errors
/// The file cannot be read: nothing is installed then.
pub fn minimum(dir: &Path, track: &str) -> Result<Option<Version>> {
    let Some(data) = fs::read_optional(dir.join(format!("minimum.{track}")))? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&data);
    let version = Version::parse(text.trim()).map_err(|e| {
        e.within(&format!("minimum.{track} in {}", dir.display()))
            .hint("remove that file and let `lama-node update check` write it anew")
    })?;
    Ok(Some(version))
}

/// Notes the serial number and the oldest version of a channel file that is believed. One that names
/// no oldest version does not lift what an earlier one said.
///
/// # Errors
/// It cannot be written.
pub fn note(dir: &Path, track: &str, channel: &Channel) -> Result<()> {
    let write = |name: &str, value: &str| {
        let file = dir.join(format!("{name}.{track}"));
        fs::write(file, format!("{value}\n"), 0o644)
    };
    // In this order: after a power cut between them the file is still believed, and noted once more.
    if let Some(m) = &channel.minimum {
        write("minimum", m)?;
    }
    write("serial", &channel.serial.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::channel::tests::channel;
    use super::*;

    #[test]
    fn serials_and_oldest_versions_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let oldest = |track| minimum(dir, track).unwrap().map(|v| v.to_string());
        assert_eq!(
            (serial(dir, "stable").unwrap(), oldest("stable")),
            (0, None)
        );
        let mut c = channel();
        for (number, names, holds) in [
            (9, None, None),
            (10, Some("1.2.0"), Some("1.2.0")),
            // Nothing said is nothing lifted; a lower one is the administrator's word.
            (11, None, Some("1.2.0")),
            (12, Some("1.1.0"), Some("1.1.0")),
        ] {
            c.serial = number;
            c.minimum = names.map(str::to_owned);
            note(dir, "stable", &c).unwrap();
            assert_eq!(serial(dir, "stable").unwrap(), number);
            assert_eq!(oldest("stable").as_deref(), holds);
        }
        assert_eq!((serial(dir, "lts").unwrap(), oldest("lts")), (0, None));
        for name in ["serial.stable", "minimum.stable"] {
            fs::write(dir.join(name), "x", 0o644).unwrap();
        }
        let e = minimum(dir, "stable").unwrap_err();
        assert!(
            e.to_string().contains("minimum.stable") && e.help().is_some(),
            "{e}"
        );
        assert!(serial(dir, "stable").is_err());
    }
}
