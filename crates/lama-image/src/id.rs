// SPDX-License-Identifier: Apache-2.0
//! Identifiers that follow from a seed instead of from chance.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A space of identifiers derived from a seed string such as `lamadist 0.1.0 x86_64 base`.
#[derive(Debug, Clone)]
pub struct IdSpace {
    seed: String,
}

impl IdSpace {
    /// The space of this seed.
    pub fn new(seed: impl Into<String>) -> Self {
        Self { seed: seed.into() }
    }

    /// The seed.
    pub fn seed(&self) -> &str {
        &self.seed
    }

    /// 32 bytes for a role, as a verity salt is.
    pub fn bytes(&self, role: &str) -> [u8; 32] {
        let mut h = Sha256::new();
        // The length keeps seed and role apart.
        h.update((self.seed.len() as u64).to_le_bytes());
        h.update(self.seed.as_bytes());
        h.update(role.as_bytes());
        h.finalize().into()
    }

    /// The UUID of a role (RFC 9562 version 8: 122 bits of a SHA-256).
    pub fn uuid(&self, role: &str) -> Uuid {
        let b = self.bytes(role);
        let mut half = [0; 16];
        half.copy_from_slice(&b[..16]);
        Uuid::new_v8(half)
    }

    /// The FAT volume serial number of a role.
    pub fn serial(&self, role: &str) -> u32 {
        let b = self.bytes(role);
        u32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_seeds_are_kept_apart() {
        let a = IdSpace::new("lamadist 0.1.0 x86_64 base");
        assert_eq!(a.uuid("root"), a.uuid("root"));
        assert_ne!(a.uuid("root"), a.uuid("verity"));
        assert_ne!(IdSpace::new("ab").uuid("c"), IdSpace::new("a").uuid("bc"));
        assert_eq!(a.uuid("root").get_version_num(), 8);
    }
}
