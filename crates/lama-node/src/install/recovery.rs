// SPDX-License-Identifier: Apache-2.0
//! The recovery key: 256 random bits as systemd writes them (systemd-cryptenroll(1),
//! `--recovery-key`): eight groups of eight letters of the modhex alphabet, which look the same on
//! every keyboard layout. The text itself is the passphrase.

use crate::{Error, Result, fs};
use qrcode::{EcLevel, QrCode};

/// The alphabet: hexadecimal digits 0 to f as Yubico's modhex writes them.
const MODHEX: &[u8; 16] = b"cbdefghijklnrtuv";
/// Random bytes of a key.
const BYTES: usize = 32;

/// A new key.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn generate() -> Result<String> {
    Ok(encode(&fs::random(BYTES)?))
}

fn encode(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(MODHEX.get(usize::from(n)).copied().unwrap_or(b'c'));
    let groups: Vec<String> = bytes
        .chunks(4)
        .map(|g| {
            g.iter()
                .flat_map(|b| [digit(b >> 4), digit(b & 15)])
                .collect()
        })
        .collect();
    groups.join("-")
}

/// Brings what somebody typed into the form that opens the disk: lower case, groups, no spaces.
///
/// # Errors
/// It cannot be a recovery key.
pub fn normalize(typed: &str) -> Result<String> {
    let letters: Vec<u8> = typed
        .bytes()
        .filter(|b| !b.is_ascii_whitespace() && *b != b'-')
        .map(|b| b.to_ascii_lowercase())
        .collect();
    if letters.len() != 2 * BYTES || letters.iter().any(|b| !MODHEX.contains(b)) {
        return Err(Error::new("this is no recovery key").hint(
            "it has 64 letters out of cbdefghijklnrtuv, in groups of 8, as the installer showed it",
        ));
    }
    let groups: Vec<&str> = letters
        .chunks(8)
        .filter_map(|g| std::str::from_utf8(g).ok())
        .collect();
    Ok(groups.join("-"))
}

/// A QR code (ISO/IEC 18004) of `text` in block characters, dark on light whatever the console's
/// colours: light modules are drawn.
///
/// # Errors
/// The text is too long for a code.
pub fn qr(text: &str) -> Result<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .map_err(|e| Error::new(format!("no QR code can hold this text: {e}")))?;
    let width = code.width();
    // Four light modules around it belong to it.
    let light = |x: usize, y: usize| {
        let inside = (4..width + 4).contains(&x) && (4..width + 4).contains(&y);
        !inside || code[(x - 4, y - 4)] == qrcode::Color::Light
    };
    let mut out = String::new();
    for y in (0..width + 8).step_by(2) {
        out.push_str("  ");
        for x in 0..width + 8 {
            out.push(match (light(x, y), light(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        out.push('\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_systemds_form() {
        let bytes: Vec<u8> = (0..32).map(|n| n * 8).collect();
        let key = encode(&bytes);
        assert_eq!(
            key,
            "cccjbcbj-dcdjecej-fcfjgcgj-hchjicij-jcjjkckj-lcljncnj-rcrjtctj-ucujvcvj"
        );
        let key = generate().unwrap();
        assert_eq!((key.len(), key.split('-').count()), (71, 8));
        assert_ne!(key, generate().unwrap());
        assert_eq!(normalize(&key).unwrap(), key);
        let typed = format!(" {}\n", key.to_uppercase().replace('-', " "));
        assert_eq!(normalize(&typed).unwrap(), key);
        assert!(normalize("ccjcbcbj").is_err());
        assert!(normalize(&key.replace('-', "a")).is_err());
    }

    #[test]
    fn its_code_fits_a_console_of_80_columns_and_25_lines() {
        let code = qr(&generate().unwrap()).unwrap();
        let widest = code.lines().map(|l| l.chars().count()).max().unwrap();
        assert!(widest <= 80 && code.lines().count() <= 25, "{code}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_typed(text in "\\PC*") {
            let _ = normalize(&text);
        }
    }
}
