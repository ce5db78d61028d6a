// SPDX-License-Identifier: Apache-2.0
//! The repository's password and environment: credentials of systemd's, sealed to the machine
//! (systemd-creds(1)). They go to restic by its standard input and its own environment, never by a
//! command line.

use super::System;
use crate::error::{Context, Error, Result};
use crate::fs;
use crate::kernel::{Cmdline, Slot};
use crate::secret::{Store, seal as sealing};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

/// The password of the repository.
pub const PASSWORD: &str = "lamadist.backup.password";

/// What restic needs in its environment for a remote repository: lines of `NAME=value`.
pub const ENVIRONMENT: &str = "lamadist.backup.env";

/// Where sealed credentials lie, below `/etc`.
pub const STORE: &str = "credstore.encrypted";

/// Where the running machine was given credentials by firmware or hypervisor.
const GIVEN: &str = "/run/credentials/@system";

/// A secret is not longer than this, in bytes.
const MOST: u64 = 64 << 10;

/// Where the sealed credential of this name lies in a system.
pub fn sealed(system: &System, name: &str) -> PathBuf {
    system.path("etc").join(STORE).join(name)
}

/// Reads a secret from a file, or from standard input where it is called `-`.
///
/// # Errors
/// It cannot be read, or is too long.
pub fn read(path: &str) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    let (what, n) = if path == "-" {
        let n = std::io::stdin().take(MOST + 1).read_to_end(&mut data);
        ("standard input".to_owned(), n)
    } else {
        let n = fs::open(path)?.take(MOST + 1).read_to_end(&mut data);
        (path.to_owned(), n)
    };
    let n = n.context(format_args!("cannot read {what}"))?;
    if n as u64 > MOST {
        return Err(Error::new(format!("{what} is too long for a secret")));
    }
    Ok(data)
}

/// The credential of this name: one that systemd gave to this service or machine, or the sealed one.
///
/// # Errors
/// It cannot be read, or not be opened on this machine.
pub fn stored(system: &System, name: &str) -> Result<Option<Vec<u8>>> {
    let given = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let machine = system.running().then(|| PathBuf::from(GIVEN));
    for dir in given.into_iter().chain(machine) {
        if let Some(data) = fs::read_optional(dir.join(name))? {
            return Ok(Some(data));
        }
    }
    let path = sealed(system, name);
    // A file that only root may look for is no reason to say more than that it is not there.
    if !path.exists() {
        return Ok(None);
    }
    unseal(&system.var(), name, &path).map(Some)
}

/// Opens a sealed credential with the TPM and the host key in `var`.
///
/// # Errors
/// It was sealed by another machine, or systemd-creds is missing.
pub fn unseal(var: &Path, name: &str, path: &Path) -> Result<Vec<u8>> {
    sealing::open(var, name, path).map_err(|e| e.hint("where it was sealed by another machine, `lama-node secret reseal --recovery-key` brings it back, or `lama-node backup setup` makes a new one; it needs root"))
}

/// Seals a credential to this machine: to its TPM where it has one, and to the host key in `var`.
///
/// # Errors
/// systemd-creds fails, or the file cannot be written.
pub fn seal(var: &Path, name: &str, data: &[u8], path: &Path) -> Result<()> {
    fs::write(
        path,
        sealing::seal(var, name, data, sealing::To::Machine)?,
        0o600,
    )
}

/// Keeps a secret of a system: of the running, installed one with a copy for the recovery key. An
/// empty one is none.
///
/// # Errors
/// It cannot be sealed or written.
pub fn keep(system: &System, name: &str, data: &[u8]) -> Result<()> {
    if data.is_empty() {
        return fs::remove(sealed(system, name));
    }
    let installed = system.running() && matches!(Cmdline::read()?.slot(), Some(Slot::A | Slot::B));
    if installed {
        return Store::here()?.set(name, data);
    }
    seal(&system.var(), name, data, &sealed(system, name))
}

