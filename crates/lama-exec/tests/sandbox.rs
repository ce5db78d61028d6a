// SPDX-License-Identifier: Apache-2.0
//! The sandbox, tried on the machine's own root as a tools tree.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use lama_exec::{ToolError, Tools};
use std::time::{Duration, Instant};

#[test]
fn a_tool_sees_the_tree_and_what_is_bound() {
    let d = tempfile::tempdir().unwrap();
    std::fs::create_dir(d.path().join("in")).unwrap();
    std::fs::write(d.path().join("in/file"), "hello").unwrap();
    let script = format!(
        "cat {0}/in/file; echo more > {0}/in/new; test ! -e /.host; ls /tmp; id -u; touch /usr/x 2>/dev/null || echo ro",
        d.path().display()
    );
    let out = Tools::tree("/")
        .command("sh")
        .arg("-c")
        .arg(script)
        .bind(d.path().join("in"))
        .text();
    let out = match out {
        Err(ToolError::Sandbox { step, source, .. }) => {
            eprintln!("SKIP: no sandbox here: {step}: {source}");
            return;
        }
        r => r.unwrap(),
    };
    assert!(out.starts_with("hello"), "{out}");
    assert!(out.ends_with("0\nro"), "{out}");
    assert_eq!(
        std::fs::read_to_string(d.path().join("in/new")).unwrap(),
        "more\n"
    );
}

#[test]
fn a_failure_shows_what_the_tool_said() {
    let e = Tools::host()
        .command("sh")
        .args(["-c", "echo because >&2; exit 3"])
        .run()
        .unwrap_err();
    let text = e.to_string();
    assert!(
        text.contains("exit status: 3") && text.contains("because"),
        "{text}"
    );
}

#[test]
fn a_missing_program_is_named() {
    let e = Tools::tree("/")
        .command("no-such-program")
        .run()
        .unwrap_err();
    assert!(e.to_string().contains("`no-such-program`"), "{e}");
}

#[test]
fn a_fed_program_that_does_not_read_is_no_pipe_error() {
    let out = Tools::host()
        .command("sh")
        .args(["-c", "exit 1"])
        .stdin_with(|w| {
            for _ in 0..100_000 {
                w.write_all(&[0; 4096])?;
            }
            Ok(())
        })
        .run();
    assert!(matches!(out, Err(ToolError::Failed { .. })), "{out:?}");
}

#[test]
fn a_program_that_comes_to_no_end_is_ended() {
    let begun = Instant::now();
    let limit = Duration::from_millis(100);
    let stuck = Tools::host().command("sleep").arg("60").within(limit).run();
    assert!(matches!(stuck, Err(ToolError::Stalled { .. })), "{stuck:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let limit = Duration::from_secs(60);
    let done = Tools::host().command("echo").arg("x").within(limit).text();
    assert_eq!(done.unwrap(), "x");
}
