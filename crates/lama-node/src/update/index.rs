// SPDX-License-Identifier: Apache-2.0
//! Hash indexes of the slots, before RAUC needs them.
//!
//! RAUC takes from both slots what a new image shares with them, by an index of SHA-256 of each block
//! of 4096 bytes (`block-hash-index`). It keeps the one of what it installed. Of a slot that it has
//! not installed it makes one, and then reads and hashes the whole partition: gigabytes, where the
//! image is a few hundred megabytes or the slot is empty (rauc #1835). So the image's is made here, of
//! the image alone; and where nothing is known of the other slot, one of a single block, which says
//! that there is nothing to be had. RAUC checks each block that it takes, so an index that is wrong
//! costs time and nothing else.
//!
//! RAUC removes an index that belongs to no status, so a slot that it has not installed gets that, too
//! (`central.raucs`, a GLib key file: RAUC 1.13, "Slot Status").

use super::rauc::Status;
use crate::delta::tree::Leaves;
use crate::delta::{BLOCK, hex};
use crate::error::Context;
use crate::kernel::Slot;
use crate::machine::{Machine, Partition, Role};
use crate::run::Run;
use crate::{Error, Result, fs, generator};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// RAUC's `data-directory`.
const DATA: &str = "/var/lib/lamadist/rauc";
/// RAUC's name of the file.
const FILE: &str = "block-hash-index";
/// Bytes that are read at a time.
const PIECE: usize = 1 << 18;

/// What `veritysetup format` wrote at the beginning of a hash partition (cryptsetup, "verity on-disk
/// format", version 1), as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Blocks of 4096 bytes that the tree covers.
    pub blocks: u64,
}

impl Superblock {
    /// Bytes that are read of it.
    pub const SIZE: usize = 512;

    /// Parses it; none where it is another's, or has blocks of another size.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            let bytes: [u8; 4] = data.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        let ours = data.starts_with(b"verity\0\0") && number(8)? == 1;
        let block = u32::try_from(BLOCK).ok();
        if !ours || number(64) != block || number(68) != block {
            return None;
        }
        let blocks: [u8; 8] = data.get(72..80)?.try_into().ok()?;
        let blocks = u64::from_le_bytes(blocks);
        (blocks > 0 && blocks < 1 << 32).then_some(Self { blocks })
    }

    /// Bytes of the image.
    pub fn data(&self) -> u64 {
        self.blocks * BLOCK as u64
    }

    /// Bytes of the hash partition's image: a block for the superblock, and the tree.
    pub fn hashes(&self) -> u64 {
        let (mut level, mut all) = (self.blocks, 1);
        while level > 1 {
            level = level.div_ceil(128);
            all += level;
        }
        // A tree of a single block of data still has one of hashes.
        all.max(2) * BLOCK as u64
    }
}

/// Sees to an index of each slot that RAUC would otherwise make of a whole partition.
///
/// # Errors
/// A slot cannot be read, or /var not be written. RAUC makes its own then, which takes longer.
pub fn prepare(machine: &Machine, status: &Status, running: Slot) -> Result<()> {
    let data = Path::new(DATA);
    let mut known = String::new();
    for p in &machine.layout {
        let Some((class, slot)) = class(p) else {
            continue;
        };
        let name = format!("{class}.{}", u8::from(slot == Slot::B));
        let digest = match (status.digest(&name), status.is_pending(&name)) {
            (Some(d), _) => Some(d),
            // It was cut off while it wrote this slot, and has put the index there.
            (None, true) => Some("unknown"),
            (None, false) => None,
        };
        let there = |d: &str| folder(data, &name, d).join(FILE);
        if digest.is_some_and(|d| there(d).exists()) {
            continue;
        }
        let index = match slot == running {
            true => image(machine, p, slot)?,
            false => Index::nothing(),
        };
        let file = there(digest.unwrap_or(&index.sha256));
        if let Some(dir) = file.parent() {
            fs::create_dir(dir)?;
        }
        fs::write(&file, &index.blocks, 0o600)?;
        if digest.is_none() {
            known += &index.status(&name, (slot == running).then_some(machine));
        }
    }
    if known.is_empty() {
        return Ok(());
    }
    // Its service read the file when it began; the next call starts it again.
    Run::new("systemctl").args(["stop", "rauc"]).run()?;
    let file = data.join("central.raucs");
    let before = fs::read_optional(&file)?.unwrap_or_default();
    let text = added(&String::from_utf8_lossy(&before), &known);
    fs::write(file, text, 0o644)
}

