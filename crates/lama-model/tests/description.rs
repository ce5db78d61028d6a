// SPDX-License-Identifier: Apache-2.0
//! The project's own description, and what is said of every mistake in one.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_exec::fs;
use lama_model::{Arch, Description, Error};
use std::path::{Path, PathBuf};

fn distro() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../distro")
}

/// A copy of `fixture/`, a description as the project's once was, to be spoilt. Frozen, so that the
/// lines in the messages do not move whenever a package is added.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture");
    for folder in ["machines", "images", "packagegroups", "layouts"] {
        for e in fs::read_dir(from.join(folder)).unwrap() {
            let to = dir.path().join(folder).join(e.file_name());
            fs::write_atomic(to, fs::read(e.path()).unwrap()).unwrap();
        }
    }
    let main = fs::read_to_string(from.join("lamadist.toml")).unwrap();
    fs::write_atomic(dir.path().join("lamadist.toml"), &main).unwrap();
    // Contents of these are of no interest here, their being there is.
    for folder in ["core", "homelab", "dev"] {
        fs::create_dir_all(dir.path().join("files").join(folder)).unwrap();
    }
    for key in main.split('"').filter(|s| s.starts_with("keys/")) {
        fs::write_atomic(dir.path().join(key), "").unwrap();
    }
    dir
}

/// What the user sees: the message with file and line, the hint, and the text pointed at.
fn render(e: &Error, root: &Path) -> String {
    let help = miette::Diagnostic::help(e).map_or("(none)".to_owned(), |h| h.to_string());
    let at = match e {
        Error::At {
            source_code, span, ..
        } => {
            let text = source_code.inner();
            let end = span.offset() + span.len();
            format!("\n  at: {}", text.get(span.offset()..end).unwrap())
        }
        _ => String::new(),
    };
    let root = format!("{}/", root.display());
    format!("{e}\nhint: {help}{at}").replace(&root, "distro/")
}

#[test]
fn the_projects_own_description_is_right() {
    let d = Description::load(distro()).unwrap_or_else(|e| panic!("{}", render(&e, &distro())));
    let machines: Vec<&str> = d.machines().map(|(n, _)| n).collect();
    assert_eq!(
        machines,
        ["orin-nx", "qemu-arm64", "rk1", "soquartz", "x86_64"]
    );
    let images: Vec<&str> = d.images().map(|(n, _)| n).collect();
    assert_eq!(images, ["base", "dev", "homelab"]);
    for machine in &machines {
        for image in &images {
            let s = d.select(machine, image).unwrap();
            assert!(s.packages.is_sorted() && s.enable.is_sorted());
            assert!(
                s.packages.contains(&"systemd".to_owned()),
                "{machine} {image}"
            );
            assert_eq!(s.files[0], "core", "{machine} {image}");
        }
    }
}

#[test]
fn an_image_has_what_it_extends_and_what_its_machine_needs() {
    let dir = copy();
    let d = Description::load(dir.path()).unwrap();
    let base = d.select("x86_64", "base").unwrap();
    let homelab = d.select("x86_64", "homelab").unwrap();
    assert!(base.packages.contains(&"linux-image-amd64".to_owned()));
    assert!(!base.packages.contains(&"podman".to_owned()));
    assert!(homelab.packages.contains(&"podman".to_owned()));
    for p in &base.packages {
        assert!(homelab.packages.contains(p), "{p}");
    }
    assert_eq!(homelab.files, ["core", "homelab"]);
    assert_eq!(homelab.compression, base.compression);
    assert_eq!(base.machine.arch, Arch::Amd64);
    let foreign = d.select("rk1", "base").unwrap();
    assert!(!foreign.packages.contains(&"linux-image-amd64".to_owned()));
}

/// A mistake: name, file, the line's beginning that is replaced (empty: text is appended), the text.
type Mistake = (&'static str, &'static str, &'static str, &'static str);

const LAYOUT: &str = "layouts/uefi.toml";
const IMAGE: &str = "images/homelab.toml";
const MACHINE: &str = "machines/x86_64.toml";
const GROUP: &str = "packagegroups/homelab.toml";
const DISTRO: &str = "lamadist.toml";

