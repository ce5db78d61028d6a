// SPDX-License-Identifier: Apache-2.0
//! One pipeline: packages → root tree → artefacts. Data walks one way.

pub mod builder;
pub mod bundle;
mod image;
mod medium;
pub mod netboot;
pub mod node;
pub mod oe;
pub mod packages;
mod release;
pub mod stamp;

use crate::App;
use crate::cli;
use lama_compose::{ComposeInput, Root};
use lama_exec::progress::Unit;
use lama_exec::{Progress, Tools, fs};
use lama_image::index::Index;
use lama_keys::KeySet;
use lama_model::files::FileRules;
use lama_model::ids::Ids;
use lama_model::scripts::Scripts;
use lama_model::{Description, Selection};
use lama_tree::Node;
use miette::{IntoDiagnostic, Result, WrapErr, miette};
use packages::{Policy, SetSpec};
use std::path::{Path, PathBuf};

/// Reads the description and its companion files.
pub struct Sources {
    /// The description.
    pub description: Description,
    /// Pinned users and groups.
    pub ids: Ids,
    /// Reviewed maintainer scripts.
    pub scripts: Scripts,
    /// Modes and owners of laid-in files.
    pub files: FileRules,
}

impl Sources {
    /// Reads them all.
    pub fn load(distro: &Path) -> Result<Self> {
        Ok(Self {
            description: Description::load(distro)?,
            ids: Ids::load(distro.join("ids.toml"))?,
            scripts: Scripts::load(distro.join("scripts"))?,
            files: FileRules::load(distro.join("files.toml"))?,
        })
    }
}

/// The tools tree, made where missing.
pub fn tools(app: &App, sources: &Sources, policy: Policy) -> Result<Tools> {
    if let Some(tree) = std::env::var_os("LAMADIST_TOOLS") {
        return Ok(Tools::tree(std::path::absolute(tree).into_diagnostic()?));
    }
    let spec = SetSpec::tools(&sources.description)?;
    let packages = packages::ensure(app, &sources.description, &spec, policy)?;
    let tree = lama_compose::tools_tree(
        &packages,
        &sources.scripts,
        &app.place.store(),
        &app.place.tools(),
        &*app.talk,
    )?;
    Ok(Tools::tree(tree))
}

/// The packages' root tree.
pub fn root(
    app: &App,
    sources: &Sources,
    selection: &Selection<'_>,
    version: &str,
    tools: &Tools,
    policy: Policy,
) -> Result<Root> {
    let spec = SetSpec::image(&sources.description, &selection.bsp, &selection.image)?;
    let packages = packages::ensure(app, &sources.description, &spec, policy)?;
    let d = &sources.description.distro;
    let field = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let os_release = [
        field("ID", &d.id),
        field("ID_LIKE", "debian"),
        field("NAME", &d.name),
        field(
            "PRETTY_NAME",
            &format!("{} {version} ({})", d.name, selection.image),
        ),
        field("VERSION", version),
        field("VERSION_ID", version),
        field(
            "IMAGE_ID",
            &format!("{}-{}-{}", d.id, selection.bsp, selection.image),
        ),
        field("IMAGE_VERSION", version),
        field("VARIANT_ID", &selection.image),
        field("HOME_URL", &d.home_url),
    ];
    let files: Vec<PathBuf> = selection
        .files
        .iter()
        .map(|f| sources.description.root.join("files").join(f))
        .collect();
    let _t = app.talk.task("Composing the root tree", Unit::Busy, 0);
    Ok(lama_compose::compose(&ComposeInput {
        packages: &packages,
        arch: selection.machine.arch,
        ids: &sources.ids,
        scripts: &sources.scripts,
        file_rules: &sources.files,
        files: &files,
        enable: &selection.enable,
        exclude: &d.exclude,
        os_release: &os_release,
        epoch: d.source_date_epoch,
        store: &app.place.store(),
        tools,
        progress: &*app.talk,
    })?)
}

