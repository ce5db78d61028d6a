// SPDX-License-Identifier: Apache-2.0
//! Downloads into the store: parallel, resumed, with bounded retries, from one mirror after
//! another. What arrives is believed only when its size and hash are right.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lama_exec::progress::{Progress, Task, Unit};

use crate::hash::Sha256;
use crate::mirror::Proxies;
use crate::store::{self, Begun, Finished, Partial, Store};
use crate::transport::{Body, Fault, Transport};

/// Why a file could not be had.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Store(#[from] store::Error),
    /// Files that no server gave.
    #[error("{}", list(.0))]
    #[diagnostic(help(
        "check the network and the mirrors. A file that has left its mirror may still be on another: name more with `--mirror`, a snapshot service can be one (https://snapshot.example/archive/debian/20261124T000000Z); or renew the lock"
    ))]
    Missing(Vec<NotFetched>),
}

/// A file that could not be had, and where it was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFetched {
    /// What was wanted.
    pub what: String,
    /// URLs, and what was wrong there.
    pub tried: Vec<(String, String)>,
}

/// How many of them an error shows.
const SHOWN: usize = 10;

fn list(missing: &[NotFetched]) -> String {
    let mut out = match missing {
        [one] => format!("{} could not be fetched", one.what),
        more => format!("{} files could not be fetched", more.len()),
    };
    for m in missing.iter().take(SHOWN) {
        if missing.len() > 1 {
            out.push_str(&format!("\n  {}", m.what));
        }
        for (url, why) in &m.tried {
            out.push_str(&format!("\n    {url}: {why}"));
        }
        if m.tried.is_empty() {
            out.push_str("\n    no server to ask");
        }
    }
    if missing.len() > SHOWN {
        out.push_str(&format!("\n  … and {} more", missing.len() - SHOWN));
    }
    out
}

/// Result of downloads.
pub type Result<T> = std::result::Result<T, Error>;

/// How to download.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Files fetched at the same time.
    pub parallel: usize,
    /// Attempts a file and server.
    pub attempts: u32,
    /// Pause before the second attempt; doubled for each one after.
    pub pause: Duration,
    /// How long a server may be silent.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parallel: 6,
            attempts: 4,
            pause: Duration::from_millis(500),
            timeout: Duration::from_secs(60),
        }
    }
}

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it is, for messages.
    pub what: String,
    /// Where it may be, best first.
    pub urls: Vec<String>,
    /// Its hash.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
}

/// Fetches files.
pub struct Downloader {
    transport: Transport,
    options: Options,
}

/// How an attempt at one URL went.
enum Attempt {
    Done(PathBuf),
    /// Another attempt here may help.
    Again(Partial, String),
    /// It won't.
    Next(Partial, String),
}

impl Downloader {
    /// A downloader that goes through `proxies`.
    pub fn new(proxies: Proxies, options: Options) -> Self {
        let transport = Transport::new(proxies, options.timeout);
        Self { transport, options }
    }

    /// The content of a URL whose size and hash are not known, of at most `limit` bytes; else why
    /// not.
    pub fn get(&self, url: &str, limit: u64) -> std::result::Result<Vec<u8>, String> {
        let mut why = String::new();
        for n in 0..self.options.attempts.max(1) {
            self.pause(n);
            match self.get_once(url, limit) {
                Ok(v) => return Ok(v),
                Err(Fault::Missing(e)) => return Err(e),
                Err(Fault::Range) => return Err("an answer to a question not asked".into()),
                Err(Fault::Passing(e)) => why = e,
            }
        }
        Err(why)
    }

    fn get_once(&self, url: &str, limit: u64) -> std::result::Result<Vec<u8>, Fault> {
        let body = self.transport.open(url, 0)?;
        let mut v = Vec::new();
        body.reader
            .take(limit + 1)
            .read_to_end(&mut v)
            .map_err(|e| Fault::Passing(format!("the transfer broke off: {e}")))?;
        if v.len() as u64 > limit {
            return Err(Fault::Missing(format!("longer than {limit} bytes")));
        }
        if body.total.is_some_and(|t| t != v.len() as u64) {
            return Err(Fault::Passing("the transfer broke off".into()));
        }
        Ok(v)
    }

    fn pause(&self, n: u32) {
        if let Some(n) = n.checked_sub(1) {
            std::thread::sleep(self.options.pause * 2u32.saturating_pow(n.min(6)));
        }
    }

    /// Fetches all of `wanted` into the store; paths in the same order. Tries everything before
    /// it tells what could not be had; a store that fails ends it at once.
    pub fn fetch_all(
        &self,
        store: &Store,
        wanted: &[Wanted],
        title: &str,
        progress: &dyn Progress,
    ) -> Result<Vec<PathBuf>> {
        let mut paths: Vec<Option<PathBuf>> = Vec::with_capacity(wanted.len());
        for w in wanted {
            paths.push(store.get(w.sha256, w.size)?);
        }
        let missing: Vec<usize> = (0..wanted.len())
            .filter(|i| paths.get(*i).is_some_and(Option::is_none))
            .collect();
        if !missing.is_empty() {
            let total = missing
                .iter()
                .filter_map(|i| wanted.get(*i))
                .map(|w| w.size)
                .sum();
            let task = progress.task(title, Unit::Bytes, total);
            self.fetch_missing(store, wanted, &missing, &mut paths, &*task)?;
        }
        Ok(paths.into_iter().flatten().collect())
    }

