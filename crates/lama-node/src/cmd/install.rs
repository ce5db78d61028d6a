// SPDX-License-Identifier: Apache-2.0
//! `lama-node install`: from the live system to a disk.

use crate::cli::{Arg, Args, Command};
use crate::error::Context;
use crate::install::console::{Console, strong_enough};
use crate::install::{Installer, credential, finish};
use crate::run::Run;
use crate::{Error, Result, fs};
use std::io::{Write, stdin, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "install",
    about: "Install this medium's system to a disk",
    help: "\
Usage: lama-node install [--plan|--ask|--auto]

Without an option, installs as the answers say (docs/INSTALL.md) that the medium, a credential or
the kernel command line bring.

Options:
  --plan   show what would be done, write nothing
  --ask    ask on the console
  --auto   as the service does at boot: where no disk is answered, ask on the consoles

Example:
  lama-node install --plan",
    run,
};

#[derive(PartialEq, Eq)]
enum Mode {
    Answers,
    Plan,
    Ask,
    Auto,
}

fn run(args: &mut Args) -> Result<ExitCode> {
    let mut mode = Mode::Answers;
    while let Some(a) = args.next()? {
        mode = match a {
            Arg::Option(o) if o == "plan" => Mode::Plan,
            Arg::Option(o) if o == "ask" => Mode::Ask,
            Arg::Option(o) if o == "auto" => Mode::Auto,
            other => return Err(other.unknown()),
        };
    }
    let result = go(&mode);
    if mode == Mode::Auto {
        if let Err(e) = &result {
            // For whoever watches the console; the live system stays, reachable for repair.
            println!("lamadist-install: {e}");
            if let Some(h) = e.help() {
                println!("  hint: {h}");
            }
            println!("lamadist-install ends: nothing was installed");
        }
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn go(mode: &Mode) -> Result<()> {
    let installer = Installer::new()?;
    if *mode == Mode::Ask {
        let (input, output) = (stdin().lock(), stdout().lock());
        return Console::new(input, output).install(installer);
    }
    if *mode == Mode::Auto && installer.answers.disk.is_none() {
        return consoles();
    }
    let plan = installer.plan()?;
    print!("\n{}\n", plan.picture());
    let lock = installer.ready()?;
    if *mode == Mode::Plan {
        return Ok(());
    }
    let passphrase = credential("lamadist.install.passphrase")?;
    // An editor ends a file with one.
    let passphrase = passphrase
        .as_deref()
        .map(|p| p.trim_end_matches(['\r', '\n']));
    if installer.answers.without_tpm {
        let p = passphrase.ok_or_else(|| {
            Error::new("there is no passphrase for a machine without TPM")
                .hint("give it as the credential lamadist.install.passphrase")
        })?;
        strong_enough(p)?;
    }
    let mut ready = installer.prepare(&plan, lock, passphrase)?;
    let show = installer.answers.show.unwrap_or(true) || !ready.is_saved();
    // The key is for whoever sees the console, and not for the journal.
    let tell = |text: &str| match mode {
        Mode::Auto => console(text),
        _ => {
            print!("{text}");
            Ok(())
        }
    };
    tell(&format!("\n{}\n", ready.key(show)))?;
    installer.activate(&plan, &mut ready)?;
    tell(&format!("\n{}\nlamadist-install ends\n", ready.summary()))?;
    finish(installer.answers.finish)
}

/// Writes to the console itself.
fn console(text: &str) -> Result<()> {
    let what = "cannot write to /dev/console";
    let mut tty = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open("/dev/console")
        .context(what)?;
    tty.write_all(text.replace('\n', "\r\n").as_bytes())
        .context(what)
}

/// Starts the dialogue on every console where nobody can log in. Where somebody can, the two would
/// take the terminal from each other (`TTYVHangup=`, systemd.exec(5)) as often as systemd restarts them.
fn consoles() -> Result<()> {
    let active = fs::line("/sys/class/tty/console/active").unwrap_or_default();
    for tty in active.split_whitespace() {
        // tty0 is whatever is in front.
        let tty = if tty == "tty0" { "tty1" } else { tty };
        let logins = ["getty", "serial-getty"].map(|name| format!("{name}@{tty}.service"));
        // Succeeds where one of them is.
        let is_active = Run::new("systemctl").args(["is-active", "--quiet"]);
        if is_active.args(logins).any()?.status.success() {
            println!("{tty} has a login: `lama-node install --ask` there installs");
            continue;
        }
        let unit = format!("lamadist-installer@{tty}.service");
        Run::new("systemctl")
            .args(["--no-block", "start", &unit])
            .run()?;
    }
    Ok(())
}