/// Lays in what the program on the node is told of its machine, how RAUC installs on it and whom it
/// trusts, and the program itself, where the engine has not brought one; and lists the program.
fn furnish(
    root: &mut Root,
    selection: &Selection<'_>,
    version: &str,
    program: Option<node::Program>,
    keys: &KeySet,
) -> Result<()> {
    let machine = selection.machine_json(version);
    let mut files = vec![(lama_model::node::PATH, Node::file(machine, 0o644))];
    if let Some(program) = program {
        let entry = program.origin.entry(&program.bytes, selection.machine.arch);
        root.manifest.push(entry);
        root.manifest.sort();
        lama_compose::manifest::list(&mut root.tree, &root.manifest)?;
        files.push(("usr/bin/lama-node", Node::file(program.bytes, 0o755)));
    }
    if let Some(conf) = selection.rauc_conf() {
        files.push((lama_model::rauc::CONF, Node::file(conf, 0o644)));
        let keyring = keys.rauc_keyring_pem()?;
        files.push((lama_model::rauc::KEYRING, Node::file(keyring, 0o644)));
        // By them firmware in use follows a change of the db key (docs/SECURITY.md).
        if let Some(changes) = keys.db_changes()? {
            let paths = [lama_model::node::DB_APPEND, lama_model::node::DB_REPLACE];
            for (path, change) in paths.into_iter().zip(changes) {
                files.push((path, Node::file(change, 0o644)));
            }
        }
    }
    for (path, node) in files {
        root.tree.add(path, node).into_diagnostic()?;
    }
    Ok(())
}

/// What a build left behind.
pub struct Built {
    /// The deploy folder.
    pub deploy: PathBuf,
    /// Its index; none where the build stopped at the root tree.
    pub index: Option<Index>,
    /// Whether there was nothing to do.
    pub fresh: bool,
}

/// Builds what the options say.
pub fn build(app: &App, c: &cli::Build) -> Result<Built> {
    let deploy = app.place.deploy(&c.target)?;
    let policy = if c.locked || c.release {
        Policy::Locked
    } else {
        Policy::Extend
    };
    let keys = if c.release {
        let set = release_keys(app)?;
        release::pinned_tools()?;
        set
    } else {
        development(app)?
    };
    // Somebody else building the same thing is waited for.
    let _lock = fs::FileLock::exclusive(deploy.join(".lock"))?;
    if c.release {
        release::clean_tree(&app.place)?;
    }
    let source = node::Source::read(&app.place)?;
    if c.release {
        release::own_source(&app.place, &source)?;
    }
    let before = inputs(app, c, &keys, &source)?;
    // What BitBake has to do anew BitBake knows.
    let stamped = c.engine == cli::Engine::Debian;
    if stamped && c.until != cli::Until::Root && stamp::fresh(&deploy, &before.all) {
        return Ok(Built {
            index: Some(Index::read(&deploy)?),
            deploy,
            fresh: true,
        });
    }
    let sources = Sources::load(&app.place.distro)?;
    let selection = sources.description.select(&c.target.bsp, &c.target.image)?;
    let base = &sources.description.distro.version;
    let version = if c.release {
        base.clone()
    } else {
        format!("{base}-dev")
    };
    let tools = tools(app, &sources, policy)?;
    let (engine, mut root, program) = match c.engine {
        cli::Engine::Debian => {
            let arch = selection.machine.arch;
            let program = node::node(app, &sources, &source, arch, policy)?;
            let root = root(app, &sources, &selection, &version, &tools, policy)?;
            ("debian", root, Some(program))
        }
        cli::Engine::Oe => {
            let root = oe::root(app, &sources, &selection, c, &keys)?;
            ("oe", root, None)
        }
    };
    furnish(&mut root, &selection, &version, program, &keys)?;
    stamp::forget(&deploy)?;
    fs::remove_file(deploy.join(lama_image::index::FILE))?;
    if c.until == cli::Until::Root {
        let _t = app.talk.task("Writing root.tar", Unit::Busy, 0);
        let mut out = fs::Staged::new(deploy.join("root.tar"))?;
        let mut w = std::io::BufWriter::with_capacity(1 << 20, &mut out);
        lama_tree::write_tar(
            &root.tree,
            &mut w,
            sources.description.distro.source_date_epoch,
        )
        .and_then(|()| std::io::Write::flush(&mut w))
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write {}", deploy.join("root.tar").display()))?;
        drop(w);
        out.commit(0o644)?;
        return Ok(Built {
            deploy,
            index: None,
            fresh: false,
        });
    }
    let mut index = image::Job {
        description: &sources.description,
        selection: &selection,
        engine,
        version: &version,
        keys: &keys,
        tools: &tools,
        cache: &app.place.cache,
        deploy: &deploy,
        release: c.release,
        progress: &*app.talk,
    }
    .run(root)?;
    fs::remove_file(deploy.join(bundle::FILE))?;
    if c.until == cli::Until::Bundle {
        let epoch = sources.description.distro.source_date_epoch;
        let place = (deploy.as_path(), &mut index);
        bundle::bundle(&selection, &keys, &tools, epoch, &[], place, &*app.talk)?;
    }
    index.write(&deploy)?;
    let names = index.artifacts.iter().map(|a| a.file.as_str());
    let files: Vec<PathBuf> = names
        .chain([lama_image::index::FILE])
        .map(|f| deploy.join(f))
        .collect();
    // The lock may have been written on the way, so the inputs are taken anew. Where somebody has
    // edited anything meanwhile, nobody can say which of it was built.
    let after = inputs(app, c, &keys, &node::Source::read(&app.place)?)?;
    if after.written == before.written {
        stamp::record(&deploy, after.all, &files)?;
    } else if c.release {
        fs::remove_file(deploy.join(lama_image::index::FILE))?;
        return Err(miette!(
            help = "build again",
            "{} was changed while the release was built",
            app.place.project.display()
        ));
    }
    Ok(Built {
        deploy,
        index: Some(index),
        fresh: false,
    })
}

