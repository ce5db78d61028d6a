// SPDX-License-Identifier: Apache-2.0
//! Points in time: those in restic's JSON (RFC 3339), and how long ago they were.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, by the system's clock.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Parses `2026-11-24T20:20:59.27Z` or with an offset: seconds since 1970, and nanoseconds.
pub fn parse(text: &str) -> Option<(i64, u32)> {
    let (date, time) = text.split_once('T')?;
    let mut d = date.splitn(3, '-').map(|p| number(p, 4));
    let (year, month, day) = (d.next()??, d.next()??, d.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1 {
        return None;
    }
    let zone = time.find(['Z', '+', '-'])?;
    let (clock, zone) = (time.get(..zone)?, time.get(zone..)?);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut c = clock.splitn(3, ':').map(|p| number(p, 2));
    let (h, m, s) = (c.next()??, c.next()??, c.next()??);
    if h > 23 || m > 59 || s > 60 {
        return None;
    }
    number(fraction, 9)?;
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    let offset = if zone == "Z" {
        0
    } else {
        let (sign, rest) = zone.split_at_checked(1)?;
        let (zh, zm) = rest.split_once(':')?;
        let seconds = number(zh, 2)? * 3600 + number(zm, 2)? * 60;
        if sign == "-" { -seconds } else { seconds }
    };
    Some((
        days(year, month, day) * 86400 + h * 3600 + m * 60 + s - offset,
        nanos,
    ))
}

fn number(digits: &str, most: usize) -> Option<i64> {
    let ok =
        !digits.is_empty() && digits.len() <= most && digits.bytes().all(|b| b.is_ascii_digit());
    if ok { digits.parse().ok() } else { None }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar.
/// (Howard Hinnant, chrono-compatible low-level date algorithms.)
fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// `2026-11-24 20:20 UTC`.
pub fn show(seconds: i64) -> String {
    let z = seconds.div_euclid(86400).saturating_add(719_468);
    let rest = seconds.rem_euclid(86400);
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        rest / 3600,
        rest % 3600 / 60
    )
}

/// `3 h`, `2 days`: how long something took or is ago.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_date_says() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", (0, 0)),
            (
                "2026-11-24T20:20:59.275933026Z",
                (1_795_551_659, 275_933_026),
            ),
            ("2026-11-24T21:20:59.5+01:00", (1_795_551_659, 500_000_000)),
            ("2024-02-29T12:00:00-05:30", (1_709_227_800, 0)),
        ] {
            assert_eq!(parse(text), Some(want), "{text}");
        }
        for bad in [
            "",
            "2026",
            "2026-13-01T00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-1-1TxZ",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(show(1_795_551_659), "2026-11-24 20:20 UTC");
        assert_eq!(span(90_000), "25 h");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", n in any::<i64>(), like in "[0-9]{1,5}-[0-9]{1,3}-[0-9]{1,3}T[0-9:.]{0,20}[Z+-][0-9:é]{0,6}") {
            let _ = parse(&text);
            let _ = parse(&like);
            let _ = show(n);
        }

        #[test]
        fn what_is_shown_is_what_was_parsed(n in 0i64..253_402_300_799) {
            let text = show(n).replace(" UTC", ":00Z").replace(' ', "T");
            prop_assert_eq!(parse(&text).map(|t| t.0), Some(n / 60 * 60));
        }
    }
}