/// Asks for the password on the terminal, or reads it from standard input where that is none.
///
/// # Errors
/// It cannot be asked for.
pub fn ask() -> Result<Vec<u8>> {
    if !std::io::stdin().is_terminal() {
        return read("-");
    }
    // Without an echo, and without an agent: whoever started this is here.
    let out = std::process::Command::new("systemd-ask-password")
        .args(["--timeout=0", "Password of the backup repository:"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run systemd-ask-password")
        .map_err(|e| e.hint("give the password by --password-file"))?;
    if out.status.success() {
        Ok(out.stdout)
    } else {
        Err(Error::new("no password was given"))
    }
}

/// A password as it was read: the first line, without its newline.
///
/// # Errors
/// It is empty, has more than one line, or is not UTF-8.
pub fn password(data: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(data).map_err(|_| Error::new("the password is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(Error::new("the password is empty"));
    }
    if line.contains(['\n', '\r', '\0']) {
        return Err(Error::new("the password has more than one line"));
    }
    Ok(line.to_owned())
}

/// Parses lines of `NAME=value`; `#` begins a comment.
///
/// # Errors
/// A line is something else: `WHERE:LINE: what`. Values are not repeated.
pub fn environment(data: &[u8], origin: &str) -> Result<Vec<(String, String)>> {
    let text = std::str::from_utf8(data)
        .map_err(|_| Error::new(format!("{origin}: the environment is not UTF-8")))?;
    let mut out = Vec::new();
    for (number, line) in (1u32..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |what: &str| Error::new(format!("{origin}:{number}: {what}"));
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| bad("this is not NAME=value"))?;
        let name = name.trim_end();
        let ok = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(ok) || name.starts_with(|c: char| c.is_numeric()) {
            return Err(bad("this is not the name of a variable"));
        }
        if name.starts_with("RESTIC_PASSWORD") || name.starts_with("RESTIC_REPOSITORY") {
            return Err(bad(
                "password and repository are given to `lama-node backup setup`",
            ));
        }
        let value = value.trim_start();
        if value.contains('\0') {
            return Err(bad("there is a zero byte in the value"));
        }
        let quoted = |q| value.strip_prefix(q).and_then(|v| v.strip_suffix(q));
        let value = quoted('"').or(quoted('\'')).unwrap_or(value);
        out.push((name.to_owned(), value.to_owned()));
    }
    Ok(out)
}

/// A new password: 160 random bits, in letters and digits that can be told apart on paper.
///
/// # Errors
/// The kernel has no random bytes.
pub fn generate() -> Result<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut out = String::new();
    for (i, b) in fs::random(32)?.into_iter().enumerate() {
        if i > 0 && i % 4 == 0 {
            out.push('-');
        }
        out.push(char::from(
            ALPHABET.get(usize::from(b % 32)).copied().unwrap_or(b'a'),
        ));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn passwords() {
        assert_eq!(password(b" a b \r\n").unwrap(), " a b ");
        for bad in [&b""[..], b"\n", b"a\nb\n", b"\xff", b"a\0"] {
            assert!(password(bad).is_err(), "{bad:?}");
        }
        let new = generate().unwrap();
        assert_eq!((new.len(), new.matches('-').count()), (39, 7));
        assert_ne!(new, generate().unwrap());
    }

    #[test]
    fn environments() {
        let e = environment(b"# s3\nAWS_ACCESS_KEY_ID=a\nX = \"b c\"\n\n", "env").unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(e, [pair("AWS_ACCESS_KEY_ID", "a"), pair("X", "b c")]);
        for (bad, line) in [
            ("A=1\nsecret", "env:2: "),
            ("1A=secret", "env:1: "),
            ("RESTIC_PASSWORD=secret", "env:1: "),
        ] {
            let e = environment(bad.as_bytes(), "env").unwrap_err().to_string();
            assert!(e.starts_with(line) && !e.contains("secret"), "{e}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..64), text in "\\PC*") {
            let _ = password(&data);
            let _ = environment(&data, "x");
            let _ = environment(text.as_bytes(), "x");
        }
    }
}
