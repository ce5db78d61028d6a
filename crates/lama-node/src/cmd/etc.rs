// SPDX-License-Identifier: Apache-2.0
//! `lama-node etc`: what this host changed in /etc, and what its image changed below that.

use crate::cli::{Arg, Args, Command};
use crate::etc::base::{self, Base};
use crate::etc::lower::Lower;
use crate::etc::{Change, Image, Kind, TRUSTED, UPPER, changes, check, diff, find, reset};
use crate::{Error, Result};
use std::path::Path;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "etc",
    about: "What this host changed in /etc, and what the image changed below",
    help: "\
Usage: lama-node etc [--json]
       lama-node etc --diff PATH | --accept PATH | --reset PATH
       lama-node etc --record | --apply-resets ROOT

Without an option, lists the host's changes. `!` marks those whose file in the image is another one
now than when the change was made: the host's hides it.

Options:
  --diff PATH    compare the image's file with the host's
  --accept PATH  the host's file stays; the image's of now is what it is compared with from now on
  --reset PATH   take the host's change back at the next boot
  --record       write down how the image's files are that the host changed (at boot and shutdown)
  --apply-resets ROOT
                 fulfil what --reset wrote down (in the initrd, before /etc is mounted)

Example:
  lama-node etc --diff ssh/sshd_config.d/10-lamadist.conf",
    run,
};

enum Mode {
    List,
    Record,
    Diff(String),
    Accept(String),
    Reset(String),
    Apply(String),
}

fn run(args: &mut Args) -> Result<ExitCode> {
    let mut mode = Mode::List;
    while let Some(a) = args.next()? {
        if !matches!(mode, Mode::List) {
            return Err(a.unknown().hint("one option at a time"));
        }
        mode = match a {
            Arg::Option(o) if o == "record" => Mode::Record,
            Arg::Option(o) if o == "diff" => Mode::Diff(args.value()?),
            Arg::Option(o) if o == "accept" => Mode::Accept(args.value()?),
            Arg::Option(o) if o == "reset" => Mode::Reset(args.value()?),
            Arg::Option(o) if o == "apply-resets" => Mode::Apply(args.value()?),
            other => return Err(other.unknown()),
        };
    }
    if let Mode::Apply(root) = &mode {
        let done = reset::apply(Path::new(root), TRUSTED)?;
        args.print(&done, || done.join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    check()?;
    let lower = Lower::open()?;
    let (etc, upper) = (lower.etc(), Path::new(UPPER));
    let mut all = changes(&etc, upper, TRUSTED)?;
    let file = Path::new(base::PATH);
    let read = Base::read(file)?;
    let mut record = read.clone();
    match mode {
        Mode::List | Mode::Apply(_) => {
            read.compare(&mut all);
            args.print(&all, || table(&all))?;
        }
        Mode::Record => {
            let (new, gone) = record.record(&all);
            record.write(file, &read)?;
            eprintln!("{} changes in /etc; {new} new, {gone} gone", all.len());
        }
        Mode::Diff(p) => {
            let text = diff(&etc, upper, named(&all, &p)?)?;
            args.print(&text, || text.clone())?;
        }
        Mode::Accept(p) => {
            record.accept(named(&all, &p)?);
            record.write(file, &read)?;
        }
        Mode::Reset(p) => {
            let change = named(&all, &p)?;
            reset::possible(change, upper)?;
            reset::wish(Path::new(reset::PATH), change)?;
            eprintln!("{} is the image's again after the next boot", change.path);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn named<'a>(all: &'a [Change], name: &str) -> Result<&'a Change> {
    find(all, name).ok_or_else(|| {
        Error::new(format!("this host did not change {name}")).hint("see lama-node etc")
    })
}

fn table(all: &[Change]) -> String {
    let mut s = String::new();
    for c in all {
        let mark = if c.image == Image::Changed { '!' } else { ' ' };
        let kind = match c.kind {
            Kind::Added => "added",
            Kind::Changed => "changed",
            Kind::Removed => "removed",
            Kind::Mode => "mode",
            Kind::Same => "same",
            Kind::Replaced => "replaced",
        };
        s += &format!("{mark} {kind:8} {}", c.path);
        if let Some(d) = &c.detail {
            s += &format!("  ({d})");
        }
        s.push('\n');
    }
    if all.iter().any(|c| c.image == Image::Changed) {
        s += "\n! the image brings another one now: see --diff, then --accept or --reset\n";
    }
    if s.is_empty() {
        s.push_str("/etc is the image's\n");
    }
    s
}
