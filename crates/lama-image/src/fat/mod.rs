// SPDX-License-Identifier: Apache-2.0
//! The EFI system partition: a FAT32 file system written in one pass.
//!
//! (Microsoft "FAT: General Overview of On-Disk Format" 1.03; UEFI specification 13.3.) The whole
//! layout is computed first; then each file is written once, straight to its place in the disk
//! image. Files lie in one piece each, in the order of their names; the serial number and all times
//! are given, so the result depends on nothing else.

mod name;

use crate::{Error, Result};
use lama_exec::fs::{self, AtPath};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SECTOR: u64 = 512;
/// FAT32 has at least this many clusters, or it would be taken for FAT16.
const MIN_CLUSTERS: u64 = 65_525;
const MAX_CLUSTERS: u64 = 0x0fff_fff5;
const RESERVED: u64 = 32;
const END: u32 = 0x0fff_ffff;
const DIRECTORY: u8 = 0x10;
const VOLUME_ID: u8 = 0x08;

/// Where the content of a file comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// A file of this machine.
    File(PathBuf),
}

impl Source {
    fn len(&self) -> Result<u64> {
        Ok(match self {
            Source::Bytes(b) => b.len() as u64,
            Source::File(p) => fs::metadata(p)?.len(),
        })
    }
}

/// How the file system is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Volume label: at most 11 characters of ASCII, made upper case.
    pub label: String,
    /// Volume serial number.
    pub serial: u32,
    /// Size in bytes, a multiple of 512; without one it fits the content, at least 64 MiB.
    pub size: Option<u64>,
    /// Time of all files, seconds since 1970 (FAT begins in 1980 and counts two seconds).
    pub epoch: u64,
}

/// A file system that is laid out but not written.
#[derive(Debug, Clone)]
pub struct Image {
    size: u64,
    /// Metadata: offset and bytes.
    meta: Vec<(u64, Vec<u8>)>,
    /// Files: offset and source.
    files: Vec<(u64, Source)>,
}

#[derive(Debug, Default)]
struct Dir {
    dirs: BTreeMap<String, Dir>,
    files: BTreeMap<String, Source>,
}

