// SPDX-License-Identifier: Apache-2.0
//! Reader for Debian's control-file syntax (deb822(5)): stanzas of `Name: value` fields, separated
//! by blank lines, values continued on lines that begin with a blank.
//!
//! Everything is borrowed from the text, and [`Reader::read`] reuses its buffer, because a
//! `Packages` index has some 50 MB and 60,000 stanzas.

/// What is wrong with the text, and on which line (counted from 1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line that is neither a field, a continuation, a comment nor blank.
    #[error("line {line}: `{text}` is no `Field: value`")]
    NoField {
        /// The line.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// A continuation line with no field above it.
    #[error("line {line}: a continuation line that continues no field")]
    NoStart {
        /// The line.
        line: usize,
    },
    /// The same field twice in a stanza.
    #[error("line {line}: field `{name}` stands twice in its stanza")]
    Twice {
        /// The line of the second one.
        line: usize,
        /// The field.
        name: String,
    },
    /// A field that must be there is not.
    #[error("line {line}: the stanza that begins here has no field `{name}`")]
    Missing {
        /// The stanza's first line.
        line: usize,
        /// The field.
        name: &'static str,
    },
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name as written; names compare without regard to case.
    pub name: &'a str,
    /// Its value, continuation lines included (with their leading blank), trimmed at both ends.
    pub value: &'a str,
    /// The line it begins on, from 1.
    pub line: usize,
}

/// One stanza.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stanza<'a> {
    /// Its first line, from 1.
    pub line: usize,
    /// Its fields, in order.
    pub fields: Vec<Field<'a>>,
}

impl<'a> Stanza<'a> {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.field(name).map(|f| f.value)
    }

    /// A field by its name, whatever the case.
    pub fn field(&self, name: &str) -> Option<&Field<'a>> {
        self.fields
            .iter()
            .find(|f| f.name.eq_ignore_ascii_case(name))
    }

    /// The value of a field that must be there.
    pub fn need(&self, name: &'static str) -> Result<&'a str, Error> {
        self.get(name).ok_or(Error::Missing {
            line: self.line,
            name,
        })
    }
}

/// Walks over the stanzas of a text.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    text: &'a str,
    pos: usize,
    line: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            pos: 0,
            line: 0,
        }
    }

    fn next_line(&mut self) -> Option<(usize, usize)> {
        let start = self.pos;
        let bytes = self.text.as_bytes();
        if start >= bytes.len() {
            return None;
        }
        let end = memchr::memchr(b'\n', bytes.get(start..)?).map_or(bytes.len(), |i| start + i);
        self.pos = end + 1;
        self.line += 1;
        Some((start, end))
    }

    /// Reads the next stanza into `s`; false at the end of the text.
    pub fn read(&mut self, s: &mut Stanza<'a>) -> Result<bool, Error> {
        s.fields.clear();
        let text = self.text;
        while let Some((start, end)) = self.next_line() {
            let l = text.get(start..end).unwrap_or_default();
            match l.as_bytes().first() {
                Some(b'#') => continue,
                None => {
                    if s.fields.is_empty() {
                        continue;
                    }
                    return Ok(true);
                }
                Some(b' ' | b'\t' | b'\r') => {
                    if l.trim().is_empty() {
                        if s.fields.is_empty() {
                            continue;
                        }
                        return Ok(true);
                    }
                    let line = self.line;
                    let Some(f) = s.fields.last_mut() else {
                        return Err(Error::NoStart { line });
                    };
                    // The value grows to the end of this line; it began in the same text.
                    let begin = f.value.as_ptr() as usize - text.as_ptr() as usize;
                    f.value = text.get(begin..end).unwrap_or(f.value).trim();
                }
                Some(_) => self.field(l, s)?,
            }
        }
        Ok(!s.fields.is_empty())
    }

    fn field(&self, l: &'a str, s: &mut Stanza<'a>) -> Result<(), Error> {
        let line = self.line;
        let bad = || Error::NoField {
            line,
            text: l.chars().take(40).collect(),
        };
        let (name, value) = l.split_once(':').ok_or_else(bad)?;
        if name.is_empty() || name.starts_with('-') || !name.bytes().all(|b| (33..127).contains(&b))
        {
            return Err(bad());
        }
        if s.fields
            .iter()
            .any(|f| f.name.len() == name.len() && f.name.eq_ignore_ascii_case(name))
        {
            return Err(Error::Twice {
                line,
                name: name.to_owned(),
            });
        }
        if s.fields.is_empty() {
            s.line = line;
        }
        // An empty value keeps pointing into the text, so that continuation lines can extend it.
        s.fields.push(Field {
            name,
            value: value.trim(),
            line,
        });
        Ok(())
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Stanza<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut s = Stanza::default();
        match self.read(&mut s) {
            Ok(true) => Some(Ok(s)),
            Ok(false) => None,
            Err(e) => {
                // Nothing after an error can be trusted.
                self.pos = self.text.len();
                Some(Err(e))
            }
        }
    }
}

/// All stanzas of `text`.
pub fn parse(text: &str) -> Result<Vec<Stanza<'_>>, Error> {
    Reader::new(text).collect()
}

/// The fields of one stanza, owned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// The value of a field, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }
}

impl From<&Stanza<'_>> for Fields {
    fn from(s: &Stanza<'_>) -> Self {
        Self(
            s.fields
                .iter()
                .map(|f| (f.name.to_owned(), f.value.to_owned()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stanzas_fields_and_continuations() {
        let s = parse("\n# c\nA: 1\nB:\n x\n .\n  y\n# inside\nC: z \n\n \t\nA: 2").unwrap();
        assert_eq!(s.len(), 2);
        assert_eq!(s[0].get("b"), Some("x\n .\n  y"));
        assert_eq!((s[0].line, s[0].fields[1].line, s[1].line), (3, 4, 12));
        assert_eq!(s[0].get("C"), Some("z"));
        assert_eq!(s[1].get("A"), Some("2"));
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in [
            ("A: 1\nnonsense\n", 2),
            ("\n x\n", 2),
            ("A: 1\na: 2\n", 2),
            ("-A: 1", 1),
            ("A B: 1", 1),
            (": 1", 1),
        ] {
            let e = parse(text).unwrap_err().to_string();
            assert!(e.starts_with(&format!("line {line}:")), "{text:?}: {e}");
        }
        let s = parse("\nA: 1\n").unwrap();
        assert_eq!(
            s[0].need("B").unwrap_err(),
            Error::Missing { line: 2, name: "B" }
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\PC|[\n\r\t :#-])*") {
            let _ = parse(&text);
        }

        #[test]
        fn round_trip(stanzas in proptest::collection::vec(
            proptest::collection::btree_map("[A-Z][a-z]{0,6}", "[a-z0-9.]([a-z ]{0,8}[a-z])?(\n [a-z.]{1,8}){0,3}", 1..6), 0..5))
        {
            let text: String = stanzas.iter().map(|s| {
                s.iter().map(|(k, v)| format!("{k}: {v}\n")).collect::<String>() + "\n"
            }).collect();
            let parsed = parse(&text).unwrap();
            prop_assert_eq!(parsed.len(), stanzas.len());
            for (p, s) in parsed.iter().zip(&stanzas) {
                prop_assert_eq!(p.fields.len(), s.len());
                for (k, v) in s { prop_assert_eq!(p.get(k), Some(v.as_str())); }
            }
        }
    }
}
