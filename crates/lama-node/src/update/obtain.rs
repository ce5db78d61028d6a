// SPDX-License-Identifier: Apache-2.0
//! How a bundle comes to this machine: made here out of a delta bundle, streamed by RAUC, or loaded as
//! a whole.

use super::delta::{self, Expected};
use super::fetch::{Get, Kind, Patience, STEP, Want, fetch};
use super::node::Node;
use super::progress::Progress;
use super::store::{Note, Store};
use crate::{Error, Result, block, fs};
use std::path::{Path, PathBuf};

/// Free bytes that stay on /var.
pub const RESERVE: u64 = 256 << 20;

/// What the channel offers.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// The version.
    pub version: &'a str,
    /// Its bundle.
    pub bundle: Want<'a>,
    /// A delta bundle from the version that runs.
    pub delta: Option<Want<'a>>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum How {
    /// What loads least.
    #[default]
    Best,
    /// RAUC streams the bundle: of what has not changed it loads nothing.
    Stream,
    /// The whole bundle is loaded first.
    Download,
    /// All that an installation needs is loaded, for a time without the server.
    Ahead,
}

/// A way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Delta,
    Whole,
    Stream,
}

/// A bundle that RAUC can install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// Its file or URL.
    pub bundle: String,
    /// Bytes that were loaded for it, in this run and before; none where RAUC loads it.
    pub loaded: Option<u64>,
    /// Whether it was made now, out of something smaller that is still there.
    pub made: bool,
    /// Why it did not come out of the delta bundle that was on offer.
    pub no_delta: Option<String>,
}

impl Got {
    /// Whether RAUC loads it.
    pub fn streams(&self) -> bool {
        self.bundle.contains("://")
    }
}

/// With what it is obtained.
pub struct With<'a> {
    /// Where it lies meanwhile.
    pub store: &'a Store,
    /// The machine.
    pub node: &'a dyn Node,
    /// Who loads.
    pub get: &'a dyn Get,
    /// How much a server is put up with.
    pub patience: Patience,
    /// Bytes that are free where the store lies.
    pub free: &'a dyn Fn() -> Result<u64>,
}

/// The ways, the best first; the next is taken where one fails. A bundle that was `begun` to be loaded
/// goes on.
fn ways(how: How, delta: bool, begun: bool) -> &'static [Way] {
    match (how, delta) {
        (How::Best, true) if begun => &[Way::Delta, Way::Whole, Way::Stream],
        (How::Best, false) if begun => &[Way::Whole, Way::Stream],
        (How::Best, true) => &[Way::Delta, Way::Stream],
        (How::Best, false) | (How::Stream, _) => &[Way::Stream],
        (How::Ahead, true) => &[Way::Delta, Way::Whole],
        (How::Ahead, false) | (How::Download, _) => &[Way::Whole],
    }
}

/// Obtains what is offered. Why a way was not gone is said in a line on standard error.
///
/// # Errors
/// That of the last way: no room, the server's.
pub fn obtain(with: &With<'_>, offer: &Offer<'_>, how: How) -> Result<Got> {
    let others: Vec<&str> = offer.delta.iter().map(|d| d.sha256).collect();
    let bundle = (offer.bundle.sha256, offer.bundle.size);
    let mut note = with.store.begin(offer.version, bundle, &others)?;
    if how != How::Stream {
        if let Some(path) = ready(with.store, &offer.bundle)? {
            return Ok(got(&path, Some(note.loaded)));
        }
    }
    let part = with.store.part(offer.bundle.sha256, Kind::Bundle)?;
    // Of less nothing would be believed.
    let begun = fs::size(&part).is_some_and(|n| n > STEP.min(offer.bundle.size / 4));
    let mut ways = ways(how, offer.delta.is_some(), begun).iter().copied();
    let mut way = ways.next().unwrap_or(Way::Stream);
    let mut no_delta = None;
    loop {
        let result = match (way, &offer.delta) {
            (Way::Delta, Some(d)) => by_delta(with, offer, d, how, &mut note),
            (Way::Whole, _) => {
                load(with, &offer.bundle, &mut note, 0).map(|path| got(&path, Some(note.loaded)))
            }
            _ => Ok(got(Path::new(offer.bundle.url), None)),
        };
        match (result, ways.next()) {
            (Err(e), Some(next)) => {
                let why = one_line(&e);
                let instead = match next {
                    Way::Stream => "streamed",
                    _ => "loaded",
                };
                let what = match way {
                    Way::Delta => "delta bundle",
                    _ => "download",
                };
                eprintln!("no {what}: {why}; the whole bundle is {instead} instead");
                if way == Way::Delta {
                    no_delta = Some(why);
                }
                way = next;
            }
            (result, _) => return result.map(|got| Got { no_delta, ..got }),
        }
    }
}

/// The whole bundle, where it was loaded before.
///
/// # Errors
/// A damaged one cannot be removed.
pub fn ready(store: &Store, bundle: &Want<'_>) -> Result<Option<PathBuf>> {
    let path = store.file(bundle.sha256, bundle.kind)?;
    let Some(size) = fs::size(&path) else {
        return Ok(None);
    };
    let right = size == bundle.size
        && fs::sha256(&path).is_ok_and(|(s, _)| s.eq_ignore_ascii_case(bundle.sha256));
    if right {
        return Ok(Some(path));
    }
    eprintln!("{} is damaged, and is loaded again", path.display());
    fs::remove(&path)?;
    Ok(None)
}

