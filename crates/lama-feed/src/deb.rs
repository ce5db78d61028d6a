// SPDX-License-Identifier: Apache-2.0
//! Reader for binary packages (deb(5)): an `ar` archive of `debian-binary`, `control.tar.*` and
//! `data.tar.*`.
//!
//! A package is untrusted until its hash has been checked, so every size is bounded here and
//! nothing is allocated on the word of a header.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lama_exec::fs::{self, AtPath, FsError};

use crate::deb822::{self, Fields};

/// More members than this has no package.
const MAX_MEMBERS: usize = 64;
/// Limit of `control.tar`, unpacked.
const MAX_CONTROL: u64 = 64 << 20;
/// Limit of an xz decoder's memory; `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;

/// Names in `control.tar` that dpkg runs or acts upon.
const SCRIPTS: &[&str] = &[
    "preinst",
    "postinst",
    "prerm",
    "postrm",
    "config",
    "triggers",
    "conffiles",
];

/// Why a package cannot be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// The file itself.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] FsError),
    /// Not a package, or a damaged one.
    #[error("{} is no readable Debian package: {what}", path.display())]
    #[diagnostic(help(
        "the file is damaged or no .deb; if it lies in the store, remove it and it is fetched anew"
    ))]
    Format {
        /// The package.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Result of reading a package.
pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

#[derive(Debug, Clone)]
struct Member {
    start: u64,
    end: u64,
    compression: Compression,
}

/// What a package's `control.tar` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// The control stanza.
    pub fields: Fields,
    /// What dpkg would run or act upon, by name: preinst, postinst, prerm, postrm, config,
    /// triggers, conffiles.
    pub scripts: BTreeMap<String, Vec<u8>>,
    /// Everything else: md5sums, shlibs, symbols, templates …
    pub others: BTreeMap<String, Vec<u8>>,
}

/// An open package.
#[derive(Debug, Clone)]
pub struct Deb {
    path: PathBuf,
    file: Arc<File>,
    control: Member,
    data: Member,
}

impl Deb {
    /// Opens a package and looks through its members.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = fs::open(path)?;
        let size = file.metadata().at("look at", path)?.len();
        let fail = |what: String| Error::Format {
            path: path.to_owned(),
            what,
        };
        let (control, data) = members(&file, size).map_err(fail)?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            control,
            data,
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads `control.tar`.
    pub fn control(&self) -> Result<Control> {
        let reader = self.reader(&self.control)?.take(MAX_CONTROL);
        read_control(reader).map_err(|what| self.fail(format!("control.tar: {what}")))
    }

    /// `data.tar`, decompressed. Readers are independent of each other.
    pub fn data_reader(&self) -> Result<Box<dyn Read + Send>> {
        self.reader(&self.data)
    }

    /// Hands `data.tar`, decompressed, to `f`.
    pub fn data<T>(&self, f: impl FnOnce(&mut dyn Read) -> T) -> Result<T> {
        Ok(f(&mut *self.data_reader()?))
    }

    fn fail(&self, what: String) -> Error {
        Error::Format {
            path: self.path.clone(),
            what,
        }
    }

    fn reader(&self, m: &Member) -> Result<Box<dyn Read + Send>> {
        let raw = Section {
            file: Arc::clone(&self.file),
            pos: m.start,
            end: m.end,
        };
        let raw = BufReader::with_capacity(1 << 17, raw);
        decoder(raw, m.compression).map_err(|e| self.fail(e.to_string()))
    }
}

/// A part of a file, read by position: several of them share one descriptor.
struct Section {
    file: Arc<File>,
    pos: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.pos)).unwrap_or(usize::MAX);
        let want = left.min(buf.len());
        let n = self
            .file
            .read_at(buf.get_mut(..want).unwrap_or_default(), self.pos)?;
        if n == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pos += n as u64;
        Ok(n)
    }
}

fn decoder(raw: BufReader<Section>, c: Compression) -> io::Result<Box<dyn Read + Send>> {
    Ok(match c {
        Compression::None => Box::new(raw),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
        Compression::Xz => Box::new(xz_reader(raw)?),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(raw)?),
    })
}

