// SPDX-License-Identifier: Apache-2.0
//! `lama-node secret`: passwords, keys and tokens of this machine's services.

use crate::backup::secret::read;
use crate::cli::{Arg, Args, Command};
use crate::secret::{Entry, Outcome, Store, seal};
use crate::{Error, Result, volumes};
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "secret",
    about: "Keep services' passwords and keys, sealed to this machine",
    help: "\
Usage: lama-node secret [list] [--json]
       lama-node secret set NAME [--file FILE]
       lama-node secret rm NAME
       lama-node secret reseal [--recovery-key]

A secret is a credential of systemd's, sealed to this machine's TPM and to a key on /var. A unit gets
it by its name: ImportCredential=NAME, and reads it from $CREDENTIALS_DIRECTORY/NAME.

  list     the names, what each is sealed to, whether it opens, and whether the recovery key could
           bring it back
  set      seal what comes on standard input, byte by byte; on a terminal it is asked for
  rm       forget it
  reseal   seal all anew, to this machine as it is now; `lama-node enroll` does it too

Options:
  --file FILE      set: take it from a file
  --recovery-key   reseal: what does not open is taken from its copy for the recovery key, which is
                   read from standard input, or asked for

Example:
  lama-node secret set wireguard.key < wg0.key",
    run,
};

fn run(args: &mut Args) -> Result<ExitCode> {
    let (mut words, mut file, mut by_key) = (Vec::new(), None, false);
    while let Some(a) = args.next()? {
        match a {
            Arg::Option(o) if o == "file" => file = Some(args.value()?),
            Arg::Option(o) if o == "recovery-key" => by_key = true,
            Arg::Value(v) if words.len() < 2 => words.push(v),
            other => return Err(other.unknown()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (words.as_slice(), file, by_key) {
        ([] | ["list"], None, false) => {
            let all = Store::here()?.list()?;
            args.print(&all, || table(&all))?;
        }
        (["set", name], file, false) => set(name, file.as_deref())?,
        (["rm", name], None, false) => {
            seal::check_name(name)?;
            Store::here()?.remove(name)?;
        }
        (["reseal"], None, by_key) => {
            let store = Store::here()?;
            let key = by_key
                .then(|| volumes::read_key("Recovery key"))
                .transpose()?;
            return reseal(&store, key.as_deref());
        }
        (["set" | "rm"], ..) => {
            return Err(Error::new("no secret was named").hint("see --help"));
        }
        _ => return Err(Error::new("these arguments do not belong together").hint("see --help")),
    }
    Ok(ExitCode::SUCCESS)
}

fn set(name: &str, file: Option<&str>) -> Result<()> {
    // What is wrong with the name is told before anybody types a secret.
    seal::check_name(name)?;
    let store = Store::here()?;
    let data = match file {
        Some(f) => read(f)?,
        None if std::io::stdin().is_terminal() => ask(name)?,
        None => read("-")?,
    };
    store.set(name, &data)?;
    if store.recipients.is_empty() {
        eprintln!(
            "warning: {name} has no copy that the recovery key opens: it is lost when the TPM is\n\
             hint: lama-node enroll --new-recovery-key makes a key that opens copies"
        );
    }
    Ok(())
}

/// Twice, without an echo.
fn ask(name: &str) -> Result<Vec<u8>> {
    let one = line(&format!("The secret {name}: "))?;
    if one != line("The same again: ")? {
        return Err(Error::new("they differ").hint("nothing was changed"));
    }
    Ok(one.into_bytes())
}

fn line(question: &str) -> Result<String> {
    let _quiet = crate::install::console::Quiet::new();
    eprint!("{question}");
    let mut line = String::new();
    let n = std::io::stdin().read_line(&mut line);
    eprintln!();
    n.map_err(|e| Error::new(format!("cannot read the secret: {e}")))?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Seals all anew, and says so of each on standard error. Status 1 where one is lost.
///
/// # Errors
/// They cannot be read.
pub fn reseal(store: &Store, recovery_key: Option<&str>) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for (name, outcome) in store.reseal(recovery_key)? {
        match outcome {
            Outcome::Sealed => eprintln!("secret {name}: sealed to this machine"),
            Outcome::Recovered => {
                eprintln!("secret {name}: sealed to this machine, from its copy");
            }
            Outcome::Lost(e) | Outcome::Failed(e) => {
                code = ExitCode::FAILURE;
                eprintln!("error: secret {name}: {e}");
                eprintln!("hint: {}", advice(recovery_key.is_some()));
            }
        }
    }
    Ok(code)
}

fn advice(with_key: bool) -> &'static str {
    if with_key {
        "set it anew with `lama-node secret set`; it was left as it is"
    } else {
        "`lama-node secret reseal --recovery-key` may bring it back; it was left as it is"
    }
}

fn table(all: &[Entry]) -> String {
    let width = all.iter().map(|e| e.name.len()).max().unwrap_or(0);
    let mut o = String::new();
    for e in all {
        let opens = if e.opens { "opens" } else { "DOES NOT OPEN" };
        let copy = if e.copy {
            "recovery key"
        } else {
            "no recovery"
        };
        let sealed = e.sealed.words();
        let _ = writeln!(o, "{:width$}  {opens:13}  {copy:12}  {sealed}", e.name);
    }
    o
}