/// Makes the bundle of a delta bundle in a file that the administrator brought. Returns it, and
/// the version that it is.
///
/// # Errors
/// There is no room, or the delta bundle does not lead from what runs here to a bundle for it.
pub fn from_file(with: &With<'_>, file: &Path) -> Result<(Got, String)> {
    let header = delta::header(file)?;
    delta::suits(&header, with.node, None)?;
    let out = with.store.file(&header.bundle_sha256, Kind::Bundle)?;
    room((with.free)()?, header.bundle_size)?;
    let beside = with.store.new_bundle(&header.bundle_sha256)?;
    delta::make(file, with.node, &beside, &out)?;
    let made = Got {
        made: true,
        ..got(&out, None)
    };
    Ok((made, header.to))
}

fn got(path: &Path, loaded: Option<u64>) -> Got {
    Got {
        bundle: path.to_string_lossy().into_owned(),
        loaded,
        made: false,
        no_delta: None,
    }
}

fn by_delta(
    with: &With<'_>,
    offer: &Offer<'_>,
    delta: &Want<'_>,
    how: How,
    note: &mut Note,
) -> Result<Got> {
    let file = load(with, delta, note, offer.bundle.size)?;
    let out = with.store.file(offer.bundle.sha256, Kind::Bundle)?;
    let beside = with.store.new_bundle(offer.bundle.sha256)?;
    let expected = Expected {
        version: offer.version,
        size: offer.bundle.size,
        sha256: offer.bundle.sha256,
    };
    let made = delta::header(&file)
        .and_then(|h| delta::suits(&h, with.node, Some(&expected)))
        .and_then(|()| delta::make(&file, with.node, &beside, &out));
    if let Err(e) = made {
        // A file that went bad here is loaded anew by the next try; one that is right is not.
        ready(with.store, delta)?;
        return Err(e);
    }
    fs::remove(with.store.part(offer.bundle.sha256, Kind::Bundle)?)?;
    if how == How::Ahead {
        fs::remove(&file)?;
    }
    Ok(Got {
        made: true,
        ..got(&out, Some(note.loaded))
    })
}

/// Loads a file, where it is not there yet, and where there is room for it and `more` bytes.
fn load(with: &With<'_>, want: &Want<'_>, note: &mut Note, more: u64) -> Result<PathBuf> {
    if let Some(path) = ready(with.store, want)? {
        room((with.free)()?, more)?;
        return Ok(path);
    }
    let part = with.store.part(want.sha256, want.kind)?;
    let have = fs::size(&part).unwrap_or(0);
    let missing = want.size.saturating_sub(have);
    room((with.free)()?, missing.saturating_add(more))?;
    // After a power cut nobody has noted what came before it.
    note.loaded = note.loaded.max(have);
    with.store.note(note)?;
    let what = match want.kind {
        Kind::Bundle => "loading the bundle",
        Kind::Delta => "loading the delta bundle",
    };
    let mut progress = Progress::new(what, want.size);
    let mut received = 0;
    let loaded = fetch(
        want,
        &part,
        with.get,
        with.patience,
        &mut progress,
        &mut received,
    );
    drop(progress);
    note.loaded = note.loaded.saturating_add(received);
    let noted = with.store.note(note);
    loaded.and(noted)?;
    let path = with.store.file(want.sha256, want.kind)?;
    fs::commit(&part, &path)?;
    Ok(path)
}

/// Whether there is room.
fn room(free: u64, needed: u64) -> Result<()> {
    if free >= needed.saturating_add(RESERVE) {
        return Ok(());
    }
    Err(Error::new(format!(
        "/var has {} free, and {} are needed, of which {} stay free",
        block::size(free),
        block::size(needed.saturating_add(RESERVE)),
        block::size(RESERVE)
    ))
    .hint("make room on /var, or let RAUC stream the bundle: lama-node update install --stream"))
}

/// An error in one line.
pub(super) fn one_line(e: &Error) -> String {
    let text = e.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loads_least_comes_first() {
        use Way::{Delta, Stream, Whole};
        for (how, delta, begun, want) in [
            (How::Best, true, false, &[Delta, Stream][..]),
            (How::Best, false, false, &[Stream]),
            (How::Best, true, true, &[Delta, Whole, Stream]),
            (How::Best, false, true, &[Whole, Stream]),
            (How::Stream, true, true, &[Stream]),
            (How::Download, true, false, &[Whole]),
            (How::Ahead, true, false, &[Delta, Whole]),
            (How::Ahead, false, true, &[Whole]),
        ] {
            assert_eq!(ways(how, delta, begun), want, "{how:?}");
        }
    }

    #[test]
    fn room_is_left_on_var() {
        assert!(room(RESERVE + 10, 10).is_ok());
        let e = room(RESERVE + 9, 10).unwrap_err();
        assert!(e.to_string().contains("256 MiB stay free") && e.help().is_some());
        assert!(room(u64::MAX - 1, u64::MAX).is_err());
        assert_eq!(one_line(&Error::new("a:\n  b")), "a: b");
    }
}
