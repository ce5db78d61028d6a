// SPDX-License-Identifier: Apache-2.0
//! A running program whose output is read as it comes: a download, a decompressor.

use crate::error::Context;
use crate::run::{Run, collect};
use crate::{Error, Result};
use std::io::{ErrorKind, Read};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

/// What a program is fed with, beside what reads its output.
pub type Feed = Box<dyn Read + Send>;

/// The program. It is killed when nobody reads it any more.
pub struct Stream {
    name: String,
    child: Child,
    out: ChildStdout,
    err: Option<Receiver<Vec<u8>>>,
    feeder: Option<JoinHandle<std::io::Result<()>>>,
}

impl Stream {
    /// Starts it; it reads what `feed` gives, or nothing.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(run: &Run, feed: Option<Feed>) -> Result<Self> {
        let mut c = run.command();
        let name = c.get_program().to_string_lossy().into_owned();
        let what = format!("cannot run {name}");
        c.stdin(match feed {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        });
        c.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = c.spawn().context(&what)?;
        let out = child.stdout.take().ok_or_else(|| Error::new(what))?;
        let err = child.stderr.take().map(collect);
        let feeder = feed.zip(child.stdin.take()).map(|(mut feed, mut pipe)| {
            std::thread::spawn(move || match std::io::copy(&mut feed, &mut pipe) {
                // It has read what it wanted.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
                other => other.map(|_| ()),
            })
        });
        Ok(Self {
            name,
            child,
            out,
            err,
            feeder,
        })
    }

    /// Waits for its end, and returns its status and what it said.
    ///
    /// # Errors
    /// What it was fed with could not be read.
    pub fn end(&mut self) -> Result<(ExitStatus, String)> {
        let status = self.child.wait();
        let status = status.context(format_args!("cannot run {}", self.name))?;
        if let Some(Ok(fed)) = self.feeder.take().map(JoinHandle::join) {
            fed.map_err(|e| Error::new(e.to_string()))?;
        }
        let said = self.err.take();
        let said = said.and_then(|r| r.recv_timeout(Duration::from_secs(1)).ok());
        let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
        Ok((status, said))
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.out.read(buf)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(f) = self.feeder.take() {
            let _ = f.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn sh(script: &str, feed: Option<Feed>) -> Stream {
        Stream::start(&Run::new("sh").args(["-c", script]), feed).unwrap()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let data = vec![7; 3 << 20];
        let mut s = sh("cat", Some(Box::new(Cursor::new(data.clone()))));
        let mut out = Vec::new();
        s.read_to_end(&mut out).unwrap();
        assert!(out == data && s.end().unwrap().0.success());
        let mut s = sh("echo why >&2; exit 3", None);
        s.read_to_end(&mut Vec::new()).unwrap();
        let (status, said) = s.end().unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(3), "why\n"));
        assert!(Stream::start(&Run::new("/nonexistent/x"), None).is_err());
    }

    /// Fails behind its first byte.
    struct Bad(bool);

    impl Read for Bad {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(std::io::Error::other("chunk 3 is damaged"));
            }
            buf[0] = 1;
            Ok(1)
        }
    }

    #[test]
    fn why_nothing_more_came_in_is_told() {
        let mut s = sh("cat", Some(Box::new(Bad(false))));
        s.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(s.end().unwrap_err().to_string(), "chunk 3 is damaged");
        // A program that reads nothing, and one that never ends.
        let feed = || Some(Box::new(Cursor::new(vec![0_u8; 1 << 20])) as Feed);
        assert!(sh("exit 0", feed()).end().unwrap().0.success());
        let start = std::time::Instant::now();
        drop(sh("exec sleep 60", feed()));
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
