// SPDX-License-Identifier: Apache-2.0
//! One binary package of an index.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::relation::{RelationError, Relations, is_arch, is_name};
use crate::version;

/// Field `Multi-Arch` (deb-control(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MultiArch {
    /// It serves its own architecture only.
    #[default]
    No,
    /// It can be installed for several architectures at once.
    Same,
    /// It serves every architecture.
    Foreign,
    /// It serves every architecture where the relation says `:any`.
    Allowed,
}

/// Field `Priority` (Policy 2.5), most important first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Needed for the packaging system itself.
    Required,
    /// Expected on any Unix-like system.
    Important,
    /// The default system.
    Standard,
    /// Everything else.
    #[default]
    Optional,
    /// Deprecated name of the latter.
    Extra,
}

/// Whether a package is essential (field `Essential`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IsEssential {
    /// An ordinary package.
    #[default]
    No,
    /// Others depend on it without saying so.
    Yes,
}

/// A field that holds relations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelationField {
    /// `Depends`
    Depends,
    /// `Pre-Depends`
    PreDepends,
    /// `Recommends`
    Recommends,
    /// `Provides`
    Provides,
    /// `Conflicts`
    Conflicts,
    /// `Breaks`
    Breaks,
    /// `Replaces`
    Replaces,
}

impl RelationField {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Depends,
        Self::PreDepends,
        Self::Recommends,
        Self::Provides,
        Self::Conflicts,
        Self::Breaks,
        Self::Replaces,
    ];

    /// The field's name in a control file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Depends => "Depends",
            Self::PreDepends => "Pre-Depends",
            Self::Recommends => "Recommends",
            Self::Provides => "Provides",
            Self::Conflicts => "Conflicts",
            Self::Breaks => "Breaks",
            Self::Replaces => "Replaces",
        }
    }
}

/// Why a stanza is no usable record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("index of feed `{feed}`, package `{package}`: field {field}: {what}")]
#[diagnostic(help("the index is damaged or its publisher made a mistake; refresh it"))]
pub struct RecordError {
    /// The feed.
    pub feed: String,
    /// The package, as far as it is known.
    pub package: String,
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub what: String,
}

/// One binary package of an index. Cloning counts a reference; relations are parsed when asked
/// for.
///
/// Serialized as a map of the fields' values, see [`Stanza`].
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Stanza", into = "Stanza")]
pub struct Record(Arc<Stanza>);

/// A record's fields as plain text: how it is serialized. Relations are in control-file syntax.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stanza {
    /// `Package`
    pub package: Box<str>,
    /// `Version`
    pub version: Box<str>,
    /// `Architecture`
    pub architecture: Box<str>,
    /// `Multi-Arch`
    #[serde(default)]
    pub multi_arch: MultiArch,
    /// `Essential`
    #[serde(default)]
    pub essential: IsEssential,
    /// `Priority`
    #[serde(default)]
    pub priority: Priority,
    /// `Depends`
    #[serde(default, skip_serializing_if = "empty")]
    pub depends: Box<str>,
    /// `Pre-Depends`
    #[serde(default, skip_serializing_if = "empty")]
    pub pre_depends: Box<str>,
    /// `Recommends`
    #[serde(default, skip_serializing_if = "empty")]
    pub recommends: Box<str>,
    /// `Provides`
    #[serde(default, skip_serializing_if = "empty")]
    pub provides: Box<str>,
    /// `Conflicts`
    #[serde(default, skip_serializing_if = "empty")]
    pub conflicts: Box<str>,
    /// `Breaks`
    #[serde(default, skip_serializing_if = "empty")]
    pub breaks: Box<str>,
    /// `Replaces`
    #[serde(default, skip_serializing_if = "empty")]
    pub replaces: Box<str>,
    /// Name of the source package, if it isn't the package's.
    #[serde(default, skip_serializing_if = "empty")]
    pub source: Box<str>,
    /// Version of the source package, if it isn't the package's.
    #[serde(default, skip_serializing_if = "empty")]
    pub source_version: Box<str>,
    /// `Filename`: path below the archive's root.
    pub filename: Box<str>,
    /// `Size`, in bytes.
    pub size: u64,
    /// `SHA256`, 64 hexadecimal digits in lower case.
    pub sha256: Box<str>,
    /// The feed whose index it stands in.
    pub feed: Arc<str>,
}

fn empty(s: &str) -> bool {
    s.is_empty()
}