/// A bounded xz decoder.
pub(crate) fn xz_reader<R: io::BufRead>(r: R) -> io::Result<impl Read + use<R>> {
    let stream =
        liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
    Ok(liblzma::bufread::XzDecoder::new_stream(r, stream))
}

fn members(file: &File, size: u64) -> std::result::Result<(Member, Member), String> {
    let mut magic = [0; 8];
    read_at(file, &mut magic, 0)?;
    if &magic != b"!<arch>\n" {
        return Err("it does not begin like an ar archive".into());
    }
    let (mut pos, mut seen, mut control) = (8u64, 0usize, None);
    while pos < size {
        let mut h = [0; 60];
        read_at(file, &mut h, pos)?;
        let (name, len) = header(&h).ok_or_else(|| format!("bad member header at byte {pos}"))?;
        let start = pos + 60;
        let end = start
            .checked_add(len)
            .filter(|e| *e <= size)
            .ok_or_else(|| format!("it is cut off inside member `{name}`"))?;
        pos = end + (end & 1);
        seen += 1;
        if seen > MAX_MEMBERS {
            return Err(format!("more than {MAX_MEMBERS} members"));
        }
        if seen == 1 {
            let mut v = [0; 4];
            if name == "debian-binary" && len >= 4 {
                read_at(file, &mut v, start)?;
            }
            if !v.starts_with(b"2.") {
                return Err("the first member is not `debian-binary` of version 2".into());
            }
        } else if let Some(ext) = name.strip_prefix("control.tar") {
            if control.is_some() {
                return Err("two control members".into());
            }
            control = Some(Member {
                start,
                end,
                compression: compression(ext)?,
            });
        } else if let Some(ext) = name.strip_prefix("data.tar") {
            let control = control.ok_or("data.tar stands before control.tar")?;
            return Ok((
                control,
                Member {
                    start,
                    end,
                    compression: compression(ext)?,
                },
            ));
        } else if !name.starts_with('_') {
            return Err(format!("unexpected member `{name}`"));
        }
    }
    Err(if control.is_some() {
        "no data.tar"
    } else {
        "no control.tar"
    }
    .into())
}

fn read_at(file: &File, buf: &mut [u8], pos: u64) -> std::result::Result<(), String> {
    file.read_exact_at(buf, pos).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut off".into(),
        _ => format!("byte {pos}: {e}"),
    })
}

/// Name and size of a member.
fn header(h: &[u8; 60]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(h).ok()?;
    if text.get(58..60)? != "`\n" {
        return None;
    }
    let name = text.get(..16)?.trim_end().trim_end_matches('/').to_owned();
    let len = text.get(48..58)?.trim_end();
    // Rust's parser would take a sign.
    if !len.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((name, len.parse().ok()?))
}

fn compression(ext: &str) -> std::result::Result<Compression, String> {
    match ext {
        "" => Ok(Compression::None),
        ".gz" => Ok(Compression::Gzip),
        ".xz" => Ok(Compression::Xz),
        ".zst" => Ok(Compression::Zstd),
        _ => Err(format!(
            "compression `{ext}` is not known here (gz, xz, zst, none)"
        )),
    }
}

