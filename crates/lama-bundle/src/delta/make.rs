// SPDX-License-Identifier: Apache-2.0
//! A delta bundle out of a bundle and the images of an earlier version; and back, as a machine does it.

use super::diff::{Encoder, diff};
use crate::open::With;
use crate::{Bundle, Error, Result};
use lama_exec::fs::{self, AtPath, Scratch, Staged};
use lama_exec::progress::{Progress, Unit};
use lama_node::delta::crypt::{Cipher, delta_key};
use lama_node::delta::rebuild::{self as node, Base};
use lama_node::delta::sink::Crypt;
use lama_node::delta::tree::Leaves;
use lama_node::delta::{BLOCK, Header, Image, Plan, Segment, hex};
use memmap2::Mmap;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// zstd level of instructions and literals: they are few.
const LEVEL: i32 = 19;
/// zstd window of the literals, as a power of two: what a machine needs in memory for them.
const WINDOW: u32 = 25;
/// Bytes of a chunk: what is loaded again at most where a download was interrupted or damaged.
const CHUNK: u32 = 1 << 20;
/// Of an image, this much has to be found again in the payload to take it for its place.
const HEAD: usize = 4096;

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Made {
    /// Bytes of the delta bundle.
    pub size: u64,
    /// Bytes of the bundle that it stands for.
    pub bundle: u64,
    /// Bytes of the payload that come from the earlier images.
    pub copied: u64,
    /// Bytes of instructions, compressed.
    pub instructions: u64,
    /// Bytes of literals, compressed.
    pub literals: u64,
}

/// A file in memory, read when it is needed.
fn map(path: &Path) -> Result<Option<Mmap>> {
    let file = fs::open(path)?;
    if file.metadata().at("look at", path)?.len() == 0 {
        return Ok(None);
    }
    // SAFETY: a file of a private scratch folder, or an artefact, which are replaced and not written.
    Ok(Some(unsafe { Mmap::map(&file) }.at("map", path)?))
}