impl Record {
    /// Takes the fields of a stanza of a `Packages` index (the names are those of the index:
    /// `get("Pre-Depends")`). Relations are kept as they are and read when needed; an unreadable
    /// one makes the package uninstallable, not the index unusable.
    ///
    /// # Errors
    /// A mandatory field (Package, Version, Architecture, Filename, Size, SHA256) that is missing
    /// or unreadable; a Filename that leads out of the archive.
    pub fn from_fields<'a>(
        get: impl Fn(&str) -> Option<&'a str>,
        feed: &Arc<str>,
    ) -> Result<Self, RecordError> {
        let fail = |field, what: &str| RecordError {
            feed: feed.to_string(),
            package: get("Package").unwrap_or("?").chars().take(80).collect(),
            field,
            what: what.into(),
        };
        let need = |field| get(field).ok_or_else(|| fail(field, "missing"));
        let text = |field| Box::<str>::from(get(field).unwrap_or_default());
        let package = need("Package")?;
        let (source, source_version) = match get("Source") {
            None => ("", ""),
            Some(s) => match s.split_once('(') {
                None => (s.trim(), ""),
                Some((name, v)) => (
                    name.trim(),
                    v.trim_end().strip_suffix(')').unwrap_or(v).trim(),
                ),
            },
        };
        let multi_arch = match get("Multi-Arch") {
            None | Some("no") => MultiArch::No,
            Some("same") => MultiArch::Same,
            Some("foreign") => MultiArch::Foreign,
            Some("allowed") => MultiArch::Allowed,
            Some(_) => return Err(fail("Multi-Arch", "none of no, same, foreign, allowed")),
        };
        let essential = match get("Essential") {
            Some("yes") => IsEssential::Yes,
            _ => IsEssential::No,
        };
        let priority = match get("Priority") {
            Some("required") => Priority::Required,
            Some("important") => Priority::Important,
            Some("standard") => Priority::Standard,
            Some("extra") => Priority::Extra,
            _ => Priority::Optional,
        };
        let size = need("Size")?;
        let size = Some(size)
            .filter(|s| s.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| fail("Size", "no number of bytes"))?;
        Self::from_stanza(Stanza {
            package: package.into(),
            version: need("Version")?.into(),
            architecture: need("Architecture")?.into(),
            multi_arch,
            essential,
            priority,
            depends: text("Depends"),
            pre_depends: text("Pre-Depends"),
            recommends: text("Recommends"),
            provides: text("Provides"),
            conflicts: text("Conflicts"),
            breaks: text("Breaks"),
            replaces: text("Replaces"),
            source: if source == package { "" } else { source }.into(),
            source_version: source_version.into(),
            filename: need("Filename")?.into(),
            size,
            sha256: need("SHA256")?.into(),
            feed: Arc::clone(feed),
        })
    }

    /// Checks a stanza and makes it a record.
    ///
    /// # Errors
    /// As [`Record::from_fields`].
    pub fn from_stanza(s: Stanza) -> Result<Self, RecordError> {
        let wrong = if !is_name(&s.package) {
            Some(("Package", "no package name"))
        } else if !version::is_valid(&s.version) {
            Some(("Version", "no version"))
        } else if !is_arch(&s.architecture) {
            Some(("Architecture", "no architecture"))
        } else if !s.source.is_empty() && !is_name(&s.source) {
            Some(("Source", "no package name"))
        } else if !s.source_version.is_empty() && !version::is_valid(&s.source_version) {
            Some(("Source", "no version in the parentheses"))
        } else if !is_pool_path(&s.filename) {
            Some(("Filename", "no relative path inside the archive"))
        } else if s.sha256.len() != 64
            || !s
                .sha256
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            Some(("SHA256", "not 64 hexadecimal digits in lower case"))
        } else {
            None
        };
        match wrong {
            None => Ok(Self(Arc::new(s))),
            Some((field, what)) => Err(RecordError {
                feed: s.feed.to_string(),
                package: s.package.chars().take(80).collect(),
                field,
                what: what.into(),
            }),
        }
    }

    /// The package's name.
    pub fn package(&self) -> &str {
        &self.0.package
    }

    /// Its version, with epoch and revision.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Its architecture, or `all`.
    pub fn architecture(&self) -> &str {
        &self.0.architecture
    }

    /// Field Multi-Arch.
    pub fn multi_arch(&self) -> MultiArch {
        self.0.multi_arch
    }

    /// Whether it is essential.
    pub fn is_essential(&self) -> bool {
        self.0.essential == IsEssential::Yes
    }

    /// Field Priority.
    pub fn priority(&self) -> Priority {
        self.0.priority
    }

    /// Name of its source package.
    pub fn source(&self) -> &str {
        if self.0.source.is_empty() {
            &self.0.package
        } else {
            &self.0.source
        }
    }

    /// Version of its source package.
    pub fn source_version(&self) -> &str {
        if self.0.source_version.is_empty() {
            &self.0.version
        } else {
            &self.0.source_version
        }
    }

    /// Path of the file below the archive's root.
    pub fn filename(&self) -> &str {
        &self.0.filename
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// SHA-256 of the file: 64 hexadecimal digits in lower case.
    pub fn sha256(&self) -> &str {
        &self.0.sha256
    }

    /// The feed whose index it stands in.
    pub fn feed(&self) -> &str {
        &self.0.feed
    }

    /// A relation field as written; empty if there is none.
    pub fn raw(&self, field: RelationField) -> &str {
        match field {
            RelationField::Depends => &self.0.depends,
            RelationField::PreDepends => &self.0.pre_depends,
            RelationField::Recommends => &self.0.recommends,
            RelationField::Provides => &self.0.provides,
            RelationField::Conflicts => &self.0.conflicts,
            RelationField::Breaks => &self.0.breaks,
            RelationField::Replaces => &self.0.replaces,
        }
    }

    /// A relation field, parsed.
    ///
    /// # Errors
    /// The field does not follow Policy 7.1.
    pub fn relations(&self, field: RelationField) -> Result<Relations<'_>, RelationError> {
        Relations::parse(self.raw(field))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.package(), self.version())
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}_{}_{}",
            self.package(),
            self.version(),
            self.architecture()
        )
    }
}

impl From<Record> for Stanza {
    fn from(r: Record) -> Self {
        Arc::unwrap_or_clone(r.0)
    }
}

impl TryFrom<Stanza> for Record {
    type Error = RecordError;

    fn try_from(s: Stanza) -> Result<Self, RecordError> {
        Self::from_stanza(s)
    }
}

/// The path will be joined to a mirror's address and may name a file on the disk: nothing in it
/// may lead elsewhere.
fn is_pool_path(path: &str) -> bool {
    let path = path.strip_prefix("./").unwrap_or(path);
    !path.is_empty()
        && path
            .split('/')
            .all(|p| !p.is_empty() && p != "." && p != "..")
        && path
            .bytes()
            .all(|b| (0x21..0x7f).contains(&b) && !matches!(b, b'\\' | b'?' | b'#'))
}
