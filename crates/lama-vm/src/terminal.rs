// SPDX-License-Identifier: Apache-2.0
//! The caller's terminal, given back as it was.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Write};

/// Restores the terminal when dropped: QEMU sets it raw, and a killed QEMU does not set it back.
pub(crate) struct Terminal(Option<Termios>);

impl Terminal {
    /// Remembers the state of the terminal on standard input, where it is one.
    pub fn save() -> Self {
        Self(tcgetattr(std::io::stdin()).ok())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(t) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, t);
            // The firmware switches line wrapping off, and a guest may leave colours and a hidden
            // cursor behind.
            let mut out = std::io::stdout();
            if out.is_terminal() {
                let _ = out
                    .write_all(b"\x1b[?7h\x1b[?25h\x1b[0m\r\n")
                    .and_then(|()| out.flush());
            }
        }
    }
}
