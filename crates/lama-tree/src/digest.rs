// SPDX-License-Identifier: Apache-2.0
//! The identity of a tree.

use crate::{Kind, Tree};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(data: &[u8]) -> Self {
        Self(Sha256::digest(data).into())
    }
    /// Lower-case hexadecimal.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Tree {
    /// A digest over every path, kind, mode, owner, extended attribute and content.
    pub fn digest(&self) -> Digest {
        let mut h = Sha256::new();
        let mut field = |data: &[u8]| {
            h.update((data.len() as u64).to_le_bytes());
            h.update(data);
        };
        for (p, n) in self.iter() {
            field(p.as_str().as_bytes());
            let mut meta = Vec::with_capacity(16);
            for v in [n.mode, n.uid, n.gid, n.xattrs.len() as u32] {
                meta.extend(v.to_le_bytes());
            }
            field(&meta);
            for (k, v) in &n.xattrs {
                field(k.as_bytes());
                field(v);
            }
            match &n.kind {
                Kind::Dir => field(b"d"),
                Kind::File(c) => {
                    field(b"f");
                    field(c.bytes());
                }
                Kind::Symlink(t) => {
                    field(b"l");
                    field(t.as_bytes());
                }
                Kind::CharDev(a, b) => field(format!("c{a}:{b}").as_bytes()),
                Kind::BlockDev(a, b) => field(format!("b{a}:{b}").as_bytes()),
                Kind::Fifo => field(b"p"),
            }
        }
        Digest(h.finalize().into())
    }
}
