// SPDX-License-Identifier: Apache-2.0
//! Asking on the console, where nothing was answered beforehand.

use crate::error::Context;
use crate::install::answers::{Choice, Finish};
use crate::install::plan::{self, Plan};
use crate::install::volume::Lock;
use crate::install::{Installer, finish};
use crate::{Error, Result};
use std::io::{BufRead, Write};

/// The longest line that is read.
const LINE: usize = 4096;

/// Somebody at a console.
pub struct Console<R, W> {
    input: R,
    output: W,
}

impl<R: BufRead, W: Write> Console<R, W> {
    /// On these.
    pub fn new(input: R, output: W) -> Self {
        Self { input, output }
    }

    fn show(&mut self, text: &str) -> Result<()> {
        let what = "cannot write to the console";
        self.output.write_all(text.as_bytes()).context(what)?;
        self.output.flush().context(what)
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        self.line(question).map(|l| l.trim().to_owned())
    }

    /// An answer with all its white space but the line's end.
    fn line(&mut self, question: &str) -> Result<String> {
        self.show(question)?;
        let mut line = Vec::new();
        let mut limited = std::io::Read::take(&mut self.input, LINE as u64);
        let n = limited
            .read_until(b'\n', &mut line)
            .context("cannot read from the console")?;
        if n == 0 {
            return Err(Error::new("the console was closed; nothing was written"));
        }
        let line = String::from_utf8_lossy(&line);
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Leads through an installation.
    ///
    /// # Errors
    /// It fails, or the console goes away.
    pub fn install(&mut self, mut i: Installer) -> Result<()> {
        let head = format!(
            "\n  LamaDist {} ({}) for {}\n\n  This is the live system. Nothing is written to any disk unless you say so.\n",
            i.machine.version, i.machine.image, i.machine.bsp
        );
        self.show(&head)?;
        self.ask("\n  Press Enter to install it on this machine. ")?;
        // Whoever came here by another console may have installed meanwhile.
        i.look()?;
        let lock = self.protection(&mut i)?;
        let plan = self.plan(&mut i)?;
        let passphrase = match lock {
            Lock::Tpm => None,
            Lock::Passphrase => Some(self.passphrase()?),
        };
        let mut ready = i.prepare(&plan, lock, passphrase.as_deref())?;
        self.show(&format!("\n{}\n", ready.key(true)))?;
        if passphrase.is_none() {
            // The key is shown this once.
            while self.ask("  Type \"saved\" when you have the recovery key: ")? != "saved" {}
        }
        i.activate(&plan, &mut ready)?;
        self.show(&format!("\n{}\n", ready.summary()))?;
        let how = match self
            .ask("  Remove the medium. [R]eboot or [p]ower off? ")?
            .as_str()
        {
            "p" | "P" => Finish::PowerOff,
            _ => Finish::Reboot,
        };
        finish(how)
    }

    /// What protects the disk; what is missing is said plainly and has to be accepted.
    fn protection(&mut self, i: &mut Installer) -> Result<Lock> {
        loop {
            let e = match i.ready() {
                Ok(lock) => return Ok(lock),
                Err(e) => e,
            };
            self.show(&format!("\n  {e}.\n"))?;
            if let Some(h) = e.help() {
                self.show(&format!("  hint: {h}\n"))?;
            }
            let secure_boot = !crate::ids::secure_boot() && !i.answers.secure_boot_off;
            let word = if secure_boot {
                "insecure"
            } else {
                "passphrase"
            };
            let said = self.ask(&format!("\n  Type {word:?} to install all the same: "))?;
            if said != word {
                continue;
            }
            if secure_boot {
                i.answers.secure_boot_off = true;
            } else {
                i.answers.without_tpm = true;
            }
        }
    }

    fn plan(&mut self, i: &mut Installer) -> Result<Plan> {
        loop {
            let disks = i.disks();
            let listed = plan::list(&disks, &i.machine);
            self.show("\n  Disks:\n")?;
            for (n, line) in listed.lines().enumerate() {
                self.show(&format!("  {:2}) {}\n", n + 1, line.trim()))?;
            }
            let said = self.ask("\n  Number of the disk to install to: ")?;
            let number = said.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            let Some(disk) = number.and_then(|n| disks.get(n)) else {
                self.show("  There is no such number.\n")?;
                continue;
            };
            // Here somebody sees what is lost and confirms it, which is more than an answer.
            i.answers.disk = Some(Choice::Path(disk.path.clone()));
            i.answers.wipe = true;
            i.answers.reinstall = disk.ptuuid.as_ref().map(|u| u.to_ascii_lowercase());
            let content = i.source.content(i.machine.loader)?;
            let plan = plan::allowed(disk, &i.machine, &i.answers)
                .and_then(|()| plan::plan(disk, &i.machine, content));
            let plan = match plan {
                Ok(p) => p,
                Err(e) => {
                    self.show(&format!("\n  {e}.\n"))?;
                    continue;
                }
            };
            self.show(&format!("\n{}\n", plan.picture()))?;
            let word = if plan.lost.is_empty() { "yes" } else { "erase" };
            let q = format!("  Type {word:?} to do that, anything else to choose again: ");
            if self.ask(&q)? == word {
                return Ok(plan);
            }
        }
    }

    fn passphrase(&mut self) -> Result<String> {
        loop {
            let _quiet = Quiet::new();
            let one = self.line("\n  Passphrase that opens the disk at every boot: ")?;
            if let Err(e) = strong_enough(&one) {
                self.show(&format!("\n  {e}.\n"))?;
                continue;
            }
            if self.line("\n  The same again: ")? == one {
                self.show("\n")?;
                return Ok(one);
            }
            self.show("\n  They differ.\n")?;
        }
    }
}

/// Whether somebody with the disk in hand would have work with it.
///
/// # Errors
/// It is too short.
pub fn strong_enough(passphrase: &str) -> Result<()> {
    if passphrase.chars().count() >= 12 {
        return Ok(());
    }
    Err(Error::new("a passphrase has at least 12 characters").hint("take several words"))
}

/// No echo on standard input's terminal, as long as this lives.
pub struct Quiet(Option<libc::termios>);

impl Quiet {
    /// From now on.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        // SAFETY: tcgetattr fills the structure that it is given, or fails.
        let mut t: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: as above; descriptor 0 may be anything.
        if unsafe { libc::tcgetattr(0, &mut t) } != 0 {
            return Self(None);
        }
        let mut silent = t;
        silent.c_lflag &= !libc::ECHO;
        // SAFETY: a valid structure.
        unsafe { libc::tcsetattr(0, libc::TCSAFLUSH, &silent) };
        Self(Some(t))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(t) = &self.0 {
            // SAFETY: what tcgetattr gave.
            unsafe { libc::tcsetattr(0, libc::TCSAFLUSH, t) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_end_with_the_console() {
        let mut c = Console::new(&b"a b \n"[..], Vec::new());
        assert_eq!(c.ask("? ").unwrap(), "a b");
        assert!(c.ask("? ").is_err());
        assert_eq!(c.output, b"? ? ");
        let mut c = Console::new(&b" four words and blanks \r\n"[..], Vec::new());
        assert_eq!(c.line("? ").unwrap(), " four words and blanks ");
        assert!(strong_enough("short").is_err() && strong_enough("long enough it is").is_ok());
    }
}
