// SPDX-License-Identifier: Apache-2.0
//! What the values of a host may be, and what is said of others. Each value becomes a word of the
//! kernel's command line or a line of a configuration file: none may hold another.

use std::net::IpAddr;

/// What a value is to be, and how it is written.
pub(super) type Rule = (&'static str, &'static str);

pub(super) const HOSTNAME: Rule = (
    "is no host name",
    "letters, digits, `-` and `.`, at most 64 characters (RFC 1123)",
);
pub(super) const DOMAIN: Rule = ("is no domain", "write it such as \"home.arpa\"");
pub(super) const MACHINE_ID: Rule = (
    "is no machine ID",
    "32 lower-case hexadecimal digits, not all zero (machine-id(5))",
);
pub(super) const CONSOLE: Rule = ("is no console", "write it such as \"ttyS0,115200\"");
pub(super) const TIME_ZONE: Rule = (
    "is not in the time zone database",
    "write it such as \"Europe/Berlin\"",
);
pub(super) const SSH_KEY: Rule = (
    "is no SSH public key",
    "give the line of a .pub file: \"ssh-ed25519 AAAA… name\"",
);
pub(super) const INTERFACE: Rule = (
    "is no name of an interface",
    "write it such as \"enp3s0\" or \"en*\"",
);
pub(super) const MAC: Rule = (
    "is no hardware address",
    "write it such as \"52:54:00:12:34:56\"",
);
pub(super) const ADDRESS: Rule = (
    "is no address with prefix length",
    "write it such as \"192.168.1.5/24\" or \"fd00::5/64\"",
);
pub(super) const IP: Rule = (
    "is no IP address",
    "write it such as \"192.168.1.1\" or \"fd00::1\"",
);
pub(super) const NTP: Rule = ("is no time server", "give its name or its IP address");

pub(super) fn is_hostname(s: &str) -> bool {
    s.len() <= 64 && is_domain(s)
}

/// A name as DNS has them (RFC 1123, section 2.1), without a dot at the end.
pub(super) fn is_domain(s: &str) -> bool {
    let label = |l: &str| {
        let inner = l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner && (1..=63).contains(&l.len()) && !l.starts_with('-') && !l.ends_with('-')
    };
    s.len() <= 253 && s.split('.').all(label)
}

pub(super) fn is_machine_id(s: &str) -> bool {
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    s.len() == 32 && s.bytes().all(hex) && s.bytes().any(|b| b != b'0')
}

pub(super) fn is_console(s: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b',';
    s.starts_with(|c: char| c.is_ascii_alphabetic()) && s.bytes().all(ok)
}

/// IFNAMSIZ is 16 with the end.
pub(super) fn is_interface(s: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"*?._-".contains(&b);
    (1..=15).contains(&s.len()) && s.bytes().all(ok)
}

pub(super) fn is_mac(s: &str) -> bool {
    let parts: Vec<&str> = s.split(':').collect();
    let hex = |p: &&str| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit());
    parts.len() == 6 && parts.iter().all(hex)
}

pub(super) fn is_ip(s: &str) -> bool {
    s.parse::<IpAddr>().is_ok()
}

pub(super) fn is_ssh_key(s: &str) -> bool {
    let line = s.trim();
    !line.contains('\n') && line.parse::<ssh_key::authorized_keys::Entry>().is_ok()
}

/// An address and the network it is in.
pub(super) struct Subnet {
    bits: u128,
    prefix: u32,
    width: u32,
}

pub(super) fn bits(ip: IpAddr) -> (u128, u32) {
    match ip {
        IpAddr::V4(a) => (a.to_bits().into(), 32),
        IpAddr::V6(a) => (a.to_bits(), 128),
    }
}

pub(super) fn subnet(s: &str) -> Option<Subnet> {
    let (ip, prefix) = s.split_once('/')?;
    let (bits, width) = bits(ip.parse().ok()?);
    let prefix: u32 = prefix.parse().ok()?;
    (prefix <= width).then_some(Subnet {
        bits,
        prefix,
        width,
    })
}

impl Subnet {
    pub fn has(&self, ip: &str) -> bool {
        let Ok(ip) = ip.parse() else { return false };
        let (other, width) = bits(ip);
        let differ = (self.bits ^ other).checked_shr(self.width - self.prefix);
        width == self.width && differ.unwrap_or(0) == 0
    }
}