fn read_control(reader: impl Read) -> std::result::Result<Control, String> {
    let mut out = Control::default();
    let mut stanza = None;
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(|e| e.to_string())? {
        let mut entry = entry.map_err(|e| e.to_string())?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().map_err(|e| e.to_string())?;
        let name = path
            .strip_prefix("./")
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        let mut data = Vec::new();
        entry
            .read_to_end(&mut data)
            .map_err(|e| format!("{name}: {e}"))?;
        match name.as_str() {
            "control" => stanza = Some(data),
            n if SCRIPTS.contains(&n) => drop(out.scripts.insert(name, data)),
            _ => drop(out.others.insert(name, data)),
        }
    }
    let stanza = stanza.ok_or("no file `control`")?;
    let text = std::str::from_utf8(&stanza).map_err(|e| format!("control: {e}"))?;
    let all = deb822::parse(text).map_err(|e| format!("control: {e}"))?;
    let [one] = all.as_slice() else {
        return Err(format!("control: {} stanzas in place of one", all.len()));
    };
    out.fields = Fields::from(one);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut b = tar::Builder::new(Vec::new());
        for (name, data) in files {
            let mut h = tar::Header::new_gnu();
            h.set_size(data.len() as u64);
            h.set_mode(0o755);
            b.append_data(&mut h, name, *data).unwrap();
        }
        b.into_inner().unwrap()
    }

    fn ar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut v = b"!<arch>\n".to_vec();
        for (name, data) in members {
            writeln!(
                v,
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`",
                0,
                0,
                0,
                100644,
                data.len()
            )
            .unwrap();
            v.extend_from_slice(data);
            if data.len() % 2 == 1 {
                v.push(b'\n');
            }
        }
        v
    }

    fn pack(data: &[u8], ext: &str) -> Vec<u8> {
        match ext {
            ".gz" => {
                let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                e.write_all(data).unwrap();
                e.finish().unwrap()
            }
            ".xz" => {
                let mut e = liblzma::write::XzEncoder::new(Vec::new(), 1);
                e.write_all(data).unwrap();
                e.finish().unwrap()
            }
            ".zst" => zstd::encode_all(data, 1).unwrap(),
            _ => data.to_vec(),
        }
    }

    fn sample(ext: &str) -> Vec<u8> {
        let control = tar_of(&[
            (
                "./control",
                b"Package: x\nVersion: 1\nDescription: a\n long\n",
            ),
            ("./postinst", b"#!/bin/sh\n"),
            ("./triggers", b"activate-noawait ldconfig\n"),
            ("./md5sums", b"0  x\n"),
        ]);
        let data = tar_of(&[("./usr/bin/x", b"program")]);
        ar_of(&[
            ("debian-binary", b"2.0\n"),
            ("_ignored/", b"odd"),
            (&format!("control.tar{ext}"), &pack(&control, ext)),
            (&format!("data.tar{ext}"), &pack(&data, ext)),
            ("later", b"is ignored"),
        ])
    }

    fn open(bytes: &[u8]) -> Result<(Control, Vec<u8>)> {
        let f = tempfile::NamedTempFile::new().unwrap();
        f.as_file().write_all_at(bytes, 0).unwrap();
        let deb = Deb::open(f.path())?;
        let control = deb.control()?;
        let mut v = Vec::new();
        let r = deb.data(|r| r.read_to_end(&mut v))?;
        r.at("read", f.path())?;
        Ok((control, v))
    }

    #[test]
    fn every_compression() {
        for ext in ["", ".gz", ".xz", ".zst"] {
            let (control, data) = open(&sample(ext)).unwrap();
            assert_eq!(control.fields.get("package"), Some("x"));
            assert_eq!(
                control.scripts.keys().collect::<Vec<_>>(),
                ["postinst", "triggers"]
            );
            assert_eq!(control.others.keys().collect::<Vec<_>>(), ["md5sums"]);
            assert_eq!(data, tar_of(&[("./usr/bin/x", b"program")]));
        }
    }

    #[test]
    fn damaged_ones_are_errors() {
        let whole = sample(".xz");
        for (what, bytes) in [
            ("begin", b"no archive at all".to_vec()),
            ("cut off", b"!<ar".to_vec()),
            ("control", ar_of(&[("debian-binary", b"2.0\n")])),
            (
                "version 2",
                ar_of(&[("debian-binary", b"3.0\n"), ("control.tar", b"")]),
            ),
            (
                "bzip",
                ar_of(&[("debian-binary", b"2.0\n"), ("control.tar.bzip", b"")]),
            ),
            (
                "cut off inside member `control.tar.xz`",
                whole[..300].to_vec(),
            ),
        ] {
            let e = open(&bytes).unwrap_err().to_string();
            assert!(e.contains(what), "{what}: {e}");
        }
        // Every truncation up to the end of data.tar fails, none panics.
        let end = whole.len() - 10 - 60;
        for n in 0..end - 1 {
            assert!(open(&whole[..n]).is_err(), "{n} of {end}");
        }
        assert!(open(&whole).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..Default::default() })]
        #[test]
        fn never_panics(flips in proptest::collection::vec((0usize..4000, any::<u8>()), 1..8), ext in 0usize..4) {
            let mut bytes = sample(["", ".gz", ".xz", ".zst"][ext]);
            for (at, byte) in flips {
                let n = bytes.len();
                bytes[at % n] = byte;
            }
            let _ = open(&bytes);
        }
    }
}
