// SPDX-License-Identifier: Apache-2.0
//! The encryption of a bundle's payload: AES-256-CBC in sectors of 4096 bytes, the initialisation
//! vector being the number of the sector in units of 512 bytes (dm-crypt's `aes-cbc-plain64` with
//! `sector_size:4096`; RAUC 1.13, "crypt Format").

use super::BLOCK;
use aes::Aes256;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};
use sha2::{Digest, Sha256};

/// A key, ready for use.
pub struct Cipher(Aes256);

impl Cipher {
    /// With this key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Aes256::new(GenericArray::from_slice(key)))
    }

    fn iv(sector: u64) -> [u8; 16] {
        let mut iv = [0; 16];
        let n = sector.wrapping_mul(BLOCK as u64 / 512);
        iv[..8].copy_from_slice(&n.to_le_bytes());
        iv
    }

    /// Encrypts the sector with this number; of a shorter one, whole blocks of 16 bytes.
    pub fn encrypt(&self, data: &mut [u8], sector: u64) {
        let mut last = Self::iv(sector);
        for block in data.chunks_exact_mut(16) {
            for (b, l) in block.iter_mut().zip(last) {
                *b ^= l;
            }
            self.0.encrypt_block(GenericArray::from_mut_slice(block));
            last.copy_from_slice(block);
        }
    }

    /// Decrypts the sector with this number.
    pub fn decrypt(&self, data: &mut [u8], sector: u64) {
        let mut last = Self::iv(sector);
        for block in data.chunks_exact_mut(16) {
            let mut sealed = [0; 16];
            sealed.copy_from_slice(block);
            self.0.decrypt_block(GenericArray::from_mut_slice(block));
            for (b, l) in block.iter_mut().zip(last) {
                *b ^= l;
            }
            last = sealed;
        }
    }
}

/// The key of a delta bundle: who can open the bundle can open it, and nobody else.
pub fn delta_key(bundle: &[u8; 32], nonce: &[u8]) -> [u8; 32] {
    let mut h = Sha256::new();
    h.update(b"lamadist delta bundle 1\0");
    h.update(bundle);
    h.update(nonce);
    h.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_come_back_and_differ() {
        let c = Cipher::new(&[7; 32]);
        let plain = [1u8; BLOCK];
        let (mut a, mut b) = (plain, plain);
        c.encrypt(&mut a, 0);
        c.encrypt(&mut b, 1);
        assert_ne!(a, b);
        c.decrypt(&mut b, 1);
        assert_eq!(b, plain);
        assert_eq!(Cipher::iv(2)[..2], [16, 0]);
    }

    #[test]
    fn it_is_aes_cbc() {
        // NIST SP 800-38A, F.2.5, with the vector of sector 0.
        let key =
            crate::delta::unhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let key: [u8; 32] = key.unwrap().try_into().unwrap();
        let mut data = crate::delta::unhex("6bc1bee22e409f96e93d7e117393172a").unwrap();
        let iv: Vec<u8> = (0..16).collect();
        for (d, i) in data.iter_mut().zip(iv) {
            *d ^= i;
        }
        Cipher::new(&key).encrypt(&mut data, 0);
        assert_eq!(crate::delta::hex(&data), "f58c4c04d6e5f1ba779eabfb5f7bfbd6");
    }
}
