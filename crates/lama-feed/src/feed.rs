// SPDX-License-Identifier: Apache-2.0
//! All feeds of a distribution behind one door.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use lama_exec::fs;
use lama_exec::progress::{Progress, Unit};
use lama_solver::{Record, Universe};

use crate::config::{Arch, FeedConfig};
use crate::download::{self, Downloader, Options, Wanted};
use crate::index;
use crate::lock::LockedPackage;
use crate::mirror::{self, Mirrors};
use crate::openpgp::{Certificates, KeyError};
use crate::release::{ArchAll, ByHash, Freshness, Listed, Release};
use crate::store::{self, Store};
use crate::transport::join;

/// Limit of an InRelease; Debian's has 140 KB.
const MAX_RELEASE: u64 = 16 << 20;

/// Why feeds cannot serve.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// Mirrors.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Mirror(#[from] mirror::Error),
    /// Keys.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Key(#[from] KeyError),
    /// Downloads.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Download(#[from] download::Error),
    /// The store.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Store(#[from] store::Error),
    /// An index.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Index(#[from] index::Error),
    /// A file operation.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fs(#[from] fs::FsError),
    /// No mirror gave an acceptable InRelease.
    #[error("feed `{feed}`: no mirror has a release that can be trusted:{tried}")]
    #[diagnostic(help("{hint}"))]
    Release {
        /// The feed.
        feed: String,
        /// URLs and reasons, each on its line.
        tried: String,
        /// How to mend it.
        hint: String,
    },
    /// The release lacks what was asked for.
    #[error("feed `{feed}`: {what}")]
    #[diagnostic(help("it has the architectures {architectures}, the components {components}"))]
    NoIndex {
        /// The feed.
        feed: String,
        /// What is missing.
        what: String,
        /// Its architectures.
        architectures: String,
        /// Its components.
        components: String,
    },
    /// A record of a feed that is not configured.
    #[error("package {package} is from feed `{feed}`, which is not configured")]
    #[diagnostic(help("add the feed to the description, or renew the lock"))]
    UnknownFeed {
        /// The package.
        package: String,
        /// The feed.
        feed: String,
    },
}

/// Result of using feeds.
pub type Result<T> = std::result::Result<T, Error>;

/// The feeds, their mirrors and the store.
pub struct Feed {
    configs: Vec<FeedConfig>,
    mirrors: Mirrors,
    store: Store,
    progress: Arc<dyn Progress>,
    downloader: Downloader,
    freshness: Freshness,
    now: i64,
}

impl Feed {
    /// Feeds that are fetched from `mirrors` into `store`.
    pub fn new(
        configs: Vec<FeedConfig>,
        mirrors: Mirrors,
        store: Store,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let downloader = Downloader::new(mirrors.proxies.clone(), Options::default());
        let now = jiff::Timestamp::now().as_second();
        let freshness = Freshness::default();
        Self {
            configs,
            mirrors,
            store,
            progress,
            downloader,
            freshness,
            now,
        }
    }

    /// Says whether the age of a feed matters (it does by default).
    pub fn with_freshness(mut self, freshness: Freshness) -> Self {
        self.freshness = freshness;
        self
    }

    /// Downloads with other options.
    pub fn with_options(mut self, options: Options) -> Self {
        self.downloader = Downloader::new(self.mirrors.proxies.clone(), options);
        self
    }

    /// Takes another time for now: seconds since 1970.
    pub fn with_now(mut self, now: i64) -> Self {
        self.now = now;
        self
    }

