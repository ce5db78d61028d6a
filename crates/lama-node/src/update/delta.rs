// SPDX-License-Identifier: Apache-2.0
//! The full bundle out of a delta bundle and what runs, as a file ([`crate::delta`] has the format).

use super::channel::VERIFY;
use super::node::Node;
use super::progress::Progress;
use crate::delta::rebuild::{self, Base};
use crate::delta::sink::Crypt;
use crate::delta::{Header, MAGIC};
use crate::error::Context;
use crate::run::Run;
use crate::stream::{Feed, Stream};
use crate::{Error, Result, fs};
use std::io::{Read, Write};
use std::path::Path;

/// What zstd(1) may take for its window; delta bundles need half of it.
const MEMORY: &str = "--memory=64MiB";

/// What the signed channel file says of the bundle that has to come out.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Its version.
    pub version: &'a str,
    /// Its bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: &'a str,
}

/// Whether a file is a delta bundle.
pub fn is_one(path: &Path) -> bool {
    let mut start = [0; 8];
    let read = fs::open(path).and_then(|mut f| f.read_exact(&mut start).context("cannot read"));
    read.is_ok() && start == *MAGIC
}

/// What a delta bundle says of itself.
///
/// # Errors
/// It is none, or cannot be read.
pub fn header(path: &Path) -> Result<Header> {
    Header::read(&mut fs::open(path)?).map_err(|e| e.within(&path.display().to_string()))
}

/// Whether it leads from what runs here to what is expected.
///
/// # Errors
/// It does not.
pub fn suits(header: &Header, node: &dyn Node, expected: Option<&Expected<'_>>) -> Result<()> {
    if header.compatible != node.compatible() {
        return Err(Error::new(format!(
            "the delta bundle is for {}, and this machine is {}",
            header.compatible,
            node.compatible()
        )));
    }
    if header.from != node.version() {
        return Err(Error::new(format!(
            "the delta bundle begins with {}, and {} runs here",
            header.from,
            node.version()
        ))
        .hint("take the full bundle"));
    }
    let Some(e) = expected else { return Ok(()) };
    let same = header.to == e.version
        && header.bundle_size == e.size
        && header.bundle_sha256.eq_ignore_ascii_case(e.sha256);
    if !same {
        return Err(Error::new(format!(
            "the delta bundle leads to another bundle ({}) than the channel speaks of ({})",
            header.to, e.version
        )));
    }
    Ok(())
}

/// Makes `out` of the delta bundle `file`, by way of `beside`. What is under `out` then is, bit for
/// bit, the bundle of which the delta bundle's header has the SHA-256.
///
/// # Errors
/// Nobody who is trusted signed it, it is not encrypted to this machine, another system runs here
/// than it begins with, it is damaged, the disk is full. `out` is not touched then.
pub fn make(file: &Path, node: &dyn Node, beside: &Path, out: &Path) -> Result<()> {
    let what = file.display().to_string();
    let mut delta = fs::open(file)?;
    let header = Header::read(&mut delta).map_err(|e| e.within(&what))?;
    suits(&header, node, None)?;
    let mut cms = vec![0; header.cms as usize];
    delta.read_exact(&mut cms).context(&what)?;
    let crypt = Crypt::parse(&manifest(&cms, node, beside)?)?;
    let classes: Vec<&str> = header.base.iter().map(|i| i.class.as_str()).collect();
    let files = node.images(&classes)?;
    let made = Base::new(&header, files).and_then(|base| {
        fs::remove(beside)?;
        let mut to = Counted {
            file: fs::open_rw(beside, 0o600)?,
            done: 0,
            most: header.bundle_size,
            progress: Progress::new("making the bundle", header.bundle_size),
        };
        rebuild::rebuild(&header, delta, &cms, &crypt, &base, &unzstd, &mut to)
    });
    let done = made.and_then(|()| fs::commit(beside, out));
    if done.is_err() {
        fs::remove(beside)?;
    }
    done
}

/// The signed manifest in a bundle's CMS structure. `scratch` is where the structure, which is no
/// secret, lies meanwhile; the key and what it opens never lie on a disk.
fn manifest(cms: &[u8], node: &dyn Node, scratch: &Path) -> Result<String> {
    fs::write(scratch, cms, 0o600)?;
    let opened = open(scratch, node);
    fs::remove(scratch)?;
    opened
}

