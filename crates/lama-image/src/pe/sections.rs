// SPDX-License-Identifier: Apache-2.0
//! Sections added to a PE file: how a UKI is made of systemd's stub (UAPI.5, Unified Kernel Images).
//!
//! `ukify` does the same and is what this is compared with, byte by byte. It copies the whole file
//! for each section it adds, which takes longer than all else that a UKI needs.

use super::{int, le};
use crate::{Error, Result};

/// IMAGE_SCN_MEM_READ.
const READ: u32 = 0x4000_0000;
/// IMAGE_SCN_CNT_CODE.
const CODE: u32 = 0x20;
/// IMAGE_SCN_CNT_INITIALIZED_DATA.
const DATA: u32 = 0x40;
/// IMAGE_DLLCHARACTERISTICS_NX_COMPAT.
const NX_COMPAT: u16 = 0x100;
/// Bytes of a section's header.
const HEADER: usize = 40;

/// Where things are in a PE32+ file.
struct Headers {
    /// The COFF file header.
    coff: usize,
    optional: usize,
    /// The first section's header.
    first: usize,
    count: usize,
    section_alignment: usize,
    file_alignment: usize,
    size_of_headers: usize,
}

/// A section's header.
struct Header {
    name: String,
    virtual_size: usize,
    address: usize,
    raw_size: usize,
    raw: usize,
}

type Parse<T> = std::result::Result<T, String>;

fn headers(d: &[u8]) -> Parse<Headers> {
    super::layout(d)?;
    let coff = int::<4>(d, 0x3c)? + 4;
    let optional = coff + 20;
    let h = Headers {
        coff,
        optional,
        first: optional + int::<2>(d, coff + 16)?,
        count: int::<2>(d, coff + 2)?,
        section_alignment: int::<4>(d, optional + 32)?,
        file_alignment: int::<4>(d, optional + 36)?,
        size_of_headers: int::<4>(d, optional + 60)?,
    };
    for a in [h.section_alignment, h.file_alignment] {
        if !a.is_power_of_two() || a > 1 << 20 {
            return Err(format!("its sections are aligned to {a} bytes"));
        }
    }
    if h.count == 0 {
        return Err("it has no sections".into());
    }
    Ok(h)
}

impl Headers {
    fn section(&self, d: &[u8], i: usize) -> Parse<Header> {
        let at = self.first + i * HEADER;
        let name = d.get(at..at + 8).ok_or("it is cut short")?;
        Ok(Header {
            name: String::from_utf8_lossy(name)
                .trim_end_matches('\0')
                .to_owned(),
            virtual_size: int::<4>(d, at + 8)?,
            address: int::<4>(d, at + 12)?,
            raw_size: int::<4>(d, at + 16)?,
            raw: int::<4>(d, at + 20)?,
        })
    }

    fn find(&self, d: &[u8], name: &str) -> Parse<Option<(usize, Header)>> {
        for i in 0..self.count {
            let s = self.section(d, i)?;
            if s.name == name {
                return Ok(Some((i, s)));
            }
        }
        Ok(None)
    }
}

/// The content of a section of a PE32+ file, without padding; none where there is no such section.
///
/// # Errors
/// Not a PE32+ file; `path` names it in the message.
pub fn section<'d>(d: &'d [u8], name: &str, path: &str) -> Result<Option<&'d [u8]>> {
    let find = || -> Parse<Option<&[u8]>> {
        let Some((_, s)) = headers(d)?.find(d, name)? else {
            return Ok(None);
        };
        let end = s.raw.checked_add(s.virtual_size.min(s.raw_size));
        let data = end.and_then(|end| d.get(s.raw..end));
        Ok(Some(data.ok_or("it is cut short")?))
    };
    find().map_err(|reason| Error::Format {
        path: path.to_owned(),
        reason,
    })
}

/// Adds sections to an unsigned PE32+ file. One that it has already is filled anew in its place, as
/// `.sbat` of systemd's stub.
///
/// # Errors
/// Not such a file, or no room in it; `path` names it in the message.
pub fn add_sections(stub: &[u8], sections: &[(&str, &[u8])], path: &str) -> Result<Vec<u8>> {
    add(stub, sections).map_err(|reason| Error::Format {
        path: path.to_owned(),
        reason,
    })
}

