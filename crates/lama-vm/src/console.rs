// SPDX-License-Identifier: Apache-2.0
//! The serial console's log: what firmware, kernel and system said since the machine was started.

use lama_exec::fs;
use std::path::{Path, PathBuf};

/// The console log of a machine. QEMU writes it; it holds everything since the last start.
#[derive(Debug, Clone)]
pub struct Console {
    path: PathBuf,
}

impl Console {
    /// The console log at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of it as it was sent to the terminal, nothing where the machine was never started.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn raw(&self) -> fs::Result<Vec<u8>> {
        Ok(fs::read_optional(&self.path)?.unwrap_or_default())
    }

    /// All of it as plain text; see [`clean`].
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn text(&self) -> fs::Result<String> {
        Ok(clean(&self.raw()?))
    }

    /// What was said after the first `offset` bytes, as plain text.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn text_from(&self, offset: usize) -> fs::Result<String> {
        Ok(clean(self.raw()?.get(offset..).unwrap_or_default()))
    }

    /// Its last `lines` lines that are not empty, indented, for an error message.
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.text().unwrap_or_default(), lines)
    }
}

/// The last `n` lines that are not blank, each indented by four spaces.
pub(crate) fn tail(text: &str, n: usize) -> String {
    let all: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let last = all.get(all.len().saturating_sub(n)..).unwrap_or_default();
    if last.is_empty() {
        return "    (nothing)".into();
    }
    last.iter()
        .map(|l| format!("    {l}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Makes plain text of a terminal's byte stream: escape sequences (ECMA-48 CSI, OSC and the
/// two-byte ones), carriage returns and other control characters go, except newline and tab. A
/// cursor that is moved to another place becomes a newline, since OVMF writes its menus that way.
pub fn clean(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let mut out = String::with_capacity(text.len());
    let mut it = text.chars().peekable();
    while let Some(c) = it.next() {
        match c {
            '\u{1b}' => match it.next() {
                Some('[') => {
                    // Parameters and intermediates (0x20-0x3f), then one final byte.
                    let mut last = None;
                    for c in it.by_ref() {
                        if !(' '..='?').contains(&c) {
                            last = Some(c);
                            break;
                        }
                    }
                    if matches!(last, Some('H' | 'f' | 'E')) && !out.ends_with('\n') {
                        out.push('\n');
                    }
                }
                Some(']' | 'P' | '^' | '_') => {
                    // A string, up to BEL or ESC \.
                    while let Some(c) = it.next() {
                        if c == '\u{7}' {
                            break;
                        }
                        if c == '\u{1b}' {
                            it.next_if_eq(&'\\');
                            break;
                        }
                    }
                }
                Some('(' | ')' | '#' | '%') => {
                    it.next();
                }
                _ => {}
            },
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// The first console line that says that the guest will not come up without help: a kernel panic,
/// systemd's emergency mode, or a firmware that found nothing to start.
pub fn trouble(text: &str) -> Option<&str> {
    const SIGNS: &[&str] = &[
        "Kernel panic - not syncing",
        "You are in emergency mode",
        "Cannot open access to console, the root account is locked",
        "Reached target emergency.target",
        "BdsDxe: No bootable option or device was found",
        "UEFI Interactive Shell",
        ">>Start PXE over IP",
        ">>Start HTTP Boot over IP",
        "No bootable device.",
    ];
    text.lines()
        .find(|l| SIGNS.iter().any(|s| l.contains(s)))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terminal_streams() {
        for (data, want) in [
            (b"plain\r\nlines\r\n".as_slice(), "plain\nlines\n"),
            (
                b"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J\x1b[01;01HBdsDxe: x",
                "\nBdsDxe: x",
            ),
            (b"\x1b[0;1;32m  OK  \x1b[0m] Started", "  OK  ] Started"),
            (b"a\x1b]0;title\x07b\x1b]3008;start\x1b\\c", "abc"),
            (b"\x1b(Ba\x1b", "a"),
            (b"\x1b[", ""),
            (b"\x00\x08tab\there", "tab\there"),
        ] {
            assert_eq!(clean(data), want);
        }
    }

    #[test]
    fn signs_of_trouble() {
        for (text, bad) in [
            ("[    1.0] Kernel panic - not syncing: VFS: x\nmore", true),
            ("BdsDxe: No bootable option or device was found.", true),
            ("You are in emergency mode. After logging in", true),
            ("[  OK  ] Reached target multi-user.target", false),
            ("emergency.target", false),
        ] {
            assert_eq!(trouble(text).is_some(), bad, "{text}");
        }
    }

    #[test]
    fn the_last_lines() {
        assert_eq!(tail("a\n\nb\nc\n", 2), "    b\n    c");
        assert_eq!(tail("", 2), "    (nothing)");
    }

    proptest! {
        #[test]
        fn cleaning_never_panics_and_leaves_no_escape(v in proptest::collection::vec(any::<u8>(), 0..300)) {
            let escaped = clean(&v).contains('\u{1b}');
            prop_assert!(!escaped);
        }
    }
}