const MISTAKES: &[Mistake] = &[
    // form
    ("syntax", IMAGE, "extends", "extends = \"base"),
    (
        "unknown-key-near",
        IMAGE,
        "description",
        "descriptoin = \"x\"",
    ),
    ("unknown-key-far", IMAGE, "extends", "colour = \"blue\""),
    (
        "unknown-key-nested",
        LAYOUT,
        "slot = \"a\"",
        "slott = \"a\"",
    ),
    ("missing-key", IMAGE, "description", ""),
    ("wrong-type", IMAGE, "groups", "groups = \"homelab\""),
    ("wrong-type-size", LAYOUT, "size = \"1G\"", "size = 1"),
    (
        "unknown-variant",
        LAYOUT,
        "role = \"esp\"",
        "role = \"epsp\"",
    ),
    ("unknown-arch", MACHINE, "arch", "arch = \"x86_64\""),
    (
        "duplicate-key",
        IMAGE,
        "extends",
        "extends = \"base\"\nextends = \"dev\"",
    ),
    // references
    ("no-such-image", IMAGE, "extends", "extends = \"bose\""),
    ("no-such-group", IMAGE, "groups", "groups = [\"homelap\"]"),
    (
        "no-such-group-in-group",
        GROUP,
        "description",
        "description = \"x\"\ngroups = [\"nothing-like-it\"]",
    ),
    ("no-such-layout", MACHINE, "layout", "layout = \"efi\""),
    ("no-such-medium", MACHINE, "medium", "medium = \"media\""),
    (
        "no-such-files",
        IMAGE,
        "files",
        "files = [\"homelab\", \"hamlet\"]",
    ),
    ("files-elsewhere", IMAGE, "files", "files = [\"../images\"]"),
    (
        "no-such-key",
        DISTRO,
        "keys =",
        "keys = [\"keys/none.asc\"]",
    ),
    // cycles
    (
        "group-in-itself",
        GROUP,
        "description",
        "description = \"x\"\ngroups = [\"homelab\"]",
    ),
    ("image-in-itself", IMAGE, "extends", "extends = \"homelab\""),
    // values
    ("bad-id", DISTRO, "id =", "id = \"Lama Dist\""),
    ("bad-version", DISTRO, "version", "version = \"1.04.0\""),
    (
        "moving-suite",
        DISTRO,
        "suite = \"trixie\"",
        "suite = \"stable\"",
    ),
    ("no-keys", DISTRO, "keys =", "keys = []"),
    (
        "bad-package",
        GROUP,
        "enable",
        "arch-packages = { arm64 = [\"Podman:arm64\"] }",
    ),
    (
        "bad-compression",
        IMAGE,
        "extends",
        "extends = \"base\"\ncompression = { algorithm = \"lz4hc,19\" }",
    ),
    (
        "bad-cluster",
        IMAGE,
        "extends",
        "# cluster\ncompression = { algorithm = \"lz4\", cluster = 1000 }",
    ),
    // layouts
    ("size-suffix", LAYOUT, "size = \"1G\"", "size = \"1GB\""),
    ("size-empty", LAYOUT, "size = \"1G\"", "size = \"\""),
    ("size-zero", LAYOUT, "size = \"1G\"", "size = \"0M\""),
    ("size-negative", LAYOUT, "size = \"1G\"", "size = \"-1G\""),
    ("size-huge", LAYOUT, "size = \"1G\"", "size = \"99999999T\""),
    (
        "overlap",
        LAYOUT,
        "label = \"rootfs-b\"",
        "label = \"rootfs-b\"\nstart = \"4G\"",
    ),
    (
        "overlap-table",
        "layouts/rockchip.toml",
        "sector = 64",
        "sector = 33",
    ),
    (
        "overlap-of-loaders",
        "layouts/rockchip.toml",
        "sector = 16384",
        "sector = 100",
    ),
    (
        "overlap-with-loader",
        "layouts/rockchip.toml",
        "label = \"esp\"",
        "label = \"esp\"\nstart = \"8M\"",
    ),
    (
        "sector-huge",
        "layouts/rockchip.toml",
        "sector = 16384",
        "sector = 9223372036854775807",
    ),
    (
        "loader-with-folder",
        "layouts/rockchip.toml",
        "file = \"u-boot.itb\"",
        "file = \"../u-boot.itb\"",
    ),
    (
        "misaligned-start",
        LAYOUT,
        "label = \"esp\"",
        "label = \"esp\"\nstart = \"1025K\"",
    ),
    (
        "misaligned-size",
        LAYOUT,
        "size = \"1G\"",
        "size = \"1025\"",
    ),
    (
        "duplicate-label",
        LAYOUT,
        "label = \"rootfs-b\"",
        "label = \"rootfs-a\"",
    ),
    ("label-empty", LAYOUT, "label = \"esp\"", "label = \"\""),
    (
        "label-long",
        LAYOUT,
        "label = \"esp\"",
        "label = \"a label that has more than thirty-six units\"",
    ),
    ("grow-not-last", LAYOUT, "size = \"64M\"", "grow = true"),
    (
        "grow-and-size",
        LAYOUT,
        "grow",
        "grow = true\nsize = \"1G\"",
    ),
    ("var-without-file-system", LAYOUT, "filesystem", ""),
    (
        "root-with-file-system",
        LAYOUT,
        "slot = \"a\"",
        "slot = \"a\"\nfilesystem = \"xfs\"",
    ),
    ("two-esps", LAYOUT, "role = \"verity\"", "role = \"esp\""),
    (
        "root-without-verity",
        LAYOUT,
        "role = \"verity\"",
        "role = \"var\"\nfilesystem = \"ext4\"",
    ),
    ("wrong-slot", LAYOUT, "slot = \"b\"", "slot = \"a\""),
    ("medium-as-layout", MACHINE, "layout", "layout = \"medium\""),
    ("layout-as-medium", MACHINE, "medium", "medium = \"uefi\""),
    ("partition-without-size", LAYOUT, "size = \"1G\"", ""),
];

