// SPDX-License-Identifier: Apache-2.0
//! QEMU's machine protocol (QMP, docs/interop/qmp-spec in QEMU): one JSON object a line over a Unix
//! socket. Blocking, with a time limit.

use crate::error::{Error, Result};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest message taken from QEMU, in bytes.
const LIMIT: usize = 16 << 20;

/// An asynchronous message of QEMU, for example `SHUTDOWN` or `RESET`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its data, `null` where it has none.
    pub data: Value,
}

#[derive(Debug, PartialEq)]
enum Message {
    Greeting,
    Return(Value),
    Error(String),
    Event(Event),
}

fn parse(line: &[u8]) -> std::result::Result<Message, String> {
    let mut v: Value = serde_json::from_slice(line).map_err(|e| format!("it sent no JSON: {e}"))?;
    let o = v.as_object_mut().ok_or("it sent JSON that is no object")?;
    if o.contains_key("QMP") {
        return Ok(Message::Greeting);
    }
    if let Some(r) = o.remove("return") {
        return Ok(Message::Return(r));
    }
    if let Some(e) = o.get("error") {
        let desc = e
            .get("desc")
            .and_then(Value::as_str)
            .unwrap_or("no reason given");
        return Ok(Message::Error(desc.to_owned()));
    }
    match o.get("event").and_then(Value::as_str) {
        Some(name) => Ok(Message::Event(Event {
            name: name.to_owned(),
            data: o.get("data").cloned().unwrap_or(Value::Null),
        })),
        None => Err("it sent an object of no known kind".into()),
    }
}

/// A connection to a machine's monitor. QEMU serves one at a time, so don't keep it.
#[derive(Debug)]
pub struct Qmp {
    path: PathBuf,
    stream: UnixStream,
    buffer: Vec<u8>,
    events: VecDeque<Event>,
    timeout: Duration,
}

/// Connects to a Unix socket whose path may be longer than a socket name can be, by way of a
/// descriptor of its directory.
pub(crate) fn connect_unix(path: &Path) -> std::io::Result<UnixStream> {
    let dir = path.parent().ok_or(ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let fd = rustix::fs::open(
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    UnixStream::connect(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())).join(name))
}

impl Qmp {
    /// Connects to the socket at `path` (of any length) and negotiates. Every later answer is
    /// awaited for `timeout`.
    ///
    /// # Errors
    /// [`Error::Monitor`].
    pub fn connect(path: impl Into<PathBuf>, timeout: Duration) -> Result<Self> {
        let path = path.into();
        let stream = connect_unix(&path).map_err(|e| Error::Monitor {
            path: path.clone(),
            what: format!("cannot connect: {e}"),
        })?;
        let mut q = Self {
            path,
            stream,
            buffer: Vec::new(),
            events: VecDeque::new(),
            timeout,
        };
        let end = Instant::now() + timeout;
        loop {
            match q.message(end)? {
                Some(Message::Greeting) => break,
                Some(Message::Event(_)) => {}
                Some(_) => return Err(q.fail("it did not greet")),
                None => {
                    return Err(q.fail("it did not answer; is another program connected to it?"));
                }
            }
        }
        q.execute("qmp_capabilities", json!({}))?;
        Ok(q)
    }

    fn fail(&self, what: impl Into<String>) -> Error {
        Error::Monitor {
            path: self.path.clone(),
            what: what.into(),
        }
    }

