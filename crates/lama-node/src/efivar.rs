// SPDX-License-Identifier: Apache-2.0
//! Firmware variables that are written, and the boot options among them (UEFI specification 2.10,
//! sections 3.1 and 8.2; Documentation/filesystems/efivarfs.rst).

use crate::error::Context;
use crate::ids::{EFIVARS, GLOBAL};
use crate::kernel::Slot;
use crate::loader::uki;
use crate::{Error, Result, fs, ids};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Non-volatile, and there before and after the firmware has handed over.
const ATTRIBUTES: u32 = 7;
/// The kernel's flag of a file that cannot be changed (ioctl_iflags(2)).
const IMMUTABLE: libc::c_int = 0x10;

fn path(name: &str, vendor: &str) -> PathBuf {
    PathBuf::from(format!("{EFIVARS}/{name}-{vendor}"))
}

/// Writes a variable, whole or not at all. Where that fails, what the kernel left of crashes goes, which
/// may have taken the room: a machine that starts is worth more than the reason why it did not. Many a
/// firmware gives room back at the next start only, so it is not tried again.
///
/// # Errors
/// The firmware has no room for it, or takes none at run time.
pub fn write(name: &str, vendor: &str, data: &[u8]) -> Result<()> {
    set(name, vendor, ATTRIBUTES, data)
}

/// What becomes of an authenticated variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The new content takes its place.
    Replace,
    /// It is added to what is there.
    Append,
}

/// Has the firmware change an authenticated variable, by `EFI_VARIABLE_AUTHENTICATION_2` and what it
/// signs (UEFI specification 2.10, section 8.2.2).
///
/// # Errors
/// The firmware refuses the signature, has no room, or takes none at run time.
pub fn change(name: &str, vendor: &str, change: Change, data: &[u8]) -> Result<()> {
    // TIME_BASED_AUTHENTICATED_WRITE_ACCESS; APPEND_WRITE.
    let more = match change {
        Change::Replace => 0x20,
        Change::Append => 0x60,
    };
    set(name, vendor, ATTRIBUTES | more, data)
}

fn set(name: &str, vendor: &str, attributes: u32, data: &[u8]) -> Result<()> {
    let path = path(name, vendor);
    mutable(&path)?;
    let all = [&attributes.to_le_bytes(), data].concat();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let written = file.and_then(|mut f| f.write_all(&all)).context(name);
    if written.is_err() {
        let _ = make_room();
    }
    written
}

/// Removes a variable, where it is there.
///
/// # Errors
/// The firmware does not let it go.
pub fn remove(name: &str, vendor: &str) -> Result<()> {
    let path = path(name, vendor);
    mutable(&path)?;
    fs::remove(path)
}

/// Takes away what the kernel left of crashes.
fn make_room() -> Result<()> {
    for name in fs::names(EFIVARS)? {
        if name.starts_with("dump-type") {
            fs::remove(PathBuf::from(EFIVARS).join(name))?;
        }
    }
    Ok(())
}

/// The kernel guards variables that it does not know against `rm -r`.
fn mutable(path: &std::path::Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let file = fs::open(path)?;
    let mut flags: libc::c_int = 0;
    // SAFETY: an open file, and an integer of the size that the kernel writes.
    let read = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    if read != 0 || flags & IMMUTABLE == 0 {
        return Ok(());
    }
    flags &= !IMMUTABLE;
    // SAFETY: as above; the kernel reads it.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) };
    if set != 0 {
        return Err(std::io::Error::last_os_error()).context(path.display());
    }
    Ok(())
}