    fn fetch_missing(
        &self,
        store: &Store,
        wanted: &[Wanted],
        missing: &[usize],
        paths: &mut [Option<PathBuf>],
        task: &dyn Task,
    ) -> Result<()> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results = Mutex::new(Vec::new());
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let Some(i) = missing.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    return;
                };
                let Some(w) = wanted.get(*i) else { return };
                task.message(&w.what);
                let r = self.fetch(store, w, task);
                if matches!(r, Err(Error::Store(_))) {
                    stop.store(true, Ordering::Relaxed);
                }
                results
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((*i, r));
            }
        };
        std::thread::scope(|s| {
            for _ in 1..self.options.parallel.min(missing.len()) {
                // Where no more threads can be had, fewer do.
                if std::thread::Builder::new().spawn_scoped(s, work).is_err() {
                    break;
                }
            }
            work();
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(i, _)| *i);
        let mut failed = Vec::new();
        for (i, r) in results {
            match r {
                Ok(path) => {
                    if let Some(p) = paths.get_mut(i) {
                        *p = Some(path);
                    }
                }
                Err(Error::Missing(m)) => failed.extend(m),
                Err(e) => return Err(e),
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(Error::Missing(failed))
        }
    }

    /// Fetches one file into the store.
    pub fn fetch(&self, store: &Store, w: &Wanted, task: &dyn Task) -> Result<PathBuf> {
        let mut partial = match store.begin(w.sha256, w.size)? {
            Begun::Present(path) => {
                task.advance(w.size);
                return Ok(path);
            }
            Begun::Partial(p) => p,
        };
        let mut tried = Vec::new();
        // Bytes counted on the bar: after a restart they are not counted twice.
        let mut counted = partial.len();
        task.advance(counted);
        for url in &w.urls {
            let (mut n, mut faults) = (0, 0);
            let why = loop {
                self.pause(faults);
                let before = partial.len();
                match self.attempt(store, partial, w, url, &mut counted, task)? {
                    Attempt::Done(path) => return Ok(path),
                    Attempt::Next(p, why) => {
                        partial = p;
                        break why;
                    }
                    Attempt::Again(p, why) => {
                        // A server that drops every connection but gives something each time is
                        // followed further than a dead one, yet not for ever.
                        faults = if p.len() > before { 1 } else { faults + 1 };
                        n += 1;
                        partial = p;
                        tracing::debug!("{url}: {why}");
                        if faults >= self.options.attempts || n >= 50 {
                            break why;
                        }
                    }
                }
            };
            tried.push((url.clone(), why));
        }
        // An empty leftover is of no use to anybody.
        if partial.len() == 0 {
            partial.discard()?;
        }
        Err(Error::Missing(vec![NotFetched {
            what: w.what.clone(),
            tried,
        }]))
    }

    fn attempt(
        &self,
        store: &Store,
        mut p: Partial,
        w: &Wanted,
        url: &str,
        counted: &mut u64,
        task: &dyn Task,
    ) -> Result<Attempt> {
        let resumed = p.len() > 0;
        if p.len() < w.size || w.size == 0 {
            let body = match self.transport.open(url, p.len()) {
                Ok(b) => b,
                Err(Fault::Missing(e)) => return Ok(Attempt::Next(p, e)),
                Err(Fault::Passing(e)) => return Ok(Attempt::Again(p, e)),
                Err(Fault::Range) => {
                    p.restart()?;
                    return Ok(Attempt::Again(
                        p,
                        "the server has fewer bytes than we do".into(),
                    ));
                }
            };
            if let Some(total) = body.total.filter(|t| *t != w.size) {
                let why = format!("{total} bytes, where the index or lock says {}", w.size);
                return Ok(Attempt::Next(p, why));
            }
            if body.offset != p.len() {
                p.restart()?;
            }
            if let Err(why) = copy(body, &mut p, w.size, counted, task)? {
                return Ok(Attempt::Again(p, why));
            }
        }
        if p.len() > w.size {
            p.restart()?;
            return Ok(Attempt::Next(
                p,
                format!(
                    "longer than the {} bytes that the index or lock says",
                    w.size
                ),
            ));
        }
        if p.len() < w.size {
            return Ok(Attempt::Again(p, "the transfer broke off".into()));
        }
        let found = match p.finish()? {
            Finished::Stored(path) => return Ok(Attempt::Done(path)),
            Finished::WrongHash(found) => found,
        };
        let why = format!(
            "SHA-256 is {found}, where the index or lock says {}",
            w.sha256
        );
        match store.begin(w.sha256, w.size)? {
            Begun::Present(path) => Ok(Attempt::Done(path)),
            // The first part may have come from elsewhere: once more, from the beginning.
            Begun::Partial(p) if resumed => Ok(Attempt::Again(p, why)),
            Begun::Partial(p) => Ok(Attempt::Next(p, why)),
        }
    }
}

/// Appends the body, but no more than one byte beyond `size`. The inner error is the network's.
fn copy(
    mut body: Body,
    p: &mut Partial,
    size: u64,
    counted: &mut u64,
    task: &dyn Task,
) -> Result<std::result::Result<(), String>> {
    let mut buf = vec![0; 1 << 16];
    while p.len() <= size {
        let room = usize::try_from(size + 1 - p.len())
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let n = match body.reader.read(buf.get_mut(..room).unwrap_or_default()) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Ok(Err(format!("the transfer broke off: {e}"))),
        };
        p.write(buf.get(..n).unwrap_or_default())?;
        if p.len() > *counted && p.len() <= size {
            task.advance(p.len() - *counted);
            *counted = p.len();
        }
    }
    Ok(Ok(()))
}