fn add(stub: &[u8], sections: &[(&str, &[u8])]) -> Parse<Vec<u8>> {
    let large = |_| String::from("it gets larger than a PE file can be");
    let mut h = headers(stub)?;
    if super::layout(stub)?.table.1 != 0 {
        return Err("it is signed, and could not be changed without losing that".into());
    }
    if le::<4>(stub, h.coff + 8)? != 0 {
        return Err("it has a symbol table, which files that are run should not have".into());
    }
    let original = h.count;
    for i in 0..original {
        let s = h.section(stub, i)?;
        if s.raw % h.file_alignment != 0 || s.raw_size % h.file_alignment != 0 {
            return Err(format!("its section {} is not aligned", s.name));
        }
    }
    let total: usize = sections
        .iter()
        .map(|(_, d)| d.len() + h.file_alignment)
        .sum();
    let mut d = Vec::with_capacity(stub.len() + total + 16 * 1024);
    d.extend_from_slice(stub);
    // Everything before the first section's data is free for headers.
    h.size_of_headers = h.size_of_headers.next_multiple_of(h.file_alignment);
    let mut initialized = le::<4>(&d, h.optional + 8)?;

    for (name, data) in sections {
        if name.len() > 8 || !name.is_ascii() {
            return Err(format!("{name} is no name of a section"));
        }
        let size = u32::try_from(data.len()).map_err(large)?;
        let old = h.find(&d, name)?.filter(|(i, _)| *i < original);
        if let Some((i, old)) = old {
            let end = old.raw.checked_add(old.raw_size);
            let place = end.and_then(|end| d.get_mut(old.raw..end));
            let place = place.ok_or("it is cut short")?;
            let Some((place, rest)) = place.split_at_mut_checked(data.len()) else {
                return Err(format!(
                    "its section {name} takes {} bytes, not {}",
                    old.raw_size,
                    data.len()
                ));
            };
            place.copy_from_slice(data);
            rest.fill(0);
            super::put(&mut d, h.first + i * HEADER + 8, size);
            continue;
        }
        let at = h.first + h.count * HEADER;
        if at + HEADER > h.size_of_headers {
            return Err(format!("its headers have no room for the section {name}"));
        }
        let last = h.section(&d, h.count - 1)?;
        let address = (last.address + last.virtual_size).next_multiple_of(h.section_alignment);
        d.resize(d.len().next_multiple_of(h.file_alignment), 0);
        let raw = d.len();
        d.extend_from_slice(data);
        d.resize(d.len().next_multiple_of(h.file_alignment), 0);
        let mut header = [0; HEADER];
        for (to, from) in header.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        let numbers = [data.len(), address, d.len() - raw, raw];
        for (i, n) in numbers.into_iter().enumerate() {
            super::put(&mut header, 8 + 4 * i, u32::try_from(n).map_err(large)?);
        }
        let kind = if *name == ".linux" { CODE } else { DATA };
        super::put(&mut header, 36, READ | kind);
        d.get_mut(at..at + HEADER)
            .ok_or("it is cut short")?
            .copy_from_slice(&header);
        h.count += 1;
        initialized += u64::from(size);
        // The kernel may run inside the stub's protection, so both have to agree on it.
        let flags = le::<2>(&d, h.optional + 70)? as u16;
        if *name == ".linux" && !nx_compatible(data) {
            put16(&mut d, h.optional + 70, flags & !NX_COMPAT);
        }
    }
    let last = h.section(&d, h.count - 1)?;
    let image = (last.address + last.virtual_size).next_multiple_of(h.section_alignment);
    put16(&mut d, h.coff + 2, u16::try_from(h.count).map_err(large)?);
    for (at, v) in [
        (8, initialized),
        (56, image as u64),
        (60, h.size_of_headers as u64),
        (64, 0), // the checksum
    ] {
        super::put(&mut d, h.optional + at, u32::try_from(v).map_err(large)?);
    }
    Ok(d)
}

/// Undoes [`add_sections`] and the signing after it: the file without its signatures and without the
/// sections from the first one called one of `names` on (without `names`, all stay). One that was filled in its place stays so.
///
/// # Errors
/// Not such a file, or other sections come after these; `path` names it in the message.
pub fn remove_sections(d: &[u8], names: &[&str], path: &str) -> Result<Vec<u8>> {
    remove(d, names).map_err(|reason| Error::Format {
        path: path.to_owned(),
        reason,
    })
}

fn remove(d: &[u8], names: &[&str]) -> Parse<Vec<u8>> {
    let cut = || String::from("it is cut short");
    let h = headers(d)?;
    let l = super::layout(d)?;
    let mut first = h.count;
    let mut end = d.len() - l.table.1;
    let mut initialized = le::<4>(d, h.optional + 8)?;
    for i in 0..h.count {
        let s = h.section(d, i)?;
        if names.contains(&s.name.as_str()) {
            first = first.min(i);
            end = end.min(s.raw);
            initialized = initialized.saturating_sub(s.virtual_size as u64);
        } else if first < h.count {
            return Err(format!("its section {} is where none should be", s.name));
        }
    }
    if first == 0 {
        return Err("it has no section that would stay".into());
    }
    let mut out = d.get(..end).ok_or_else(cut)?.to_vec();
    let gone = h.first + first * HEADER..h.first + h.count * HEADER;
    out.get_mut(gone).ok_or_else(cut)?.fill(0);
    let last = h.section(d, first - 1)?;
    let image = (last.address + last.virtual_size).next_multiple_of(h.section_alignment);
    put16(&mut out, h.coff + 2, u16::try_from(first).unwrap_or(0));
    for (at, v) in [
        (h.optional + 8, initialized),
        (h.optional + 56, image as u64),
        (l.checksum, 0),
        (l.directory, 0),
        (l.directory + 4, 0),
    ] {
        super::put(&mut out, at, u32::try_from(v).unwrap_or(0));
    }
    Ok(out)
}

fn nx_compatible(kernel: &[u8]) -> bool {
    let flags = headers(kernel).and_then(|h| le::<2>(kernel, h.optional + 70));
    flags.is_ok_and(|f| f as u16 & NX_COMPAT != 0)
}

fn put16(d: &mut [u8], at: usize, v: u16) {
    if let Some(b) = d.get_mut(at..at + 2) {
        b.copy_from_slice(&v.to_le_bytes());
    }
}