/// A key file with more groups; one that it has stays as it is.
fn added(before: &str, groups: &str) -> String {
    let mut text = before.trim_end().to_owned();
    for group in groups.split("\n\n").filter(|g| !g.is_empty()) {
        let name = group.lines().next().unwrap_or_default();
        if !before.lines().any(|l| l.trim() == name) {
            text = format!("{text}\n\n{}", group.trim_end());
        }
    }
    format!("{}\n", text.trim_start())
}

/// An index, and what it is of.
struct Index {
    /// SHA-256 of each block, one after another.
    blocks: Vec<u8>,
    /// Of the whole image, in hexadecimal.
    sha256: String,
    /// Bytes of the image.
    size: u64,
}

impl Index {
    /// Of a slot that holds nothing that is known: an image with this digest there is none.
    fn nothing() -> Self {
        Self {
            blocks: Sha256::digest([0; BLOCK]).to_vec(),
            sha256: "0".repeat(64),
            size: 0,
        }
    }

    /// Of all that can be read.
    fn of(from: &mut dyn Read) -> Result<Self> {
        let (mut leaves, mut whole, mut size) = (Leaves::new(&[]), Sha256::new(), 0);
        let mut piece = vec![0; PIECE];
        loop {
            let n = from.read(&mut piece).context("cannot read")?;
            let data = piece.get(..n).unwrap_or_default();
            if data.is_empty() {
                return Ok(Self {
                    blocks: leaves.digests().to_vec(),
                    sha256: hex(&whole.finalize()),
                    size,
                });
            }
            leaves.update(data);
            whole.update(data);
            size += n as u64;
        }
    }

    /// The status of the slot with this name; what `machine` tells is installed in it.
    fn status(&self, name: &str, machine: Option<&Machine>) -> String {
        let mut s = format!("[slot.{name}]\n");
        if let Some(m) = machine {
            s += &format!(
                "bundle.compatible={}\nbundle.version={}\nstatus=ok\n",
                m.compatible, m.version
            );
        }
        s + &format!("sha256={}\nsize={}\n\n", self.sha256, self.size)
    }
}

/// Where RAUC keeps what it knows of a slot with this content.
fn folder(data: &Path, slot: &str, digest: &str) -> PathBuf {
    data.join(format!("slot.{slot}"))
        .join(format!("hash-{digest}"))
}

/// RAUC's class of a partition whose images are adaptive, and its slot.
fn class(p: &Partition) -> Option<(&'static str, Slot)> {
    let slot = match p.slot.as_deref() {
        Some("a") => Slot::A,
        Some("b") => Slot::B,
        _ => return None,
    };
    match p.role {
        Role::Root => Some(("rootfs", slot)),
        Role::Verity => Some(("verity", slot)),
        Role::Esp | Role::Var => None,
    }
}

/// The index of the image that runs.
fn image(machine: &Machine, p: &Partition, slot: Slot) -> Result<Index> {
    let verity = machine
        .layout
        .iter()
        .find(|p| class(p) == Some(("verity", slot)))
        .ok_or_else(|| Error::new("the layout has no hash tree for this slot"))?;
    let path = device(verity);
    let mut start = [0; Superblock::SIZE];
    fs::open(&path)?
        .read_exact_at(&mut start, 0)
        .context(&path)?;
    let sb = Superblock::parse(&start)
        .ok_or_else(|| Error::new(format!("{path} does not begin with a hash tree")))?;
    let size = match p.role {
        Role::Verity => sb.hashes(),
        _ => sb.data(),
    };
    let path = device(p);
    let file: File = fs::open(&path)?;
    Index::of(&mut file.take(size)).context(&path)
}