impl Dir {
    fn insert(&mut self, path: &str, source: Source) -> Result<()> {
        let clash = || Error::Option {
            what: format!("the file `{path}` of the EFI system partition"),
            reason: "another file or directory has that name (FAT knows no case)".into(),
        };
        let mut dir = self;
        let mut parts = path.trim_matches('/').split('/').peekable();
        while let Some(part) = parts.next() {
            name::check(part, path)?;
            let same = |k: &&String| k.eq_ignore_ascii_case(part);
            if parts.peek().is_some() {
                if dir.files.keys().any(|k| same(&k)) {
                    return Err(clash());
                }
                let known = dir.dirs.keys().find(same).cloned();
                dir = dir
                    .dirs
                    .entry(known.unwrap_or(part.to_owned()))
                    .or_default();
            } else {
                if dir.files.keys().any(|k| same(&k)) || dir.dirs.keys().any(|k| same(&k)) {
                    return Err(clash());
                }
                dir.files.insert(part.to_owned(), source);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Bytes of its table: label, `.` and `..`, entries with their long names.
    fn table_len(&self) -> u64 {
        let names = self.dirs.keys().chain(self.files.keys());
        64 + names
            .map(|n| 32 * (1 + n.len().div_ceil(13) as u64))
            .sum::<u64>()
    }

    fn clusters(&self, cluster: u64) -> Result<u64> {
        let mut n = self.table_len().div_ceil(cluster);
        for d in self.dirs.values() {
            n += d.clusters(cluster)?;
        }
        for f in self.files.values() {
            n += f.len()?.div_ceil(cluster);
        }
        Ok(n)
    }
}

struct Writer {
    cluster: u64,
    data: u64,
    fat: Vec<u32>,
    time: [u8; 4],
    meta: Vec<(u64, Vec<u8>)>,
    files: Vec<(u64, Source)>,
}

impl Writer {
    /// Takes clusters for so many bytes and chains them. Returns the first and its offset.
    fn allocate(&mut self, bytes: u64) -> (u32, u64) {
        let first = self.fat.len() as u32;
        let n = bytes.div_ceil(self.cluster) as u32;
        for i in 1..=n {
            self.fat.push(if i == n { END } else { first + i });
        }
        (first, self.data + u64::from(first - 2) * self.cluster)
    }

    fn dir(&mut self, dir: Dir, label: Option<&[u8; 11]>, parent: u32) -> Result<u32> {
        let (first, offset) = self.allocate(dir.table_len());
        let mut table = Vec::new();
        let time = self.time;
        let entry = |table: &mut Vec<u8>, name: &[u8; 11], attribute, cluster: u32, len: u32| {
            let hi = ((cluster >> 16) as u16).to_le_bytes();
            let lo = (cluster as u16).to_le_bytes();
            table.extend(name);
            table.extend([attribute, 0, 0]);
            table.extend(time); // made
            table.extend(&time[2..]); // read
            table.extend(hi);
            table.extend(time); // written
            table.extend(lo);
            table.extend(len.to_le_bytes());
        };
        match label {
            Some(l) => entry(&mut table, l, VOLUME_ID, 0, 0),
            None => {
                entry(&mut table, b".          ", DIRECTORY, first, 0);
                entry(&mut table, b"..         ", DIRECTORY, parent, 0);
            }
        }
        let mut short = name::Shortener::default();
        // The root is 0 where a directory names it as its parent.
        let here = if label.is_some() { 0 } else { first };
        for (n, d) in dir.dirs {
            let name = short.entries(&n, &mut table);
            let at = self.dir(d, None, here)?;
            entry(&mut table, &name, DIRECTORY, at, 0);
        }
        for (n, f) in dir.files {
            let name = short.entries(&n, &mut table);
            let len = f.len()?;
            let size = u32::try_from(len).map_err(|_| Error::Option {
                what: format!("the file `{n}` of the EFI system partition"),
                reason: "FAT holds files of less than 4 GiB".into(),
            })?;
            let at = if len == 0 {
                0
            } else {
                let (at, offset) = self.allocate(len);
                self.files.push((offset, f));
                at
            };
            entry(&mut table, &name, 0x20, at, size);
        }
        self.meta.push((offset, table));
        Ok(first)
    }
}

/// Lays out a file system with these files (paths relative to its root, `/` between components).
///
/// # Errors
/// A name that FAT can't hold, two that differ in case only, or too little space.
pub fn layout(files: &BTreeMap<String, Source>, options: &Options) -> Result<Image> {
    let mut root = Dir::default();
    for (path, source) in files {
        root.insert(path, source.clone())?;
    }
    // Sectors before the data region: reserved ones and two FATs.
    let overhead = |clusters: u64| RESERVED + 2 * ((clusters + 2) * 4).div_ceil(SECTOR);
    let (size, cluster) = match options.size {
        Some(s) => (
            s / SECTOR * SECTOR,
            if s > 260 << 20 { 4096 } else { SECTOR },
        ),
        None => {
            let need = root.clusters(SECTOR)?.max(MIN_CLUSTERS + 1);
            let bytes = (overhead(need) + need) * SECTOR;
            (bytes.max(64 << 20).next_multiple_of(1 << 20), SECTOR)
        }
    };
    // The smallest FAT that has an entry for each cluster that is left beside it.
    let sectors = size / SECTOR;
    let left = |fat: u64| sectors.saturating_sub(RESERVED + 2 * fat) / (cluster / SECTOR);
    let mut fat_sectors = sectors / (cluster / SECTOR) * 4 / (SECTOR + 8);
    while (left(fat_sectors) + 2) * 4 > fat_sectors * SECTOR {
        fat_sectors += 1;
    }
    let clusters = left(fat_sectors);
    let need = root.clusters(cluster)?.max(MIN_CLUSTERS);
    if clusters < need || clusters > MAX_CLUSTERS {
        return Err(Error::TooSmall {
            what: "the EFI system partition".into(),
            need: overhead(need) * SECTOR + need * cluster,
            have: size,
        });
    }
    let mut label = [b' '; 11];
    for (to, from) in label.iter_mut().zip(options.label.bytes()) {
        *to = if from.is_ascii_graphic() {
            from.to_ascii_uppercase()
        } else {
            b' '
        };
    }
    let mut w = Writer {
        cluster,
        data: (RESERVED + 2 * fat_sectors) * SECTOR,
        fat: vec![0x0fff_fff8, END],
        time: name::time(options.epoch),
        meta: Vec::new(),
        files: Vec::new(),
    };
    let root_cluster = w.dir(root, Some(&label), 0)?;
    let used = w.fat.len() as u64 - 2;
    let boot = boot_sector(
        size,
        cluster,
        fat_sectors,
        root_cluster,
        options.serial,
        &label,
    );
    let info = info_sector(clusters - used, w.fat.len() as u32);
    let fat: Vec<u8> = w.fat.iter().flat_map(|e| e.to_le_bytes()).collect();
    let mut meta = w.meta;
    for (sector, data) in [
        (0, &boot),
        (1, &info),
        (6, &boot),
        (7, &info),
        (RESERVED, &fat),
        (RESERVED + fat_sectors, &fat),
    ] {
        meta.push((sector * SECTOR, data.clone()));
    }
    Ok(Image {
        size,
        meta,
        files: w.files,
    })
}

fn boot_sector(
    size: u64,
    cluster: u64,
    fat_sectors: u64,
    root: u32,
    serial: u32,
    label: &[u8; 11],
) -> Vec<u8> {
    let mut b = vec![0u8; 512];
    let mut put = |at: usize, d: &[u8]| {
        if let Some(s) = b.get_mut(at..at + d.len()) {
            s.copy_from_slice(d);
        }
    };
    put(0, &[0xeb, 0x58, 0x90]);
    put(3, b"LAMADIST");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[(cluster / SECTOR) as u8]);
    put(14, &(RESERVED as u16).to_le_bytes());
    put(16, &[2]); // FATs
    put(21, &[0xf8]); // fixed disk
    put(24, &63u16.to_le_bytes());
    put(26, &255u16.to_le_bytes());
    put(32, &((size / SECTOR) as u32).to_le_bytes());
    put(36, &(fat_sectors as u32).to_le_bytes());
    put(44, &root.to_le_bytes());
    put(48, &1u16.to_le_bytes()); // FSInfo
    put(50, &6u16.to_le_bytes()); // backup boot sector
    put(64, &[0x80, 0, 0x29]);
    put(67, &serial.to_le_bytes());
    put(71, label);
    put(82, b"FAT32   ");
    put(510, &[0x55, 0xaa]);
    b
}

fn info_sector(free: u64, next: u32) -> Vec<u8> {
    let mut b = vec![0u8; 512];
    let mut put = |at: usize, d: &[u8]| {
        if let Some(s) = b.get_mut(at..at + d.len()) {
            s.copy_from_slice(d);
        }
    };
    put(0, b"RRaA");
    put(484, b"rrAa");
    put(488, &(free as u32).to_le_bytes());
    put(492, &next.to_le_bytes());
    put(508, &[0, 0, 0x55, 0xaa]);
    b
}

impl Image {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes it into `out` (at `path`, for messages) from `offset` on. What it does not write must
    /// be zero there.
    pub fn write_at(&self, out: &File, path: &Path, offset: u64) -> Result<()> {
        for (at, data) in &self.meta {
            out.write_all_at(data, offset + at).at("write", path)?;
        }
        for (at, source) in &self.files {
            match source {
                Source::Bytes(b) => out.write_all_at(b, offset + at).at("write", path)?,
                Source::File(p) => {
                    crate::disk::copy_file(p, out, path, offset + at)?;
                }
            }
        }
        Ok(())
    }
}