/// Makes `out`: the way from the images `old` (slot class and file) of version `from` to `bundle`,
/// whose images `new` lie outside of it as well.
///
/// # Errors
/// The bundle cannot be opened here, or has other images.
pub fn make(
    bundle: &Bundle,
    with: With<'_>,
    from: &str,
    old: &[(&str, PathBuf)],
    out: &Path,
    progress: &dyn Progress,
) -> Result<Made> {
    let crypt = bundle.crypt()?;
    let images = bundle.manifest()?.images();
    let dir = Scratch::new_in(with.scratch)?;
    let payload_file = dir.path().join("payload");
    decrypt(bundle, &crypt, &payload_file)?;
    let payload = map(&payload_file)?;
    let payload = payload.as_deref().unwrap_or(&[]);
    let content = dir.path().join("content");
    with.tools
        .command("unsquashfs")
        .args(["-no-progress", "-quiet", "-no-xattrs", "-d"])
        .arg(&content)
        .arg(&payload_file)
        .bind(dir.path())
        .run()?;

    let task = progress.task("Comparing with the earlier version", Unit::Busy, 0);
    let mut base = Vec::new();
    let mut maps = Vec::new();
    let mut at = 0u64;
    for (class, path) in old {
        let data = map(path)?;
        let bytes = data.as_deref().unwrap_or(&[]);
        base.push(Image {
            class: (*class).to_owned(),
            size: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
        });
        let len = bytes.len() as u64;
        maps.push((*class, at, data));
        at += len;
    }

    // What of the payload is computed, and what follows from which earlier image.
    let mut parts: Vec<(usize, usize, Part)> = Vec::new();
    for i in &images {
        let file = content.join(&i.file);
        let place = |what: &Path| -> Result<Option<(usize, usize)>> {
            let data = map(what)?;
            Ok(find(payload, data.as_deref().unwrap_or(&[])))
        };
        let Some((start, len)) = place(&file)? else {
            continue;
        };
        let tree = parts.iter().find_map(|(s, l, p)| match p {
            Part::Old("rootfs") => hash_tree(payload, (*s, *l), (start, len)),
            _ => None,
        });
        match (i.class.as_str(), tree) {
            ("verity", Some(salt)) => {
                let (root, size) = first(&parts);
                parts.push((start + BLOCK, len - BLOCK, Part::Tree(root, size, salt)));
            }
            (class, _) => {
                if let Some((known, ..)) = maps.iter().find(|m| m.0 == class) {
                    parts.push((start, len, Part::Old(known)));
                }
            }
        }
        let index = content.join(format!("{}.block-hash-index", i.file));
        if index.is_file()
            && len % BLOCK == 0
            && let Some((s, l)) = place(&index)?
            && l == len / BLOCK * 32
        {
            parts.push((s, l, Part::Index(start as u64, len as u64)));
        }
    }
    parts.sort_by_key(|p| p.0);

    let mut encoder = Encoder::default();
    let mut segments = Vec::new();
    let mut patch = 0u64;
    let mut done = 0;
    for (start, len, part) in &parts {
        if *start < done {
            continue;
        }
        encoder.insert(payload.get(done..*start).unwrap_or_default());
        patch += (*start - done) as u64;
        done = *start + *len;
        let computed = match part {
            Part::Old(class) => {
                let new = payload.get(*start..done).unwrap_or_default();
                if let Some((_, base, data)) = maps.iter().find(|m| m.0 == *class) {
                    diff(data.as_deref().unwrap_or(&[]), *base, new, &mut encoder);
                }
                patch += *len as u64;
                continue;
            }
            Part::Index(start, size) => Segment::Index {
                start: *start,
                size: *size,
            },
            Part::Tree(start, size, salt) => Segment::Tree {
                start: *start,
                size: *size,
                salt: salt.clone(),
            },
        };
        segments.push(Segment::Patch { size: patch });
        segments.push(computed);
        patch = 0;
    }
    encoder.insert(payload.get(done..).unwrap_or_default());
    segments.push(Segment::Patch {
        size: patch + (payload.len() - done) as u64,
    });
    let copied = encoder.finish();
    drop(task);

    let task = progress.task("Compressing what is new", Unit::Busy, 0);
    let control = compress(&encoder.control).at("compress for", out)?;
    let literals = compress(&encoder.literals).at("compress for", out)?;
    drop(task);
    let plan = Plan {
        segments,
        control: control.len() as u64,
        control_raw: encoder.control.len() as u64,
        literals: literals.len() as u64,
        literals_raw: encoder.literals.len() as u64,
    };
    let plan = serde_json::to_vec(&plan).unwrap_or_default();
    let mut stream = u32::try_from(plan.len())
        .unwrap_or(0)
        .to_le_bytes()
        .to_vec();
    for part in [&plan, &control, &literals] {
        stream.extend_from_slice(part);
    }
    stream.resize(stream.len().next_multiple_of(BLOCK), 0);
    let nonce = random(out)?;
    let cipher = Cipher::new(&delta_key(&crypt.key, &nonce));
    for (n, sector) in stream.chunks_mut(BLOCK).enumerate() {
        cipher.encrypt(sector, n as u64);
    }
    let get = |key| {
        bundle
            .manifest()
            .map(|m| m.get("update", key).unwrap_or("").to_owned())
    };
    let header = Header {
        compatible: get("compatible")?,
        from: from.to_owned(),
        to: get("version")?,
        base,
        bundle_size: bundle.size,
        bundle_sha256: crate::digest(&bundle.path)?.1,
        cms: u32::try_from(bundle.cms.len()).unwrap_or(0),
        nonce: hex(&nonce),
        chunk: CHUNK,
        size: stream.len() as u64,
        chunks: stream
            .chunks(CHUNK as usize)
            .map(|c| hex(&Sha256::digest(c)))
            .collect(),
    };
    let header = header.to_bytes().map_err(|e| (out.to_owned(), e))?;
    let mut staged = Staged::new(out)?;
    for part in [&header, &bundle.cms, &stream] {
        staged.write_all(part).at("write", out)?;
    }
    staged.commit(0o644)?;
    Ok(Made {
        size: (header.len() + bundle.cms.len() + stream.len()) as u64,
        bundle: bundle.size,
        copied,
        instructions: control.len() as u64,
        literals: literals.len() as u64,
    })
}

/// What a part of the payload is.
enum Part<'a> {
    /// Something like the earlier image of this class.
    Old(&'a str),
    /// The hash index of a part: its beginning and length.
    Index(u64, u64),
    /// The hash tree of a part, and its salt.
    Tree(u64, u64, String),
}

