// SPDX-License-Identifier: Apache-2.0
//! Which partitions are this machine's: their UUIDs follow from the ESP's, which the firmware's boot
//! entry names and systemd-stub reports in the variable `LoaderDevicePartUUID`. So a second disk with
//! the same partition names is never taken for the one that was booted.

use crate::{Result, fs};
use sha2::{Digest, Sha256};

/// systemd's vendor GUID of boot loader variables (<https://systemd.io/BOOT_LOADER_INTERFACE>).
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Where the kernel shows firmware variables (Documentation/filesystems/efivarfs.rst).
pub const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// A random UUID, version 4 (RFC 9562).
///
/// # Errors
/// The kernel gives no random bytes.
pub fn random() -> Result<String> {
    Ok(uuid(&fs::random(16)?, 4))
}

/// The UUID of the partition `label` on the disk whose ESP has this UUID: version 8 (RFC 9562).
pub fn partition(esp: &str, label: &str) -> String {
    let mut h = Sha256::new();
    h.update(b"lamadist partition\0");
    h.update(esp.to_ascii_lowercase());
    h.update([0]);
    h.update(label);
    uuid(&h.finalize(), 8)
}

fn uuid(bytes: &[u8], version: u8) -> String {
    let mut b = [0u8; 16];
    for (to, from) in b.iter_mut().zip(bytes) {
        *to = *from;
    }
    b[6] = (b[6] & 0x0f) | (version << 4);
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|x| format!("{x:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or("");
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

/// The UUID of the ESP that this system was booted from, in lower case; none without UEFI variables.
pub fn booted_esp() -> Option<String> {
    let data = variable("LoaderDevicePartUUID", VENDOR)?;
    let text = utf16(&data);
    let ok = text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    ok.then(|| text.to_ascii_lowercase())
}

/// The content of a firmware variable.
pub fn variable(name: &str, vendor: &str) -> Option<Vec<u8>> {
    let data = fs::read_optional(format!("{EFIVARS}/{name}-{vendor}")).ok()??;
    // Four bytes of attributes come first.
    data.get(4..).map(<[u8]>::to_vec)
}

/// The UEFI specification's vendor GUID of global variables.
pub const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Whether the firmware checks signatures (UEFI specification 2.10, section 32.1).
pub fn secure_boot() -> bool {
    let one = |name| variable(name, GLOBAL).is_some_and(|v| v.first() == Some(&1));
    one("SecureBoot") && !one("SetupMode")
}

/// UTF-16LE up to a NUL.
pub fn utf16(data: &[u8]) -> String {
    let units = data
        .chunks_exact(2)
        .map(|c| u16::from_le_bytes([c[0], c[1]]))
        .take_while(|u| *u != 0);
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_from_the_esp() {
        let a = partition("0FC63DAF-8483-4772-8E79-3D69D8477DE4", "data");
        assert_eq!(a, partition("0fc63daf-8483-4772-8e79-3d69d8477de4", "data"));
        // What is installed finds its partitions by this: it must not change.
        assert_eq!(a, "8eee3d04-c850-8ed4-bd7d-6fc2cc0ee78f");
        assert_ne!(a, partition("0fc63daf-8483-4772-8e79-3d69d8477de4", "esp"));
        assert_eq!(a.as_bytes()[14], b'8');
        let r = random().unwrap();
        assert_eq!((r.len(), r.as_bytes()[14]), (36, b'4'));
    }

    #[test]
    fn variables_are_utf16() {
        assert_eq!(utf16(b"A\0b\0\0\0x\0"), "Ab");
        assert_eq!(utf16(b"A"), "");
    }
}
