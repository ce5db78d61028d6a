// SPDX-License-Identifier: Apache-2.0
//! The whole way, with packages made here.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_compose::{ComposeInput, Error, PackageInput, Root, compose, review, tools_tree};
use lama_exec::{Quiet, Tools, fs};
use lama_model::Arch;
use lama_model::files::FileRules;
use lama_model::ids::Ids;
use lama_model::scripts::Scripts;
use lama_tree::{Digest, Kind};
use std::path::{Path, PathBuf};

fn tar_of(files: &[(&str, &str, u32)]) -> Vec<u8> {
    let mut b = tar::Builder::new(Vec::new());
    for (name, data, mode) in files {
        let mut h = tar::Header::new_gnu();
        h.set_size(data.len() as u64);
        h.set_mode(*mode);
        h.set_uid(0);
        h.set_gid(0);
        b.append_data(&mut h, format!("./{name}"), data.as_bytes())
            .unwrap();
    }
    b.into_inner().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut w, data).unwrap();
    w.finish().unwrap()
}

/// A package of these files and maintainer scripts, written to `dir`.
fn deb(
    dir: &Path,
    name: &str,
    files: &[(&str, &str, u32)],
    scripts: &[(&str, &str)],
) -> PackageInput {
    let control = format!(
        "Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nInstalled-Size: 7\nDescription: x\n y\n"
    );
    let mut c = vec![("control", control.as_str(), 0o644)];
    c.extend(scripts.iter().map(|(n, t)| (*n, *t, 0o755)));
    let mut out = b"!<arch>\n".to_vec();
    for (member, data) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", tar_of(&c)),
        ("data.tar.gz", gzip(&tar_of(files))),
    ] {
        out.extend(
            format!(
                "{member:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                100644,
                data.len()
            )
            .bytes(),
        );
        out.extend(&data);
        if data.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    let path = dir.join(format!("{name}.deb"));
    fs::write(&path, &out).unwrap();
    PackageInput {
        deb: path,
        sha256: Digest::of(&out).hex(),
        name: name.into(),
        version: "1".into(),
        arch: "amd64".into(),
        source: format!("{name}-src"),
    }
}

struct World {
    dir: tempfile::TempDir,
    packages: Vec<PackageInput>,
    scripts: PathBuf,
    exclude: Vec<String>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let packages = vec![
            deb(
                d,
                "base-passwd",
                &[
                    (
                        "usr/share/base-passwd/passwd.master",
                        "root:*:0:0:root:/root:/bin/bash\n",
                        0o644,
                    ),
                    (
                        "usr/share/base-passwd/group.master",
                        "root:*:0:\nshadow:*:42:\n",
                        0o644,
                    ),
                ],
                &[],
            ),
            deb(
                d,
                "bus",
                &[
                    ("lib/helper", "x", 0o755),
                    (
                        "usr/lib/systemd/system/bus.service",
                        "[Install]\nWantedBy=multi-user.target\n",
                        0o644,
                    ),
                    (
                        "usr/lib/systemd/system/other.service",
                        "[Install]\nWantedBy=multi-user.target\n",
                        0o644,
                    ),
                    ("usr/share/doc/bus/README", "x", 0o644),
                    ("var/lib/bus/seed", "s", 0o600),
                ],
                &[
                    ("postinst", "#!/bin/sh\nset -e\nchmod 4754 /lib/helper\n"),
                    ("prerm", "rm -rf /\n"),
                ],
            ),
        ];
        let scripts = d.join("scripts");
        fs::create_dir_all(&scripts).unwrap();
        fs::write(scripts.join("kinds.toml"), "[never]\nprerm = \"never\"\n").unwrap();
        Self {
            dir,
            packages,
            scripts,
            exclude: vec!["usr/share/doc/*".into()],
        }
    }

    /// Writes the record of package `bus` with the digest of its script.
    fn record(&self) {
        let e = self.compose(&self.packages).unwrap_err();
        let Error::Unreviewed(found) = e else {
            panic!("{e}")
        };
        assert_eq!(found.len(), 1);
        let path = review::record(&self.scripts, "bus", "the helper is set-UID", &found).unwrap();
        let mut text = fs::read_to_string(&path).unwrap();
        text = text.replace(
            "[packages.bus.scripts]",
            "steps = [\"presets\", \"accounts\"]\nsysusers = [\"u bus -\"]\n\
             modes = [{ path = \"usr/lib/helper\", mode = \"4754\", group = \"bus\" }]\n[packages.bus.scripts]",
        );
        fs::write(&path, text).unwrap();
    }

    fn compose(&self, packages: &[PackageInput]) -> lama_compose::Result<Root> {
        let ids = Ids {
            users: [("root", 0), ("bus", 200)]
                .map(|(n, i)| (n.to_owned(), i))
                .into(),
            groups: [("root", 0), ("shadow", 42), ("bus", 200)]
                .map(|(n, i)| (n.to_owned(), i))
                .into(),
        };
        compose(&ComposeInput {
            packages,
            arch: Arch::Amd64,
            ids: &ids,
            scripts: &Scripts::load(&self.scripts).unwrap(),
            file_rules: &FileRules::default(),
            files: &[],
            enable: &["bus.service".to_owned()],
            exclude: &self.exclude,
            os_release: &[("ID".to_owned(), "lamadist".to_owned())],
            epoch: 0,
            store: &self.dir.path().join("store"),
            tools: &Tools::host(),
            progress: &Quiet,
        })
    }
}