    /// The feeds.
    pub fn configs(&self) -> &[FeedConfig] {
        &self.configs
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Asks the mirrors for the current state of every feed, and gives all packages for `arch`.
    /// Indexes that the store has are not fetched again.
    pub fn refresh(&self, arch: &Arch) -> Result<Universe> {
        Ok(Universe::new(self.records(arch)?, arch.as_str()))
    }

    /// The records behind [`Feed::refresh`], in the order of the feeds.
    pub fn records(&self, arch: &Arch) -> Result<Vec<Record>> {
        let mut wanted: Vec<(Wanted, Arc<str>)> = Vec::new();
        let task = self
            .progress
            .task("Checking feeds", Unit::Items, self.configs.len() as u64);
        for c in &self.configs {
            task.message(&c.name);
            let (release, base) = self.release(c)?;
            let feed: Arc<str> = c.name.as_str().into();
            for w in self.indexes(c, &release, &base, arch)? {
                wanted.push((w, Arc::clone(&feed)));
            }
            task.advance(1);
        }
        drop(task);
        let files: Vec<Wanted> = wanted.iter().map(|(w, _)| w.clone()).collect();
        let paths =
            self.downloader
                .fetch_all(&self.store, &files, "Fetching indexes", &*self.progress)?;
        self.load(&wanted, &paths)
    }

    /// Reads the indexes, the big ones at the same time.
    fn load(&self, wanted: &[(Wanted, Arc<str>)], paths: &[PathBuf]) -> Result<Vec<Record>> {
        let task = self.progress.task("Reading indexes", Unit::Busy, 0);
        let jobs: Vec<_> = wanted.iter().zip(paths).collect();
        let read = |((w, feed), path): &(&(Wanted, Arc<str>), &PathBuf)| {
            index::load(&self.store, path, w.sha256, &w.what, feed)
        };
        let results: Vec<index::Result<Vec<Record>>> = std::thread::scope(|s| {
            let handles: Vec<_> = jobs
                .iter()
                .map(|j| std::thread::Builder::new().spawn_scoped(s, move || read(j)))
                .collect();
            handles
                .into_iter()
                .zip(&jobs)
                .map(|(h, j)| match h.map(std::thread::ScopedJoinHandle::join) {
                    Ok(Ok(r)) => r,
                    // No thread could be had, or it died: here, then.
                    _ => read(j),
                })
                .collect()
        });
        drop(task);
        let mut out = Vec::new();
        let mut seen = HashSet::new();
        for r in results {
            for record in r? {
                // Packages for all architectures may be listed twice, with others and apart.
                let twice = record.architecture() == "all"
                    && !seen.insert((record.sha256().to_owned(), record.filename().to_owned()));
                if !twice {
                    out.push(record);
                }
            }
        }
        Ok(out)
    }

    /// The first release that can be trusted, and the mirror it is from.
    fn release(&self, c: &FeedConfig) -> Result<(Release, String)> {
        let keys = Certificates::load(&c.keys)?;
        let (mut tried, mut hint) = (String::new(), None);
        for base in self.mirrors.of(&c.archive)? {
            let url = join(base, &format!("dists/{}/InRelease", c.suite));
            let why = match self.downloader.get(&url, MAX_RELEASE) {
                Err(e) => e,
                Ok(data) => {
                    match Release::verify(&data, &keys, &c.suite, self.freshness, self.now) {
                        Ok(r) => return Ok((self.not_older(c, &keys, data, r)?, base.clone())),
                        Err(e) => {
                            hint.get_or_insert(e.hint());
                            e.to_string()
                        }
                    }
                }
            };
            tracing::warn!("{url}: {why}");
            tried.push_str(&format!("\n    {url}: {why}"));
        }
        let hint = hint
            .unwrap_or("check the network and the mirrors; name others with `--mirror URL`")
            .to_owned();
        Err(Error::Release {
            feed: c.name.clone(),
            tried,
            hint,
        })
    }

    /// A mirror may lag behind what another has shown already, or be made to: then the release
    /// seen last is used, as apt does it, and the new one is remembered else.
    fn not_older(
        &self,
        c: &FeedConfig,
        keys: &Certificates,
        data: Vec<u8>,
        r: Release,
    ) -> Result<Release> {
        if self.freshness == Freshness::Ignore {
            return Ok(r);
        }
        let name = format!("{}-{}", c.archive, c.suite.replace('/', "-"));
        let path = self.store.root().join("releases").join(name);
        if let Some(seen) = fs::read_optional(&path)?
            && seen != data
            && let Ok(seen) = Release::verify(&seen, keys, &c.suite, self.freshness, self.now)
            && seen.date > r.date
        {
            self.progress.note(&format!(
                "feed {}: the mirror is older than what was seen before; the newer state is used",
                c.name
            ));
            return Ok(seen);
        }
        fs::write_atomic(&path, data)?;
        Ok(r)
    }

    /// The indexes to fetch. The mirror that gave the release is asked first.
    fn indexes(&self, c: &FeedConfig, r: &Release, base: &str, arch: &Arch) -> Result<Vec<Wanted>> {
        let mut bases = vec![base];
        bases.extend(
            self.mirrors
                .of(&c.archive)?
                .iter()
                .map(String::as_str)
                .filter(|b| *b != base),
        );
        let none = |what: String| Error::NoIndex {
            feed: c.name.clone(),
            what,
            architectures: r.architectures.join(", "),
            components: r.components.join(", "),
        };
        if !r.architectures.iter().any(|a| a == arch.as_str()) {
            return Err(none(format!("it has no packages for {arch}")));
        }
        let mut out = Vec::new();
        for component in &c.components {
            let folder = |a: &str| format!("{component}/binary-{a}");
            let (dir, (name, listed)) = newest(r, &folder(arch.as_str()))
                .map(|f| (folder(arch.as_str()), f))
                .ok_or_else(|| none(format!("it has no component `{component}` for {arch}")))?;
            out.push(want(c, r, &bases, &dir, name, listed));
            if r.arch_all == ArchAll::Apart
                && let Some((name, listed)) = newest(r, &folder("all"))
            {
                out.push(want(c, r, &bases, &folder("all"), name, listed));
            }
        }
        Ok(out)
    }

    /// Pins records: names, hashes and where they are.
    pub fn pin<'a>(
        &self,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<Vec<LockedPackage>> {
        records
            .into_iter()
            .map(|r| {
                let unknown = || Error::UnknownFeed {
                    package: r.to_string(),
                    feed: r.feed().to_owned(),
                };
                let c = self
                    .configs
                    .iter()
                    .find(|c| c.name == r.feed())
                    .ok_or_else(unknown)?;
                // A record's hash was checked when the record was made.
                LockedPackage::new(r, c).map_err(|_| unknown())
            })
            .collect()
    }

    /// The files of locked packages, in the same order: from the store, else from the mirrors in
    /// their order. Needs no index.
    pub fn fetch<'a>(
        &self,
        packages: impl IntoIterator<Item = &'a LockedPackage>,
    ) -> Result<Vec<PathBuf>> {
        let packages: Vec<&LockedPackage> = packages.into_iter().collect();
        let mut absent = BTreeSet::new();
        let mut wanted = Vec::with_capacity(packages.len());
        for p in packages {
            // Without a mirror, the store may still have it.
            let bases = match self.mirrors.of(&p.archive) {
                Ok(b) => b,
                Err(e) => {
                    if self.store.get(p.sha256, p.size)?.is_none() {
                        return Err(e.into());
                    }
                    absent.insert(&p.archive);
                    &[]
                }
            };
            wanted.push(Wanted {
                what: p.id.to_string(),
                urls: bases.iter().map(|b| join(b, &p.path)).collect(),
                sha256: p.sha256,
                size: p.size,
            });
        }
        if !absent.is_empty() {
            tracing::debug!(?absent, "no mirrors; the store has everything");
        }
        Ok(self
            .downloader
            .fetch_all(&self.store, &wanted, "Fetching packages", &*self.progress)?)
    }
}

/// The best compressed `Packages` of a folder.
fn newest<'a>(r: &'a Release, dir: &str) -> Option<(&'static str, &'a Listed)> {
    ["Packages.xz", "Packages.gz", "Packages"]
        .into_iter()
        .find_map(|n| r.files.get(&format!("{dir}/{n}")).map(|l| (n, l)))
}

fn want(c: &FeedConfig, r: &Release, bases: &[&str], dir: &str, name: &str, l: &Listed) -> Wanted {
    let mut urls = Vec::new();
    for base in bases {
        let at = format!("dists/{}/{dir}", c.suite);
        if r.by_hash == ByHash::Yes {
            urls.push(join(base, &format!("{at}/by-hash/SHA256/{}", l.sha256)));
        }
        urls.push(join(base, &format!("{at}/{name}")));
    }
    Wanted {
        what: format!("{}/{dir}/{name}", c.name),
        urls,
        sha256: l.sha256,
        size: l.size,
    }
}
