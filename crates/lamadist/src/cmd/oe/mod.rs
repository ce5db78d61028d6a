// SPDX-License-Identifier: Apache-2.0
//! `lamadist oe`.

mod check;
mod container;
mod render;

use crate::App;
use crate::cli::{Oe, OeTarget};
use crate::pipeline::oe;
use lama_exec::Cmd;
use lama_oe::kas::Kas;
use miette::Result;
use std::process::ExitCode;

/// Does what was asked for.
pub fn run(app: &App, c: &Oe) -> Result<ExitCode> {
    match c {
        Oe::Render(c) => render::run(app, c),
        Oe::Check(c) => check::run(app, c),
        Oe::Shell(c) => {
            let mut kas = kas(app, "shell", &c.target)?;
            if !c.command.is_empty() {
                kas = kas.arg("--command").arg(shell_words(&c.command));
            }
            interactive(kas, &c.target)
        }
        Oe::Dump(c) => {
            let kas = kas(app, "dump", c)?;
            let kas = kas.args(["--skip", "repo_setup_loop", "--skip", "repos_checkout"]);
            interactive(kas.args(["--skip", "finish_setup_repos"]), c)
        }
        Oe::Container(c) => container::run(app, c),
        Oe::Parse(c) => {
            let kas = kas(app, "shell", c)?.args(["--command", "bitbake --parse-only"]);
            interactive(kas, c)
        }
    }
}

fn kas(app: &App, subcommand: &str, c: &OeTarget) -> Result<Cmd> {
    let kas = oe::kas(app, c.container)?;
    oe::known(&kas, &c.bsp, &c.extra)?;
    lama_exec::fs::create_dir_all(oe::work(&app.place))?;
    Ok(kas.command(subcommand))
}

/// kas takes the configuration last.
fn interactive(kas: Cmd, c: &OeTarget) -> Result<ExitCode> {
    let files = Kas::files(&c.bsp, &c.extra);
    let code = kas.arg(files).interactive()?;
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Words as a shell reads them again.
fn shell_words(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    let quote = |w: &String| {
        if !w.is_empty() && w.chars().all(plain) {
            w.clone()
        } else {
            format!("'{}'", w.replace('\'', r"'\''"))
        }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_same_words() {
        let words = ["bitbake", "-c", "a b", "it's", ""].map(str::to_owned);
        assert_eq!(shell_words(&words), r"bitbake -c 'a b' 'it'\''s' ''");
    }
}
