// SPDX-License-Identifier: Apache-2.0
//! A download that goes on where it was interrupted.
//!
//! What is there counts as far as it can be believed: of a delta bundle the chunks whose digests are
//! right, of a bundle all but what a power cut may have spoiled. Size and SHA-256 are those of the
//! signed channel file, and are compared at the end, so that a server, or whoever stands before it,
//! can keep an update away but not change it.

use super::progress::Progress;
use crate::delta::Header;
use crate::error::Context;
use crate::{Error, Result, block, fs};
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

/// Bytes after which what was loaded is synced: what is beyond doubt after a power cut ends at most so
/// much before the end of the file.
pub(super) const STEP: u64 = 4 << 20;
/// Bytes that a try has to bring to count as getting on.
const STRIDE: u64 = 64 << 10;
/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(60);

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A bundle, of which nothing can be said before its end.
    Bundle,
    /// A delta bundle, whose header has a digest of each chunk.
    Delta,
}

/// What is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// From where.
    pub url: &'a str,
    /// Bytes.
    pub size: u64,
    /// SHA-256, in hexadecimal.
    pub sha256: &'a str,
    /// What it is.
    pub kind: Kind,
}

/// How much a server is put up with.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Tries in a row that do not get on.
    pub tries: u32,
    /// Between the first two of them; it doubles with each.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 5,
            pause: Duration::from_secs(5),
        }
    }
}

/// Who gets the bytes of a URL.
pub trait Get {
    /// Gives `sink` the file's bytes from `from` on, as they come.
    ///
    /// # Errors
    /// Why not all of them came. An error of `sink` ends it, with [`Then::Stop`].
    fn get(
        &self,
        url: &str,
        from: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> std::result::Result<(), Cut>;
}

/// How a try ended.
#[derive(Debug)]
pub struct Cut {
    /// Why.
    pub why: Error,
    /// What comes next.
    pub then: Then,
}

/// What comes after a try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Another try, from where it was.
    Again,
    /// Another try, from the beginning: the server does not go on within a file.
    Anew,
    /// Nothing: it would fail again.
    Stop,
}

/// Loads it into `part`, where an earlier try may have left something; `part` is whole, right and
/// synced then. `received` is raised by the bytes that came.
///
/// # Errors
/// The server has not got it, ends early, stalls, or sends something else; the disk is full. What is
/// good stays, and the error says how much that is; what is wrong goes.
pub fn fetch(
    want: &Want<'_>,
    part: &Path,
    from: &dyn Get,
    patience: Patience,
    progress: &mut Progress,
    received: &mut u64,
) -> Result<()> {
    let mut loading = Loading {
        file: fs::open_rw(part, 0o600)?,
        part,
        want,
        at: 0,
        straight: false,
    };
    loading.at = loading.trusted()?;
    let (mut failed, mut wrong, mut best) = (0, 0, loading.at);
    loop {
        progress.at(loading.at);
        if loading.at == want.size {
            if loading.is_right()? {
                return Ok(());
            }
            wrong += 1;
            if wrong > 1 || !loading.keep_what_is_good()? {
                fs::remove(part)?;
                return Err(Error::new(format!(
                    "what {} sends is not the file that the channel speaks of",
                    want.url
                ))
                .hint("the server is being changed just now, is broken, or lies"));
            }
        }
        let cut = match loading.go_on(from, progress, received) {
            Ok(()) if loading.at == want.size => continue,
            Ok(()) => Cut {
                why: Error::new(format!(
                    "{} ended after {}",
                    want.url,
                    block::size(loading.at)
                )),
                then: Then::Again,
            },
            Err(Failed::Cut(c)) => c,
            Err(Failed::Here(e)) => {
                // A full disk is not left full.
                fs::remove(part)?;
                return Err(e);
            }
        };
        failed += 1;
        match cut.then {
            Then::Stop => return Err(loading.so_far(cut.why)),
            Then::Anew => loading.at = 0,
            Then::Again if loading.at >= best.saturating_add(STRIDE) => failed = 1,
            Then::Again => {}
        }
        best = best.max(loading.at);
        if failed >= patience.tries {
            return Err(loading.so_far(cut.why));
        }
        let pause = patience
            .pause
            .saturating_mul(1 << (failed - 1).min(16))
            .min(LONGEST);
        progress.say(&format!(
            "{}; another try in {} s",
            cut.why,
            pause.as_secs()
        ));
        std::thread::sleep(pause);
    }
}

