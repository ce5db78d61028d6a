// SPDX-License-Identifier: Apache-2.0
//! The two servers, side by side.

use crate::event::Event;
use crate::files::{Entry, Files};
use crate::{Error, Result, http, tftp};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Downloads that go on at once. A rack boots in a minute or two later than it might have.
const DOWNLOADS: usize = 64;
/// How long a client may take for the headers of a request, and be silent between two.
const HEADERS: Duration = Duration::from_secs(30);
/// How long downloads may take to end after the last one was counted.
const GRACE: Duration = Duration::from_secs(10);

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on.
    pub listen: IpAddr,
    /// The port for HTTP; 0 for any.
    pub http_port: u16,
    /// The port for TFTP; 0 for any, none for no TFTP.
    pub tftp_port: Option<u16>,
    /// Stop after so many complete downloads of files (texts do not count).
    pub count: Option<u64>,
}

/// A server whose ports are open, but which does not answer yet.
#[derive(Debug)]
pub struct Server {
    http: TcpListener,
    tftp: Option<UdpSocket>,
    count: Option<u64>,
    stopper: Stopper,
}

/// Ends a server, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Stopper(Arc<Notify>);

impl Stopper {
    /// Ends it, whatever it is sending.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

/// What both servers work on.
pub(crate) struct Shared {
    pub files: Files,
    tell: Box<dyn Fn(Event) + Send + Sync>,
    /// Complete downloads so far.
    complete: AtomicU64,
    count: Option<u64>,
    enough: Notify,
    downloads: Arc<AtomicUsize>,
}

/// One of the downloads that go on at once.
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub fn tell(&self, event: Event) {
        (self.tell)(event);
    }

    /// A place among the downloads, where there is one.
    pub fn enter(&self) -> Option<Slot> {
        let slot = Slot(Arc::clone(&self.downloads));
        let before = self.downloads.fetch_add(1, Ordering::Relaxed);
        (before < DOWNLOADS).then_some(slot)
    }

    /// A file has been sent to its end.
    pub fn complete(&self, entry: &Entry) {
        if !entry.counted() {
            return;
        }
        let n = self.complete.fetch_add(1, Ordering::Relaxed) + 1;
        if self.count.is_some_and(|c| n >= c) {
            self.enough.notify_one();
        }
    }
}

impl Server {
    /// Opens the ports.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn bind(o: &Options) -> Result<Self> {
        let address = SocketAddr::new(o.listen, o.http_port);
        let http = TcpListener::bind(address)
            .and_then(|s| s.set_nonblocking(true).map(|()| s))
            .map_err(|e| Error::listen("HTTP", address, e))?;
        let tftp = match o.tftp_port {
            None => None,
            Some(port) => {
                let address = SocketAddr::new(o.listen, port);
                let socket = UdpSocket::bind(address);
                Some(socket.map_err(|e| Error::listen("TFTP", address, e))?)
            }
        };
        Ok(Self {
            http,
            tftp,
            count: o.count,
            stopper: Stopper::default(),
        })
    }

    /// The port of HTTP.
    pub fn http_port(&self) -> u16 {
        self.http.local_addr().map_or(0, |a| a.port())
    }

    /// The port of TFTP.
    pub fn tftp_port(&self) -> Option<u16> {
        let address = self.tftp.as_ref().map(UdpSocket::local_addr);
        address.map(|a| a.map_or(0, |a| a.port()))
    }

    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Answers until it is stopped, or enough was downloaded. Returns how many complete downloads
    /// there were. `tell` is called from several threads.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn run(self, files: Files, tell: impl Fn(Event) + Send + Sync + 'static) -> Result<u64> {
        let shared = Arc::new(Shared {
            files,
            tell: Box::new(tell),
            complete: AtomicU64::new(0),
            count: self.count,
            enough: Notify::new(),
            downloads: Arc::default(),
        });
        let ended = |protocol, reason: &dyn std::fmt::Display| Error::Ended {
            protocol,
            reason: reason.to_string(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| ended("HTTP", &e))?;
        let result = runtime.block_on(async {
            let listener =
                tokio::net::TcpListener::from_std(self.http).map_err(|e| ended("HTTP", &e))?;
            let graceful = GracefulShutdown::new();
            let tftp = async {
                match self.tftp {
                    None => std::future::pending().await,
                    Some(socket) => match tftp::server(socket, Arc::clone(&shared)).await {
                        Ok(server) => server.serve().await,
                        Err(e) => Err(e),
                    },
                }
            };
            let mut tftp = std::pin::pin!(tftp);
            let mut enough = std::pin::pin!(shared.enough.notified());
            let mut stopped = std::pin::pin!(self.stopper.0.notified());
            loop {
                use futures_lite::future::or;
                enum Next {
                    Stop,
                    Enough,
                    Failed(String),
                    Client(std::io::Result<(tokio::net::TcpStream, SocketAddr)>),
                }
                let stop = async {
                    stopped.as_mut().await;
                    Next::Stop
                };
                let full = async {
                    enough.as_mut().await;
                    Next::Enough
                };
                let udp = async {
                    Next::Failed(match tftp.as_mut().await {
                        Ok(()) => "it ended".to_owned(),
                        Err(e) => e.to_string(),
                    })
                };
                let client = async { Next::Client(listener.accept().await) };
                match or(or(stop, full), or(udp, client)).await {
                    Next::Stop => break,
                    Next::Enough => {
                        // What was counted may still be on its way out.
                        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
                        break;
                    }
                    Next::Failed(reason) => return Err(ended("TFTP", &reason)),
                    Next::Client(Ok((stream, client))) => {
                        let shared = Arc::clone(&shared);
                        // Small answers, one after another: none waits for the last one's receipt.
                        let _ = stream.set_nodelay(true);
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(HEADERS)
                            .serve_connection(
                                TokioIo::new(stream),
                                service_fn(move |r| http::answer(Arc::clone(&shared), client, r)),
                            );
                        let connection = graceful.watch(connection);
                        // A client that breaks off is told of by its download.
                        tokio::spawn(async { drop(connection.await) });
                    }
                    // Out of files, say: others may be done soon.
                    Next::Client(Err(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
            Ok(shared.complete.load(Ordering::Relaxed))
        });
        runtime.shutdown_background();
        result
    }
}
