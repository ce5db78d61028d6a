// SPDX-License-Identifier: Apache-2.0
//! The lamadist command line: thin, one file a command.

mod cli;
mod cmd;
mod pipeline;
mod place;
mod talk;

use clap::Parser;
use cli::{Cli, Command};
use lama_exec::Progress;
use miette::{IntoDiagnostic, Result};
use serde::Serialize;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use talk::Talk;

/// What every command is given.
pub struct App {
    /// Options of every command.
    pub global: cli::Global,
    /// Where things are.
    pub place: place::Place,
    /// What is said while working.
    pub talk: Arc<Talk>,
}

impl App {
    /// Progress, as libraries take it.
    pub fn progress(&self) -> &dyn Progress {
        &*self.talk
    }

    /// Prints a result: JSON with `--json`, else the text.
    pub fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        use std::io::Write;
        let out = if self.global.json {
            serde_json::to_string_pretty(value).into_diagnostic()?
        } else {
            text()
        };
        if out.is_empty() {
            return Ok(());
        }
        match writeln!(std::io::stdout(), "{out}") {
            // Whoever reads has seen enough (`| head`).
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            r => r.into_diagnostic(),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = match cli.global.verbose {
        0 => "off",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("LAMADIST_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(filter)),
        )
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    let json = cli.global.json;
    clean_up_on_signals();
    match run(cli) {
        Ok(code) => code,
        Err(e) => {
            report(&e, json);
            ExitCode::FAILURE
        }
    }
}

/// What the next interrupt does instead of ending the process.
type Ending = Box<dyn FnOnce() + Send>;
static ON_INTERRUPT: Mutex<Option<Ending>> = Mutex::new(None);

/// Lets the next interrupt do this instead of ending the process; another one ends it.
pub fn on_interrupt(end: impl FnOnce() + Send + 'static) {
    *ON_INTERRUPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(end));
}

/// An interrupted command leaves nothing half-made and says that it was interrupted.
fn clean_up_on_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]) else {
        return;
    };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let end = ON_INTERRUPT
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(end) = end {
                end();
                continue;
            }
            lama_exec::interrupt::clean_up();
            eprintln!("\ninterrupted; what was finished is kept, the next run goes on from there");
            std::process::exit(128 + signal);
        }
    });
}

fn run(cli: Cli) -> Result<ExitCode> {
    if let Command::Completions { shell } = &cli.command {
        use clap::CommandFactory;
        clap_complete::generate(
            *shell,
            &mut Cli::command(),
            "lamadist",
            &mut std::io::stdout(),
        );
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Schema(c) = &cli.command {
        return cmd::schema::run(c);
    }
    let app = App {
        place: place::Place::find(&cli.global)?,
        talk: Arc::new(Talk::new(cli.global.quiet, cli.global.json)),
        global: cli.global,
    };
    match cli.command {
        Command::Build(c) => cmd::build::run(&app, &c),
        Command::Vm(c) => cmd::vm::run(&app, &c),
        Command::Lock(c) => cmd::lock::run(&app, &c),
        Command::Scripts(c) => cmd::scripts::run(&app, &c),
        Command::Tools(c) => cmd::tools::run(&app, &c),
        Command::Bundle(c) => cmd::bundle::run(&app, &c),
        Command::Channel(c) => cmd::channel::run(&app, &c),
        Command::Verify(c) => cmd::verify::run(&app, &c),
        Command::Inspect(c) => cmd::inspect::run(&app, &c),
        Command::Host(c) => cmd::host::run(&app, &c),
        Command::Netboot(c) => cmd::netboot::run(&app, &c),
        Command::Keys(c) => cmd::keys::run(&app, c),
        Command::Oe(c) => cmd::oe::run(&app, &c),
        Command::Rpm(c) => cmd::rpm::run(&app, &c),
        Command::Clean(c) => cmd::clean::run(&app, &c),
        Command::Schema(_) | Command::Completions { .. } => Ok(ExitCode::SUCCESS),
    }
}

/// Prints an error: what happened, why, and how to mend it; with `--json` as one object.
fn report(e: &miette::Report, json: bool) {
    if json {
        let causes: Vec<String> = e.chain().skip(1).map(ToString::to_string).collect();
        let hint = e.help().map(|h| h.to_string());
        let value = serde_json::json!({
            "error": e.to_string(), "causes": causes, "hint": hint,
        });
        eprintln!("{value}");
        return;
    }
    eprintln!("error: {e}");
    for cause in e.chain().skip(1) {
        eprintln!("  because {cause}");
    }
    if let (Some(source), Some(mut labels)) = (e.source_code(), e.labels())
        && let Some(label) = labels.next()
        && let Ok(part) = source.read_span(label.inner(), 0, 0)
    {
        let text = String::from_utf8_lossy(part.data());
        for (i, line) in text.lines().enumerate() {
            eprintln!("  {:>4} | {line}", part.line() + i + 1);
        }
    }
    if let Some(hint) = e.help() {
        eprintln!("hint: {hint}");
    }
}
