// SPDX-License-Identifier: Apache-2.0
//! Downloads by curl(1).

use super::fetch::{Cut, Get, Then};
use crate::run::Run;
use crate::stream::Stream;
use crate::{Error, Result};
use std::io::Read;
use std::time::Duration;

/// Bytes a second below which a server counts as stalled.
const SLOWEST: &str = "512";
/// Stands before the HTTP status in what curl is told to say.
const STATUS: &str = "lamadist-status ";

/// curl(1).
#[derive(Debug, Clone)]
pub struct Curl {
    /// How long a server may stall.
    pub stall: Duration,
}

impl Default for Curl {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
        }
    }
}

impl Get for Curl {
    fn get(
        &self,
        url: &str,
        from: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> std::result::Result<(), Cut> {
        let stop = |why| Cut {
            why,
            then: Then::Stop,
        };
        let mut run = Run::new("curl")
            .args([
                "--fail",
                "--silent",
                "--show-error",
                "--location",
                "--globoff",
            ])
            .args(["--proto", "=https,http", "--connect-timeout", "30"])
            .args(["--speed-limit", SLOWEST, "--speed-time"])
            .arg(self.stall.as_secs().max(1).to_string())
            .args([
                "--write-out",
                &format!("%{{stderr}}{STATUS}%{{http_code}}\n"),
            ]);
        if from > 0 {
            // An answer that begins elsewhere is an error then.
            run = run.args(["--continue-at", &from.to_string()]);
        }
        let mut curl = Stream::start(&run.args(["--url", url]), None).map_err(stop)?;
        let mut buf = vec![0; 1 << 16];
        loop {
            match curl.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => sink(buf.get(..n).unwrap_or_default()).map_err(stop)?,
                Err(e) => return Err(stop(Error::new(format!("cannot read from curl: {e}")))),
            }
        }
        let (status, said) = curl.end().map_err(stop)?;
        match status.code() {
            // curl takes it for a file that is there as a whole.
            Some(0) if http(&said) == 416 => Err(cut(url, Some(22), &said)),
            Some(0) => Ok(()),
            code => Err(cut(url, code, &said)),
        }
    }
}

/// The HTTP status; 0 where there was none.
fn http(said: &str) -> u32 {
    let status = said.lines().find_map(|l| l.strip_prefix(STATUS));
    status.and_then(|s| s.trim().parse().ok()).unwrap_or(0)
}

/// What curl's exit status (curl(1), "EXIT CODES") and its words mean.
fn cut(url: &str, code: Option<i32>, said: &str) -> Cut {
    let http = http(said);
    let then = match code {
        Some(22) => match http {
            408 | 425 | 429 | 500..=599 => Then::Again,
            _ => Then::Stop,
        },
        Some(33 | 36) => Then::Anew,
        // No name, no connection, cut off, stalled; not what is wrong with the address, the
        // certificate or this machine.
        Some(5 | 6 | 7 | 16 | 18 | 28 | 35 | 52 | 55 | 56 | 92 | 95) => Then::Again,
        _ => Then::Stop,
    };
    let words = said.lines().rfind(|l| l.starts_with("curl: "));
    let words = match (code, http) {
        (Some(22), 404 | 410) => "the server has not got it".to_owned(),
        (Some(22), 416) => "the server's file is shorter than the channel says".to_owned(),
        (Some(22), n) => format!("the server answers with status {n}"),
        _ => match (words, code) {
            (Some(w), _) => w.split_once(") ").map_or(w, |(_, w)| w).to_owned(),
            (None, Some(n)) => format!("curl ended with status {n}"),
            (None, None) => "curl was killed".to_owned(),
        },
    };
    let why = Error::new(format!("cannot load {url}: {words}"))
        .hint("is the server there, and is its address right? (lama-node update)");
    Cut { why, then }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_curl_says_is_understood() {
        let status =
            |n: u32| format!("curl: (22) The requested URL returned error: {n}\n{STATUS}{n}\n");
        for (code, said, then, words) in [
            (Some(22), status(404), Then::Stop, "has not got it"),
            (Some(22), status(403), Then::Stop, "status 403"),
            (Some(22), status(416), Then::Stop, "shorter than"),
            (Some(22), status(503), Then::Again, "status 503"),
            (
                Some(28),
                format!("curl: (28) Operation too slow. Less than 512\n{STATUS}200\n"),
                Then::Again,
                ": Operation too slow. Less than 512",
            ),
            (Some(33), String::new(), Then::Anew, "status 33"),
            (Some(60), "curl: (60) SSL".to_owned(), Then::Stop, ": SSL"),
            (Some(56), "curl: (56)".to_owned(), Then::Again, "curl: (56)"),
            (None, String::new(), Then::Stop, "killed"),
        ] {
            let c = cut("http://h/f", code, &said);
            assert_eq!(c.then, then, "{said}");
            assert!(c.why.to_string().contains(words), "{}", c.why);
            assert!(c.why.help().is_some());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_words_make_it_panic(code: Option<i32>, said in "\\PC*") {
            let _ = cut("u", code, &said);
        }
    }
}
