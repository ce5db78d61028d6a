// SPDX-License-Identifier: Apache-2.0
//! Changes of /etc against the image: two directories stand for the overlay's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use lama_node::etc::base::Base;
use lama_node::etc::{Change, Image, Kind, changes, diff, escape, find, reset};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const USER: &str = "user.";

/// Whether whiteouts can be made here.
fn whiteout(path: &Path) -> bool {
    let p = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a NUL-terminated path.
    unsafe { libc::mknod(p.as_ptr(), libc::S_IFCHR, 0) == 0 }
}

/// Whether a directory can be made opaque here.
fn opaque(path: &Path) -> bool {
    let p = CString::new(path.as_os_str().as_bytes()).unwrap();
    let name = c"user.overlay.opaque";
    // SAFETY: NUL-terminated strings, and one byte of value.
    unsafe { libc::setxattr(p.as_ptr(), name.as_ptr(), b"y".as_ptr().cast(), 1, 0) == 0 }
}

fn write(dir: &Path, path: &str, text: &str) {
    let p = dir.join(path);
    fs::create_dir_all(p.parent().unwrap()).unwrap();
    fs::write(&p, text).unwrap();
    fs::set_permissions(&p, fs::Permissions::from_mode(0o644)).unwrap();
}

fn list(lower: &Path, upper: &Path) -> Vec<Change> {
    changes(lower, upper, USER).unwrap()
}

fn kinds(all: &[Change]) -> Vec<(&str, Kind)> {
    all.iter().map(|c| (c.path.as_str(), c.kind)).collect()
}

