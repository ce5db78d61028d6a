// SPDX-License-Identifier: Apache-2.0
//! Platform configuration registers of the TPM's SHA-256 bank, and replaying a log to one.

use super::bytes::{self, Digest};
use crate::{Error, Result, fs};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The registers that are looked at: those that nothing but a reboot resets (TCG PC Client Platform
/// TPM Profile, "PCR attributes").
pub const ALL: std::ops::RangeInclusive<u32> = 0..=15;

/// Values of registers.
pub type Values = BTreeMap<u32, Digest>;

/// Extends a register: `H(old || digest)` (TPM 2.0 Library, Part 1, "Extend of a PCR").
pub fn extend(value: &Digest, digest: &Digest) -> Digest {
    Sha256::new()
        .chain_update(value)
        .chain_update(digest)
        .finalize()
        .into()
}

/// Whether the digests, one after the other and from `start` on, give this value; as many as it
/// takes, where what was logged after the value was read does not count. None of the first `least` may
/// be left out. Gives how many were taken.
pub fn replay(start: Digest, digests: &[Digest], value: &Digest, least: usize) -> Option<usize> {
    let mut now = start;
    for (n, d) in digests.iter().enumerate() {
        if n >= least && now == *value {
            return Some(n);
        }
        now = extend(&now, d);
    }
    (now == *value).then_some(digests.len())
}

/// Those of this machine (Documentation/ABI/stable/sysfs-class-tpm).
///
/// # Errors
/// There is no TPM, or it has no SHA-256 bank.
pub fn read() -> Result<Values> {
    let dir = "/sys/class/tpm/tpm0/pcr-sha256";
    let mut values = Values::new();
    for n in ALL {
        let text = fs::line(format!("{dir}/{n}"));
        match text.as_deref().and_then(bytes::digest_of_hex) {
            Some(v) => values.insert(n, v),
            None => {
                return Err(Error::new(format!("cannot read PCR {n} from {dir}")).hint(
                    "attestation needs a TPM 2.0 with a SHA-256 bank; see the firmware's setup",
                ));
            }
        };
    }
    Ok(values)
}

/// What is measured into a register (UAPI.7 "Linux TPM PCR Registry").
pub fn about(pcr: u32) -> &'static str {
    match pcr {
        0 => "firmware",
        1 => "firmware settings",
        2 => "firmware of cards",
        3 => "settings of cards",
        4 => "what the firmware started",
        5 => "partition table",
        6 => "the maker's own",
        7 => "Secure Boot",
        8 => "GRUB's commands",
        9 => "command line and initrds as the kernel got them",
        10 => "IMA",
        11 => "unified kernel image and phases of the boot",
        12 => "addons and credentials",
        13 => "system extensions",
        14 => "shim's keys",
        15 => "machine ID and file systems",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_takes_what_it_needs() {
        let d = [[1; 32], [2; 32], [3; 32]];
        let two = extend(&extend(&[0; 32], &d[0]), &d[1]);
        assert_eq!(replay([0; 32], &d, &two, 0), Some(2));
        assert_eq!(replay([0; 32], &d, &two, 3), None);
        assert_eq!(replay([0; 32], &d[..2], &two, 2), Some(2));
        assert_eq!(replay([0; 32], &d, &[0; 32], 0), Some(0));
        assert_eq!(replay([9; 32], &d, &two, 0), None);
    }
}
