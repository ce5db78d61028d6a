// SPDX-License-Identifier: Apache-2.0
//! The container that BitBake can run in: composed, and given to podman.

use super::packages::{self, Policy, SetSpec};
use super::{Sources, oe};
use crate::App;
use lama_exec::fs;
use lama_exec::progress::{Progress, Unit};
use lama_image::oci;
use lama_oe::container::Container;
use miette::{Result, miette};
use std::path::PathBuf;

/// Where the builder container lies in the cache.
pub const BUILDER: &str = "builder";

/// The builder container's image, composed where it is not there yet; its name and its archive.
pub fn image(app: &App, sources: &Sources, policy: Policy) -> Result<(String, PathBuf)> {
    let spec = SetSpec::builder(&sources.description)?;
    let packages = packages::ensure(app, &sources.description, &spec, policy)?;
    let tag = lama_compose::builder_name(&packages);
    let name = format!("localhost/lamadist-builder:{tag}");
    let dir = app.place.cache.join(BUILDER);
    let file = dir.join(format!("{tag}.oci.tar"));
    fs::create_dir_all(&dir)?;
    let _lock = fs::FileLock::exclusive(dir.join(".lock"))?;
    if fs::metadata(&file).is_ok() {
        return Ok((name, file));
    }
    let arch = packages::host_arch()?;
    let arch = lama_image::Arch::from_debian(arch.as_str())
        .ok_or_else(|| miette!("no container can be made for {arch}"))?;
    let tools = super::tools(app, sources, policy)?;
    let store = app.place.store();
    let scripts = &sources.scripts;
    let tree = lama_compose::builder_tree(&packages, scripts, &store, &tools, &*app.talk)?;
    let _t = app.talk.task("Making the container", Unit::Busy, 0);
    let env = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("LANG={}", lama_compose::LOCALE),
    ];
    let options = oci::Options {
        name: &name,
        arch,
        epoch: sources.description.distro.source_date_epoch,
        env: &env,
        command: &["bash"],
        scratch: &dir,
    };
    oci::archive(&tree, &options, &file)?;
    // Those of other packages would only lie there.
    for e in fs::read_dir(&dir)? {
        if e.path() != file && e.file_name().to_string_lossy().ends_with(".oci.tar") {
            fs::remove_file(e.path())?;
        }
    }
    Ok((name, file))
}

/// The builder container, which podman has.
pub fn loaded(app: &App) -> Result<Container> {
    let sources = Sources::load(&app.place.distro)?;
    let (name, file) = image(app, &sources, Policy::Extend)?;
    let container = Container::new(name)?;
    if !container.is_loaded()? {
        let _t = app.talk.task("Loading the container", Unit::Busy, 0);
        container.load(&file)?;
    }
    lama_oe::container::prepare(&oe::work(&app.place))?;
    Ok(container)
}
