// SPDX-License-Identifier: Apache-2.0
//! What the documentation says is so: its commands are valid, its links lead somewhere, and it
//! names every key, variable, tool and partition that there is.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_exec::fs;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Every page: its path from the checkout, and its text.
fn pages() -> Vec<(String, String)> {
    let mut names: Vec<String> = vec!["README.md".to_owned()];
    for e in fs::read_dir(root().join("docs")).unwrap() {
        names.push(format!("docs/{}", e.file_name().to_str().unwrap()));
    }
    names.retain(|n| n.ends_with(".md"));
    assert!(names.len() > 5, "{names:?}");
    names.into_iter().map(|n| (n.clone(), text(&n))).collect()
}

/// Splits a page into its prose and its fenced blocks, by language.
fn fences(page: &str) -> (String, Vec<(String, String)>) {
    let (mut prose, mut blocks) = (String::new(), Vec::<(String, String)>::new());
    let mut inside = false;
    for line in page.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            inside = !inside;
            if inside {
                blocks.push((language.trim().to_owned(), String::new()));
            }
        } else if inside {
            let block = &mut blocks.last_mut().unwrap().1;
            block.push_str(line.trim_start());
            block.push('\n');
        } else {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    assert!(!inside, "a fence is not closed");
    (prose, blocks)
}

/// The commands of all `sh` and `console` blocks, with the page each stands on.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for (name, page) in pages() {
        for (language, block) in fences(&page).1 {
            if language != "sh" && language != "console" {
                continue;
            }
            for line in block.lines() {
                let line = line.strip_prefix("$ ").unwrap_or(line);
                let line = line.split(" # ").next().unwrap_or_default();
                let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
                if !words.is_empty() {
                    all.push((name.clone(), words));
                }
            }
        }
    }
    all
}

