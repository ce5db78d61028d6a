// SPDX-License-Identifier: Apache-2.0
//! The full bundle out of a delta bundle and the images of the earlier version.
//!
//! It takes one pass: a few megabytes of memory besides the instructions, the room of the finished
//! bundle on the disk, and nothing else. Interrupted, it is begun anew; what takes long is the
//! download, which goes on where it was ([`Header::verified`]).

use super::crypt::{Cipher, delta_key};
use super::ops::Op;
use super::sink::{Crypt, Sink};
use super::{BLOCK, Header, Plan, Segment, hex, unhex};
use crate::error::Context;
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

/// Instructions are not longer than this, in bytes.
const MOST_CONTROL: u64 = 64 << 20;
/// A plan is not longer than this, in bytes.
const MOST_PLAN: usize = 1 << 20;
/// Bytes that are copied at a time.
const PIECE: usize = 1 << 18;

/// Decompresses zstd: the program on a node, a library elsewhere.
pub type Unzstd<'a> = &'a dyn Fn(Box<dyn Read + Send>) -> Result<Box<dyn Read>>;

/// The earlier version's images, one after another.
pub struct Base {
    parts: Vec<(File, u64)>,
}

impl Base {
    /// Opened files or devices, of which the first `size` bytes are the images that `header` names.
    /// Each is read once, to see that it is that image: a machine may have been changed.
    ///
    /// # Errors
    /// There is another image.
    pub fn new(header: &Header, files: Vec<File>) -> Result<Self> {
        if files.len() != header.base.len() {
            return Err(Error::new(
                "the delta bundle needs other images than there are",
            ));
        }
        let mut parts = Vec::new();
        let mut buf = vec![0; PIECE];
        for (file, image) in files.into_iter().zip(&header.base) {
            let mut h = Sha256::new();
            let mut at = 0;
            while at < image.size {
                let n = usize::try_from(image.size - at).unwrap_or(PIECE).min(PIECE);
                let part = buf.get_mut(..n).unwrap_or_default();
                file.read_exact_at(part, at)
                    .context(format_args!("cannot read the earlier {}", image.class))?;
                h.update(part);
                at += n as u64;
            }
            if hex(&h.finalize()) != image.sha256 {
                return Err(Error::new(format!(
                    "the {} here is not that of {}, which the delta bundle begins with",
                    image.class, header.from
                ))
                .hint("take the full bundle"));
            }
            parts.push((file, image.size));
        }
        Ok(Self { parts })
    }

    fn read(&self, mut at: u64, mut buf: &mut [u8]) -> Result<()> {
        for (file, size) in &self.parts {
            if at >= *size {
                at -= size;
                continue;
            }
            let n = usize::try_from(size - at)
                .unwrap_or(usize::MAX)
                .min(buf.len());
            let (now, rest) = buf.split_at_mut(n);
            file.read_exact_at(now, at)
                .context("cannot read an earlier image")?;
            buf = rest;
            at = 0;
            if buf.is_empty() {
                return Ok(());
            }
        }
        Err(Error::new("an instruction leads out of the earlier images"))
    }
}

/// The decrypted stream of a delta bundle's chunks.
struct Chunks<R> {
    file: R,
    header: Header,
    cipher: Cipher,
    next: usize,
    sector: u64,
    data: Vec<u8>,
    used: usize,
}

impl<R: Read> Chunks<R> {
    fn fill(&mut self) -> Result<()> {
        let Some(want) = self.header.chunks.get(self.next) else {
            return Ok(());
        };
        self.data.resize(self.header.chunk_len(self.next), 0);
        self.used = 0;
        self.file
            .read_exact(&mut self.data)
            .context("the delta bundle is cut off")?;
        if hex(&Sha256::digest(&self.data)) != *want {
            return Err(Error::new(format!(
                "chunk {} of the delta bundle is damaged",
                self.next
            ))
            .hint("load it again"));
        }
        for s in self.data.chunks_mut(BLOCK) {
            self.cipher.decrypt(s, self.sector);
            self.sector += 1;
        }
        self.next += 1;
        Ok(())
    }
}

impl<R: Read> Read for Chunks<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.used == self.data.len() {
            self.data.clear();
            self.used = 0;
            self.fill().map_err(std::io::Error::other)?;
        }
        let rest = self.data.get(self.used..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(rest) {
            *to = *from;
        }
        self.used += n;
        Ok(n)
    }
}

