// SPDX-License-Identifier: Apache-2.0
//! The `common-*` files of /etc/pam.d from the profiles in /usr/share/pam-configs, as
//! pam-auth-update(8) writes them on a first installation.

use crate::Result;
use crate::error::syntax;
use lama_tree::{Node, Tree, TreePath};
use std::collections::BTreeMap;

const TYPES: [&str; 5] = [
    "auth",
    "account",
    "password",
    "session",
    "session-noninteractive",
];
const PRIMARY: &str = "# here are the per-package modules (the \"Primary\" block)";
const FALLBACK: &str = "# here's the fallback if no module succeeds";
const ADDITIONAL: &str = "# and here are more per-package modules (the \"Additional\" block)";
const END: &str = "# end of pam-auth-update config";

/// A profile: field by name, continuation lines joined by newlines.
type Profile = BTreeMap<String, String>;

/// Writes the five files; without profiles, none.
///
/// # Errors
/// A template that lacks its marks.
pub fn write(tree: &mut Tree) -> Result<()> {
    let profiles = enabled(tree)?;
    if profiles.is_empty() {
        return Ok(());
    }
    for t in TYPES {
        let template = format!("usr/share/pam/common-{t}");
        let text = String::from_utf8_lossy(tree.read(&template)?).into_owned();
        let out = render(&template, &text, t, &profiles)?;
        tree.add(&format!("etc/pam.d/common-{t}"), Node::file(out, 0o644))?;
    }
    Ok(())
}

/// Profiles enabled by default, the most important first, without those that an earlier one
/// conflicts with.
fn enabled(tree: &Tree) -> Result<Vec<Profile>> {
    let dir = TreePath::new("usr/share/pam-configs")?;
    let mut all: Vec<(i64, String, Profile)> = Vec::new();
    for (p, n) in tree.children(&dir) {
        if let Some(c) = n.content() {
            let profile = parse(&String::from_utf8_lossy(c.bytes()));
            if profile.get("Default").is_some_and(|d| d == "yes") {
                let priority = profile
                    .get("Priority")
                    .and_then(|p| p.parse().ok())
                    .unwrap_or(0);
                all.push((priority, p.file_name().to_owned(), profile));
            }
        }
    }
    // Falling priority, then falling name, as pam-auth-update has it.
    all.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
    let mut out: Vec<(String, Profile)> = Vec::new();
    for (_, name, p) in all {
        let against = |a: &Profile, n: &str| {
            a.get("Conflicts")
                .is_some_and(|c| c.split(',').any(|x| x.trim() == n))
        };
        if !out.iter().any(|(n, o)| against(o, &name) || against(&p, n)) {
            out.push((name, p));
        }
    }
    Ok(out.into_iter().map(|(_, p)| p).collect())
}

fn parse(text: &str) -> Profile {
    let mut out = Profile::new();
    let mut field = String::new();
    for line in text.lines() {
        let head = line.split_once(':').filter(|(k, v)| {
            !k.is_empty()
                && !k.contains(char::is_whitespace)
                && (v.is_empty() || v.starts_with(char::is_whitespace))
        });
        match head {
            Some((k, v)) => {
                field = k.strip_suffix("-Final").unwrap_or(k).to_owned();
                out.insert(field.clone(), v.trim().to_owned());
            }
            None => {
                let l = line.trim();
                if !l.is_empty() {
                    let v = out.entry(field.clone()).or_default();
                    if !v.is_empty() {
                        v.push('\n');
                    }
                    v.push_str(l);
                }
            }
        }
    }
    if out
        .get("Session-Interactive-Only")
        .is_none_or(|v| v != "yes")
    {
        for part in ["-Type", "", "-Initial"] {
            if let Some(v) = out.get(&format!("Session{part}")).cloned() {
                out.insert(format!("Session-noninteractive{part}"), v);
            }
        }
    }
    out
}

fn render(path: &str, template: &str, t: &str, profiles: &[Profile]) -> Result<String> {
    let (start, rest) =
        cut(template, PRIMARY).ok_or_else(|| syntax(path, 1, "no Primary block"))?;
    let from = rest
        .find(FALLBACK)
        .ok_or_else(|| syntax(path, 1, "no fallback"))?;
    let (middle, rest) = cut(rest.get(from..).unwrap_or(""), ADDITIONAL)
        .ok_or_else(|| syntax(path, 1, "no Additional block"))?;
    let to = rest
        .find(END)
        .ok_or_else(|| syntax(path, 1, "no end mark"))?;
    let mut out = start.to_owned();
    out += &block(t, "Primary", profiles);
    out += middle;
    out += &block(t, "Additional", profiles);
    out += rest.get(to..).unwrap_or("");
    Ok(out)
}