/// An image that has been built, and its index; built where it is not there.
pub fn built(app: &App, target: &cli::Target) -> Result<(PathBuf, Index)> {
    let deploy = app.place.deploy(target)?;
    if deploy.join(lama_image::index::FILE).is_file() {
        let index = Index::read(&deploy)?;
        return Ok((deploy, index));
    }
    let options = cli::Build {
        container: false,
        target: target.clone(),
        engine: cli::Engine::Debian,
        extra: Vec::new(),
        locked: false,
        release: false,
        until: cli::Until::Bundle,
    };
    app.talk.say(&format!(
        "{} has no image yet; building it",
        deploy.display()
    ));
    let index = build(app, &options)?.index;
    Ok((
        deploy,
        index.ok_or_else(|| miette!("the build made no disk"))?,
    ))
}

/// The keys that signed what lies in a deploy folder: a release set's, where it is a release and
/// there is such a set.
pub fn keys_of(app: &App, deploy: &Path) -> Result<KeySet> {
    let version = Index::read(deploy).map(|i| i.version);
    keys_for(app, version.as_deref().unwrap_or("-dev"))
}

/// The keys that sign a version: see [`keys_of`].
pub fn keys_for(app: &App, version: &str) -> Result<KeySet> {
    let release = !version.ends_with("-dev");
    if release && app.place.release_keys().join("keyset.toml").is_file() {
        return Ok(KeySet::open(app.place.release_keys())?);
    }
    development(app)
}

/// The release keys, which `--release` insists on.
pub fn release_keys(app: &App) -> Result<KeySet> {
    let dir = app.place.release_keys();
    if !dir.exists() {
        return Err(miette!(
            help = "make one with `lamadist keys init --release --name NAME`",
            "a release is signed by a release key set, not by development keys, and there is none in {}",
            dir.display()
        ));
    }
    let set = KeySet::open(dir)?;
    set.require_release()?;
    Ok(set)
}

/// The development keys, made on first use.
pub fn development(app: &App) -> Result<KeySet> {
    Ok(KeySet::open_or_create_development(
        app.place.development_keys(),
        &*app.talk,
    )?)
}

/// Digests of what a build depends on.
struct BuildInputs {
    /// Everything.
    all: String,
    /// What people write: the description without the lock, which a build may write, and the
    /// source of the program on the node.
    written: String,
}

fn inputs(app: &App, c: &cli::Build, keys: &KeySet, source: &node::Source) -> Result<BuildInputs> {
    let lock = app.place.lock();
    let mut written = stamp::Inputs::default().folder_without(&app.place.distro, &lock)?;
    written.value("node", source.digest());
    let written = written.finish();
    let mut i = stamp::Inputs::new()?;
    i.value("until", format!("{:?}", c.until));
    i.value("bsp", &c.target.bsp);
    i.value("image", &c.target.image);
    i.value("engine", format!("{:?}", c.engine));
    i.value("release", if c.release { "yes" } else { "no" });
    i.value("tools", std::env::var("LAMADIST_TOOLS").unwrap_or_default());
    i.value("written", &written);
    i.value("lock", lock.is_file().to_string());
    if lock.is_file() {
        i.file(&lock)?;
    }
    i.file(&keys.dir().join("keyset.toml"))?;
    Ok(BuildInputs {
        all: i.finish(),
        written,
    })
}