/// How a try failed.
enum Failed {
    /// At the server or on the way.
    Cut(Cut),
    /// On this machine, or more came than there should be.
    Here(Error),
}

/// A file that is being loaded.
struct Loading<'a> {
    file: File,
    part: &'a Path,
    want: &'a Want<'a>,
    /// Bytes that are good.
    at: u64,
    /// Whether all of it came in one go, so that loading it once more would bring the same.
    straight: bool,
}

impl Loading<'_> {
    /// How much of what lies there may be believed.
    fn trusted(&mut self) -> Result<u64> {
        let size = fs::size(self.part).unwrap_or(0);
        Ok(match self.want.kind {
            _ if size == 0 || size > self.want.size => 0,
            Kind::Bundle if size == self.want.size => size,
            Kind::Bundle => size.saturating_sub(STEP),
            Kind::Delta => self.verified()?.min(self.want.size),
        })
    }

    /// The bytes of a delta bundle that its own digests confirm.
    fn verified(&mut self) -> Result<u64> {
        self.seek(0)?;
        // One whose header is not whole yet is begun anew.
        Ok(Header::verified(&mut BufReader::new(&self.file)).map_or(0, |(good, _)| good))
    }

    fn is_right(&self) -> Result<bool> {
        let (sha256, size) = fs::sha256(self.part)?;
        Ok(size == self.want.size && sha256.eq_ignore_ascii_case(self.want.sha256))
    }

    /// Goes back to what is good of a file that is wrong; false where loading it again would bring the
    /// same.
    fn keep_what_is_good(&mut self) -> Result<bool> {
        let good = match self.want.kind {
            Kind::Delta => self.verified()?,
            Kind::Bundle => 0,
        };
        // Where every digest is right, the header is another one.
        self.at = if good < self.want.size { good } else { 0 };
        Ok(self.at > 0 || !self.straight)
    }

    /// One try.
    fn go_on(
        &mut self,
        from: &dyn Get,
        progress: &mut Progress,
        received: &mut u64,
    ) -> std::result::Result<(), Failed> {
        let what = format!("cannot write {}", self.part.display());
        self.straight = self.at == 0;
        let (mut here, mut begun, mut unsynced) = (None, false, 0);
        let ended = from.get(self.want.url, self.at, &mut |bytes| {
            let n = bytes.len() as u64;
            *received = received.saturating_add(n);
            let mut write = || {
                if !std::mem::replace(&mut begun, true) {
                    // Not before the server answers: what it does not give again stays.
                    self.file.set_len(self.at).context(&what)?;
                    self.seek(self.at)?;
                }
                if n > self.want.size.saturating_sub(self.at) {
                    return Err(Error::new(format!(
                        "{} is larger than the channel says ({})",
                        self.want.url,
                        block::size(self.want.size)
                    )));
                }
                (&self.file).write_all(bytes).context(&what)?;
                unsynced += n;
                if unsynced >= STEP {
                    self.file.sync_data().context(&what)?;
                    unsynced = 0;
                }
                Ok(())
            };
            if let Err(e) = write() {
                here = Some(e.clone());
                return Err(e);
            }
            self.at += n;
            progress.at(self.at);
            Ok(())
        });
        if let Some(e) = here {
            return Err(Failed::Here(e));
        }
        self.file.sync_data().context(&what).map_err(Failed::Here)?;
        ended.map_err(Failed::Cut)
    }

    fn seek(&self, to: u64) -> Result<()> {
        let r = (&self.file).seek(SeekFrom::Start(to));
        r.map(|_| ())
            .context(format_args!("cannot read {}", self.part.display()))
    }

    /// The error, and how far it got.
    fn so_far(&self, why: Error) -> Error {
        if self.at == 0 {
            let _ = fs::remove(self.part);
            return why;
        }
        let (at, size) = (block::size(self.at), block::size(self.want.size));
        let hint = why.help().map(str::to_owned);
        let e = Error::new(format!(
            "{why}; {at} of {size} are there, and the next try goes on"
        ));
        match hint {
            Some(h) => e.hint(h),
            None => e,
        }
    }
}

#[cfg(test)]
mod tests;
