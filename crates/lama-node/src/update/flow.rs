// SPDX-License-Identifier: Apache-2.0
//! What the commands do: look, load, hand over to RAUC, tidy up.

use super::book::{Book, DIR};
use super::config::Config;
use super::curl::Curl;
use super::fetch::Patience;
use super::node::Here;
use super::obtain::{self, Got, How, With};
use super::rauc::Failure;
use super::server::{Found, check, find};
use super::store::{Ahead, Store};
use super::trial::{self, Trial};
use super::{Allow, Origin, install, judged, running};
use crate::machine::Machine;
use crate::{Error, Result, fs};
use std::path::Path;

/// As [`check`]; where the server does not answer as it should, by the channel file that a bundle was
/// loaded for, when that still counts and the bundle is there.
///
/// # Errors
/// As [`check`].
pub fn check_or_loaded(config: &Config) -> Result<Found> {
    let why = match check(config) {
        Ok(found) => return Ok(found),
        Err(e) => e,
    };
    let store = Store::open(Path::new(DIR))?;
    let found = find(config, Some(&store.channel()));
    match found.and_then(|f| Ok(obtain::ready(&store, &f.offer().bundle)?.map(|_| f))) {
        Ok(Some(found)) => {
            eprintln!("{why}\n{} was loaded before, and is taken", found.version);
            Ok(found)
        }
        _ => Err(why),
    }
}

/// Installs what the server offers. A stream that breaks off is not all there is: a download goes on
/// where it was, over a way that never holds long enough for RAUC, too.
///
/// # Errors
/// As [`install`], or it cannot be loaded.
pub fn update(found: &Found, allow: Allow, how: How) -> Result<Trial> {
    let (here, store) = begin()?;
    let result = obtain_and_install(found, allow, how, &here, &store);
    let book = Book::new(DIR);
    let noted = match &result {
        Ok(_) => book.succeeded(),
        Err(e) => book.failed(&found.version, &found.sha256, &obtain::one_line(e)),
    };
    // For people, and for the next try: what came of this one stays what it is.
    if let Err(e) = noted {
        eprintln!("{e}");
    }
    result
}

fn obtain_and_install(
    found: &Found,
    allow: Allow,
    how: How,
    here: &Here,
    store: &Store,
) -> Result<Trial> {
    let get = |how| with(here, store, |w| obtain::obtain(w, &found.offer(), how));
    let got = get(how)?;
    let failure = match install_got(found, allow, store, &got) {
        Ok(trial) => return Ok(trial),
        Err(f) => f,
    };
    if !(failure.broke && got.streams() && how == How::Best) {
        return Err(failure.why);
    }
    let streamed = format!(
        "streamed, it was not installed: {}",
        obtain::one_line(&failure.why)
    );
    eprintln!("{streamed}; the whole bundle is loaded first");
    let whole = get(How::Download).and_then(|got| Ok(install_got(found, allow, store, &got)?));
    whole.map_err(|e| {
        Error::new(format!("{streamed}; nor loaded first: {e}"))
            .hint("the running system is as before; the next try goes on where it was")
    })
}

fn install_got(
    found: &Found,
    allow: Allow,
    store: &Store,
    got: &Got,
) -> std::result::Result<Trial, Failure> {
    let origin = Origin {
        expected: Some(found.version.clone()),
        // Who is not reached now need not be reached afterwards.
        server: (found.file != store.channel()).then(|| found.channel.clone()),
        loaded: got.loaded.map(|n| (n, found.size)),
    };
    hand_over(store, got, allow, &origin)
}

/// Installs a bundle, a file or a URL.
///
/// # Errors
/// As [`install`], or somebody else is at it.
pub fn install_bundle(bundle: &str, allow: Allow) -> Result<Trial> {
    let (_, _store) = begin()?;
    let origin = Origin {
        server: bundle.contains("://").then(|| bundle.to_owned()),
        ..Origin::default()
    };
    Ok(install(bundle, allow, &origin)?)
}

/// Installs the bundle that a delta bundle, a file, leads to.
///
/// # Errors
/// As [`install`], or it does not begin with what runs here.
pub fn install_delta(file: &Path, allow: Allow) -> Result<Trial> {
    let (here, store) = begin()?;
    let (got, version) = with(&here, &store, |w| obtain::from_file(w, file))?;
    let origin = Origin {
        expected: Some(version),
        ..Origin::default()
    };
    Ok(hand_over(&store, &got, allow, &origin)?)
}

/// Loads all that an installation of what the server offers needs.
///
/// # Errors
/// No room on /var, the server's.
pub fn download(found: &Found) -> Result<Option<Ahead>> {
    let (here, store) = begin()?;
    with(&here, &store, |w| {
        obtain::obtain(w, &found.offer(), How::Ahead)
    })?;
    if found.file != store.channel() {
        fs::copy(&mut fs::open(&found.file)?, store.channel(), 0o600)?;
    }
    Store::ahead(Path::new(DIR))
}

/// What an update begins with.
fn begin() -> Result<(Here, Store)> {
    let slot = running()?;
    let machine = Machine::read()?;
    judged(&Book::new(DIR), slot)?;
    machine.loader.can_try(&machine)?;
    Ok((Here { machine, slot }, Store::open(Path::new(DIR))?))
}

fn with<T>(here: &Here, store: &Store, what: impl FnOnce(&With<'_>) -> T) -> T {
    what(&With {
        store,
        node: here,
        get: &Curl::default(),
        patience: Patience::default(),
        free: &|| store.free(),
    })
}

/// Installs what was obtained. It is gone afterwards, or as much of it as can be had again without the
/// server.
fn hand_over(
    store: &Store,
    got: &Got,
    allow: Allow,
    origin: &Origin,
) -> std::result::Result<Trial, Failure> {
    let result = install(&got.bundle, allow, origin);
    match &result {
        Ok(trial) => {
            // It is installed, whatever happens here; what stays goes when it has been judged.
            let _ = store.clear();
            if let Some(loaded) = trial::loaded(trial.loaded, trial.size) {
                eprintln!("{loaded}");
            }
        }
        Err(_) if got.made => {
            // Why it was not installed is what matters; the next begin tidies up.
            let _ = fs::remove(&got.bundle);
        }
        Err(_) => {}
    }
    result
}
