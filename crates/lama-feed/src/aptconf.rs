// SPDX-License-Identifier: Apache-2.0
//! The two things that apt's configuration (apt.conf(5), sources.list(5)) tells about reaching an
//! archive: base URLs, and proxies.

use crate::deb822;

/// Base URLs in a one-line-style sources.list, in order. Lines that apt would refuse are passed
/// over: whether the file is right is apt's business.
pub(crate) fn urls_of_list(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line
            .strip_prefix("deb")
            .filter(|r| r.starts_with([' ', '\t']))
        else {
            continue;
        };
        let mut rest = rest.trim_start();
        if rest.starts_with('[') {
            rest = rest.split_once(']').map_or("", |(_, r)| r).trim_start();
        }
        if let Some(url) = rest.split_whitespace().next() {
            out.push(url.to_owned());
        }
    }
    out
}

/// Base URLs in a deb822-style sources file.
pub(crate) fn urls_of_sources(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for s in deb822::Reader::new(text).map_while(Result::ok) {
        let off = s
            .get("Enabled")
            .is_some_and(|v| v.eq_ignore_ascii_case("no"));
        let binary = s
            .get("Types")
            .is_some_and(|t| t.split_whitespace().any(|t| t == "deb"));
        if off || !binary {
            continue;
        }
        let uris = s.get("URIs").unwrap_or_default();
        let uris = uris.lines().filter(|l| !l.starts_with('#'));
        out.extend(uris.flat_map(str::split_whitespace).map(str::to_owned));
    }
    out
}

/// Settings of an apt.conf, as `Acquire::http::Proxy` and value, in order. Both notations are
/// read, `A::B "v";` and `A { B "v"; };`; what else stands there is passed over.
pub(crate) fn settings(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut scopes: Vec<String> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for t in tokens(text) {
        match t {
            Token::Word(w) => words.push(w),
            Token::Open => {
                scopes.push(words.drain(..).next().unwrap_or_default());
            }
            Token::Close => {
                scopes.pop();
                words.clear();
            }
            Token::End => {
                let mut w = words.drain(..);
                if let (Some(name), Some(value)) = (w.next(), w.next()) {
                    let full: Vec<&str> = scopes
                        .iter()
                        .map(String::as_str)
                        .chain([name.as_str()])
                        .collect();
                    out.push((full.join("::"), value));
                }
            }
        }
    }
    out
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' => out.push(Token::Open),
            '}' => out.push(Token::Close),
            ';' => out.push(Token::End),
            '"' => out.push(Token::Word(
                chars.by_ref().take_while(|c| *c != '"').collect(),
            )),
            '#' => drop(chars.by_ref().find(|c| *c == '\n')),
            '/' if chars.peek() == Some(&'/') => drop(chars.by_ref().find(|c| *c == '\n')),
            '/' if chars.peek() == Some(&'*') => {
                chars.next();
                let mut last = ' ';
                for c in chars.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            c if c.is_whitespace() => {}
            c => {
                let mut w = String::from(c);
                while let Some(n) =
                    chars.next_if(|n| !n.is_whitespace() && !matches!(n, '{' | '}' | ';' | '"'))
                {
                    w.push(n);
                }
                out.push(Token::Word(w));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_and_sources() {
        let list = "# deb http://no/debian x main\ndeb http://a/debian trixie main # c\n\
                    deb [ arch=amd64 signed-by=/x ] https://b/debian-security x main\n\
                    deb-src http://no/debian x main\ndebug http://no\ndeb\ndeb [broken\n";
        assert_eq!(
            urls_of_list(list),
            ["http://a/debian", "https://b/debian-security"]
        );
        let sources = "Types: deb deb-src\n# http://no/debian\nURIs: http://a/debian\n# c\n \
                       http://b/debian\nSuites: x\n\nTypes: deb\nEnabled: no\nURIs: http://no/debian\n\n\
                       Types: deb-src\nURIs: http://no/debian\n";
        assert_eq!(
            urls_of_sources(sources),
            ["http://a/debian", "http://b/debian"]
        );
    }

    #[test]
    fn both_notations() {
        let conf = "// c\n# c\n/* Acquire::no \"1\"; */\nAcquire::http::Proxy \"http://p:3128/\";\n\
                    Acquire { https { Proxy \"DIRECT\"; Proxy::host \"http://q\"; }; Retries 3; };\n\
                    APT::List { \"a\"; \"b\"; };\n";
        let s = settings(conf);
        let get = |n: &str| s.iter().find(|(k, _)| k == n).map(|(_, v)| v.as_str());
        assert_eq!(get("Acquire::http::Proxy"), Some("http://p:3128/"));
        assert_eq!(get("Acquire::https::Proxy"), Some("DIRECT"));
        assert_eq!(get("Acquire::https::Proxy::host"), Some("http://q"));
        assert_eq!(get("Acquire::Retries"), Some("3"));
        assert_eq!(get("Acquire::no"), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in "([a-zA-Z:/*#\"{};\\[\\] \n]|\\PC)*") {
            settings(&text);
            urls_of_list(&text);
            urls_of_sources(&text);
        }
    }
}