    /// The next message, `None` when the time is up.
    fn message(&mut self, end: Instant) -> Result<Option<Message>> {
        loop {
            if let Some(n) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=n).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return parse(&line).map(Some).map_err(|e| self.fail(e));
            }
            if self.buffer.len() > LIMIT {
                return Err(self.fail("it sent an endless line"));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream
                .set_read_timeout(Some(left))
                .map_err(|e| self.fail(e.to_string()))?;
            let mut chunk = [0; 8192];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.fail("it closed the connection")),
                Ok(n) => self
                    .buffer
                    .extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.fail(e.to_string())),
            }
        }
    }

    /// Runs a command and returns its answer.
    ///
    /// # Errors
    /// [`Error::Refused`] where QEMU says no, [`Error::Monitor`] where it says nothing.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream
            .write_all(line.as_bytes())
            .map_err(|e| self.fail(e.to_string()))?;
        let end = Instant::now() + self.timeout;
        loop {
            match self.message(end)? {
                Some(Message::Return(v)) => return Ok(v),
                Some(Message::Error(what)) => {
                    return Err(Error::Refused {
                        command: command.into(),
                        what,
                    });
                }
                Some(Message::Event(e)) => self.events.push_back(e),
                Some(Message::Greeting) => {}
                None => return Err(self.fail(format!("no answer to `{command}`"))),
            }
        }
    }

    /// Runs a command of the human monitor and returns its text.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn human(&mut self, line: &str) -> Result<String> {
        let v = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(v.as_str().unwrap_or_default().to_owned())
    }

    /// The machine's state: `running`, `paused`, `shutdown`, `guest-panicked` …
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn status(&mut self) -> Result<String> {
        let v = self.execute("query-status", json!({}))?;
        Ok(v.get("status")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    }

    /// Waits for the event `name`; `None` when the time is up.
    ///
    /// # Errors
    /// [`Error::Monitor`] where the connection is lost.
    pub fn wait_event(&mut self, name: &str, timeout: Duration) -> Result<Option<Event>> {
        let end = Instant::now() + timeout;
        loop {
            while let Some(e) = self.events.pop_front() {
                if e.name == name {
                    return Ok(Some(e));
                }
            }
            match self.message(end)? {
                Some(Message::Event(e)) => self.events.push_back(e),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;

    #[test]
    fn messages() {
        for (line, want) in [
            (
                r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#,
                Ok(Message::Greeting),
            ),
            (
                r#"{"return": {"status": "running"}}"#,
                Ok(Message::Return(json!({"status": "running"}))),
            ),
            (
                r#"{"error": {"class": "GenericError", "desc": "no"}}"#,
                Ok(Message::Error("no".into())),
            ),
            (
                r#"{"timestamp": {"seconds": 1}, "event": "RESET", "data": {"guest": true}}"#,
                Ok(Message::Event(Event {
                    name: "RESET".into(),
                    data: json!({"guest": true}),
                })),
            ),
            ("{}", Err("it sent an object of no known kind".into())),
            ("[]", Err("it sent JSON that is no object".into())),
        ] {
            assert_eq!(parse(line.as_bytes()), want, "{line}");
        }
        assert!(parse(b"{").is_err());
    }

    #[test]
    fn a_conversation_over_a_long_path() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("d".repeat(100));
        lama_exec::fs::create_dir_all(&dir).unwrap();
        // Bind under a short name, then move: the name is what the limit is about.
        let short = tmp.path().join("s");
        let listener = UnixListener::bind(&short).unwrap();
        lama_exec::fs::rename(&short, dir.join("qmp.sock")).unwrap();
        let server = std::thread::spawn(move || {
            let (mut s, _) = listener.accept().unwrap();
            let mut r = std::io::BufReader::new(s.try_clone().unwrap());
            s.write_all(b"{\"QMP\": {}}\r\n").unwrap();
            for answer in [
                "{\"return\": {}}\n",
                "{\"event\": \"STOP\"}\n{\"return\"",
                ": {\"status\": \"paused\"}}\n",
            ] {
                if !answer.starts_with(':') {
                    r.read_line(&mut String::new()).unwrap();
                }
                s.write_all(answer.as_bytes()).unwrap();
            }
            std::thread::sleep(Duration::from_millis(300));
        });
        let mut q = Qmp::connect(dir.join("qmp.sock"), Duration::from_secs(5)).unwrap();
        assert_eq!(q.status().unwrap(), "paused");
        assert!(q.wait_event("STOP", Duration::ZERO).unwrap().is_some());
        assert!(
            q.wait_event("RESET", Duration::from_millis(50))
                .unwrap()
                .is_none()
        );
        server.join().unwrap();
        assert!(matches!(q.status(), Err(Error::Monitor { .. })));
    }

    proptest! {
        #[test]
        fn never_panics(v in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&v);
        }
    }
}
