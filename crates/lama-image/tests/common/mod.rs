// SPDX-License-Identifier: Apache-2.0
//! What the tests share.
#![allow(clippy::unwrap_used, clippy::panic)]
use lama_exec::Tools;
use lama_tree::{Node, Tree};
use std::path::Path;

/// The tools tree, if it has all these programs; otherwise says why the test is skipped.
pub fn tools(programs: &[&str]) -> Option<Tools> {
    lama_testkit::tools_with(programs).cloned()
}

/// A small tree with one of everything, and enough data for two levels of hashes.
#[allow(dead_code)]
pub fn tree() -> Tree {
    let mut t = Tree::new();
    t.add(
        "usr/lib/os-release",
        Node::file("ID=lamadist\nVERSION_ID=0.1.0\n", 0o644),
    )
    .unwrap();
    t.add("etc/os-release", Node::symlink("../usr/lib/os-release"))
        .unwrap();
    t.add("tmp", Node::dir(0o1777)).unwrap();
    t.add("usr/bin/su", Node::file(vec![7; 5000], 0o4755))
        .unwrap();
    t.add(
        "etc/shadow",
        Node::file("root:*:::::::\n", 0o640).owned(0, 42),
    )
    .unwrap();
    let mut caps = Node::file("x", 0o755);
    caps.xattrs.insert(
        "security.capability".into(),
        vec![1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    t.add("usr/bin/ping", caps).unwrap();
    // Bytes that compress little, the same each time.
    let mut x = 1u64;
    let noise: Vec<u8> = (0..3 << 20)
        .map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (x >> 60) as u8 | (x >> 40) as u8 & 0xf0
        })
        .collect();
    t.add("usr/lib/noise", Node::file(noise, 0o644)).unwrap();
    t
}

/// Runs a program that must be content.
#[allow(dead_code)]
pub fn content(tools: &Tools, dir: &Path, program: &str, args: &[&str]) -> String {
    let out = tools.command(program).args(args).bind(dir).cwd(dir).run();
    match out {
        Ok(o) => {
            format!(
                "{}{}",
                String::from_utf8_lossy(&o.stdout),
                String::from_utf8_lossy(&o.stderr)
            )
        }
        Err(e) => panic!("{program}: {e}"),
    }
}
