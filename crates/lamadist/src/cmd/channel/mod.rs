// SPDX-License-Identifier: Apache-2.0
//! `lamadist channel`: a build's bundle for a track, in a folder that any web server serves.

mod deltas;
mod report;

pub use report::{inspect, verify};

use crate::App;
use crate::cli::Channel as Options;
use crate::pipeline::bundle as place;
use crate::pipeline::packages::Policy;
use crate::pipeline::{self, Sources};
use deltas::Deltas;
use lama_bundle::channel::next::{Back, Wanted, next};
use lama_bundle::channel::site::{Site, State, state};
use lama_bundle::channel::{self, Channel, File};
use lama_bundle::open::With;
use lama_bundle::{Bundle, check, digest};
use lama_exec::fs::{self, Scratch};
use lama_image::index::{self, Index, Kind};
use lama_keys::KeySet;
use miette::{Result, miette};
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Publishes it, or issues what is published anew.
pub fn run(app: &App, c: &Options) -> Result<ExitCode> {
    let sources = Sources::load(&app.place.distro)?;
    let selection = sources.description.select(&c.target.bsp, &c.target.image)?;
    sources.description.distro.check_track(&c.track)?;
    let compatible = &selection.machine.compatible;
    let dir = app.place.site(c.output.as_deref())?;
    let file = Site::place(&dir, &c.track, compatible, &c.target.image)?;
    let source = Source::find(app, c, &file)?;
    release_only(c, source.place(&file), source.version(), false)?;
    let keys = keys(app, c, source.version())?;
    let tools = pipeline::tools(app, &sources, Policy::Extend)?;
    let scratch = place::scratch(app);
    let with = place::with(&tools, Some(&keys), &scratch);

    let site = Site::open(&file)?;
    let ring = keys.rauc_keyring_pem()?;
    let last = last(&site, with, &ring)?;
    if let Some(l) = &last {
        let names = [&l.track, &l.compatible, &l.image];
        if names != [&c.track, compatible, &c.target.image] {
            return Err(miette!(
                help = "it was put there by hand: remove it",
                "{} is for {}, {}, track {}",
                file.display(),
                l.compatible,
                l.image,
                l.track
            ));
        }
    }
    let bundle = source.bundle(app, c, &site, last.as_ref(), with, compatible)?;
    let wanted = Wanted {
        track: c.track.clone(),
        compatible: compatible.clone(),
        image: c.target.image.clone(),
        version: bundle.version.clone(),
        bundle: bundle.named.clone(),
        deltas: Vec::new(),
        minimum: c.minimum.clone(),
        valid: c.valid,
        back: if c.force {
            Back::Allowed
        } else {
            Back::Refused
        },
    };
    // What must not be issued is refused before anything is published or made.
    next(last.as_ref(), wanted.clone(), now())?;
    let what = (bundle.named.size, bundle.named.sha256.clone());
    site.put(&bundle.path, bundle.named.url.clone(), what)?;
    let deltas = Deltas {
        app,
        c,
        site: &site,
        with,
        compatible,
        bundle: &bundle,
    };
    let deltas = deltas.all(last.as_ref())?;
    let channel = next(last.as_ref(), Wanted { deltas, ..wanted }, now())?;
    let claim = site.issue(&channel, &keys, &tools, &scratch)?;
    let mut report = Report::new(file, claim);
    if let Some(keep) = c.keep {
        report.removed = site.prune(keep.into())?;
    }
    app.result(&report, || report.text())?;
    Ok(ExitCode::SUCCESS)
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}

/// Where the bundle comes from.
enum Source {
    /// A build's folder.
    Build(PathBuf, Index),
    /// What is published, as it says itself; nobody has checked the signature yet.
    Published(Channel),
}

/// A bundle that is going to be named.
struct Named {
    path: PathBuf,
    version: String,
    named: File,
}

impl Source {
    fn find(app: &App, c: &Options, file: &Path) -> Result<Self> {
        if c.refresh {
            if !file.exists() {
                return Err(miette!(
                    help = "leave --refresh out, to publish a build",
                    "nothing is published in {} yet",
                    file.display()
                ));
            }
            return Ok(Self::Published(channel::read(file)?.channel));
        }
        let deploy = app.place.deploy(&c.target)?;
        let none = |what: &str| {
            miette!(
                help = "build it: `lamadist build`, or `lamadist bundle --host …`; --refresh issues anew what is published",
                "{} has no {what}",
                deploy.display()
            )
        };
        if !deploy.join(index::FILE).is_file() {
            return Err(none("finished build"));
        }
        let index = Index::read(&deploy)?;
        if index.find(Kind::Bundle).is_none() {
            return Err(none("bundle"));
        }
        Ok(Self::Build(deploy, index))
    }