/// Has the firmware start a slot once, at the next start alone.
///
/// # Errors
/// The firmware has no entry for it, or takes no variable.
pub fn start_once(slot: Slot, esp: &str) -> Result<()> {
    let names = fs::names(EFIVARS)?;
    let mut numbers = names.iter().filter_map(|n| {
        let number = n.strip_prefix("Boot")?.strip_suffix(GLOBAL)?;
        number
            .strip_suffix('-')
            .filter(|n| n.len() == 4 && n.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    let found = numbers.find(|n| {
        let data = ids::variable(&format!("Boot{n}"), GLOBAL);
        data.is_some_and(|d| leads_to(&d, slot, esp) == Some(true))
    });
    let number = found.and_then(|n| u16::from_str_radix(n, 16).ok());
    let Some(number) = number else {
        return Err(Error::new(format!(
            "the firmware has no boot entry of slot {}",
            slot.name()
        )));
    };
    write("BootNext", GLOBAL, &number.to_le_bytes())
}

/// Whether a boot option (`EFI_LOAD_OPTION`) is that of this slot, on the disk with this ESP. None where
/// it cannot be understood.
fn leads_to(option: &[u8], slot: Slot, esp: &str) -> Option<bool> {
    // Attributes, the length of the device path, a description, the path.
    let length = usize::from(u16::from_le_bytes(option.get(4..6)?.try_into().ok()?));
    let rest = option.get(6..)?;
    let (description, end) = text(rest)?;
    let mut nodes = rest.get(end..end + length)?;
    let (mut on_esp, mut file) = (false, String::new());
    while let [kind, sub, low, high, ..] = *nodes {
        let size = usize::from(u16::from_le_bytes([low, high])).max(4);
        let node = nodes.get(4..size)?;
        match (kind, sub) {
            // A partition: its signature is a GUID where the last byte says so.
            (4, 1) => on_esp = node.last() == Some(&2) && guid(node.get(20..36)?)? == esp,
            (4, 4) => file += &ids::utf16(node),
            _ => {}
        }
        nodes = nodes.get(size..)?;
    }
    let ours = uki(slot.name()).replace('/', "\\");
    let file = file.trim_start_matches('\\');
    Some(on_esp && description == slot.name().to_uppercase() && file.eq_ignore_ascii_case(&ours))
}

/// A text in UTF-16LE with its NUL, and how many bytes it takes.
fn text(data: &[u8]) -> Option<(String, usize)> {
    let units = data.chunks_exact(2).position(|c| c == [0, 0])?;
    Some((ids::utf16(data), units * 2 + 2))
}

/// A GUID as the UEFI specification lays it out (appendix A): the first three parts are little-endian.
fn guid(b: &[u8]) -> Option<String> {
    let b: &[u8; 16] = b.try_into().ok()?;
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut out = String::new();
    for (n, i) in order.into_iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out += &format!("{:02x}", b[i]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESP: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

    fn utf16(text: &str) -> Vec<u8> {
        let units = text.encode_utf16().chain([0]);
        units.flat_map(u16::to_le_bytes).collect()
    }

    fn node(kind: u8, sub: u8, data: &[u8]) -> Vec<u8> {
        let size = u16::try_from(data.len() + 4).unwrap().to_le_bytes();
        [&[kind, sub][..], &size, data].concat()
    }

    fn option(label: &str, file: &str) -> Vec<u8> {
        let id = [
            0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47,
            0x7d, 0xe4,
        ];
        let partition = [&[0; 20][..], &id, &[2, 2]].concat();
        let nodes = [
            node(4, 1, &partition),
            node(4, 4, &utf16(file)),
            node(0x7f, 0xff, &[]),
        ]
        .concat();
        let length = u16::try_from(nodes.len()).unwrap().to_le_bytes();
        [&[1, 0, 0, 0][..], &length, &utf16(label), &nodes].concat()
    }

    #[test]
    fn a_slots_entry_is_found() {
        let b = option("B", "\\EFI\\Linux\\lamadist-b.efi");
        assert_eq!(leads_to(&b, Slot::B, ESP), Some(true));
        assert_eq!(leads_to(&b, Slot::A, ESP), Some(false));
        // Another disk's.
        assert_eq!(
            leads_to(&b, Slot::B, "1fc63daf-8483-4772-8e79-3d69d8477de4"),
            Some(false)
        );
        // Another system's, whatever it is called.
        let other = option("B", "\\EFI\\debian\\shimx64.efi");
        assert_eq!(leads_to(&other, Slot::B, ESP), Some(false));
    }

    #[test]
    fn what_is_cut_off_is_nobodys() {
        let b = option("B", "\\EFI\\Linux\\lamadist-b.efi");
        for n in 0..b.len() {
            assert_ne!(leads_to(&b[..n], Slot::B, ESP), Some(true), "{n}");
        }
    }
}
