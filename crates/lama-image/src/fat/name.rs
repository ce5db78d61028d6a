// SPDX-License-Identifier: Apache-2.0
//! Names and times of FAT.

use crate::{Error, Result};
use std::collections::BTreeSet;

/// Whether a long name may be so.
pub(super) fn check(part: &str, path: &str) -> Result<()> {
    let bad = part.is_empty()
        || part == "."
        || part == ".."
        || part.len() > 255
        || part.ends_with(['.', ' '])
        || !part.is_ascii()
        || part
            .chars()
            .any(|c| c.is_ascii_control() || "\"*/:<>?\\|".contains(c));
    if bad {
        return Err(Error::Option {
            what: format!("the file `{path}` of the EFI system partition"),
            reason: format!("FAT can't hold the name `{part}`, or it isn't plain ASCII"),
        });
    }
    Ok(())
}

/// Makes the short names of one directory.
#[derive(Default)]
pub(super) struct Shortener {
    taken: BTreeSet<[u8; 11]>,
}

fn allowed(c: u8) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || b"!#$%&'()-@^_`{}~".contains(&c)
}

/// Base and extension as FAT stores them, padded; `None` where they don't fit.
fn pack(base: &[u8], ext: &[u8]) -> Option<[u8; 11]> {
    let mut n = [b' '; 11];
    n.get_mut(..base.len())
        .filter(|_| base.len() <= 8)?
        .copy_from_slice(base);
    n.get_mut(8..8 + ext.len())?.copy_from_slice(ext);
    Some(n)
}

impl Shortener {
    /// Adds the long-name entries of a name to a directory table, where it needs any, and returns the
    /// short name for the entry that follows them.
    pub(super) fn entries(&mut self, name: &str, table: &mut Vec<u8>) -> [u8; 11] {
        let (base, ext) = name.rsplit_once('.').unwrap_or((name, ""));
        let plain = !base.is_empty() && base.bytes().chain(ext.bytes()).all(allowed);
        if plain
            && let Some(n) = pack(base.as_bytes(), ext.as_bytes())
            && self.taken.insert(n)
        {
            return n;
        }
        let clean = |s: &str, max: usize| -> Vec<u8> {
            s.bytes()
                .filter(|c| !matches!(c, b'.' | b' '))
                .map(|c| c.to_ascii_uppercase())
                .map(|c| if allowed(c) { c } else { b'_' })
                .take(max)
                .collect()
        };
        let (base, ext) = (clean(base, 8), clean(ext, 3));
        let mut short = [b' '; 11];
        for i in 1u32.. {
            let tail = format!("~{i}");
            let keep = base.len().min(8usize.saturating_sub(tail.len()));
            let mut b = base.get(..keep).unwrap_or_default().to_vec();
            b.extend(tail.bytes());
            if let Some(n) = pack(&b, &ext)
                && self.taken.insert(n)
            {
                short = n;
                break;
            }
        }
        long_entries(name, checksum(&short), table);
        short
    }
}

fn checksum(short: &[u8; 11]) -> u8 {
    short
        .iter()
        .fold(0u8, |s, c| s.rotate_right(1).wrapping_add(*c))
}

/// Long-name entries, the last part of the name first.
fn long_entries(name: &str, sum: u8, table: &mut Vec<u8>) {
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(13) {
        units.push(0);
        units.resize(units.len().next_multiple_of(13), 0xffff);
    }
    let parts = units.len() / 13;
    for (i, part) in units.chunks(13).enumerate().rev() {
        let last = if i + 1 == parts { 0x40 } else { 0 };
        let bytes: Vec<u8> = part.iter().flat_map(|u| u.to_le_bytes()).collect();
        let (a, rest) = bytes.split_at(10);
        let (b, c) = rest.split_at(12);
        table.push(last | (i + 1) as u8);
        table.extend(a);
        table.extend([0x0f, 0, sum]);
        table.extend(b);
        table.extend([0, 0]);
        table.extend(c);
    }
}

/// Time and date words (little endian) of a time in seconds since 1970, at least 1980.
pub(super) fn time(epoch: u64) -> [u8; 4] {
    let (days, secs) = (epoch / 86_400, epoch % 86_400);
    // Civil date of a day count, by eras of 400 years that begin in March.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    if !(1980..=2107).contains(&year) {
        return [0, 0, 0x21, 0]; // 1980-01-01
    }
    let date = (year - 1980) << 9 | month << 5 | day;
    let clock = (secs / 3600) << 11 | (secs / 60 % 60) << 5 | (secs % 60 / 2);
    let [c0, c1] = (clock as u16).to_le_bytes();
    let [d0, d1] = (date as u16).to_le_bytes();
    [c0, c1, d0, d1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names() {
        let mut s = Shortener::default();
        let mut t = Vec::new();
        for (long, short) in [
            ("BOOTX64.EFI", "BOOTX64 EFI"),
            ("EFI", "EFI        "),
            ("BOOTX64.EFI.extra.d", "BOOTX6~1D  "),
            ("live.addon.efi", "LIVEAD~1EFI"),
            ("live.addon2.efi", "LIVEAD~2EFI"),
            ("keys", "KEYS~1     "),
            (".x", "~1      X  "),
        ] {
            assert_eq!(s.entries(long, &mut t), short.as_bytes(), "{long}");
        }
        assert!(check("a:b", "a:b").is_err() && check("ä", "ä").is_err());
        assert!(check("x.", "x.").is_err() && check("ok.efi", "ok.efi").is_ok());
    }

    #[test]
    fn times() {
        // 2023-11-14 22:13:20
        assert_eq!(time(1_700_000_000), {
            let d = (43u16 << 9 | 11 << 5 | 14).to_le_bytes();
            let c = (22u16 << 11 | 13 << 5 | 10).to_le_bytes();
            [c[0], c[1], d[0], d[1]]
        });
        assert_eq!(time(0), [0, 0, 0x21, 0]);
        assert_eq!(
            time(951_782_400)[2..],
            (20u16 << 9 | 2 << 5 | 29).to_le_bytes()
        );
    }
}