/// The text up to and including the line `mark`, and the rest.
fn cut<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let at = text.find(mark)? + mark.len();
    let at = at + text.get(at..)?.find('\n')? + 1;
    text.split_at_checked(at)
}

fn block(t: &str, which: &str, profiles: &[Profile]) -> String {
    let key = match t {
        "session-noninteractive" => "Session-noninteractive".to_owned(),
        t => t.get(..1).unwrap_or("").to_uppercase() + t.get(1..).unwrap_or(""),
    };
    let service = t.split('-').next().unwrap_or(t);
    let mut lines: Vec<&str> = Vec::new();
    let mut first = true;
    for p in profiles
        .iter()
        .filter(|p| p.get(&format!("{key}-Type")).is_some_and(|v| v == which))
    {
        let initial = p.get(&format!("{key}-Initial")).filter(|_| first);
        first = false;
        if let Some(v) = initial.or_else(|| p.get(&key)) {
            lines.extend(v.lines().filter(|l| !l.is_empty()));
        }
    }
    // A jump to the end leaves the block; in the Additional block it must stay on the stack.
    let mut count = lines.len();
    if which == "Additional" {
        count = count.saturating_sub(1);
    } else if count == 0 {
        return format!("{service}\t[default=1]\t\t\tpam_permit.so\n");
    }
    let mut out = String::new();
    for l in lines {
        out += &format!("{service}\t{}\n", line(l, count));
        count = count.saturating_sub(1);
    }
    out
}

/// `[success=end default=ignore]  pam_unix.so  nullok`: `end` becomes the jump's length, options are
/// joined by single blanks.
fn line(text: &str, jump: usize) -> String {
    let control_end = match text.strip_prefix('[').and_then(|r| r.find(']')) {
        Some(i) => i + 2,
        None => text.find(char::is_whitespace).unwrap_or(text.len()),
    };
    let (control, rest) = text.split_at_checked(control_end).unwrap_or((text, ""));
    let gap_end = rest
        .find(|c: char| !c.is_whitespace())
        .unwrap_or(rest.len());
    let (gap, rest) = rest.split_at_checked(gap_end).unwrap_or(("", rest));
    let (module, options) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let options: Vec<&str> = options.split_whitespace().collect();
    let control = control.replace("end", &jump.to_string());
    format!("{control}{gap}{module} {}", options.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "# head\n\n# here are the per-package modules (the \"Primary\" block)\n$auth_primary\n\
        # here's the fallback if no module succeeds\nauth\trequisite\tpam_deny.so\n\
        # and here are more per-package modules (the \"Additional\" block)\n$auth_additional\n\
        # end of pam-auth-update config\n";

    #[test]
    fn jumps_initials_and_order() {
        let unix = parse(
            "Name: U\nDefault: yes\nPriority: 256\nAuth-Type: Primary\nAuth:\n\t[success=end default=ignore]\tpam_unix.so nullok  try_first_pass\nAuth-Initial:\n\t[success=end default=ignore]\tpam_unix.so nullok\n",
        );
        let sss = parse(
            "Name: S\nAuth-Type: Primary\nAuth:\n\t[success=end default=ignore]\tpam_sss.so\n",
        );
        let cap = parse("Name: C\nAuth-Type: Additional\nAuth:\n\toptional\tpam_cap.so\n");
        let out = render("x", TEMPLATE, "auth", &[unix, sss, cap]).unwrap();
        assert_eq!(
            out,
            "# head\n\n# here are the per-package modules (the \"Primary\" block)\n\
             auth\t[success=2 default=ignore]\tpam_unix.so nullok\n\
             auth\t[success=1 default=ignore]\tpam_sss.so \n\
             # here's the fallback if no module succeeds\nauth\trequisite\tpam_deny.so\n\
             # and here are more per-package modules (the \"Additional\" block)\n\
             auth\toptional\tpam_cap.so \n# end of pam-auth-update config\n"
        );
        assert_eq!(
            block("auth", "Primary", &[]),
            "auth\t[default=1]\t\t\tpam_permit.so\n"
        );
        assert!(render("x", "nothing", "auth", &[]).is_err());
    }

    #[test]
    fn interactive_only_sessions() {
        let p = parse("Session-Type: Additional\nSession:\n\trequired pam_unix.so\n");
        assert!(p.contains_key("Session-noninteractive"));
        let p = parse(
            "Session-Type: Additional\nSession-Interactive-Only: yes\nSession:\n\toptional pam_mkhomedir.so\n",
        );
        assert!(!p.contains_key("Session-noninteractive"));
    }
}
