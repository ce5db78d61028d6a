// SPDX-License-Identifier: Apache-2.0
//! Instructions of a delta bundle.

use crate::{Error, Result};

/// One instruction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Op {
    /// How far to go in the earlier images, from where the last instruction ended.
    pub seek: i64,
    /// Bytes to copy from there.
    pub copy: u64,
    /// Bytes to take from the literals; the earlier images are gone on in by as many.
    pub insert: u64,
}

impl Op {
    /// Appends it to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        put(out, ((self.seek << 1) ^ (self.seek >> 63)) as u64);
        put(out, self.copy);
        put(out, self.insert);
    }

    /// Takes one from the beginning of `data`; none at its end.
    ///
    /// # Errors
    /// It is cut off, or a number has more than 64 bits.
    pub fn read(data: &mut &[u8]) -> Result<Option<Self>> {
        if data.is_empty() {
            return Ok(None);
        }
        let zigzag = take(data)?;
        Ok(Some(Self {
            seek: (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64),
            copy: take(data)?,
            insert: take(data)?,
        }))
    }
}

fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take(data: &mut &[u8]) -> Result<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((b, rest)) = data.split_first() else {
            return Err(Error::new("an instruction is cut off"));
        };
        *data = rest;
        let bits = u64::from(b & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        n |= bits << shift;
        if b & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err(Error::new(
        "an instruction has a number of more than 64 bits",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn instructions_come_back(seek: i64, copy: u64, insert: u64) {
            let op = Op { seek, copy, insert };
            let mut out = Vec::new();
            op.write(&mut out);
            let mut rest = out.as_slice();
            prop_assert_eq!(Op::read(&mut rest).unwrap(), Some(op));
            prop_assert_eq!(Op::read(&mut rest).unwrap(), None);
            let mut short = &out[..out.len() - 1];
            prop_assert!(Op::read(&mut short).is_err());
        }

        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut rest = data.as_slice();
            while let Ok(Some(_)) = Op::read(&mut rest) {}
        }
    }
}
