// SPDX-License-Identifier: Apache-2.0
//! RAUC's manifest (RAUC 1.13, "Manifest"): a key file of GLib.

use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The section of ours, which RAUC passes on and does not read.
pub const META: &str = "meta.lamadist";

/// What a bundle of ours says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// RAUC's `compatible`: the machines it is for.
    pub compatible: String,
    /// Its version.
    pub version: String,
    /// The machine (`distro/machines/`).
    pub bsp: String,
    /// The image.
    pub image: String,
    /// The root hash of the root in it, in hexadecimal.
    pub root_hash: String,
    /// The oldest version that the system in it installs.
    pub min_version: Option<String>,
    /// The version since which earlier ones cannot read the data any more, and what becomes of it.
    pub migration: Option<(String, String)>,
    /// Whether development keys signed it.
    pub development: bool,
}

/// One image of a bundle, before RAUC has measured it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The slot class that it is for.
    pub class: &'static str,
    /// Its file in the bundle.
    pub file: String,
    /// Whether it is written block by block, with a hash index, or by the bundle's hook.
    pub how: How,
}

/// How an image gets into its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By RAUC, which takes over the blocks that are there already (`block-hash-index`).
    Adaptive,
    /// By the hook.
    Hook,
}

impl About {
    /// The manifest that RAUC makes a bundle by.
    ///
    /// # Errors
    /// A value that would break the file.
    pub fn render(&self, images: &[Image], hook: &str) -> Result<String> {
        let development = if self.development { "yes" } else { "no" };
        let min = self.min_version.as_deref();
        let values = [
            ("compatible", self.compatible.as_str()),
            ("version", &self.version),
            ("bsp", &self.bsp),
            ("image", &self.image),
            ("root-hash", &self.root_hash),
            ("min-version", min.unwrap_or("0")),
            (
                "migration-since",
                self.migration.as_ref().map_or("0", |m| &m.0),
            ),
        ];
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
        for (what, value) in values {
            if value.is_empty() || !value.chars().all(plain) {
                return Err(Error::Value {
                    what,
                    value: value.to_owned(),
                });
            }
        }
        let mut s = format!(
            "[update]\ncompatible={}\nversion={}\ndescription=LamaDist {} for {}\n\n\
             [bundle]\nformat=crypt\n\n[hooks]\nfilename={hook}\n",
            self.compatible, self.version, self.image, self.bsp
        );
        for i in images {
            let how = match i.how {
                How::Adaptive => "adaptive=block-hash-index",
                How::Hook => "hooks=install",
            };
            let _ = write!(s, "\n[image.{}]\nfilename={}\n{how}\n", i.class, i.file);
        }
        let _ = write!(
            s,
            "\n[{META}]\nbsp={}\nimage={}\nroot-hash={}\ndevelopment={development}\n",
            self.bsp, self.image, self.root_hash
        );
        if let Some(v) = min {
            let _ = writeln!(s, "min-version={v}");
        }
        if let Some((since, note)) = &self.migration {
            // A line without what GLib's GKeyFile would read otherwise (`lama-model` looks).
            let _ = write!(
                s,
                "migration-since={since}\nmigration-note={}\n",
                note.trim()
            );
        }
        Ok(s)
    }
}

/// A manifest that has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

/// An image as a signed manifest has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The slot class.
    pub class: String,
    /// Its file in the bundle.
    pub file: String,
    /// Its bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// Adaptive methods.
    pub adaptive: Vec<String>,
    /// Hooks.
    pub hooks: Vec<String>,
}

impl Manifest {
    /// Parses the text. What is no `key=value` is passed over, as the signature is what counts.
    pub fn parse(text: &str) -> Self {
        let mut m = Self::default();
        let mut at = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(s) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                s.clone_into(&mut at);
            } else if let Some((k, v)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                let section = m.sections.entry(at.clone()).or_default();
                section.insert(k.trim().to_owned(), v.trim().to_owned());
            }
        }
        m
    }

    /// A value.
    pub fn get(&self, section: &str, key: &str) -> Option<&str> {
        Some(self.sections.get(section)?.get(key)?.as_str())
    }

    /// The images.
    pub fn images(&self) -> Vec<Listed> {
        let list = |v: Option<&String>| {
            let all = v.map_or("", String::as_str).split([';', ',']);
            all.filter(|s| !s.is_empty()).map(str::to_owned).collect()
        };
        let image = |(name, keys): (&String, &BTreeMap<String, String>)| {
            let get = |k: &str| keys.get(k).cloned().unwrap_or_default();
            Some(Listed {
                class: name.strip_prefix("image.")?.to_owned(),
                file: get("filename"),
                size: get("size").parse().unwrap_or(0),
                sha256: get("sha256"),
                adaptive: list(keys.get("adaptive")),
                hooks: list(keys.get("hooks")),
            })
        };
        self.sections.iter().filter_map(image).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_can_be_read() {
        let mut about = About {
            compatible: "lamadist-x86_64".into(),
            version: "1.2.3".into(),
            bsp: "x86_64".into(),
            image: "base".into(),
            root_hash: "00ff".into(),
            min_version: Some("1.0.0".into()),
            migration: Some(("1.2.0".into(), "a note, of two words".into())),
            development: true,
        };
        let image = |class, how| Image {
            class,
            file: format!("{class}.img"),
            how,
        };
        let images = [image("rootfs", How::Adaptive), image("uki", How::Hook)];
        let text = about.render(&images, "hook").unwrap();
        let m = Manifest::parse(&text);
        assert_eq!(m.get("bundle", "format"), Some("crypt"));
        assert_eq!(m.get(META, "min-version"), Some("1.0.0"));
        assert_eq!(m.get(META, "development"), Some("yes"));
        assert_eq!(m.get(META, "migration-since"), Some("1.2.0"));
        assert_eq!(m.get(META, "migration-note"), Some("a note, of two words"));
        let read = m.images();
        assert_eq!(read[0].adaptive, ["block-hash-index"]);
        assert_eq!(
            (read[1].class.as_str(), &read[1].hooks[..]),
            ("uki", &["install".to_owned()][..])
        );
        about.version = "1\n[hooks]".into();
        assert!(about.render(&images, "hook").is_err());
    }
}
