// SPDX-License-Identifier: Apache-2.0
//! The oe engine: what BitBake makes of an image, as the root tree that the rest of the pipeline
//! starts from.

use super::{Sources, builder};
use crate::App;
use crate::cli;
use crate::place::Place;
use lama_compose::{Kernel, Root, manifest};
use lama_exec::fs;
use lama_exec::progress::{Progress, Unit};
use lama_keys::KeySet;
use lama_model::Selection;
use lama_model::oe::Oe;
use lama_oe::build::Build;
use lama_oe::kas::{Kas, Where};
use lama_oe::{host, import};
use miette::{Result, miette};
use std::path::{Path, PathBuf};

/// The table of names, checked.
pub fn table(place: &Place, sources: &Sources) -> Result<Oe> {
    let path = place.distro.join("oe.toml");
    Ok(Oe::load(path, &sources.description, &sources.ids)?)
}

/// Where kas clones and builds.
pub fn work(place: &Place) -> PathBuf {
    place.cache.join("oe")
}

/// kas, where this machine can run BitBake, or in the builder container.
pub fn kas(app: &App, container: bool) -> Result<Kas> {
    let place = &app.place;
    let program = match container {
        true => Where::Inside(builder::loaded(app)?),
        false => Where::Here(host::check(&place.project)?),
    };
    Ok(Kas::new(program, &place.project, &work(place)))
}

/// Refuses a machine or an extra that there is no configuration for.
pub fn known(kas: &Kas, bsp: &str, extras: &[String]) -> Result<()> {
    let (machines, all) = (kas.machines()?, kas.extras()?);
    let bsps = [bsp.to_owned()];
    for (what, names, there) in [("machine", &bsps[..], machines), ("extra", extras, all)] {
        for name in names {
            if !there.contains(name) {
                return Err(miette!(
                    help = format!("there are: {}", there.join(", ")),
                    "kas/ has no {what} {name:?}"
                ));
            }
        }
    }
    Ok(())
}

/// The public parts of a key set for BitBake, in a folder of `work`, under names that a rotation does not
/// change; no private key.
pub fn public_keys(work: &Path, keys: &KeySet) -> Result<PathBuf> {
    let public = work.join("keys");
    fs::create_dir_all(&public)?;
    fs::write_atomic(public.join("rauc-ca.crt"), keys.rauc_keyring_pem()?)?;
    fs::write_atomic(public.join("openpgp.asc"), keys.openpgp_keyring()?)?;
    Ok(public)
}

/// Builds the image by BitBake, and imports it.
pub fn root(
    app: &App,
    sources: &Sources,
    selection: &Selection<'_>,
    c: &cli::Build,
    keys: &KeySet,
) -> Result<Root> {
    let table = table(&app.place, sources)?;
    let machine = table.machines.get(&selection.bsp).ok_or_else(|| {
        miette!(
            help = "name its MACHINE in distro/oe.toml",
            "the oe engine does not know the machine {}",
            selection.bsp
        )
    })?;
    let kas = kas(app, c.container)?;
    known(&kas, &selection.bsp, &c.extra)?;
    let work = work(&app.place);
    // Two builds in one folder would be in each other's way.
    let _lock = fs::FileLock::exclusive(work.join(".lock"))?;
    let public = public_keys(&work, keys)?;
    let suffix = if c.release { "" } else { "-dev" };
    let recipe = format!("lama-image-{}", selection.image);
    Build {
        kas: &kas,
        files: Kas::files(&selection.bsp, &c.extra),
        target: &recipe,
        env: vec![
            ("LAMA_KEYS", public.display().to_string()),
            ("LAMA_VERSION_SUFFIX", suffix.to_owned()),
        ],
        work: &work,
        progress: &*app.talk,
    }
    .run()?;

    let _t = app.talk.task("Importing the root tree", Unit::Busy, 0);
    let deploy = work.join("build/tmp/deploy/images").join(machine);
    let scratch = fs::Scratch::new_in(app.place.cache.join("tmp"))?;
    let efi = selection.machine.arch.efi();
    let imported = import::import(&deploy, machine, &recipe, efi, scratch.path())?;
    // The tree maps the archive, which stays mapped when its name is gone.
    Ok(Root {
        tree: imported.tree,
        kernel: Some(Kernel {
            version: imported.kernel_version,
            image: imported.kernel,
        }),
        manifest: imported
            .packages
            .into_iter()
            .map(|p| manifest::Entry {
                source: p.name.clone(),
                name: p.name,
                version: p.version,
                arch: p.arch,
                // Signing an RPM changes its file, after the root was made of it.
                sha256: String::new(),
                installed_size: None,
                kind: manifest::Kind::Package,
                license: None,
                crates: Vec::new(),
            })
            .collect(),
    })
}
