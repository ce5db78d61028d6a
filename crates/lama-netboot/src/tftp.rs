// SPDX-License-Identifier: Apache-2.0
//! TFTP (RFC 1350, with the options of RFC 2347 to 2349 and 7440), for PXE. Reading only.

use crate::event::{Event, Protocol};
use crate::files::Entry;
use crate::server::Shared;
use async_tftp::packet::Error as Refusal;
use async_tftp::server::{Handler, TftpServer, TftpServerBuilder};
use futures_lite::{AsyncRead, io::Sink};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Blocks that may be on their way at once. A client names any number, and all of them are held in
/// memory.
const WINDOW: u16 = 64;
/// How often a block is sent again before the client is given up: a firmware that only wanted the
/// size goes away without a word.
const RETRIES: u32 = 10;

pub(crate) struct Answers(pub Arc<Shared>);

pub(crate) async fn server(
    socket: UdpSocket,
    shared: Arc<Shared>,
) -> async_tftp::Result<TftpServer<Answers>> {
    TftpServerBuilder::with_handler(Answers(shared))
        .std_socket(socket)?
        .window_size_limit(WINDOW)
        .max_send_retries(RETRIES)
        .build()
        .await
}

impl Handler for Answers {
    type Reader = Reader;
    type Writer = Sink;

    async fn read_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
    ) -> Result<(Reader, Option<u64>), Refusal> {
        let name = path.to_string_lossy().into_owned();
        let refused = |reason: &str| Event::Refused {
            client: *client,
            protocol: Protocol::Tftp,
            name: name.clone(),
            reason: reason.to_owned(),
        };
        let Some(entry) = self.0.files.get(&name) else {
            self.0.tell(refused("not found"));
            return Err(Refusal::FileNotFound);
        };
        let Some(place) = self.0.enter() else {
            self.0.tell(refused("too many downloads at once"));
            return Err(Refusal::Msg("busy".into()));
        };
        let size = entry.size();
        let reader = Reader {
            shared: Arc::clone(&self.0),
            entry: entry.clone(),
            at: 0,
            client: *client,
            name,
            start: Instant::now(),
            _place: place,
        };
        Ok((reader, Some(size)))
    }

    async fn write_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
        _: Option<u64>,
    ) -> Result<Sink, Refusal> {
        self.0.tell(Event::Refused {
            client: *client,
            protocol: Protocol::Tftp,
            name: path.to_string_lossy().into_owned(),
            reason: "nothing can be written here".into(),
        });
        Err(Refusal::PermissionDenied)
    }
}

/// One transfer. It ends when this is dropped.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    entry: Entry,
    at: u64,
    client: SocketAddr,
    name: String,
    start: Instant,
    _place: crate::server::Slot,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // A block at a time, and read ahead by the kernel: not worth another thread.
        let n = self.entry.read_at(buf, self.at)?;
        if self.at == 0 {
            self.shared.tell(Event::Started {
                client: self.client,
                protocol: Protocol::Tftp,
                name: self.name.clone(),
                bytes: self.entry.size(),
            });
        }
        self.at += n as u64;
        Poll::Ready(Ok(n))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.tell(Event::Finished {
            client: self.client,
            protocol: Protocol::Tftp,
            name: std::mem::take(&mut self.name),
            sent: self.at,
            bytes: self.entry.size(),
            time: self.start.elapsed(),
        });
        if self.at == self.entry.size() {
            self.shared.complete(&self.entry);
        }
    }
}
