// SPDX-License-Identifier: Apache-2.0
//! Boot entries of the firmware, one a slot: `A` and `B`, which are RAUC's boot names too.
//! efibootmgr(8) reads and writes them.

use crate::Result;
use crate::loader::uki;
use crate::run::Run;

/// The slots, in the order in which they are written: the last one made comes first in the order.
const SLOTS: [&str; 2] = ["b", "a"];

/// An entry of ours: called A or B, and of a file of ours.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// Four hexadecimal digits.
    number: String,
    /// The slot, `a` or `b`.
    slot: &'static str,
    /// The UUID of its ESP, in lower case; empty where the firmware does not tell.
    esp: String,
}

/// What efibootmgr(8) lists.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    ours: Vec<Entry>,
    /// Numbers, first come first started.
    order: Vec<String>,
}

impl Listing {
    /// Lines like `BootOrder: 0003,0001` and
    /// `Boot0003* A<tab>HD(1,GPT,UUID,0x800,0x200000)/\EFI\Linux\lamadist-a.efi`.
    fn parse(text: &str) -> Self {
        let mut this = Self::default();
        for line in text.lines() {
            if let Some(order) = line.strip_prefix("BootOrder:") {
                let numbers = order.split(',').map(|n| n.trim().to_owned());
                this.order = numbers.filter(|n| !n.is_empty()).collect();
            } else if let Some(e) = entry(line) {
                this.ours.push(e);
            }
        }
        this
    }

    fn read() -> Result<Self> {
        Ok(Self::parse(&Run::new("efibootmgr").text()?))
    }
}

fn entry(line: &str) -> Option<Entry> {
    let (number, rest) = line.strip_prefix("Boot")?.split_at_checked(4)?;
    let hex = number.bytes().all(|b| b.is_ascii_hexdigit());
    let name = rest.trim_start_matches('*').trim_start();
    let slot = SLOTS.into_iter().find(|s| {
        let rest = name.strip_prefix(&s.to_uppercase());
        rest.is_some_and(|r| r.starts_with([' ', '\t']))
    })?;
    let path = rest.to_ascii_lowercase();
    let esp = path
        .split_once("gpt,")
        .map_or("", |(_, r)| r.split(',').next().unwrap_or(""));
    let ours = hex && path.contains("lamadist-");
    ours.then(|| Entry {
        number: number.to_owned(),
        slot,
        esp: esp.to_owned(),
    })
}

/// Makes the entries of both slots, A first in the boot order and B not in it, in place of those that
/// are there.
///
/// # Errors
/// efibootmgr's: the firmware's variables cannot be written.
pub fn entries(disk: &str, partition: usize) -> Result<()> {
    for old in Listing::read()?.ours {
        delete(&old)?;
    }
    for slot in SLOTS {
        create(disk, partition, slot, slot == "a")?;
    }
    Ok(())
}

/// What [`mend`] has to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mending {
    /// Numbers of entries that lead to another disk or are there twice.
    delete: Vec<String>,
    /// Slots without an entry, in the order to make them.
    create: Vec<&'static str>,
    /// The slot whose entry, when it is made, comes first in the order.
    lead: Option<String>,
    /// The number of an entry to put first in the order.
    first: Option<String>,
}

fn mending(listing: &Listing, esp: &str, booted: &str) -> Mending {
    let mut out = Mending::default();
    let mut kept: Vec<&Entry> = Vec::new();
    for e in &listing.ours {
        let twice = kept.iter().any(|k| k.slot == e.slot);
        if twice || !e.esp.eq_ignore_ascii_case(esp) {
            out.delete.push(e.number.clone());
        } else {
            kept.push(e);
        }
    }
    let has = |slot: &str| kept.iter().find(|k| k.slot == slot);
    out.create = SLOTS.into_iter().filter(|s| has(s).is_none()).collect();
    // While an update is tried, the slot that runs is not in the order, and the other one is.
    let ordered = kept.iter().any(|k| listing.order.contains(&k.number));
    if !ordered {
        match has(booted) {
            Some(k) => out.first = Some(k.number.clone()),
            None => out.lead = Some(booted.to_owned()),
        }
    }
    out
}