#[test]
fn a_script_stops_the_build_until_it_is_recorded() {
    let w = World::new();
    let e = w.compose(&w.packages).unwrap_err().to_string();
    assert!(e.contains("bus 1: postinst: nobody has reviewed it"), "{e}");
    assert!(e.contains("  | chmod 4754 /lib/helper"), "{e}");
    w.record();
    w.compose(&w.packages).unwrap();
    let mut changed = w.packages.clone();
    let old = changed.pop().unwrap();
    assert_eq!(old.name, "bus");
    changed.push(deb(
        w.dir.path(),
        "bus",
        &[],
        &[("postinst", "chmod 4755 /lib/helper\n")],
    ));
    let e = w.compose(&changed).unwrap_err().to_string();
    assert!(e.contains("differs from the one that was reviewed"), "{e}");
}

#[test]
fn effects_take_the_scripts_place() {
    let w = World::new();
    w.record();
    let root = w.compose(&w.packages).unwrap();
    let t = &root.tree;
    let helper = t.lookup("lib/helper").unwrap();
    assert_eq!((helper.mode, helper.uid, helper.gid), (0o4754, 0, 200));
    let wants = "etc/systemd/system/multi-user.target.wants";
    let link = t.lookup(&format!("{wants}/bus.service")).unwrap();
    assert_eq!(
        link.kind,
        Kind::Symlink("/usr/lib/systemd/system/bus.service".into())
    );
    assert!(t.lookup(&format!("{wants}/other.service")).is_none());
    assert!(t.lookup("usr/share/doc").is_none());
    assert!(t.lookup("var/lib").is_none());
    assert_eq!(t.read("usr/share/factory/var/lib/bus/seed").unwrap(), b"s");
    assert_eq!(root.manifest[1].source, "bus-src");
    assert_eq!(root.manifest[1].installed_size, Some(7));
    let status =
        String::from_utf8_lossy(t.read("usr/lib/lamadist/dpkg/status").unwrap()).into_owned();
    assert!(
        status.contains("Package: bus\nStatus: install ok installed\nVersion: 1\n"),
        "{status}"
    );
}

#[test]
fn the_same_input_gives_the_same_tree() {
    let w = World::new();
    w.record();
    let cold = w.compose(&w.packages).unwrap().tree.digest();
    let mut reversed = w.packages.clone();
    reversed.reverse();
    assert_eq!(w.compose(&reversed).unwrap().tree.digest(), cold);
    fs::remove_dir_all(w.dir.path().join("store")).unwrap();
    assert_eq!(w.compose(&w.packages).unwrap().tree.digest(), cold);
}

#[test]
fn a_damaged_package_leaves_nothing_behind() {
    let w = World::new();
    w.record();
    let p = &w.packages[1];
    let whole = fs::read(&p.deb).unwrap();
    // The checksum at the end of the compressed archive: all of it has been written by then.
    let mut bad = whole.clone();
    let at = bad.len() - 7;
    bad[at] ^= 1;
    fs::write(&p.deb, &bad).unwrap();
    let store = w.dir.path().join("store");
    let _ = fs::remove_dir_all(&store);
    assert!(w.compose(&w.packages).is_err());
    let kept = fs::read_dir(store.join("unpacked")).unwrap();
    assert!(
        kept.iter()
            .all(|e| !e.file_name().to_string_lossy().contains(&p.sha256))
    );
    fs::write(&p.deb, &whole).unwrap();
    w.compose(&w.packages).unwrap();
}

#[test]
fn the_tools_tree_is_made_once_and_whole() {
    let w = World::new();
    let dir = w.dir.path().join("tools");
    fs::create_dir_all(dir.join(".tmp-abandoned")).unwrap();
    let make = || {
        let none = Scripts::default();
        tools_tree(
            &w.packages,
            &none,
            &w.dir.path().join("store"),
            &dir,
            &Quiet,
        )
        .unwrap()
    };
    let path = make();
    assert!(path.join("usr/lib/helper").is_file());
    assert!(path.join("lib").is_symlink());
    assert!(!dir.join(".tmp-abandoned").exists());
    fs::write(path.join("usr/mark"), "").unwrap();
    assert_eq!(make(), path);
    assert!(path.join("usr/mark").exists());
}
