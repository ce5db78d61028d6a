// SPDX-License-Identifier: Apache-2.0
//! The delta bundles that are published beside a bundle.

use super::Named;
use crate::App;
use crate::cli::Channel as Options;
use crate::cmd::bundle::Old;
use lama_bundle::channel::site::{Site, State, Target, state};
use lama_bundle::channel::{Channel, Delta};
use lama_bundle::open::With;
use lama_bundle::{Bundle, delta};
use lama_exec::fs::Scratch;
use lama_model::rauc::class;
use miette::{Result, miette};
use std::path::Path;

/// Delta bundles to the bundle.
pub struct Deltas<'a> {
    /// With what.
    pub app: &'a App,
    /// What was asked for.
    pub c: &'a Options,
    /// Where they go.
    pub site: &'a Site,
    /// With what bundles are opened.
    pub with: With<'a>,
    /// The machines'.
    pub compatible: &'a str,
    /// Where they lead.
    pub bundle: &'a Named,
}

impl Deltas<'_> {
    /// Those that are published already, given, and made; one for each version.
    pub fn all(&self, last: Option<&Channel>) -> Result<Vec<Delta>> {
        let mut all = Vec::new();
        for d in self.published(last)? {
            all.push(d);
        }
        let kept: Vec<String> = all.iter().map(|d| d.from.clone()).collect();
        for file in &self.c.delta {
            self.add(&mut all, file)?;
        }
        for from in &self.c.delta_from {
            self.make_from(&mut all, &kept, from)?;
        }
        let count = self.c.deltas.into();
        for (version, from) in self.site.before(&self.bundle.version, count)? {
            if all.iter().any(|d| d.from == version) {
                continue;
            }
            if let Err(e) = self.make_from(&mut all, &kept, &from) {
                // Nobody named it: machines at that version load the whole bundle.
                let note = format!("no delta bundle from {version}: {e}");
                self.app.progress().note(&note);
            }
        }
        all.sort_by(|a, b| a.from.cmp(&b.from));
        Ok(all)
    }

    /// Makes the one from this version, unless it is `kept`.
    fn make_from(&self, all: &mut Vec<Delta>, kept: &[String], from: &Path) -> Result<()> {
        let held = Scratch::new_in(self.with.scratch)?;
        let old = Old::find(self.app, from, self.with, held.path())?;
        if kept.contains(&old.version) {
            let note = format!("a delta bundle from {} is there already", old.version);
            self.app.progress().note(&note);
            return Ok(());
        }
        let out = held.path().join("made.delta");
        self.make(from, old, &out)?;
        self.add(all, &out)
    }

    /// Those of the last file that lead to the same bundle and are whole.
    fn published(&self, last: Option<&Channel>) -> Result<Vec<Delta>> {
        let same = |l: &&Channel| l.bundle.sha256 == self.bundle.named.sha256;
        let mut kept = Vec::new();
        for d in last.filter(same).map_or(&[][..], |l| &l.deltas) {
            let path = self.site.path(&d.file.url);
            let folder = path.parent().unwrap_or(Path::new("."));
            if state(folder, &d.file)? == State::Whole {
                kept.push(d.clone());
            } else {
                self.app.progress().note(&format!(
                    "{} is not there as it was published: left out",
                    d.file.url
                ));
            }
        }
        Ok(kept)
    }

    fn add(&self, all: &mut Vec<Delta>, file: &Path) -> Result<()> {
        let target = Target {
            version: &self.bundle.version,
            bundle: &self.bundle.named,
        };
        match self.site.put_delta(file, self.compatible, &target)? {
            Some(delta) => {
                // The later one counts.
                all.retain(|d| d.from != delta.from);
                all.push(delta);
            }
            None => self.app.progress().note(&format!(
                "{} is not smaller than the bundle: left out",
                file.display()
            )),
        }
        Ok(())
    }

    fn make(&self, from: &Path, old: Old, out: &Path) -> Result<()> {
        let image = &self.c.target.image;
        let other = old
            .compatible
            .as_ref()
            .is_some_and(|c| c != self.compatible);
        if other || old.image.as_ref().is_some_and(|i| i != image) {
            return Err(miette!(
                help = "name an earlier version of the same machine and image",
                "{} is of another machine or image",
                from.display()
            ));
        }
        let bundle = Bundle::open(&self.bundle.path, self.with)?;
        let base = [(class::ROOT, old.root), (class::UKI, old.uki)];
        let progress = self.app.progress();
        delta::make(&bundle, self.with, &old.version, &base, out, progress)?;
        Ok(())
    }
}
