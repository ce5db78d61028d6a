// SPDX-License-Identifier: Apache-2.0
//! `lamadist bundle`: the update bundle of a build, and delta bundles to it.

use crate::App;
use crate::cli::Bundle as Options;
use crate::cmd::host;
use crate::pipeline::bundle::{self, FILE};
use crate::pipeline::packages::Policy;
use crate::pipeline::{self, Sources, stamp};
use lama_bundle::{Bundle, check, delta};
use lama_exec::fs::{self, Scratch};
use lama_image::index::{self, Index, Kind};
use lama_model::rauc::class;
use miette::{Result, miette};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Makes it, or a delta bundle to it.
pub fn run(app: &App, c: &Options) -> Result<ExitCode> {
    let (deploy, mut found) = pipeline::built(app, &c.target)?;
    let sources = Sources::load(&app.place.distro)?;
    let selection = sources.description.select(&c.target.bsp, &c.target.image)?;
    let tools = pipeline::tools(app, &sources, Policy::Extend)?;
    let keys = pipeline::keys_of(app, &deploy)?;
    let path = deploy.join(FILE);
    let mut recipients = c.to.clone();
    for name in &c.host {
        recipients.push(host::certificate(app, name, &c.hosts)?);
    }
    let again = !recipients.is_empty() || c.from.is_none() || !path.is_file();
    if again {
        let epoch = sources.description.distro.source_date_epoch;
        // A build beside it would take the images away.
        let _lock = fs::FileLock::exclusive(deploy.join(".lock"))?;
        let made = stamp::keep(&deploy, || {
            let place = (deploy.as_path(), &mut found);
            let made = bundle::bundle(
                &selection,
                &keys,
                &tools,
                epoch,
                &recipients,
                place,
                app.progress(),
            )?;
            if made {
                found.write(&deploy)?;
            }
            Ok(made)
        })?;
        if !made {
            return Err(miette!(
                help = "machines with UEFI are updated by bundles; the others' boot loader will come with the oe engine",
                "there are no bundles for {} yet",
                c.target.bsp
            ));
        }
    }
    let scratch = bundle::scratch(app);
    let with = bundle::with(&tools, Some(&keys), &scratch);
    let opened = Bundle::open(&path, with)?;
    let Some(from) = &c.from else {
        let summary = opened.summary();
        app.result(&summary, || crate::cmd::inspect::bundle_text(&summary))?;
        return Ok(ExitCode::SUCCESS);
    };
    let held = Scratch::new_in(&scratch)?;
    let old = Old::find(app, from, with, held.path())?;
    if old
        .compatible
        .as_ref()
        .is_some_and(|c| *c != selection.machine.compatible)
    {
        return Err(miette!(
            help = "name a bundle of the same machine",
            "{} is for another machine than {}",
            from.display(),
            c.target.bsp
        ));
    }
    let output = match &c.output {
        Some(o) => o.clone(),
        None => deploy.join(format!("from-{}.delta", old.version)),
    };
    let base = [(class::ROOT, old.root), (class::UKI, old.uki)];
    let made = delta::make(&opened, with, &old.version, &base, &output, app.progress())?;
    app.result(&made, || {
        let mib = |n: u64| n as f64 / f64::from(1 << 20);
        format!(
            "{}\n  {:.1} MiB, {:.3} of the bundle's {:.1} MiB\n  instructions {:.1} MiB, new {:.1} MiB",
            output.display(),
            mib(made.size),
            made.size as f64 / made.bundle as f64,
            mib(made.bundle),
            mib(made.instructions),
            mib(made.literals)
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// An earlier version.
pub struct Old {
    /// Its version.
    pub version: String,
    /// RAUC's `compatible`, where it is known.
    pub compatible: Option<String>,
    /// Its image, where it is known.
    pub image: Option<String>,
    /// Its root.
    pub root: PathBuf,
    /// Its UKI.
    pub uki: PathBuf,
}

impl Old {
    /// Out of a bundle, or a deploy folder.
    pub fn find(
        app: &App,
        from: &Path,
        with: lama_bundle::open::With<'_>,
        held: &Path,
    ) -> Result<Self> {
        if from.is_dir() {
            let index = Index::read(from)?;
            let file = |kind| {
                let entry = index.find(kind).ok_or_else(|| {
                    miette!(
                        help = "name a bundle, or the folder of a whole build",
                        "{} lists no {kind:?}",
                        from.join(index::FILE).display()
                    )
                })?;
                Ok::<_, miette::Report>(from.join(&entry.file))
            };
            return Ok(Self {
                root: file(Kind::Root)?,
                uki: file(Kind::Uki)?,
                version: index.version.clone(),
                compatible: None,
                image: Some(index.image.clone()),
            });
        }
        let old = Bundle::open(from, with)?;
        let ring = held.join("keyring.pem");
        let keys = with.keys.map(lama_keys::KeySet::rauc_keyring_pem);
        fs::write(&ring, keys.transpose()?.unwrap_or_default())?;
        let out = held.join("old");
        let _t = lama_exec::Progress::task(
            &*app.talk,
            "Unpacking the earlier version",
            lama_exec::progress::Unit::Busy,
            0,
        );
        check::unpack(&old, with, &ring, &out)?;
        let summary = old.summary();
        let image = |class: &str| {
            let found = summary.images.iter().find(|i| i.class == class);
            let found = found.map(|i| out.join(&i.file)).filter(|p| p.is_file());
            found.ok_or_else(|| {
                miette!(
                    help = "name a bundle that lamadist made",
                    "{} has no image {class}",
                    from.display()
                )
            })
        };
        Ok(Self {
            root: image(class::ROOT)?,
            uki: image(class::UKI)?,
            version: summary.version.unwrap_or_default(),
            compatible: summary.compatible,
            image: summary.image,
        })
    }
}