#[test]
fn every_kind_of_change_is_told() {
    let t = tempfile::tempdir().unwrap();
    let (l, u) = (t.path().join("l"), t.path().join("u"));
    for f in ["a", "b", "c", "d/x", "g", "link/in"] {
        write(&l, f, "image\n");
    }
    for f in ["b", "g", "d/y"] {
        write(&u, f, "image\n");
    }
    write(&u, "a", "host\n");
    fs::set_permissions(u.join("g"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("/nonexistent", u.join("link")).unwrap();
    let all = list(&l, &u);
    assert_eq!(
        kinds(&all),
        [
            ("a", Kind::Changed),
            ("b", Kind::Same),
            ("d/y", Kind::Added),
            ("g", Kind::Mode),
            ("link", Kind::Changed)
        ]
    );
    assert_eq!(all[3].detail.as_deref(), Some("mode 0600, was 0644"));
    let text = diff(&l, &u, find(&all, "/etc/a").unwrap()).unwrap();
    assert!(text.starts_with("--- image/a\n+++ host/a\n"), "{text}");
    assert!(text.ends_with("-image\n+host\n"), "{text}");
    assert!(diff(&l, &u, find(&all, "link").unwrap()).is_err());
    assert!(kinds(&list(&l, &t.path().join("none"))).is_empty());
}

#[test]
fn whiteouts_and_opaque_directories() {
    let t = tempfile::tempdir().unwrap();
    let (l, u) = (t.path().join("l"), t.path().join("u"));
    write(&l, "gone", "image\n");
    write(&l, "d/x", "image\n");
    write(&u, "d/x", "host\n");
    if !whiteout(&u.join("gone")) || !opaque(&u.join("d")) {
        println!("SKIP: no whiteouts or no extended attributes here");
        return;
    }
    let mut all = list(&l, &u);
    assert_eq!(
        kinds(&all),
        [
            ("d", Kind::Replaced),
            ("d/x", Kind::Changed),
            ("gone", Kind::Removed)
        ]
    );
    let mut base = Base::default();
    assert_eq!(base.record(&all), (3, 0));
    // A later image brings more into the directory, which the host's hides, and drops a file.
    write(&l, "d/new", "image\n");
    fs::remove_file(l.join("gone")).unwrap();
    all = list(&l, &u);
    base.compare(&mut all);
    let image = |p: &str| find(&all, p).unwrap().image;
    assert_eq!(image("d"), Image::Changed);
    assert_eq!(image("d/x"), Image::Unchanged);
    assert_eq!(image("gone"), Image::Unchanged);
}

#[test]
fn a_link_of_the_image_is_not_followed() {
    let t = tempfile::tempdir().unwrap();
    let (l, u, out) = (t.path().join("l"), t.path().join("u"), t.path().join("o"));
    write(&out, "f", "outside\n");
    write(&u, "d/f", "outside\n");
    fs::create_dir(&l).unwrap();
    symlink(&out, l.join("d")).unwrap();
    // d is a link below: what it leads to is not the image's d/f.
    let all = list(&l, &u);
    assert_eq!(kinds(&all), [("d", Kind::Changed), ("d/f", Kind::Added)]);
    assert_eq!(all[1].lower, "absent");
}

#[test]
fn a_new_default_below_is_noticed_until_accepted() {
    let t = tempfile::tempdir().unwrap();
    let (l, u) = (t.path().join("l"), t.path().join("u"));
    let file = t.path().join("base.json");
    write(&l, "a", "1\n");
    write(&u, "a", "host\n");
    write(&u, "b", "host\n");
    let mut all = list(&l, &u);
    Base::default().compare(&mut all);
    assert!(all.iter().all(|c| c.image == Image::Unknown));
    let mut base = Base::default();
    assert_eq!(base.record(&all), (2, 0));
    base.write(&file, &Base::default()).unwrap();
    assert_eq!(Base::read(&file).unwrap(), base);

    write(&l, "a", "2\n");
    write(&l, "b", "now in the image\n");
    all = list(&l, &u);
    assert_eq!(base.record(&all), (0, 0), "the older base stays");
    base.compare(&mut all);
    assert!(all.iter().all(|c| c.image == Image::Changed));
    base.accept(&all[0]);
    base.compare(&mut all);
    assert_eq!(all[0].image, Image::Unchanged);
    assert_eq!(all[1].image, Image::Changed);

    // The host takes the image's: nothing is hidden. Then it drops its file.
    write(&u, "b", "now in the image\n");
    all = list(&l, &u);
    base.record(&all);
    base.compare(&mut all);
    assert_eq!((all[1].kind, all[1].image), (Kind::Same, Image::Unchanged));
    fs::remove_file(u.join("b")).unwrap();
    assert_eq!(base.record(&list(&l, &u)), (0, 1));

    fs::write(&file, "{").unwrap();
    let e = Base::read(&file).unwrap_err();
    assert!(e.help().unwrap().contains("move the file away"), "{e}");
}

#[test]
fn a_reset_is_done_before_the_next_mount() {
    let t = tempfile::tempdir().unwrap();
    let (l, u) = (
        t.path().join("etc"),
        t.path().join("var/lib/lamadist/etc/upper"),
    );
    let wishes = t.path().join("var/lib/lamadist/etc/reset.json");
    for f in ["a", "b", "odd\nname"] {
        write(&l, f, "image\n");
        write(&u, f, "host\n");
    }
    write(&u, "added", "host\n");
    let all = list(&l, &u);
    assert!(reset::possible(find(&all, "added").unwrap(), &u).is_err());
    reset::wish(&wishes, find(&all, "a").unwrap()).unwrap();
    reset::wish(&wishes, find(&all, "odd\\x0aname").unwrap()).unwrap();
    assert_eq!(reset::apply(t.path(), USER).unwrap(), ["a", "odd\\x0aname"]);
    assert_eq!(
        kinds(&list(&l, &u)),
        [("added", Kind::Added), ("b", Kind::Changed)]
    );
    assert!(reset::apply(t.path(), USER).unwrap().is_empty());
    // What cannot be understood is forgotten.
    fs::write(&wishes, "[1").unwrap();
    assert!(reset::apply(t.path(), USER).is_err());
    assert!(reset::apply(t.path(), USER).unwrap().is_empty());
}

#[test]
fn names_are_shown_in_one_line() {
    let cases: [(&[u8], &str); 5] = [
        (b"ssh/sshd_config", "ssh/sshd_config"),
        (b"a\nb\x1b[m", "a\\x0ab\\x1b[m"),
        (b"\xff\\", "\\xff\\x5c"),
        ("ä\u{202e}".as_bytes(), "ä\\xe2\\x80\\xae"),
        (b"\\xff", "\\x5cxff"),
    ];
    for (raw, shown) in cases {
        let raw = Path::new(std::ffi::OsStr::from_bytes(raw));
        assert_eq!(escape(raw), shown);
    }
}
