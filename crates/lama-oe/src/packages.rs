// SPDX-License-Identifier: Apache-2.0
//! Recipes that hold nothing but files, really built by BitBake without a network and without upstream's
//! sources: to RPM packages, with SPDX and package QA.
//!
//! What BitBake would build from source for its own use comes from this machine: a recipe of nothing
//! takes the place of those natives.

use crate::check::{CORE, Check, LOCAL_CONF, Result, Step, verdict, words, write_build};
use crate::host::program;
use lama_exec::fs;
use std::path::{Path, PathBuf};

/// The machine that they are built for; they are of no architecture.
const MACHINE: &str = "lamadist-qemu-x86-64";
/// Natives that programs of this machine stand in for.
const NATIVES: [&str; 6] = [
    "pseudo-native",
    "virtual/fakeroot-native",
    "rpm-native",
    "dwarfsrcfiles-native",
    "patch-replacement-native",
    "quilt-native",
];
/// Those programs, and the Debian package of each.
const PROGRAMS: [(&str, &str); 4] = [
    ("pseudo", "pseudo"),
    ("rpmbuild", "rpm"),
    ("rpmkeys", "rpm"),
    ("debugedit", "debugedit"),
];
/// What tells which packages a file needs (rpm).
const RPMDEPS: &str = "/usr/lib/rpm/rpmdeps";
const LAYER_CONF: &str = "\
BBFILES += \"${LAYERDIR}/recipes/*/*.bb\"
BBFILE_COLLECTIONS += \"standin\"
BBFILE_PATTERN_standin = \"^${LAYERDIR}/\"
BBFILE_PRIORITY_standin = \"99\"
LAYERSERIES_COMPAT_standin = \"wrynose\"
LAYERDEPENDS_standin = \"core\"
";

impl Check<'_> {
    /// Builds them; `keys` has the public keys that [`LAMA_KEYS`](crate::build) names.
    ///
    /// # Errors
    /// BitBake could not be run.
    pub fn packages(&self, recipes: &[String], keys: &Path) -> Result<Step> {
        let build = self.packages_build();
        self.step("packages", || {
            let missing: Vec<&str> = PROGRAMS
                .iter()
                .filter(|(name, _)| program(name).is_none())
                .map(|(_, package)| *package)
                .collect();
            if !missing.is_empty() || !Path::new(RPMDEPS).is_file() {
                return Ok(Err(format!(
                    "this needs programs of this machine in place of natives: apt-get install {}",
                    PROGRAMS.map(|(_, package)| package).join(" ")
                )));
            }
            let layer = self.standin()?;
            let core = self.layers.join(CORE).join("meta");
            let own = ["meta-lamadist", "meta-lamadist-bsp"].map(|l| self.project.join(l));
            let [distro, bsp] = own;
            write_build(&build, &[core, distro, bsp, layer], &local_conf())?;
            let c = self
                .environment("bitbake", &build)
                .env(
                    "BB_ENV_PASSTHROUGH_ADDITIONS",
                    "LAMA_KEYS LAMA_VERSION_SUFFIX",
                )
                .env("LAMA_KEYS", keys)
                .env("LAMA_VERSION_SUFFIX", "-dev")
                .args(recipes);
            let (status, out) = c.run_any()?;
            let text = words(&out);
            if status.success() {
                for recipe in recipes {
                    if let Some(what) = self.lacks(recipe)? {
                        return Ok(Err(what));
                    }
                }
            }
            Ok(verdict(status.success(), &text, || {
                format!("{}, each an RPM with SPDX 3.0.1", recipes.join(", "))
            }))
        })
    }

    fn packages_build(&self) -> PathBuf {
        self.work.join("packages")
    }

    /// Where packages of no architecture are then.
    pub fn packages_dir(&self) -> PathBuf {
        self.packages_build().join("tmp/deploy/rpm/noarch")
    }

    /// What a recipe should have left and has not.
    fn lacks(&self, recipe: &str) -> Result<Option<String>> {
        let names = fs::read_dir(self.packages_dir())?;
        let is_it = |n: &str| {
            let rest = n.strip_prefix(recipe).and_then(|r| r.strip_prefix('-'));
            rest.is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
        };
        if !names
            .iter()
            .any(|e| is_it(&e.file_name().to_string_lossy()))
        {
            return Ok(Some(format!("{recipe} has left no package")));
        }
        let spdx = format!("tmp/deploy/spdx/3.0.1/allarch/builds/build-{recipe}.spdx.json");
        let spdx = self.packages_build().join(spdx);
        Ok((!spdx.is_file()).then(|| format!("{recipe} has left no {}", spdx.display())))
    }

    /// The layer with the recipe of nothing.
    fn standin(&self) -> Result<PathBuf> {
        let layer = self.work.join("meta-standin");
        let recipe = format!(
            "SUMMARY = \"Programs of this machine, where natives would be built from source\"\n\
             LICENSE = \"CLOSED\"\ninherit native\nINHIBIT_DEFAULT_DEPS = \"1\"\n\
             PATCHDEPENDENCY = \"\"\ndo_patch[depends] = \"\"\n\
             PROVIDES = \"standin-native {}\"\n",
            NATIVES.join(" ")
        );
        for (name, text) in [
            ("conf/layer.conf", LAYER_CONF),
            ("recipes/standin/standin-native_1.0.bb", &recipe),
        ] {
            let path = layer.join(name);
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            // BitBake parses anew what has changed by time.
            if fs::read_optional(&path)?.as_deref() != Some(text.as_bytes()) {
                fs::write_atomic(path, text)?;
            }
        }
        Ok(layer)
    }
}

fn local_conf() -> String {
    let mut out = format!(
        "MACHINE = \"{MACHINE}\"\nDISTRO = \"lamadist\"\nCONF_VERSION = \"2\"\n{LOCAL_CONF}"
    );
    for native in NATIVES {
        out += &format!("PREFERRED_PROVIDER_{native} = \"standin-native\"\n");
    }
    let libraries = format!("/usr/lib/{}-linux-gnu/pseudo", std::env::consts::ARCH);
    let programs = PROGRAMS.map(|(name, _)| name).join(" ");
    out += &format!("HOSTTOOLS += \"{programs} rpm rpmdb\"\n");
    out += "FAKEROOTCMD = \"/usr/bin/pseudo\"\n";
    out += &format!(
        "FAKEROOTBASEENV = \"PSEUDO_BINDIR=/usr/bin PSEUDO_LIBDIR={libraries} PSEUDO_PREFIX=/usr \
         PSEUDO_IGNORE_PATHS= PSEUDO_DISABLED=1 PYTHONDONTWRITEBYTECODE=1\"\n"
    );
    out += "FAKEROOTENV = \"PSEUDO_PREFIX=/usr PSEUDO_LOCALSTATEDIR=${PSEUDO_LOCALSTATEDIR} \
            PSEUDO_PASSWD=${PSEUDO_PASSWD} PSEUDO_NOSYMLINKEXP=1 PSEUDO_DISABLED=0\"\n";
    out += "FAKEROOTNOENV = \"PSEUDO_UNLOAD=1\"\n";
    out += &format!("RPMDEPS:forcevariable = \"{RPMDEPS} --alldeps\"\n");
    out
}