fn first(parts: &[(usize, usize, Part<'_>)]) -> (u64, u64) {
    let root = parts.iter().find(|p| matches!(p.2, Part::Old("rootfs")));
    root.map_or((0, 0), |p| (p.0 as u64, p.1 as u64))
}

/// Where an image lies in the payload: a squashfs that is not compressed has it in one piece.
fn find(payload: &[u8], image: &[u8]) -> Option<(usize, usize)> {
    let head = image
        .get(..HEAD.min(image.len()))
        .filter(|h| !h.is_empty())?;
    memchr::memmem::find_iter(payload, head)
        .find(|at| payload.get(*at..*at + image.len()) == Some(image))
        .map(|at| (at, image.len()))
}

/// The salt, where the second part is the verity image of the first with a superblock as
/// `lama_image::verity` writes it: what is behind it can be computed.
fn hash_tree(payload: &[u8], data: (usize, usize), image: (usize, usize)) -> Option<String> {
    let image = payload.get(image.0..image.0 + image.1)?;
    let (superblock, tree) = image.split_at_checked(BLOCK)?;
    let salt_len = u16::from_le_bytes(superblock.get(80..82)?.try_into().ok()?);
    let salt = superblock.get(88..88 + usize::from(salt_len))?;
    let mut leaves = Leaves::new(salt);
    leaves.update(payload.get(data.0..data.0 + data.1)?);
    (superblock.starts_with(b"verity\0\0") && leaves.tree().0 == tree).then(|| hex(salt))
}

fn compress(data: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut z = zstd::Encoder::new(Vec::new(), LEVEL)?;
    z.window_log(WINDOW)?;
    z.long_distance_matching(true)?;
    z.set_pledged_src_size(Some(data.len() as u64))?;
    z.write_all(data)?;
    z.finish()
}

fn random(out: &Path) -> Result<[u8; 16]> {
    let mut nonce = [0; 16];
    let source = Path::new("/dev/urandom");
    fs::open(source)?
        .read_exact(&mut nonce)
        .at("read for", out)?;
    Ok(nonce)
}

/// Writes the decrypted payload of a bundle.
fn decrypt(bundle: &Bundle, crypt: &Crypt, out: &Path) -> Result<()> {
    let mut left = bundle.content.saturating_sub(crypt.tree);
    let cipher = Cipher::new(&crypt.key);
    let mut file = bundle.file()?;
    let mut to = fs::create(out)?;
    let mut buf = vec![0; 256 * BLOCK];
    let mut sector = 0;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(buf.len()).min(buf.len());
        let part = buf.get_mut(..n).unwrap_or_default();
        file.read_exact(part).at("read", &bundle.path)?;
        for s in part.chunks_mut(BLOCK) {
            cipher.decrypt(s, sector);
            sector += 1;
        }
        to.write_all(part).at("write", out)?;
        left -= n as u64;
    }
    Ok(())
}

/// Makes the bundle `out` of the delta bundle and the earlier images, as a machine does it.
///
/// # Errors
/// No key here opens it, the images are others, or it is damaged.
pub fn rebuild(delta: &Path, with: With<'_>, old: &[PathBuf], out: &Path) -> Result<()> {
    let fail = |e: lama_node::Error| Error::from((delta.to_owned(), e));
    let mut file = fs::open(delta)?;
    let header = Header::read(&mut file).map_err(fail)?;
    let mut cms = vec![0; header.cms as usize];
    file.read_exact(&mut cms).at("read", delta)?;
    // As the end of a bundle, the structure is opened as any other.
    let dir = Scratch::new_in(with.scratch)?;
    let end = dir.path().join("end");
    let tail = [cms.as_slice(), &(cms.len() as u64).to_be_bytes()].concat();
    fs::write(&end, tail)?;
    let crypt = Bundle::open(&end, with)?.crypt()?;
    let files = old
        .iter()
        .map(|p| Ok(fs::open(p)?))
        .collect::<Result<_>>()?;
    let base = Base::new(&header, files).map_err(fail)?;
    let unzstd = |r: Box<dyn Read + Send>| -> lama_node::Result<Box<dyn Read>> {
        let d = zstd::Decoder::new(r);
        let d = d.map_err(|e| lama_node::Error::new(e.to_string()))?;
        Ok(Box::new(d))
    };
    let mut staged = Staged::new(out)?;
    node::rebuild(&header, file, &cms, &crypt, &base, &unzstd, &mut staged).map_err(fail)?;
    Ok(staged.commit(0o644)?)
}
