// SPDX-License-Identifier: Apache-2.0
//! Boot entries of the firmware, one a slot: `A` and `B`, which are RAUC's boot names too.
//! efibootmgr(8) writes them.

use crate::Result;
use crate::run::Run;

/// The UKI of a slot on the ESP.
pub fn uki(slot: &str) -> String {
    format!("EFI/Linux/lamadist-{slot}.efi")
}

/// Where systemd-stub(7) looks for addons of the UKI at this path.
pub fn addons(uki: &str) -> String {
    format!("{uki}.extra.d")
}

/// Makes the entries of both slots, A first in the boot order and B not in it, in place of those that
/// are there.
///
/// # Errors
/// efibootmgr's: the firmware's variables cannot be written.
pub fn entries(disk: &str, partition: usize) -> Result<()> {
    for old in stale(&Run::new("efibootmgr").text()?) {
        Run::new("efibootmgr")
            .args(["--quiet", "--delete-bootnum", "--bootnum", &old])
            .run()?;
    }
    // The last one made comes first in the order.
    for (slot, how) in [("b", "--create-only"), ("a", "--create")] {
        let loader = format!("\\{}", uki(slot).replace('/', "\\"));
        Run::new("efibootmgr")
            .args(["--quiet", how, "--disk", disk])
            .args(["--part", &partition.to_string()])
            .args(["--label", &slot.to_uppercase(), "--loader", &loader])
            .run()?;
    }
    Ok(())
}

/// Numbers of entries of an earlier installation: called A or B, and of a file of ours. Line:
/// `Boot0003* A<tab>HD(…)/\EFI\Linux\lamadist-a.efi`.
fn stale(listing: &str) -> Vec<String> {
    let number = |line: &str| {
        let rest = line.strip_prefix("Boot")?;
        let (number, rest) = rest.split_at_checked(4)?;
        let name = rest.trim_start_matches('*').trim_start();
        let ours = ["A", "B"].iter().any(|n| {
            name.strip_prefix(n)
                .is_some_and(|r| r.starts_with([' ', '\t']))
        });
        let file = rest.to_ascii_lowercase().contains("lamadist-");
        let hex = number.bytes().all(|b| b.is_ascii_hexdigit());
        (hex && ours && file).then(|| number.to_owned())
    };
    listing.lines().filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_of_ours_are_replaced() {
        let listing = "BootCurrent: 0001\nTimeout: 0 seconds\nBootOrder: 0003,0001\n\
            Boot0000* UiApp\tFvVol(x)\n\
            Boot0003* A\tHD(1,GPT,x,0x800,0x200000)/\\EFI\\Linux\\lamadist-a.efi\n\
            Boot0004  B\tHD(1,GPT,x,0x800,0x200000)/File(\\EFI\\Linux\\lamadist-b.efi)\n\
            Boot0005* A\tHD(1,GPT,x)/\\EFI\\debian\\shimx64.efi\n\
            Boot0006* Another lamadist-a\tx\nBootZZZZ* A lamadist-\n";
        assert_eq!(stale(listing), ["0003", "0004"]);
        assert_eq!(addons(&uki("a")), "EFI/Linux/lamadist-a.efi.extra.d");
    }
}
