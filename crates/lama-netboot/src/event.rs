// SPDX-License-Identifier: Apache-2.0
//! What a server tells about its requests.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How something was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// TFTP.
    Tftp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tftp => "TFTP",
        })
    }
}

/// A request. Its `Display` is a line for a log; what a client has sent is escaped in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file is being sent.
    Started {
        /// Who asked.
        client: SocketAddr,
        /// How.
        protocol: Protocol,
        /// For what.
        name: String,
        /// Bytes that are to be sent.
        bytes: u64,
    },
    /// It was sent, or the client has gone.
    Finished {
        /// Who asked.
        client: SocketAddr,
        /// How.
        protocol: Protocol,
        /// For what.
        name: String,
        /// Bytes that were sent.
        sent: u64,
        /// Bytes that were to be sent.
        bytes: u64,
        /// How long it took.
        time: Duration,
    },
    /// Nothing was sent.
    Refused {
        /// Who asked.
        client: SocketAddr,
        /// How.
        protocol: Protocol,
        /// For what.
        name: String,
        /// Why not.
        reason: String,
    },
}

impl Event {
    /// The name that was asked for, as the client wrote it.
    pub fn name(&self) -> &str {
        match self {
            Self::Started { name, .. }
            | Self::Finished { name, .. }
            | Self::Refused { name, .. } => name,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |n: &str| {
            n.chars()
                .take(200)
                .collect::<String>()
                .escape_debug()
                .to_string()
        };
        match self {
            Self::Started {
                client,
                protocol,
                name,
                bytes,
            } => write!(
                f,
                "{client} {protocol} {}: sending {bytes} bytes",
                shown(name)
            ),
            Self::Finished {
                client,
                protocol,
                name,
                sent,
                bytes,
                time,
            } => {
                write!(f, "{client} {protocol} {}: ", shown(name))?;
                if sent < bytes {
                    write!(f, "gone after {sent} of {bytes} bytes")?;
                } else {
                    write!(f, "sent {bytes} bytes")?;
                }
                write!(f, " in {:.1} s", time.as_secs_f64())
            }
            Self::Refused {
                client,
                protocol,
                name,
                reason,
            } => write!(f, "{client} {protocol} {}: {}", shown(name), shown(reason)),
        }
    }
}