/// The device that RAUC knows a partition's content by.
fn device(p: &Partition) -> String {
    match p.encrypted {
        true => format!("/dev/mapper/{}", generator::mapper(&p.label)),
        false => format!("/dev/lamadist/{}", p.label),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(blocks: u64) -> Vec<u8> {
        let mut sb = vec![0; Superblock::SIZE];
        sb[..8].copy_from_slice(b"verity\0\0");
        sb[8] = 1;
        sb[12] = 1;
        sb[32..38].copy_from_slice(b"sha256");
        sb[64..68].copy_from_slice(&4096u32.to_le_bytes());
        sb[68..72].copy_from_slice(&4096u32.to_le_bytes());
        sb[72..80].copy_from_slice(&blocks.to_le_bytes());
        sb
    }

    #[test]
    fn a_tree_has_the_size_that_veritysetup_makes() {
        // 1 and 128 blocks: one block of hashes; 129: two and one above; 20000: 157, 2, 1.
        for (blocks, hashes) in [(1, 2), (128, 2), (129, 4), (20000, 161)] {
            let sb = Superblock::parse(&superblock(blocks)).unwrap();
            assert_eq!(sb.data(), blocks * 4096);
            assert_eq!(sb.hashes(), hashes * 4096, "{blocks}");
        }
    }

    #[test]
    fn another_superblock_is_none() {
        let good = superblock(7);
        assert!(Superblock::parse(&good).is_some());
        for (at, value) in [(0, b'V'), (8, 2), (65, 0), (69, 0), (72, 0), (79, 1)] {
            let mut sb = good.clone();
            sb[at] = value;
            assert_eq!(Superblock::parse(&sb), None, "byte {at}");
        }
        assert_eq!(Superblock::parse(&good[..70]), None);
    }

    #[test]
    fn an_index_is_a_digest_for_each_block() {
        let data: Vec<u8> = (0..BLOCK * 3).map(|n| (n % 251) as u8).collect();
        let index = Index::of(&mut &data[..]).unwrap();
        let want: Vec<u8> = data
            .chunks(BLOCK)
            .flat_map(|c| Sha256::digest(c).to_vec())
            .collect();
        assert_eq!(index.blocks, want);
        assert_eq!(index.sha256, hex(&Sha256::digest(&data)));
        assert_eq!(index.size, data.len() as u64);
    }

    #[test]
    fn what_rauc_knows_of_a_slot_stays() {
        let machine = Machine::parse(
            br#"{"bsp":"x","image":"base","version":"1.2.0","compatible":"c","layout":[]}"#,
        )
        .unwrap();
        let data = [7; BLOCK];
        let root = Index::of(&mut &data[..]).unwrap();
        let new =
            root.status("rootfs.0", Some(&machine)) + &Index::nothing().status("rootfs.1", None);
        let zeros = "0".repeat(64);
        let want = format!(
            "[slot.rootfs.0]\nbundle.compatible=c\nbundle.version=1.2.0\nstatus=ok\n\
             sha256={}\nsize=4096\n\n[slot.rootfs.1]\nsha256={zeros}\nsize=0\n",
            root.sha256
        );
        assert_eq!(added("", &new), want);
        let before = "[system]\nboot-id=x\n\n[slot.rootfs.0]\nstatus=pending\n";
        assert_eq!(
            added(before, &new),
            format!("{before}\n[slot.rootfs.1]\nsha256={zeros}\nsize=0\n")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_superblock_makes_it_panic(data in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            if let Some(sb) = Superblock::parse(&data) {
                let _ = sb.hashes();
            }
        }
    }
}