/// Makes the entries that are missing and removes those that lead to another disk, as after a
/// firmware has lost its variables, or a disk has come into another machine. What is right is left as
/// it is. Returns what was done.
///
/// # Errors
/// efibootmgr's: the firmware's variables cannot be written.
pub fn mend(disk: &str, partition: usize, esp: &str, booted: &str) -> Result<Vec<String>> {
    let listing = Listing::read()?;
    let m = mending(&listing, esp, booted);
    let mut did = Vec::new();
    for e in listing.ours.iter().filter(|e| m.delete.contains(&e.number)) {
        delete(e)?;
        did.push(format!(
            "removed the boot entry Boot{} of another disk",
            e.number
        ));
    }
    for slot in m.create {
        create(disk, partition, slot, m.lead.as_deref() == Some(slot))?;
        did.push(format!("made the boot entry {}", slot.to_uppercase()));
    }
    if let Some(first) = m.first {
        let rest = listing.order.iter().filter(|n| !m.delete.contains(n));
        let order: Vec<&str> = [first.as_str()]
            .into_iter()
            .chain(rest.map(String::as_str))
            .collect();
        Run::new("efibootmgr")
            .args(["--quiet", "--bootorder", &order.join(",")])
            .run()?;
        did.push(format!("put Boot{first} first in the boot order"));
    }
    Ok(did)
}

fn delete(e: &Entry) -> Result<()> {
    Run::new("efibootmgr")
        .args(["--quiet", "--delete-bootnum", "--bootnum", &e.number])
        .run()
        .map(|_| ())
}

fn create(disk: &str, partition: usize, slot: &str, first: bool) -> Result<()> {
    let loader = format!("\\{}", uki(slot).replace('/', "\\"));
    let how = if first { "--create" } else { "--create-only" };
    Run::new("efibootmgr")
        .args(["--quiet", how, "--disk", disk])
        .args(["--part", &partition.to_string()])
        .args(["--label", &slot.to_uppercase(), "--loader", &loader])
        .run()
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "BootCurrent: 0001\nTimeout: 0 seconds\nBootOrder: 0003,0001\n\
        Boot0000* UiApp\tFvVol(x)\n\
        Boot0003* A\tHD(1,GPT,AB-1,0x800,0x200000)/\\EFI\\Linux\\lamadist-a.efi\n\
        Boot0004  B\tHD(1,GPT,ab-1,0x800,0x200000)/File(\\EFI\\Linux\\lamadist-b.efi)\n\
        Boot0005* A\tHD(1,GPT,x)/\\EFI\\debian\\shimx64.efi\n\
        Boot0006* Another lamadist-a\tx\nBootZZZZ* A lamadist-\n";

    fn numbers(listing: &Listing) -> Vec<&str> {
        listing.ours.iter().map(|e| e.number.as_str()).collect()
    }

    #[test]
    fn only_entries_of_ours_are_taken() {
        let l = Listing::parse(LISTING);
        assert_eq!(numbers(&l), ["0003", "0004"]);
        assert_eq!(l.order, ["0003", "0001"]);
        assert_eq!((l.ours[0].slot, l.ours[0].esp.as_str()), ("a", "ab-1"));
        assert_eq!(Listing::parse(""), Listing::default());
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let l = Listing::parse(LISTING);
        // Also while B is tried and not in the order.
        for booted in ["a", "b"] {
            assert_eq!(mending(&l, "AB-1", booted), Mending::default());
        }
    }

    #[test]
    fn what_the_firmware_forgot_is_made_anew() {
        let none = Listing::parse("BootOrder: 0001\nBoot0001* UiApp\tx\n");
        let m = mending(&none, "ab-1", "a");
        assert_eq!((m.create, m.delete.len()), (vec!["b", "a"], 0));
        assert_eq!((m.lead.as_deref(), m.first), (Some("a"), None));
        // Of two, one: the other one is in the order, so it stays.
        let a = LISTING.replace("Boot0004", "Boot9");
        let m = mending(&Listing::parse(&a), "ab-1", "b");
        assert_eq!((m.create, m.lead, m.first), (vec!["b"], None, None));
        // Entries without a place in the order.
        let text = LISTING.replace("0003,0001", "0001");
        let m = mending(&Listing::parse(&text), "ab-1", "b");
        assert_eq!((m.create.len(), m.first.as_deref()), (0, Some("0004")));
        // Of the disk that was in the machine before.
        let m = mending(&Listing::parse(LISTING), "cd-2", "a");
        assert_eq!(m.delete, ["0003", "0004"]);
        assert_eq!(m.create, ["b", "a"]);
        // Twice.
        let twice = format!("{LISTING}Boot0007* A\tHD(1,GPT,ab-1)/lamadist-a.efi\n");
        assert_eq!(
            mending(&Listing::parse(&twice), "ab-1", "a").delete,
            ["0007"]
        );
    }
}
