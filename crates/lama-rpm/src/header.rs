// SPDX-License-Identifier: Apache-2.0
//! RPM's headers: an index of typed entries, and a store that they point into. Numbers are big
//! endian.

/// What a header begins with, and four reserved bytes.
pub const MAGIC: [u8; 8] = [0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0];
/// Bytes before the index: the magic, the number of entries, the length of the store.
pub const PREAMBLE: usize = 16;
/// Bytes of an entry of the index.
const ENTRY: usize = 16;
/// Limits of rpm's own reader, so that a length cannot ask for all memory.
const MAX_ENTRIES: usize = 0xffff;
const MAX_STORE: usize = 256 << 20;

/// The region that a signature header is: its entries were made together.
pub const SIGNATURE_REGION: u32 = 62;

/// Why bytes are no header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Type of an entry's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Null,
    /// Bytes: of characters, small integers, or just bytes.
    Bytes(u32),
    /// Integers of so many bytes, aligned to that.
    Ints(u32, usize),
    /// One string, ended by a zero.
    String,
    /// Strings, one after another.
    Strings(u32),
}

impl Kind {
    fn new(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::Null,
            1 | 2 | 7 => Self::Bytes(code),
            3 => Self::Ints(code, 2),
            4 => Self::Ints(code, 4),
            5 => Self::Ints(code, 8),
            6 => Self::String,
            8 | 9 => Self::Strings(code),
            _ => return None,
        })
    }

    fn code(self) -> u32 {
        match self {
            Self::Null => 0,
            Self::Bytes(c) | Self::Ints(c, _) | Self::Strings(c) => c,
            Self::String => 6,
        }
    }

    fn align(self) -> usize {
        match self {
            Self::Ints(_, n) => n,
            _ => 1,
        }
    }
}

/// An entry: a tag, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub tag: u32,
    /// Type of the data.
    pub kind: Kind,
    /// How many items.
    pub count: u32,
    /// The items, as they stand in the store.
    pub data: Vec<u8>,
}

impl Entry {
    /// Bytes.
    pub fn bytes(tag: u32, data: Vec<u8>) -> Self {
        Self {
            tag,
            kind: Kind::Bytes(7),
            count: u32::try_from(data.len()).unwrap_or(u32::MAX),
            data,
        }
    }

    /// One string.
    pub fn string(tag: u32, text: &str) -> Self {
        Self {
            tag,
            kind: Kind::String,
            count: 1,
            data: [text.as_bytes(), &[0]].concat(),
        }
    }

    /// A list of one string.
    pub fn strings(tag: u32, text: &str) -> Self {
        Self {
            kind: Kind::Strings(8),
            ..Self::string(tag, text)
        }
    }
}

/// A header, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    entries: Vec<Entry>,
}

