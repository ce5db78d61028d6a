// SPDX-License-Identifier: Apache-2.0
//! The command line: `lama-node COMMAND [OPTIONS]`.

use crate::{Error, Result, cmd, generator};
use lexopt::prelude::*;
use serde::Serialize;
use std::process::ExitCode;

/// A command: its name, what it does in a line, and its function.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// All that `--help` says of it, with an example.
    pub help: &'static str,
    /// Runs it on the rest of the command line.
    pub run: fn(&mut Args) -> Result<ExitCode>,
}

/// The rest of a command line, and how results are printed.
pub struct Args {
    parser: lexopt::Parser,
    help: &'static str,
    /// Whether results are printed as JSON.
    pub json: bool,
}

/// One argument of a command.
pub enum Arg {
    /// `--NAME`.
    Option(String),
    /// Anything else.
    Value(String),
}

impl Args {
    /// The next argument. `--json` and `--help` are dealt with here.
    ///
    /// # Errors
    /// It is not UTF-8.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Arg>> {
        loop {
            let arg = match self.parser.next().map_err(usage)? {
                None => return Ok(None),
                Some(Long("json")) => {
                    self.json = true;
                    continue;
                }
                Some(Long("help") | Short('h')) => {
                    println!("{}", self.help.trim());
                    std::process::exit(0);
                }
                Some(Long(name)) => Arg::Option(name.to_owned()),
                Some(Short(c)) => return Err(unknown(&format!("-{c}"))),
                Some(Value(v)) => Arg::Value(v.string().map_err(usage)?),
            };
            return Ok(Some(arg));
        }
    }

    /// The value of the option that [`Args::next`] gave last.
    ///
    /// # Errors
    /// There is none, or it is not UTF-8.
    pub fn value(&mut self) -> Result<String> {
        self.parser.value().map_err(usage)?.string().map_err(usage)
    }

    /// For commands without arguments of their own.
    ///
    /// # Errors
    /// There is one.
    pub fn none(&mut self) -> Result<()> {
        match self.next()? {
            None => Ok(()),
            Some(a) => Err(a.unknown()),
        }
    }

    /// Prints a result: as JSON, or as the text that `text` makes.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print<T: Serialize>(&self, result: &T, text: impl FnOnce() -> String) -> Result<()> {
        use crate::Context;
        use std::io::Write;
        let mut out = if self.json {
            serde_json::to_string_pretty(result).context("cannot write JSON")?
        } else {
            text()
        };
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        std::io::stdout()
            .write_all(out.as_bytes())
            .context("cannot write to standard output")
    }
}

impl Arg {
    /// The error that this argument is not known.
    pub fn unknown(self) -> Error {
        match self {
            Self::Option(o) => unknown(&format!("--{o}")),
            Self::Value(v) => unknown(&v),
        }
    }
}

fn unknown(what: &str) -> Error {
    Error::new(format!("there is no argument {what} here")).hint("see --help")
}

fn usage(e: lexopt::Error) -> Error {
    Error::new(e.to_string()).hint("see --help")
}

/// Runs the program. Status 1 is a failure, 2 a wrong command line.
pub fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e}");
            if let Some(h) = e.help() {
                eprintln!("hint: {h}");
            }
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<ExitCode> {
    let mut argv = std::env::args_os();
    let called = argv.next().map(std::path::PathBuf::from);
    if called.as_ref().and_then(|p| p.file_name()) == Some(generator::NAME.as_ref()) {
        let dirs: Vec<String> = argv.map(|a| a.to_string_lossy().into_owned()).collect();
        return generator::run(&dirs).map(|()| ExitCode::SUCCESS);
    }
    let mut parser = lexopt::Parser::from_env();
    match parser.next().map_err(usage)? {
        None => {
            eprint!("{}", overview());
            Ok(ExitCode::from(2))
        }
        Some(Long("help") | Short('h')) => {
            print!("{}", overview());
            Ok(ExitCode::SUCCESS)
        }
        Some(Long("version") | Short('V')) => {
            println!("lama-node {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Some(Value(v)) => {
            let name = v.string().map_err(usage)?;
            let command = cmd::ALL.iter().find(|c| c.name == name).ok_or_else(|| {
                Error::new(format!("there is no command {name}")).hint("see lama-node --help")
            })?;
            let mut args = Args {
                parser,
                help: command.help,
                json: false,
            };
            (command.run)(&mut args)
        }
        Some(other) => Err(usage(other.unexpected())),
    }
}

fn overview() -> String {
    let mut s = String::from(
        "lama-node: what a LamaDist machine does for itself\n\nUsage: lama-node COMMAND [OPTIONS]\n\nCommands:\n",
    );
    for c in cmd::ALL {
        s += &format!("  {:12} {}\n", c.name, c.about);
    }
    s += "\nEvery command knows --help and --json.\n";
    s
}
