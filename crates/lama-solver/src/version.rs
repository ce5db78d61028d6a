// SPDX-License-Identifier: Apache-2.0
//! Versions of Debian packages: deb-version(7).
//!
//! Written out instead of taken from the crate debversion, which calls `1.a` earlier than `1.a0`
//! where dpkg calls them equal, and runs a regular expression and two allocations a comparison.

use std::cmp::Ordering;

/// Whether `version` has the syntax of deb-version(7): `[epoch:]upstream[-revision]`. Underscores,
/// and an upstream part that begins with a letter, are let pass as dpkg lets them (it warns).
pub fn is_valid(version: &str) -> bool {
    let (epoch, rest) = match version.split_once(':') {
        Some((e, r)) => (Some(e), r),
        None => (None, version),
    };
    let part = |s: &str, more: &[u8]| {
        s.bytes().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'~' | b'_') || more.contains(&b)
        })
    };
    // dpkg keeps the epoch in an int.
    epoch.is_none_or(|e| e.bytes().all(|b| b.is_ascii_digit()) && e.parse::<i32>().is_ok())
        && match rest.rsplit_once('-') {
            None => !rest.is_empty() && part(rest, b":"),
            Some((u, r)) => !u.is_empty() && !r.is_empty() && part(u, b"-:") && part(r, b""),
        }
}

/// Compares two versions as dpkg does; total, so that no comparison fails on odd input.
pub fn compare(a: &str, b: &str) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (ae, au, ar) = split(a);
    let (be, bu, br) = split(b);
    ae.cmp(&be)
        .then_with(|| compare_part(au, bu))
        .then_with(|| compare_part(ar, br))
}

fn split(v: &str) -> (u64, &[u8], &[u8]) {
    let (epoch, rest) = match v.split_once(':') {
        Some((e, r)) => match e.parse() {
            Ok(e) => (e, r),
            Err(_) => (0, v),
        },
        None => (0, v),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream.as_bytes(), revision.as_bytes())
}

/// Runs of non-digits and of digits in turn, as deb-version(7) tells.
fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        loop {
            let (x, y) = (a.first().copied(), b.first().copied());
            let (dx, dy) = (is_digit(x), is_digit(y));
            if (x.is_none() || dx) && (y.is_none() || dy) {
                break;
            }
            match weight(x).cmp(&weight(y)) {
                Ordering::Equal => {}
                other => return other,
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (x, rest_a) = number(a);
        let (y, rest_b) = number(b);
        // Without leading zeros, the longer number is the greater one.
        match x.len().cmp(&y.len()).then_with(|| x.cmp(y)) {
            Ordering::Equal => {}
            other => return other,
        }
        a = rest_a;
        b = rest_b;
    }
    Ordering::Equal
}

fn is_digit(c: Option<u8>) -> bool {
    c.is_some_and(|c| c.is_ascii_digit())
}

/// The tilde sorts before the end, letters before everything else.
fn weight(c: Option<u8>) -> i32 {
    match c {
        None => 0,
        Some(b'~') => -1,
        Some(c) if c.is_ascii_digit() => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(c),
        Some(c) => i32::from(c) + 256,
    }
}

/// The number at the beginning, without leading zeros, and what follows.
fn number(s: &[u8]) -> (&[u8], &[u8]) {
    let end = s
        .iter()
        .position(|c| !c.is_ascii_digit())
        .unwrap_or(s.len());
    let (digits, rest) = s.split_at(end);
    let zeros = digits
        .iter()
        .position(|c| *c != b'0')
        .unwrap_or(digits.len());
    (digits.get(zeros..).unwrap_or_default(), rest)
}