fn number(at: &[u8], offset: usize) -> Option<u32> {
    let four = at.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

fn size(at: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(number(at, offset)?).ok()
}

/// How many bytes follow this preamble.
///
/// # Errors
/// It is none.
pub fn rest(preamble: &[u8]) -> Result<usize, Malformed> {
    let bad = |what: &str| Malformed(what.to_owned());
    if !preamble.starts_with(&MAGIC) {
        return Err(bad("there is no header where one should be"));
    }
    let (entries, store) = (size(preamble, 8), size(preamble, 12));
    let (Some(entries), Some(store)) = (entries, store) else {
        return Err(bad("a header is cut off"));
    };
    if entries == 0 || entries > MAX_ENTRIES || store > MAX_STORE {
        return Err(bad("a header says that it is of impossible size"));
    }
    // Far below any limit.
    Ok(entries * ENTRY + store)
}

impl Header {
    /// Reads a whole header, preamble included.
    ///
    /// # Errors
    /// It is cut off, an entry leads out of it, or a tag is there twice.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let rest = rest(bytes)?;
        let cut = || Malformed("a header is cut off".to_owned());
        let count = size(bytes, 8).ok_or_else(cut)?;
        let body = bytes.get(PREAMBLE..).ok_or_else(cut)?;
        if body.len() != rest {
            return Err(cut());
        }
        let (index, store) = body.split_at_checked(count * ENTRY).ok_or_else(cut)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        // Entries share no data, so many large ones cannot be made of a small file.
        let mut room = store.len();
        for e in index.chunks_exact(ENTRY) {
            let field = |at| number(e, at).ok_or_else(cut);
            let (tag, code, offset, count) = (field(0)?, field(4)?, field(8)?, field(12)?);
            let out = || Malformed(format!("the entry {tag} of a header leads out of it"));
            let kind = Kind::new(code)
                .ok_or_else(|| Malformed(format!("the entry {tag} of a header has no type")))?;
            let at = usize::try_from(offset).map_err(|_| out())?;
            let from = store.get(at..).ok_or_else(out)?;
            let length = length(kind, count, from).ok_or_else(out)?;
            let data = from.get(..length).ok_or_else(out)?;
            room = room.checked_sub(length).ok_or_else(|| {
                Malformed(format!("the entry {tag} of a header shares another's data"))
            })?;
            entries.push(Entry {
                tag,
                kind,
                count,
                data: data.to_vec(),
            });
        }
        let mut tags: Vec<u32> = entries.iter().map(|e| e.tag).collect();
        tags.sort_unstable();
        if let Some(twice) = tags.windows(2).find(|w| w.first() == w.get(1)) {
            let tag = twice.first().copied().unwrap_or_default();
            return Err(Malformed(format!("a header has the entry {tag} twice")));
        }
        Ok(Self { entries })
    }

    /// All entries, as they stand in the index.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of a tag.
    pub fn get(&self, tag: u32) -> Option<&Entry> {
        self.entries.iter().find(|e| e.tag == tag)
    }

    /// What a tag says, where it is just bytes.
    pub fn get_bytes(&self, tag: u32) -> Option<&[u8]> {
        let e = self.get(tag)?;
        matches!(e.kind, Kind::Bytes(_)).then_some(&e.data)
    }

    /// What a tag says, where it is text: one string, or several.
    pub fn get_strings(&self, tag: u32) -> Option<Vec<&str>> {
        let e = self.get(tag)?;
        if !matches!(e.kind, Kind::String | Kind::Strings(_)) {
            return None;
        }
        let text = std::str::from_utf8(&e.data).ok()?;
        Some(text.strip_suffix('\0')?.split('\0').collect())
    }

    /// What a tag says, where it is one number of four or eight bytes.
    pub fn get_number(&self, tag: u32) -> Option<u64> {
        let e = self.get(tag)?;
        match e.kind {
            Kind::Ints(_, 4) => Some(u32::from_be_bytes(e.data.as_slice().try_into().ok()?).into()),
            Kind::Ints(_, 8) => Some(u64::from_be_bytes(e.data.as_slice().try_into().ok()?)),
            _ => None,
        }
    }
}

/// Bytes that so many items take, the first of which is where `from` begins.
fn length(kind: Kind, count: u32, from: &[u8]) -> Option<usize> {
    let items = usize::try_from(count).ok()?;
    let strings = |n: usize| {
        let mut ends = from.iter().enumerate().filter(|(_, b)| **b == 0);
        match n {
            0 => Some(0),
            n => ends
                .nth(n.checked_sub(1)?)
                .map(|(at, _)| at.saturating_add(1)),
        }
    };
    match kind {
        Kind::Null => Some(0),
        Kind::Bytes(_) => Some(items),
        Kind::Ints(_, n) => items.checked_mul(n),
        Kind::String => (items == 1).then(|| strings(1)).flatten(),
        Kind::Strings(_) => strings(items),
    }
}