/// Runs the program where it finds and can spoil nothing.
fn lamadist(args: &[String]) -> Output {
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nowhere");
    fs::create_dir_all(nowhere.join("tmp")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_lamadist"))
        .args(args)
        .env_clear()
        .env("PATH", nowhere.join("bin"))
        .env("HOME", &nowhere)
        .env("TMPDIR", nowhere.join("tmp"))
        .env("LAMADIST_DISTRO", nowhere.join("project/distro"))
        .env("LAMADIST_CACHE", nowhere.join("cache"))
        .env("LAMADIST_KEYS", nowhere.join("keys"))
        .env("LAMADIST_DEPLOY", nowhere.join("deploy"))
        .current_dir(&nowhere)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn help(args: &[&str]) -> String {
    let args: Vec<String> = args
        .iter()
        .copied()
        .chain(["--help"])
        .map(str::to_owned)
        .collect();
    let out = lamadist(&args);
    assert!(
        out.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// The command line as it is parsed, told by the status of clap's usage errors, 2.
#[test]
fn every_command_of_ours_is_a_valid_one() {
    let bad = lamadist(&["build".to_owned(), "--nonsense".to_owned()]);
    assert_eq!(
        bad.status.code(),
        Some(2),
        "usage errors cannot be told from others"
    );
    let mut checked = 0;
    for (page, words) in commands() {
        let after = ["cargo", "run", "--release", "--"];
        let args = if words.starts_with(&after.map(str::to_owned)) {
            &words[after.len()..]
        } else if words[0] == "lamadist" {
            &words[1..]
        } else {
            continue;
        };
        assert!(!args.is_empty(), "{page}: {words:?}");
        let out = lamadist(args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(
            matches!(out.status.code(), Some(0 | 1)) && !said.contains("panicked"),
            "{page}: {}\n{said}",
            words.join(" ")
        );
        checked += 1;
    }
    assert!(checked > 10, "only {checked} commands were found");
}

/// The other commands name crates, tests and tasks that there are.
#[test]
fn every_other_command_names_what_exists() {
    for (page, words) in commands() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = format!("{page}: {}", words.join(" "));
        let words = match words.as_slice() {
            [variable, rest @ ..] if variable.contains('=') => rest,
            all => all,
        };
        for pair in words.windows(2) {
            if let ["-p", name] = pair {
                assert!(root().join("crates").join(name).is_dir(), "{said}");
            }
        }
        match words {
            ["mise", "run", task, ..] => {
                assert!(root().join(".mise/tasks").join(task).is_file(), "{said}");
            }
            ["cargo", "run", ..] => assert_eq!(
                words.get(2..4),
                Some(["--release", "--"].as_slice()),
                "{said}"
            ),
            // Those of lama-node are checked where it is built; the rest is on every node.
            [
                "cargo" | "lamadist" | "lama-node" | "systemctl" | "restic",
                ..,
            ] => {}
            [program, ..] => assert!(root().join(program).is_file(), "{said}"),
            [] => {}
        }
    }
}

/// GitHub's anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut anchors: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (name, page) in &pages {
        let headings = fences(page).0;
        let all = headings.lines().filter(|l| l.starts_with('#'));
        let all = all
            .map(|l| anchor(l.trim_start_matches('#').trim()))
            .collect();
        anchors.insert(root().join(name), all);
    }
    let mut checked = 0;
    for (name, page) in &pages {
        let here = root().join(name);
        let prose = fences(page).0;
        for link in prose
            .split("](")
            .skip(1)
            .filter_map(|s| s.split(')').next())
        {
            if link.starts_with("https://") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => here.clone(),
                p => here.parent().unwrap().join(p),
            };
            let target = target
                .canonicalize()
                .unwrap_or_else(|e| panic!("{name}: {link}: {e}"));
            if !fragment.is_empty() {
                let there = anchors
                    .get(&target)
                    .unwrap_or_else(|| panic!("{name}: {link}"));
                assert!(
                    there.contains(fragment),
                    "{name}: {link}: there are {there:?}"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} links were found");
}

/// The words in a page's `code`.
fn code_words(page: &str) -> BTreeSet<String> {
    let code = page.split('`').skip(1).step_by(2);
    let word = |c: char| !c.is_alphanumeric() && !"-_".contains(c);
    code.flat_map(|s| s.split(word))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_key_of_the_description_is_described() {
    fn keys(v: &serde_json::Value, all: &mut BTreeSet<String>) {
        match v {
            serde_json::Value::Object(o) => {
                if let Some(serde_json::Value::Object(properties)) = o.get("properties") {
                    all.extend(properties.keys().cloned());
                }
                o.values().for_each(|v| keys(v, all));
            }
            serde_json::Value::Array(a) => a.iter().for_each(|v| keys(v, all)),
            _ => {}
        }
    }
    let described = code_words(&fences(&text("docs/ARCHITECTURE.md")).0);
    for e in fs::read_dir(root().join("distro/schema")).unwrap() {
        let schema = serde_json::from_slice(&fs::read(e.path()).unwrap()).unwrap();
        let mut all = BTreeSet::new();
        keys(&schema, &mut all);
        assert!(!all.is_empty(), "{:?}", e.path());
        for key in all {
            assert!(
                described.contains(&key),
                "ARCHITECTURE.md does not describe {key:?} of {:?}",
                e.path()
            );
        }
    }
}

#[test]
fn every_variable_tool_machine_and_partition_is_named() {
    let tooling = text("docs/TOOLING.md");
    let help = help(&[]) + &self::help(&["build"]);
    let variables: Vec<&str> = help
        .split("[env: ")
        .skip(1)
        .filter_map(|s| s.split(['=', ']']).next())
        .collect();
    assert!(variables.len() >= 4, "{variables:?}");
    for v in variables {
        assert!(
            tooling.contains(&format!("`{v}`")),
            "TOOLING.md does not name {v}"
        );
    }
    let d = lama_model::Description::load(root().join("distro")).unwrap();
    for tool in &d.distro.tools {
        let named = tooling.lines().any(|l| {
            let cell = l.strip_prefix("| ").and_then(|l| l.split(" |").next());
            cell.is_some_and(|c| c.split(", ").any(|p| p == tool))
        });
        assert!(named, "TOOLING.md does not say what {tool} does");
    }
    let readme = text("README.md");
    for (name, _) in d.machines() {
        assert!(
            readme.contains(&format!("`{name}`")),
            "README.md does not name {name}"
        );
    }
    let partitioning = code_words(&fences(&text("docs/PARTITIONING.md")).0);
    for (name, m) in d.machines() {
        for layout in [m.layout.get_ref(), m.medium.get_ref()] {
            for p in &d.layout(layout).unwrap().partitions {
                let label = p.label.get_ref();
                assert!(
                    partitioning.contains(label),
                    "PARTITIONING.md does not name {label} of {name}"
                );
            }
        }
    }
}

/// The flags that mise offers are flags of the program, and each one is offered.
#[test]
fn mise_tasks_have_the_programs_flags() {
    let has = |help: &str, flag: &str| {
        let ends = |c: char| !c.is_ascii_alphanumeric() && c != '-';
        help.split(ends).any(|w| w == flag)
    };
    for task in [
        "build", "vm", "netboot", "channel", "lock", "keys", "oe", "clean",
    ] {
        let mut path = vec![task];
        let script = text(&format!(".mise/tasks/{task}"));
        let mut offered: BTreeMap<Vec<&str>, BTreeSet<&str>> = BTreeMap::new();
        for line in script.lines().filter_map(|l| l.strip_prefix("#USAGE ")) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("cmd") => path = vec![task, line.split('"').nth(1).unwrap()],
                Some("}") => path = vec![task],
                Some("flag") => {
                    let usage = line.split('"').nth(1).unwrap();
                    let flags = usage.split_whitespace().filter(|w| w.starts_with('-'));
                    offered.entry(path.clone()).or_default().extend(flags);
                }
                _ => {}
            }
        }
        assert!(!offered.is_empty(), "{task}");
        for (path, flags) in offered {
            let help = help(&path);
            for flag in &flags {
                assert!(
                    has(&help, flag),
                    "mise's {path:?} offers {flag}, the program does not"
                );
            }
            // Examples repeat flags, and help is everywhere.
            let own = help.split("Global options:").next().unwrap();
            for flag in own.split(|c: char| c.is_whitespace() || ",'\"`".contains(c)) {
                let known = ["", "--", "--help"].contains(&flag) || flags.contains(flag);
                assert!(
                    !flag.starts_with("--") || known,
                    "mise's {path:?} lacks {flag}"
                );
            }
        }
    }
}
