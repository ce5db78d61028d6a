// SPDX-License-Identifier: Apache-2.0
//! The options of `lamadist channel`.

use super::Target;
use clap::Args;
use std::path::PathBuf;

/// `lamadist channel`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  lamadist channel --track stable --delta-from older/lamadist.raucb
  lamadist channel --track stable --deltas 3 --keep 4
  lamadist channel --track stable --refresh       the same version counts for 30 more days")]
pub struct Channel {
    /// What is published: the bundle of this build.
    #[command(flatten)]
    pub target: Target,
    /// The line of releases (`tracks` in distro/lamadist.toml)
    #[arg(long, value_name = "TRACK")]
    pub track: String,
    /// The folder that a web server serves [default: site/ of the checkout]
    #[arg(long, short, value_name = "DIR", env = "LAMADIST_SITE")]
    pub output: Option<PathBuf>,
    /// A delta bundle to the bundle; may be repeated
    #[arg(long, value_name = "FILE")]
    pub delta: Vec<PathBuf>,
    /// An earlier version, its bundle or the folder of its build, to make a delta bundle from; may be
    /// repeated
    #[arg(long, value_name = "OLD")]
    pub delta_from: Vec<PathBuf>,
    /// Delta bundles from so many earlier versions, the newest ones whose bundles are published there
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub deltas: u16,
    /// The oldest version that may run: older ones are revoked [default: as before]
    #[arg(long, value_name = "VERSION")]
    pub minimum: Option<String>,
    /// How long the channel file counts: 12h, 30d, 8w
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = seconds)]
    pub valid: u64,
    /// Issue what is published there anew, without a build
    #[arg(long)]
    pub refresh: bool,
    /// Remove the bundles of all but so many versions, the newest ones and those that are named
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub keep: Option<u16>,
    /// A release: refuses development keys
    #[arg(long)]
    pub release: bool,
    /// Also go back: to an older version, a lower --minimum, an earlier time
    #[arg(long)]
    pub force: bool,
}

/// Seconds of `12h`, `30d`, `8w`; ten years at most.
fn seconds(text: &str) -> Result<u64, String> {
    let units = [('h', 3600), ('d', 86400), ('w', 7 * 86400)];
    let found = units.into_iter().find_map(|(unit, seconds)| {
        let n: u64 = text.strip_suffix(unit)?.parse().ok()?;
        n.checked_mul(seconds)
    });
    found
        .filter(|s| (1..=3660 * 86400).contains(s))
        .ok_or_else(|| {
            "write hours, days or weeks such as 12h, 30d, 8w, up to ten years".to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, s) in [("1h", 3600), ("30d", 2_592_000), ("8w", 4_838_400)] {
            assert_eq!(seconds(text), Ok(s));
        }
        for bad in [
            "",
            "30",
            "d",
            "0d",
            "-1d",
            "1.5d",
            "30 d",
            "9999w",
            "1é",
            "99999999999999999999h",
        ] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