fn open(cms: &Path, node: &dyn Node) -> Result<String> {
    let decrypt = Run::new("openssl")
        .args(["cms", "-decrypt", "-binary", "-inform", "DER"])
        .args(["-inkey", "/dev/stdin", "-recip"])
        .arg(node.certificate())
        .arg("-in")
        .arg(cms)
        .stdin(node.key()?);
    let signed = openssl(decrypt, "the bundle is not encrypted to this machine")
        .map_err(|e| e.hint("`lama-node key` prints the certificate to encrypt it to"))?;
    let verify = Run::new("openssl")
        .args(VERIFY)
        .arg("-CAfile")
        .arg(node.keyring())
        .stdin(signed);
    let manifest = openssl(
        verify,
        "the bundle is signed by nobody whom this machine trusts",
    )?;
    String::from_utf8(manifest).map_err(|_| Error::new("the bundle's manifest is no text"))
}

/// What openssl(1) puts out; where it fails, `otherwise` and its last words.
fn openssl(run: Run, otherwise: &str) -> Result<Vec<u8>> {
    let out = run.any()?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let last = said.lines().last().unwrap_or("openssl does not say why");
    Err(Error::new(format!("{otherwise}: {last}")))
}

/// A file of a known length that is being written.
struct Counted {
    file: std::fs::File,
    done: u64,
    most: u64,
    progress: Progress,
}

impl Write for Counted {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        if buf.len() as u64 > self.most.saturating_sub(self.done) {
            return Err(std::io::Error::other("it becomes larger than the bundle"));
        }
        let n = self.file.write(buf)?;
        self.done += n as u64;
        self.progress.at(self.done);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// zstd(1), which is on the image, so that this program needs no library for it.
fn unzstd(packed: Feed) -> Result<Box<dyn Read>> {
    let run = Run::new("zstd").args(["--decompress", "--stdout", "--quiet", MEMORY]);
    let zstd = Stream::start(&run, Some(packed))?;
    Ok(Box::new(Unpacked { zstd, ended: false }))
}

/// What comes out of zstd(1); where it ends too early, why.
struct Unpacked {
    zstd: Stream,
    ended: bool,
}

impl Read for Unpacked {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.zstd.read(buf)?;
        if n == 0 && !buf.is_empty() && !std::mem::replace(&mut self.ended, true) {
            let (status, said) = self.zstd.end().map_err(std::io::Error::other)?;
            if !status.success() {
                let said = said.trim();
                return Err(std::io::Error::other(format!("zstd: {status}: {said}")));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn zstd_is_read_to_its_end_or_says_why_not() {
        let run = Run::new("zstd").args(["-q", "-c"]).stdin(vec![5; 1 << 20]);
        let Ok(packed) = run.run().map(|o| o.stdout) else {
            eprintln!("SKIP: no zstd here");
            return;
        };
        let all = |data: &[u8]| {
            let mut out = Vec::new();
            let mut r = unzstd(Box::new(Cursor::new(data.to_vec()))).unwrap();
            r.read_to_end(&mut out).map(|_| out)
        };
        assert_eq!(all(&packed).unwrap(), vec![5; 1 << 20]);
        for bad in [&packed[..packed.len() - 9], b"nonsense"] {
            let e = all(bad).unwrap_err();
            assert!(e.to_string().contains("zstd: exit status"), "{e}");
        }
    }

    #[test]
    fn no_more_than_the_bundle_is_written() {
        let t = tempfile::tempdir().unwrap();
        let path = t.path().join("x");
        let mut to = Counted {
            file: fs::open_rw(&path, 0o600).unwrap(),
            done: 0,
            most: 10,
            progress: Progress::new("x", 10),
        };
        to.write_all(&[1; 10]).unwrap();
        assert!(to.write_all(&[1]).is_err());
        assert_eq!(fs::size(&path), Some(10));
        assert!(!is_one(&path) && !is_one(&t.path().join("none")));
        fs::write(&path, MAGIC, 0o600).unwrap();
        assert!(is_one(&path) && header(&path).is_err());
    }
}