/// A header of these entries, sorted by tag, with the entry of its region, preamble included. None
/// where it would be too large to be one.
pub fn write(mut entries: Vec<Entry>, region: u32) -> Option<Vec<u8>> {
    entries.sort_by_key(|e| e.tag);
    let (mut index, mut store) = (Vec::new(), Vec::new());
    for e in &entries {
        let align = e.kind.align();
        store.resize(store.len().next_multiple_of(align), 0);
        entry(&mut index, e.tag, e.kind.code(), store.len(), e.count)?;
        store.extend(&e.data);
    }
    let count = u32::try_from(entries.len().checked_add(1)?).ok()?;
    // The region's entry points at another entry, behind all data, which points back to the first.
    let mut first = Vec::new();
    entry(&mut first, region, 7, store.len(), 16)?;
    let back = i32::try_from(count).ok()?.checked_mul(-16)?;
    for n in [region, 7, u32::from_ne_bytes(back.to_ne_bytes()), 16] {
        store.extend(n.to_be_bytes());
    }
    let mut out = MAGIC.to_vec();
    out.extend(count.to_be_bytes());
    out.extend(u32::try_from(store.len()).ok()?.to_be_bytes());
    for part in [&first, &index, &store] {
        out.extend(part);
    }
    rest(&out).ok().map(|_| out)
}

fn entry(index: &mut Vec<u8>, tag: u32, code: u32, offset: usize, count: u32) -> Option<()> {
    for n in [tag, code, u32::try_from(offset).ok()?, count] {
        index.extend(n.to_be_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some() -> Vec<Entry> {
        vec![
            Entry::string(273, "ab"),
            Entry::bytes(267, vec![1, 2, 3]),
            Entry::strings(278, "xyz"),
            Entry {
                tag: 1000,
                kind: Kind::Ints(4, 4),
                count: 1,
                data: vec![0, 0, 1, 0],
            },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = write(some(), SIGNATURE_REGION).unwrap();
        let h = Header::parse(&bytes).unwrap();
        let tags: Vec<u32> = h.entries().iter().map(|e| e.tag).collect();
        assert_eq!(tags, [62, 267, 273, 278, 1000]);
        assert_eq!(h.get_bytes(267), Some(&[1, 2, 3][..]));
        assert_eq!(h.get_strings(273), Some(vec!["ab"]));
        assert_eq!(h.get_strings(278), Some(vec!["xyz"]));
        assert_eq!(h.get_number(1000), Some(256));
        assert_eq!(h.get_number(273), None);
        assert_eq!(h.get(5), None);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let good = write(some(), SIGNATURE_REGION).unwrap();
        let edit = |at: usize, with: u8| {
            let mut b = good.clone();
            b[at] = with;
            b
        };
        for (bytes, says) in [
            (Vec::new(), "no header"),
            (edit(0, 0), "no header"),
            (good[..good.len() - 1].to_vec(), "cut off"),
            (edit(8, 1), "impossible size"),
            (edit(12, 0xff), "impossible size"),
            (edit(PREAMBLE + 16 + 8, 0x7f), "267 of a header leads out"),
            (edit(PREAMBLE + 16 + 12, 0x7f), "267 of a header leads out"),
            (edit(PREAMBLE + 16 + 7, 99), "no type"),
            // All of the store but a byte, and the others.
            (edit(PREAMBLE + 16 + 15, 30), "shares another's data"),
            (edit(PREAMBLE + 32 + 3, 11), "267 twice"),
        ] {
            let e = Header::parse(&bytes).unwrap_err().to_string();
            assert!(e.contains(says), "{says}: {e}");
        }
    }

    proptest! {
        /// Whatever it is: no panic, and what is read is written as it was.
        #[test]
        fn any_bytes(at in 0usize..200, with: u8, tail in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut b = write(some(), SIGNATURE_REGION).unwrap();
            let at = at % b.len();
            b[at] = with;
            if let Ok(h) = Header::parse(&b) {
                let own = h.entries().iter().filter(|e| e.tag != SIGNATURE_REGION);
                let again = write(own.cloned().collect(), SIGNATURE_REGION).unwrap();
                prop_assert!(Header::parse(&again).is_ok());
            }
            b.extend(tail);
            let _ = Header::parse(&b);
        }
    }
}
