// SPDX-License-Identifier: Apache-2.0
//! The encrypted volumes of an installed machine, and what protects them.

use crate::kernel::{Cmdline, Slot};
use crate::luks::{self, Header, Opener};
use crate::machine::Machine;
use crate::{Error, Result, fs};
use serde::Serialize;
use std::io::{BufRead, IsTerminal, stdin};

/// One volume.
#[derive(Debug, Clone, Serialize)]
pub struct Volume {
    /// Its partition's name.
    pub name: String,
    /// Its device.
    pub device: String,
    /// Slots that the TPM opens.
    pub tpm: usize,
    /// PCRs that they are bound to by value.
    pub pcrs: Vec<u32>,
    /// PCRs that they are bound to by signed policy.
    pub signed_pcrs: Vec<u32>,
    /// Recovery keys.
    pub recovery: usize,
    /// Other passphrases.
    pub passphrase: usize,
    /// Whether a recovery key that was given opens it; none where none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_opens: Option<bool>,
}

/// The encrypted volumes of the running, installed machine: name and device.
///
/// # Errors
/// This is not an installed machine, or one of its partitions is missing.
pub fn devices(machine: &Machine) -> Result<Vec<(String, String)>> {
    match Cmdline::read()?.slot() {
        Some(Slot::A | Slot::B) => {}
        _ => {
            return Err(Error::new("this is not an installed machine")
                .hint("the live system of a medium has no encrypted volumes; install it first"));
        }
    }
    let encrypted = machine.layout.iter().filter(|p| p.encrypted);
    encrypted
        .map(|p| {
            let device = format!("/dev/lamadist/{}", p.label);
            fs::canonical(&device)?;
            Ok((p.label.clone(), device))
        })
        .collect()
}

/// What opens each, and with a recovery key whether it does.
///
/// # Errors
/// A header cannot be read.
pub fn look(machine: &Machine, recovery: Option<&str>) -> Result<Vec<Volume>> {
    let look = |(name, device): (String, String)| {
        let h = Header::read(&device)?;
        let (pcrs, signed) = h.pcrs().unwrap_or_default();
        Ok(Volume {
            tpm: h.tpm(),
            pcrs: pcrs.to_vec(),
            signed_pcrs: signed.to_vec(),
            recovery: h.recovery(),
            passphrase: h.passphrase(),
            recovery_opens: recovery.map(|k| luks::check(&device, Opener::Key(k)).is_ok()),
            name,
            device,
        })
    };
    devices(machine)?.into_iter().map(look).collect()
}

/// Reads a recovery key or passphrase: a line of standard input, without echo on a terminal.
///
/// # Errors
/// There is none.
pub fn read_key(what: &str) -> Result<String> {
    let terminal = stdin().is_terminal();
    let _quiet = terminal.then(|| {
        eprint!("{what}: ");
        crate::install::console::Quiet::new()
    });
    let mut line = String::new();
    let n = stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| Error::new(format!("cannot read the key: {e}")))?;
    if terminal {
        eprintln!();
    }
    let line = line.trim_end_matches(['\n', '\r']);
    if n == 0 || line.is_empty() {
        return Err(Error::new("no key was given").hint("type it, or give it on standard input"));
    }
    // A recovery key may be typed with spaces and capitals; a passphrase is what it is.
    Ok(crate::install::recovery::normalize(line).unwrap_or_else(|_| line.to_owned()))
}