    fn place<'a>(&'a self, file: &'a Path) -> &'a Path {
        match self {
            Self::Build(deploy, _) => deploy,
            Self::Published(_) => file,
        }
    }

    fn version(&self) -> &str {
        match self {
            Self::Build(_, i) => &i.version,
            Self::Published(c) => &c.version,
        }
    }

    fn bundle(
        &self,
        app: &App,
        c: &Options,
        site: &Site,
        last: Option<&Channel>,
        with: With<'_>,
        compatible: &str,
    ) -> Result<Named> {
        match (self, last) {
            (Self::Published(_), Some(last)) => published(c, site, last, with),
            (Self::Published(_), None) => Err(miette!(
                help = "publish again",
                "the channel file was removed meanwhile"
            )),
            (Self::Build(deploy, index), last) => {
                let entry = index.find(Kind::Bundle).map(|e| (&e.file, &e.sha256));
                let (name, sha256) = entry.ok_or_else(|| miette!("the build has no bundle"))?;
                let path = deploy.join(name);
                let (size, found) = digest(&path)?;
                if found != *sha256 {
                    return Err(miette!(
                        help = "make it anew: `lamadist bundle`",
                        "{} is not what {} says",
                        path.display(),
                        deploy.join(index::FILE).display()
                    ));
                }
                let known = last.is_some_and(|l| l.bundle.sha256 == found);
                let version = judged(app, c, &path, with, compatible, known)?;
                if let Some(l) = last.filter(|l| l.version == version && !known) {
                    app.progress().note(&format!(
                        "{} was published with another bundle; machines that run it stay as they are",
                        l.version
                    ));
                }
                Ok(Named {
                    named: File {
                        url: site.bundle_name(&version, &found),
                        size,
                        sha256: found,
                    },
                    path,
                    version,
                })
            }
        }
    }
}

/// What is published already, where it is whole.
fn published(c: &Options, site: &Site, last: &Channel, with: With<'_>) -> Result<Named> {
    let path = site.path(&last.bundle.url);
    let folder = path.parent().unwrap_or(Path::new("."));
    if state(folder, &last.bundle)? != State::Whole {
        return Err(miette!(
            help = "publish the build again, without --refresh; `lamadist verify` tells more",
            "{} is not beside the channel file as it was published",
            last.bundle.url
        ));
    }
    release_only(
        c,
        &path,
        &last.version,
        Bundle::open(&path, with)?.summary().development,
    )?;
    Ok(Named {
        path,
        version: last.version.clone(),
        named: last.bundle.clone(),
    })
}

/// The version of a build's bundle that machines would take. One that was judged before is not judged
/// again.
fn judged(
    app: &App,
    c: &Options,
    path: &Path,
    with: With<'_>,
    compatible: &str,
    known: bool,
) -> Result<String> {
    let opened = Bundle::open(path, with)?;
    opened.manifest()?;
    let s = opened.summary();
    let version = s.version.unwrap_or_default();
    if s.compatible.as_deref() != Some(compatible) || s.image.as_deref() != Some(&*c.target.image) {
        return Err(miette!(
            help = "name another --bsp or --image, or build it anew",
            "{} is the bundle of another machine or image",
            path.display()
        ));
    }
    release_only(c, path, &version, s.development)?;
    if !known {
        let held = Scratch::new_in(with.scratch)?;
        let ring = held.path().join("keyring.pem");
        let pem = with.keys.map(KeySet::rauc_keyring_pem).transpose()?;
        fs::write(&ring, pem.unwrap_or_default())?;
        check::check(&opened, with, &ring, app.progress())?;
    }
    Ok(version)
}

/// What `--release` insists on, besides release keys.
fn release_only(c: &Options, path: &Path, version: &str, development: bool) -> Result<()> {
    if c.release && (development || version.ends_with("-dev")) {
        return Err(miette!(
            help = "build it with --release",
            "{} is a development build ({version}), and no release",
            path.display()
        ));
    }
    Ok(())
}

/// The keys that sign.
fn keys(app: &App, c: &Options, version: &str) -> Result<KeySet> {
    let keys = if c.release {
        pipeline::release_keys(app)?
    } else {
        pipeline::keys_for(app, version)?
    };
    if keys.is_development() {
        app.progress()
            .note("signed by development keys: NOT FOR RELEASE");
    }
    Ok(keys)
}

/// What was issued last. Where that cannot be believed, a new file could go back behind it.
fn last(site: &Site, with: With<'_>, ring: &str) -> Result<Option<Channel>> {
    let claim = site.last(with.tools, ring, with.scratch).map_err(|e| {
        miette!(
            help = "publish with the keys that signed it (--keys, --release). Where those are gone or it is damaged, remove it, and name --minimum again",
            "what was published last cannot be gone on from: {e}"
        )
    })?;
    Ok(claim.map(|c| c.channel))
}
