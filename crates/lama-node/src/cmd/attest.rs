// SPDX-License-Identifier: Apache-2.0
//! `lama-node attest`: whether this machine, or another, booted what was built.

use crate::attest::baseline::{Addon, Baseline};
use crate::attest::check::check;
use crate::attest::evidence::Evidence;
use crate::attest::report::{QuoteReport, Report, State};
use crate::attest::{bytes, pcr, pe, quote};
use crate::cli::{Arg, Args, Command};
use crate::error::{Context, Result};
use crate::{Error, fs};
use std::process::ExitCode;
use std::time::Duration;

/// The command.
pub const COMMAND: Command = Command {
    name: "attest",
    about: "What was booted and what ran, by the TPM's word",
    help: "\
Usage: lama-node attest [--baseline FILE] [--addon FILE]... [--json]
       lama-node attest --quote NONCE [--output FILE]
       lama-node attest --verify EVIDENCE [--baseline FILE] [--addon FILE]...
                        [--nonce NONCE] [--key FILE] [--json]

Compares the boot logs and IMA's log with the TPM's PCRs, and with the
baseline.json of the build. Status 0: all is right; 1: something is not.

  --baseline FILE  the build's baseline.json
  --addon FILE     this host's own addon, which no build knows
  --quote NONCE    have the TPM sign the PCRs with this nonce (8 to 32 bytes,
                   hexadecimal), and write that and the logs down as evidence
  --output FILE    where to; without it to standard output
  --verify FILE    check evidence, on any machine
  --nonce NONCE    the nonce that the quote must have
  --key FILE       the public key (PEM) that must have signed it

Examples:
  lama-node attest --baseline baseline.json
  lama-node attest --quote $(openssl rand -hex 16) --output evidence.json
  lama-node attest --verify evidence.json --baseline baseline.json --key nas.pem",
    run,
};

/// How often a reading is repeated that fell into the middle of a measurement.
const TRIES: usize = 3;

#[derive(Default)]
struct Options {
    baseline: Option<String>,
    addons: Vec<String>,
    quote: Option<String>,
    output: Option<String>,
    verify: Option<String>,
    nonce: Option<String>,
    key: Option<String>,
}

fn options(args: &mut Args) -> Result<Options> {
    let mut o = Options::default();
    while let Some(arg) = args.next()? {
        let Arg::Option(name) = &arg else {
            return Err(arg.unknown());
        };
        let place = match name.as_str() {
            "baseline" => &mut o.baseline,
            "addon" => {
                o.addons.push(args.value()?);
                continue;
            }
            "quote" => &mut o.quote,
            "output" => &mut o.output,
            "verify" => &mut o.verify,
            "nonce" => &mut o.nonce,
            "key" => &mut o.key,
            _ => return Err(arg.unknown()),
        };
        *place = Some(args.value()?);
    }
    let needs = |wrong: bool, what: &str| {
        if wrong {
            return Err(Error::new(what).hint("see --help"));
        }
        Ok(())
    };
    let quoting = o.quote.is_some();
    needs(
        quoting && o.verify.is_some(),
        "--quote and --verify are two things",
    )?;
    needs(
        quoting && (o.baseline.is_some() || !o.addons.is_empty()),
        "--quote only collects; --verify compares with a baseline",
    )?;
    needs(
        !quoting && o.output.is_some(),
        "--output belongs to --quote",
    )?;
    needs(
        o.verify.is_none() && (o.nonce.is_some() || o.key.is_some()),
        "--nonce and --key belong to --verify",
    )?;
    Ok(o)
}

fn run(args: &mut Args) -> Result<ExitCode> {
    let o = options(args)?;
    if let Some(nonce) = &o.quote {
        return collect(&quote::nonce(nonce)?, o.output.as_deref());
    }
    let baseline = o.baseline.as_deref().map(Baseline::read).transpose()?;
    let addons = o
        .addons
        .iter()
        .map(|a| pe::addon(a))
        .collect::<Result<Vec<Addon>>>()?;
    let report = match &o.verify {
        Some(file) => {
            let evidence = Evidence::parse(&fs::read(file)?).context(file)?;
            let mut report = check(&evidence, baseline.as_ref(), &addons);
            signature(&evidence, &o, &mut report)?;
            report
        }
        None => here(baseline.as_ref(), &addons)?,
    }
    .finish();
    args.print(&report, || report.text())?;
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Evidence with a quote.
fn collect(nonce: &[u8], output: Option<&str>) -> Result<ExitCode> {
    let evidence = quote::take(nonce)?;
    let mut json = serde_json::to_vec_pretty(&evidence).context("cannot write JSON")?;
    json.push(b'\n');
    match output {
        Some(file) => fs::write(file, json, 0o644)?,
        None => {
            use std::io::Write;
            let mut out = std::io::stdout();
            out.write_all(&json)
                .context("cannot write to standard output")?;
        }
    }
    if let Some(q) = &evidence.quote {
        eprintln!("signed by {}", quote::fingerprint(&q.key)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks this machine.
fn here(baseline: Option<&Baseline>, addons: &[Addon]) -> Result<Report> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let evidence = Evidence::collect(&pcr::read()?)?;
        let report = check(&evidence, baseline, addons);
        // systemd extends first and writes its log then.
        let settled = report.pcrs.iter().all(|r| r.state != State::Mismatch);
        if settled || tries == 0 {
            return Ok(report);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Checks the quote of evidence.
fn signature(evidence: &Evidence, o: &Options, report: &mut Report) -> Result<()> {
    let Some(q) = &evidence.quote else {
        report.problem(
            "the evidence has no quote",
            "without a TPM's signature anybody could have written it",
        );
        return Ok(());
    };
    let pinned = o.key.as_deref().map(fs::text).transpose()?;
    let key = pinned.as_ref().unwrap_or(&q.key);
    let fingerprint = quote::fingerprint(key).context("the attestation key")?;
    let quoted = match quote::verify(q, key)? {
        Ok(quoted) => quoted,
        Err(e) => {
            let means = e.help().unwrap_or_default().to_owned();
            report.problem(e.to_string(), means);
            return Ok(());
        }
    };
    if let Err(e) = evidence.values().and_then(|v| quoted.covers(&v)) {
        report.problem(e.to_string(), "the evidence was changed");
    }
    match o.nonce.as_deref().map(quote::nonce).transpose()? {
        Some(n) if n != quoted.nonce => report.problem(
            format!("the quote has the nonce {}", bytes::hex(&quoted.nonce)),
            "it is an answer to another question, perhaps an old one",
        ),
        Some(_) => {}
        None => report
            .notes
            .push("no nonce was given to compare: this may be old (--nonce NONCE)".to_owned()),
    }
    if pinned.is_none() {
        report.notes.push(format!(
            "whose key this is, nobody has said: keep it, if you trust this machine now, and give it with --key from then on\n{}",
            q.key.trim_end()
        ));
    }
    report.quote = Some(QuoteReport {
        key: fingerprint,
        pinned: pinned.is_some(),
        nonce: bytes::hex(&quoted.nonce),
        resets: quoted.resets,
    });
    Ok(())
}
