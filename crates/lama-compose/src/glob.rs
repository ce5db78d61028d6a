// SPDX-License-Identifier: Apache-2.0
//! Shell patterns, fnmatch(3) without FNM_PATHNAME: `*` matches `/` too, as in dpkg's path filters
//! and systemd's presets.

/// Whether `text` matches `pattern` (`*`, `?`, `[set]`, `[!set]`, `\x`).
pub fn matches(pattern: &str, text: &str) -> bool {
    let (p, t) = (pattern.as_bytes(), text.as_bytes());
    let (mut pi, mut ti) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match (p.get(pi), t.get(ti)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                retry = Some((pi + 1, ti));
                pi += 1;
                continue;
            }
            (Some(_), Some(c)) => one(p.get(pi..).unwrap_or(&[]), *c),
            _ => None,
        };
        match (step, retry) {
            (Some(n), _) => {
                pi += n;
                ti += 1;
            }
            // The last star takes one byte more.
            (None, Some((rp, rt))) if rt < t.len() => {
                retry = Some((rp, rt + 1));
                (pi, ti) = (rp, rt + 1);
            }
            _ => return false,
        }
    }
}

/// Matches one byte; the length of the pattern that did.
fn one(p: &[u8], c: u8) -> Option<usize> {
    match p {
        [b'?', ..] => Some(1),
        [b'\\', x, ..] => (*x == c).then_some(2),
        [b'[', rest @ ..] => {
            let negated = matches!(rest.first(), Some(b'!' | b'^'));
            let set = rest.get(usize::from(negated)..)?;
            // A `]` that comes first is a member.
            let Some(end) = set.iter().skip(1).position(|b| *b == b']').map(|i| i + 1) else {
                return (c == b'[').then_some(1);
            };
            let members = set.get(..end)?;
            let mut hit = false;
            let mut i = 0;
            while let Some(a) = members.get(i) {
                match (members.get(i + 1), members.get(i + 2)) {
                    (Some(b'-'), Some(b)) => {
                        hit |= (*a..=*b).contains(&c);
                        i += 3;
                    }
                    _ => {
                        hit |= *a == c;
                        i += 1;
                    }
                }
            }
            (hit != negated).then_some(end + 2 + usize::from(negated))
        }
        [x, ..] => (*x == c).then_some(1),
        [] => None,
    }
}

/// Patterns of paths to leave out; one with a leading `!` takes back what earlier ones excluded. The
/// last that matches decides.
#[derive(Debug, Clone, Default)]
pub struct Excludes(Vec<(bool, String)>);

impl Excludes {
    /// From their texts.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Self {
        Self(
            patterns
                .into_iter()
                .map(|p| match p.as_ref().strip_prefix('!') {
                    Some(rest) => (false, rest.trim_start_matches('/').to_owned()),
                    None => (true, p.as_ref().trim_start_matches('/').to_owned()),
                })
                .collect(),
        )
    }

    /// Whether the path (without leading slash) is left out.
    pub fn excluded(&self, path: &str) -> bool {
        self.0
            .iter()
            .rev()
            .find(|(_, p)| matches(p, path))
            .is_some_and(|(out, _)| *out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (p, t, want) in [
            ("*", "", true),
            ("*", "a/b", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("*.service", "x.service", true),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[", "[", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            (
                "usr/share/doc/*/copyright",
                "usr/share/doc/a/copyright",
                true,
            ),
            ("*a*b*c", "xaxbxbxc", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(p, t), want, "{p} {t}");
        }
    }

    #[test]
    fn the_last_match_decides() {
        let e = Excludes::new(["/usr/share/doc/*", "!usr/share/doc/*/copyright"]);
        assert!(e.excluded("usr/share/doc/x/README"));
        assert!(!e.excluded("usr/share/doc/x/copyright"));
        assert!(!e.excluded("usr/bin/x"));
    }

    proptest! {
        #[test]
        fn never_panics(p in "[\\[\\]!*?\\\\a-c-]{0,12}", t in "[a-c/\\[\\]]{0,12}") {
            let _ = matches(&p, &t);
        }
        #[test]
        fn a_literal_matches_itself(t in "[a-z/.]{0,20}") {
            prop_assert!(matches(&t, &t));
            let starred = format!("*{t}*");
            prop_assert!(matches(&starred, &t));
        }
    }
}
