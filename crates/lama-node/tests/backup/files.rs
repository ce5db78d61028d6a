// SPDX-License-Identifier: Apache-2.0
//! Files with all that they are: owners, devices, extended attributes.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

pub fn noise(len: usize) -> Vec<u8> {
    let mut x: u64 = 88_172_645_463_325_252;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    };
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend(next());
    }
    out.truncate(len);
    out
}

pub fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

pub fn device(path: &Path, kind: libc::mode_t, number: libc::dev_t) {
    // SAFETY: the string ends in a zero byte.
    let r = unsafe { libc::mknod(c(path).as_ptr(), kind | 0o644, number) };
    assert_eq!(
        r,
        0,
        "{}: {}",
        path.display(),
        std::io::Error::last_os_error()
    );
}

/// Not every file system has them.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    let n = CString::new(name).unwrap();
    // SAFETY: pointers and length belong together.
    let r = unsafe {
        libc::setxattr(
            c(path).as_ptr(),
            n.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if r != 0 {
        eprintln!("SKIP: {name}: {}", std::io::Error::last_os_error());
    }
}

pub fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0u8; 4096];
    // SAFETY: the buffer is as long as is said.
    let n = unsafe { libc::llistxattr(c(path).as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(n).unwrap_or(0));
    let mut out = BTreeMap::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0u8; 4096];
        let z = CString::new(name).unwrap();
        // SAFETY: as above.
        let n = unsafe {
            libc::lgetxattr(
                c(path).as_ptr(),
                z.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        value.truncate(usize::try_from(n).unwrap_or(0));
        out.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    out
}

/// Everything that a file is, besides its name and inode.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub mode: u32,
    pub owner: (u32, u32),
    pub content: Vec<u8>,
    pub device: u64,
    pub modified: (i64, i64),
    pub links: u64,
    pub attributes: BTreeMap<String, Vec<u8>>,
}

/// All below a directory, by path.
pub fn tree(dir: &Path) -> BTreeMap<String, Entry> {
    let mut out = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(d) = todo.pop() {
        for e in fs::read_dir(&d).unwrap() {
            let path = e.unwrap().path();
            let m = path.symlink_metadata().unwrap();
            let kind = m.file_type();
            if kind.is_dir() {
                todo.push(path.clone());
            }
            let content = if kind.is_file() {
                fs::read(&path).unwrap()
            } else if kind.is_symlink() {
                let to = fs::read_link(&path).unwrap();
                to.as_os_str().as_bytes().to_vec()
            } else {
                Vec::new()
            };
            let entry = Entry {
                mode: m.mode(),
                owner: (m.uid(), m.gid()),
                content,
                device: if kind.is_char_device() { m.rdev() } else { 0 },
                modified: if kind.is_dir() {
                    (0, 0)
                } else {
                    (m.mtime(), m.mtime_nsec())
                },
                links: if kind.is_dir() { 0 } else { m.nlink() },
                attributes: xattrs(&path),
            };
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap();
            out.insert(name.to_owned(), entry);
        }
    }
    out
}

/// Compares without printing megabytes.
pub fn same(a: &BTreeMap<String, Entry>, b: &BTreeMap<String, Entry>) {
    for (name, entry) in a {
        let other = b.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(
            entry == other,
            "{name}: {:?} {:?}",
            (
                entry.mode,
                entry.owner,
                entry.modified,
                entry.links,
                &entry.attributes
            ),
            (
                other.mode,
                other.owner,
                other.modified,
                other.links,
                &other.attributes
            )
        );
    }
    for name in b.keys() {
        assert!(a.contains_key(name), "{name} is new");
    }
}
