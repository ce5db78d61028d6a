// SPDX-License-Identifier: Apache-2.0
//! HTTP/1 (RFC 9110), as far as firmware and iPXE need it: GET and HEAD, lengths, one range.
//!
//! UEFI's HTTP boot (UEFI specification 24.7) asks for the length by HEAD, takes the kind of the file
//! from its name or type, and does without redirections and compression.

use crate::event::{Event, Protocol};
use crate::files::Entry;
use crate::server::Shared;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::mpsc;

/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;

type Answer = Response<BoxBody<Bytes, io::Error>>;

pub(crate) async fn answer(
    shared: Arc<Shared>,
    client: SocketAddr,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let name = request.uri().path().to_owned();
    let range = request.headers().get(header::RANGE);
    let range = range.and_then(|r| r.to_str().ok());
    Ok(respond(&shared, client, request.method(), &name, range))
}

fn respond(
    shared: &Arc<Shared>,
    client: SocketAddr,
    method: &Method,
    name: &str,
    range: Option<&str>,
) -> Answer {
    let refuse = |status: StatusCode| {
        shared.tell(Event::Refused {
            client,
            protocol: Protocol::Http,
            name: name.to_owned(),
            reason: format!("{method}: {status}").to_lowercase(),
        });
        empty(status)
    };
    if method != Method::GET && method != Method::HEAD {
        let mut r = refuse(StatusCode::METHOD_NOT_ALLOWED);
        set(&mut r, header::ALLOW, "GET, HEAD");
        return r;
    }
    let Some(entry) = shared.files.get(name) else {
        return refuse(StatusCode::NOT_FOUND);
    };
    let size = entry.size();
    let part = match range.map(|r| parse_range(r, size)) {
        None | Some(Asked::All) => None,
        Some(Asked::Part(p)) => Some(p),
        Some(Asked::Nothing) => {
            let mut r = refuse(StatusCode::RANGE_NOT_SATISFIABLE);
            set(&mut r, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return r;
        }
    };
    let send = part.clone().unwrap_or(0..size);
    let length = send.end - send.start;
    let mut answer = if method == Method::HEAD {
        empty(StatusCode::OK)
    } else {
        let Some(place) = shared.enter() else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE);
        };
        let body = Sending::start(shared, client, name, entry, send.clone(), place);
        Response::new(body.boxed())
    };
    if let Some(p) = part {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let text = format!("bytes {}-{}/{size}", p.start, p.end.saturating_sub(1));
        set(&mut answer, header::CONTENT_RANGE, &text);
    }
    set(&mut answer, header::CONTENT_LENGTH, &length.to_string());
    set(&mut answer, header::ACCEPT_RANGES, "bytes");
    let kind = if name.ends_with(".efi") {
        // UEFI specification 24.7.2.2
        "application/efi"
    } else {
        "text/plain; charset=utf-8"
    };
    set(&mut answer, header::CONTENT_TYPE, kind);
    answer
}

fn empty(status: StatusCode) -> Answer {
    let none = Empty::new().map_err(|never: Infallible| match never {});
    let mut r = Response::new(none.boxed());
    *r.status_mut() = status;
    r
}

fn set(r: &mut Answer, name: header::HeaderName, value: &str) {
    if let Ok(v) = HeaderValue::from_str(value) {
        r.headers_mut().insert(name, v);
    }
}

/// What a Range header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// All: a server may pass over a range that it does not understand, or several (RFC 9110 14.2).
    All,
    Part(Range<u64>),
    /// A range beyond the end.
    Nothing,
}

fn parse_range(text: &str, size: u64) -> Asked {
    let Some((first, last)) = text
        .trim()
        .strip_prefix("bytes=")
        .and_then(|r| r.split_once('-'))
    else {
        return Asked::All;
    };
    let number = |t: &str| {
        let digits = !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| t.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (first, last) = (first.trim(), last.trim());
    let part = match (number(first), number(last)) {
        (Some(a), Some(b)) if a > b => return Asked::All,
        (Some(a), Some(b)) => a..b.saturating_add(1).min(size),
        (Some(a), None) if last.is_empty() => a..size,
        (None, Some(n)) if first.is_empty() => size.saturating_sub(n)..size,
        _ => return Asked::All,
    };
    if part.start >= part.end {
        Asked::Nothing
    } else {
        Asked::Part(part)
    }
}

/// A file on its way: read by a thread, a few chunks ahead of the network.
struct Sending {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    shared: Arc<Shared>,
    entry: Entry,
    client: SocketAddr,
    name: String,
    range: Range<u64>,
    sent: u64,
    start: Instant,
    _place: crate::server::Slot,
}

impl Sending {
    fn start(
        shared: &Arc<Shared>,
        client: SocketAddr,
        name: &str,
        entry: &Entry,
        range: Range<u64>,
        place: crate::server::Slot,
    ) -> Self {
        shared.tell(Event::Started {
            client,
            protocol: Protocol::Http,
            name: name.to_owned(),
            bytes: range.end - range.start,
        });
        let (to, chunks) = mpsc::channel(4);
        let (source, mut at, end) = (entry.clone(), range.start, range.end);
        tokio::task::spawn_blocking(move || {
            while at < end {
                let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                let mut buf = vec![0; want];
                let read = source.read_at(&mut buf, at).map(|n| {
                    buf.truncate(n);
                    at += n as u64;
                    Bytes::from(buf)
                });
                let failed = read.is_err();
                // Nobody listens any more: the client has gone.
                if to.blocking_send(read).is_err() || failed {
                    break;
                }
            }
        });
        Self {
            chunks,
            shared: Arc::clone(shared),
            entry: entry.clone(),
            client,
            name: name.to_owned(),
            range,
            sent: 0,
            start: Instant::now(),
            _place: place,
        }
    }

    fn left(&self) -> u64 {
        (self.range.end - self.range.start).saturating_sub(self.sent)
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = std::task::ready!(self.chunks.poll_recv(cx));
        Poll::Ready(next.map(|chunk| {
            let chunk = chunk?;
            self.sent += chunk.len() as u64;
            Ok(Frame::data(chunk))
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let complete = self.left() == 0;
        self.shared.tell(Event::Finished {
            client: self.client,
            protocol: Protocol::Http,
            name: std::mem::take(&mut self.name),
            sent: self.sent,
            bytes: self.range.end - self.range.start,
            time: self.start.elapsed(),
        });
        // In parts or at once: whoever has got the last byte has got the file.
        if complete && self.range.end == self.entry.size() {
            self.shared.complete(&self.entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        for (text, want) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=0-99", Asked::Part(0..100)),
            ("bytes=10-", Asked::Part(10..100)),
            ("bytes=90-1000", Asked::Part(90..100)),
            ("bytes=-5", Asked::Part(95..100)),
            ("bytes=-1000", Asked::Part(0..100)),
            ("bytes=99999999999999999999-", Asked::Nothing),
            ("bytes=100-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=5-4", Asked::All),
            ("bytes=-", Asked::All),
            ("bytes=a-b", Asked::All),
            ("bytes=1-2,4-5", Asked::All),
            ("items=1-2", Asked::All),
            ("", Asked::All),
        ] {
            assert_eq!(parse_range(text, 100), want, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Asked::Nothing);
    }

    proptest! {
        #[test]
        fn a_part_lies_within(text in "(bytes=)?[0-9 ]{0,22}-?[0-9,]{0,22}", size: u64) {
            if let Asked::Part(p) = parse_range(&text, size) {
                prop_assert!(p.start < p.end && p.end <= size);
            }
        }
    }
}
