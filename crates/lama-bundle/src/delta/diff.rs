// SPDX-License-Identifier: Apache-2.0
//! How one image follows from another: copies from anywhere in it, and what is new.
//!
//! Images of hundreds of megabytes are compared as a whole, so a file that has moved costs nothing,
//! however far. Every eighth place of the old image is found by the 16 bytes that stand there; where
//! two pieces follow one another at the same distance, as in a program in which addresses have
//! changed, the next is looked for there first, and eight equal bytes are enough.

use lama_node::delta::ops::Op;

/// Bytes that an entry of the index stands for.
const KEY: usize = 16;
/// Every how many bytes of the old image an entry is made.
const STEP: usize = 8;
/// Equal bytes at the distance of the copy before that are worth an instruction.
const NEAR: usize = 8;
/// Equal bytes elsewhere that are.
const FAR: usize = 24;
/// A copy from elsewhere that is shorter than this gives way to one at the same distance...
const SHORT: usize = 48;
/// ...that begins within so many bytes.
const AHEAD: usize = 32;

/// Instructions and literals being gathered.
#[derive(Debug, Default)]
pub struct Encoder {
    /// The instructions, encoded.
    pub control: Vec<u8>,
    /// The literals.
    pub literals: Vec<u8>,
    at: u64,
    op: Op,
    copied: u64,
}

impl Encoder {
    fn copy(&mut self, from: u64, len: u64) {
        self.flush();
        // Both are below 2^63: they are places in files.
        self.op.seek = from as i64 - self.at as i64;
        self.op.copy = len;
        self.at = from + len;
        self.copied += len;
    }

    /// Takes in bytes that no image has.
    pub fn insert(&mut self, data: &[u8]) {
        self.literals.extend_from_slice(data);
        self.op.insert += data.len() as u64;
        self.at += data.len() as u64;
    }

    fn flush(&mut self) {
        if self.op.copy > 0 || self.op.insert > 0 {
            self.op.write(&mut self.control);
        }
        self.op = Op::default();
    }

    /// Ends the last instruction. Returns the bytes that are copied.
    pub fn finish(&mut self) -> u64 {
        self.flush();
        self.copied
    }
}

/// Places of an image by what stands there.
struct Index {
    places: Vec<u32>,
    shift: u32,
}

impl Index {
    fn new(old: &[u8]) -> Self {
        let entries = (old.len() / STEP).max(1).next_power_of_two();
        let mut index = Self {
            places: vec![0; entries],
            shift: 64 - entries.trailing_zeros().max(1),
        };
        for (n, key) in old.windows(KEY).step_by(STEP).enumerate() {
            let slot = index.slot(key);
            if let (Some(p), Ok(n)) = (index.places.get_mut(slot), u32::try_from(n + 1)) {
                *p = n;
            }
        }
        index
    }

    fn slot(&self, key: &[u8]) -> usize {
        let word = |at: usize| {
            let bytes = key.get(at..at + 8).and_then(|b| b.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        let h = (word(0) ^ word(8).rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let h = (h ^ (h >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (h >> self.shift) as usize
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        let n = *self.places.get(self.slot(key))?;
        Some((usize::try_from(n).ok()?.checked_sub(1)?) * STEP)
    }
}

/// Encodes how `new` follows from `old`, which lies at `base` in the row of all old images.
pub fn diff(old: &[u8], base: u64, new: &[u8], out: &mut Encoder) {
    let index = Index::new(old);
    // The distance of the copy before: a place in the old image less that in the new one.
    let mut distance = 0i64;
    let (mut p, mut literal) = (0, 0);
    while p + KEY <= new.len() {
        let near = place(p, distance).filter(|c| equal(old, *c, new, p) >= NEAR);
        let found = near.or_else(|| {
            let key = new.get(p..p + KEY)?;
            let c = index.find(key)?;
            let len = equal(old, c, new, p);
            if len < KEY || before(old, c, new, p, literal) + len < FAR {
                return None;
            }
            let soon = |d: &usize| {
                place(p + d, distance).is_some_and(|c| equal(old, c, new, p + d) >= KEY)
            };
            if len < SHORT && (1..AHEAD).any(|d| soon(&d)) {
                return None;
            }
            Some(c)
        });
        let Some(c) = found else {
            p += 1;
            continue;
        };
        let back = before(old, c, new, p, literal);
        let len = equal(old, c, new, p);
        out.insert(new.get(literal..p - back).unwrap_or_default());
        out.copy(base + (c - back) as u64, (back + len) as u64);
        distance = c as i64 - p as i64;
        p += len;
        literal = p;
    }
    out.insert(new.get(literal..).unwrap_or_default());
}

fn place(p: usize, distance: i64) -> Option<usize> {
    usize::try_from(i64::try_from(p).ok()?.checked_add(distance)?).ok()
}

/// How many bytes are equal from here on.
fn equal(old: &[u8], c: usize, new: &[u8], p: usize) -> usize {
    let (a, b) = (
        old.get(c..).unwrap_or_default(),
        new.get(p..).unwrap_or_default(),
    );
    let n = a.len().min(b.len());
    let mut at = 0;
    for (x, y) in a.chunks_exact(32).zip(b.chunks_exact(32)) {
        if x != y {
            break;
        }
        at += 32;
    }
    while at < n && a.get(at) == b.get(at) {
        at += 1;
    }
    at
}

/// How many bytes are equal before here, at most back to `literal` in the new image.
fn before(old: &[u8], c: usize, new: &[u8], p: usize, literal: usize) -> usize {
    let a = old.get(..c).unwrap_or_default().iter().rev();
    let b = new.get(literal..p).unwrap_or_default().iter().rev();
    a.zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn apply(old: &[u8], e: &Encoder) -> Vec<u8> {
        let (mut ops, mut literals) = (e.control.as_slice(), e.literals.as_slice());
        let (mut out, mut at) = (Vec::new(), 0u64);
        while let Some(op) = Op::read(&mut ops).unwrap() {
            at = at.checked_add_signed(op.seek).unwrap();
            let from = usize::try_from(at).unwrap();
            out.extend_from_slice(&old[from..from + op.copy as usize]);
            let (now, rest) = literals.split_at(op.insert as usize);
            out.extend_from_slice(now);
            literals = rest;
            at += op.copy + op.insert;
        }
        assert!(literals.is_empty());
        out
    }

    fn both(old: &[u8], new: &[u8]) -> Encoder {
        let mut e = Encoder::default();
        diff(old, 0, new, &mut e);
        e.finish();
        assert_eq!(apply(old, &e), new);
        e
    }

    #[test]
    fn a_small_change_is_small() {
        let old: Vec<u8> = (0..200_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let mut new = old.clone();
        new[1000] ^= 1;
        new.splice(300_000..300_000, b"something new here".iter().copied());
        let moved: Vec<u8> = new.drain(500_000..600_000).collect();
        new.extend(moved);
        let e = both(&old, &new);
        assert!(e.literals.len() < 60 && e.control.len() < 80, "{e:?}");
        both(&old, b"");
        both(b"", &new[..100]);
    }

    proptest! {
        #[test]
        fn the_new_image_comes_back(
            old in proptest::collection::vec(0u8..4, 0..2000),
            cuts in proptest::collection::vec((0usize..2000, 0usize..300, any::<u8>()), 0..12),
        ) {
            let mut new = Vec::new();
            for (at, len, b) in cuts {
                let at = at.min(old.len());
                new.extend_from_slice(&old[at..(at + len).min(old.len())]);
                new.push(b);
            }
            both(&old, &new);
        }
    }
}
