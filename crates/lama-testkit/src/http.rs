// SPDX-License-Identifier: Apache-2.0
//! A web server with faults, for those who load from one: it cuts off, stalls, lies.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What it does at one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Answers as it should.
    Well,
    /// Says how much comes, and closes the connection after so many bytes.
    Cut(usize),
    /// Does not say how much comes, and ends after so many bytes.
    End(usize),
    /// Sends so many bytes and nothing more.
    Stall(usize),
    /// Answers with this status.
    Status(u16),
    /// Sends the byte at this place of the file changed.
    Spoilt(usize),
    /// Sends so many bytes behind the end of the file.
    Longer(usize),
    /// Begins at the beginning, whatever was asked.
    NoRanges,
    /// Says that it sends what was asked, and sends the beginning.
    WrongRange,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    does: HashMap<String, Vec<Does>>,
    asked: Vec<(String, u64)>,
}

/// The server, as long as it is not dropped.
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Starts one at a port of this machine.
    ///
    /// # Errors
    /// There is none.
    pub fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let this = Self {
            address: listener.local_addr()?,
            state: Arc::default(),
            ended: Arc::default(),
        };
        let (state, ended) = (Arc::clone(&this.state), Arc::clone(&this.ended));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (state, ended) = (Arc::clone(&state), Arc::clone(&ended));
                std::thread::spawn(move || answer(stream, &state, &ended));
            }
        });
        Ok(this)
    }

    /// The URL of a file.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Puts a file there.
    pub fn put(&self, name: &str, data: Vec<u8>) {
        lock(&self.state).files.insert(name.to_owned(), data);
    }

    /// What it does at the next requests for a file; then it answers well.
    pub fn then(&self, name: &str, does: &[Does]) {
        let does = does.to_vec();
        lock(&self.state).does.insert(name.to_owned(), does);
    }

    /// What was asked for since the last time: the file, and from which byte on.
    pub fn asked(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut lock(&self.state).asked)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes who waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers one request, and closes the connection.
fn answer(stream: TcpStream, state: &Mutex<State>, ended: &AtomicBool) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let name = first.split(' ').nth(1).unwrap_or("/");
    let name = name.trim_start_matches('/').to_owned();
    let range = lines.take_while(|l| !l.is_empty()).find_map(|l| {
        let l = l.to_ascii_lowercase();
        let from = l.strip_prefix("range: bytes=")?.split('-').next()?;
        from.parse::<usize>().ok()
    });
    let (file, does) = {
        let mut state = lock(state);
        state.asked.push((name.clone(), range.unwrap_or(0) as u64));
        let next = state.does.get_mut(&name).filter(|d| !d.is_empty());
        let does = next.map_or(Does::Well, |d| d.remove(0));
        (state.files.get(&name).cloned(), does)
    };
    let mut out = &stream;
    let plain = |status: u16| {
        format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    let file = match (file, does) {
        (_, Does::Status(n)) => return drop(out.write_all(plain(n).as_bytes())),
        (None, _) => return drop(out.write_all(plain(404).as_bytes())),
        (Some(f), _) => f,
    };
    let from = match does {
        Does::NoRanges => None,
        _ => range,
    };
    if from.is_some_and(|n| n >= file.len()) {
        return drop(out.write_all(plain(416).as_bytes()));
    }
    let mut body = file.clone();
    match does {
        Does::Spoilt(at) => body.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1),
        Does::Longer(n) => body.resize(body.len() + n, 0),
        _ => {}
    }
    let start = from.filter(|_| does != Does::WrongRange).unwrap_or(0);
    let rest = body.get(start..).unwrap_or_default();
    let mut head = match from {
        Some(_) => format!(
            "HTTP/1.1 206 x\r\nContent-Range: bytes {start}-{}/{}\r\n",
            body.len() - 1,
            body.len()
        ),
        None => "HTTP/1.1 200 x\r\n".to_owned(),
    };
    if !matches!(does, Does::End(_)) {
        head += &format!("Content-Length: {}\r\n", rest.len());
    }
    head += "Connection: close\r\n\r\n";
    let part = match does {
        Does::Cut(n) | Does::End(n) | Does::Stall(n) => rest.get(..n).unwrap_or(rest),
        _ => rest,
    };
    // Who goes away early has his reasons.
    let _ = out
        .write_all(head.as_bytes())
        .and_then(|()| out.write_all(part));
    let mut waited = 0;
    while matches!(does, Does::Stall(_)) && waited < 600 && !ended.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(100));
        waited += 1;
    }
}
