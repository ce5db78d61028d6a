// SPDX-License-Identifier: Apache-2.0
//! What can go wrong before anything is served.

use lama_exec::fs::FsError;
use std::io;
use std::net::SocketAddr;

/// A server that does not start, or cannot go on.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// A file that shall be served cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// Two files want the same name, or a name is none.
    #[error("`{name}` cannot be served: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen for {protocol} on {address}: {source}")]
    #[diagnostic(help("{hint}"))]
    Listen {
        /// `HTTP` or `TFTP`.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
        /// What to do.
        hint: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The server stopped by itself.
    #[error("the {protocol} server stopped: {reason}")]
    Ended {
        /// `HTTP` or `TFTP`.
        protocol: &'static str,
        /// Its reason.
        reason: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

const DENIED: &str = "ports below 1024 need root, or `sysctl net.ipv4.ip_unprivileged_port_start=69`; or name another port, or none with --no-tftp";
const TAKEN: &str = "something else uses that port: stop it, or name another port";
const ABSENT: &str = "name an address of this machine with --listen";

impl Error {
    pub(crate) fn listen(protocol: &'static str, address: SocketAddr, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::PermissionDenied => DENIED,
            io::ErrorKind::AddrInUse => TAKEN,
            _ => ABSENT,
        };
        Self::Listen {
            protocol,
            address,
            hint,
            source,
        }
    }
}