/// Writes the bundle to `out`. `delta` stands behind its CMS structure, which is `cms`, and `crypt`
/// is what the manifest in that says.
///
/// # Errors
/// The delta bundle is damaged, or does not lead to the bundle that was signed; what was written to
/// `out` is worth nothing then.
pub fn rebuild(
    header: &Header,
    delta: impl Read + Send + 'static,
    cms: &[u8],
    crypt: &Crypt,
    base: &Base,
    unzstd: Unzstd<'_>,
    out: &mut impl Write,
) -> Result<()> {
    let nonce = unhex(&header.nonce).unwrap_or_default();
    let mut chunks = Chunks {
        file: delta,
        header: header.clone(),
        cipher: Cipher::new(&delta_key(&crypt.key, &nonce)),
        next: 0,
        sector: 0,
        data: Vec::new(),
        used: 0,
    };
    let plan = plan(&mut chunks)?;
    let control = control(&mut chunks, &plan, unzstd)?;
    let literals = Box::new(chunks.take(plan.literals));
    let mut literals = unzstd(literals)?.take(plan.literals_raw);

    let mut sink = Sink::new(BufWriter::with_capacity(PIECE, out), crypt);
    for s in &plan.segments {
        match s {
            Segment::Patch { .. } => {}
            Segment::Index { start, size } => sink.tap(*start, *size, &[]),
            Segment::Tree { start, size, salt } => {
                let salt = unhex(salt).ok_or_else(|| Error::new("a salt is no number"))?;
                sink.tap(*start, *size, &salt);
            }
        }
    }
    let mut machine = Machine {
        base,
        ops: &control,
        op: Op::default(),
        at: 0,
        buf: vec![0; PIECE],
    };
    for s in &plan.segments {
        if sink.at() > header.bundle_size {
            return Err(Error::new("the plan makes more than the bundle"));
        }
        match s {
            Segment::Patch { size } => machine.run(*size, &mut literals, &mut sink)?,
            Segment::Index { start, size } => {
                let leaves = sink.take(*start, *size)?;
                sink.push(leaves.digests())?;
            }
            Segment::Tree { start, size, .. } => {
                let (tree, _) = sink.take(*start, *size)?.tree();
                sink.push(&tree)?;
            }
        }
    }
    let (mut out, sha256) = sink.finish(crypt, cms)?;
    out.flush().context("cannot write the bundle")?;
    if sha256 != header.bundle_sha256 {
        return Err(Error::new(
            "another bundle came out than the header speaks of",
        ));
    }
    Ok(())
}

fn plan(chunks: &mut impl Read) -> Result<Plan> {
    let what = "cannot read the plan of the delta bundle";
    let mut len = [0; 4];
    chunks.read_exact(&mut len).context(what)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > MOST_PLAN {
        return Err(
            Error::new("the plan of the delta bundle cannot be understood")
                .hint("it is damaged, or encrypted by another key"),
        );
    }
    let mut json = vec![0; len];
    chunks.read_exact(&mut json).context(what)?;
    serde_json::from_slice(&json).context("the plan of the delta bundle")
}

fn control(chunks: &mut impl Read, plan: &Plan, unzstd: Unzstd<'_>) -> Result<Vec<u8>> {
    if plan.control > MOST_CONTROL || plan.control_raw > MOST_CONTROL {
        return Err(Error::new("the delta bundle has too many instructions"));
    }
    let what = "cannot read the instructions of the delta bundle";
    let mut packed = Vec::new();
    chunks
        .take(plan.control)
        .read_to_end(&mut packed)
        .context(what)?;
    let mut raw = Vec::new();
    unzstd(Box::new(std::io::Cursor::new(packed)))?
        .take(plan.control_raw + 1)
        .read_to_end(&mut raw)
        .context(what)?;
    if raw.len() as u64 != plan.control_raw {
        return Err(Error::new(
            "the instructions of the delta bundle are of another length",
        ));
    }
    Ok(raw)
}

/// Follows instructions, which may reach over the end of a segment.
struct Machine<'a> {
    base: &'a Base,
    ops: &'a [u8],
    /// What is left of the current one.
    op: Op,
    /// The place in the earlier images.
    at: u64,
    buf: Vec<u8>,
}

impl Machine<'_> {
    fn run<W: Write>(
        &mut self,
        mut size: u64,
        literals: &mut impl Read,
        sink: &mut Sink<W>,
    ) -> Result<()> {
        while size > 0 {
            if self.op.copy == 0 && self.op.insert == 0 {
                let next = Op::read(&mut self.ops)?;
                self.op = next.ok_or_else(|| Error::new("the instructions end too early"))?;
                let to = self.at.checked_add_signed(self.op.seek);
                self.at = to.ok_or_else(|| Error::new("an instruction leads nowhere"))?;
                continue;
            }
            let copying = self.op.copy > 0;
            let left = if copying {
                self.op.copy
            } else {
                self.op.insert
            };
            let n = left.min(size).min(PIECE as u64);
            let len = usize::try_from(n).unwrap_or(PIECE);
            let part = self.buf.get_mut(..len).unwrap_or_default();
            if copying {
                self.base.read(self.at, part)?;
                self.op.copy -= n;
            } else {
                literals
                    .read_exact(part)
                    .context("cannot read the literals of the delta bundle")?;
                self.op.insert -= n;
            }
            self.at = self.at.saturating_add(n);
            sink.push(part)?;
            size -= n;
        }
        Ok(())
    }
}