#[test]
fn every_mistake_is_told_with_file_line_and_hint() {
    let mut all = String::new();
    for (name, file, line, text) in MISTAKES {
        let dir = copy();
        let path = dir.path().join(file);
        let old = fs::read_to_string(&path).unwrap();
        let new = spoil(&old, line, text);
        assert_ne!(old, new, "{name} changes nothing");
        fs::write_atomic(&path, new).unwrap();
        let said = match Description::load(dir.path()) {
            Ok(_) => "(no error)".to_owned(),
            Err(e) => render(&e, dir.path()),
        };
        all.push_str(&format!("== {name}\n{said}\n\n"));
        assert!(
            said.starts_with(&format!("distro/{file}:"))
                || name.ends_with("as-layout")
                || *name == "partition-without-size",
            "{name}: {said}"
        );
        assert!(!said.contains("hint: (none)"), "{name}: {said}");
    }
    insta::assert_snapshot!("mistakes", all);
}

/// Replaces the first line that begins with `line`.
fn spoil(old: &str, line: &str, text: &str) -> String {
    if line.is_empty() {
        return format!("{old}{text}");
    }
    let mut done = false;
    let lines = old.lines().map(|l| {
        if !done && l.starts_with(line) {
            done = true;
            text
        } else {
            l
        }
    });
    lines.fold(String::new(), |all, l| all + l + "\n")
}

#[test]
fn cycles_through_several_files_are_named() {
    let dir = copy();
    for (file, old, new) in [
        (
            "images/base.toml",
            "groups =",
            "extends = \"dev\"\ngroups = [\"core\"]",
        ),
        (
            "packagegroups/core.toml",
            "description",
            "description = \"x\"\ngroups = [\"security\"]",
        ),
        (
            "packagegroups/security.toml",
            "description",
            "description = \"x\"\ngroups = [\"core\"]",
        ),
    ] {
        let path = dir.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write_atomic(&path, spoil(&text, old, new)).unwrap();
    }
    let e = Description::load(dir.path()).unwrap_err();
    insta::assert_snapshot!("cycle-of-groups", render(&e, dir.path()));
    // The first mended, the other is told.
    let core = dir.path().join("packagegroups/core.toml");
    let text = fs::read_to_string(&core).unwrap();
    fs::write_atomic(&core, spoil(&text, "groups", "groups = []")).unwrap();
    let e = Description::load(dir.path()).unwrap_err();
    insta::assert_snapshot!("cycle-of-images", render(&e, dir.path()));
}

#[test]
fn an_unknown_machine_or_image_comes_with_a_suggestion() {
    let dir = copy();
    let d = Description::load(dir.path()).unwrap();
    for (machine, image, said) in [
        (
            "x86-64",
            "base",
            "there is no machine \"x86-64\"\nhint: did you mean \"x86_64\"?",
        ),
        (
            "x86_64",
            "homlab",
            "there is no image \"homlab\"\nhint: did you mean \"homelab\"?",
        ),
        (
            "x86_64",
            "kiosk",
            "there is no image \"kiosk\"\nhint: there are: base, dev, homelab",
        ),
        (
            "",
            "base",
            "there is no machine \"\"\nhint: there are: orin-nx, qemu-arm64, rk1, soquartz, x86_64",
        ),
    ] {
        assert_eq!(
            render(&d.select(machine, image).unwrap_err(), dir.path()),
            said
        );
    }
}

#[test]
fn missing_files_and_folders_are_named() {
    for missing in [
        "lamadist.toml",
        "machines",
        "images",
        "packagegroups",
        "layouts",
    ] {
        let dir = copy();
        let path = dir.path().join(missing);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let said = render(&Description::load(dir.path()).unwrap_err(), dir.path());
        assert!(said.contains(&format!("distro/{missing}: ")), "{said}");
    }
    let dir = copy();
    fs::write_atomic(dir.path().join("images/base.toml"), [0xff, 0xfe, b'\n']).unwrap();
    let said = render(&Description::load(dir.path()).unwrap_err(), dir.path());
    assert!(said.contains("distro/images/base.toml"), "{said}");
}

/// Files that editors leave behind are no part of the description.
#[test]
fn other_files_are_passed_over() {
    let dir = copy();
    for name in [
        "images/base.toml~",
        "images/README",
        "images/.base.toml.swp",
    ] {
        fs::write_atomic(dir.path().join(name), "not = toml = at all").unwrap();
    }
    Description::load(dir.path()).unwrap();
}
