// SPDX-License-Identifier: Apache-2.0
//! Bundles are made, read, refused; the real RAUC is the oracle.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::Bench;
use lama_bundle::open::With;
use lama_bundle::{Bundle, check, delta};
use lama_exec::{Quiet, fs};
use lama_keys::KeySet;

#[test]
fn what_a_bundle_says_and_what_is_refused() {
    let Some(b) = Bench::new() else { return };
    // A second recipient.
    let [_, certificate] = b.node();
    let path = b.bundle("1.1.0", &[certificate]);
    b.verify(&path).unwrap();
    let s = Bundle::open(&path, b.with()).unwrap().summary();
    assert_eq!(s.format.as_deref(), Some("crypt"));
    assert_eq!(s.version.as_deref(), Some("1.1.0"));
    assert!(s.opened && s.development);
    assert_eq!(s.recipients.len(), 2);
    let node = s.recipients.iter().any(|r| r.issuer == "CN=node");
    assert!(node, "{:?}", s.recipients);
    assert_eq!(s.signers.len(), 1);
    assert!(s.signers[0].subject.contains("signing"), "{:?}", s.signers);
    let images: Vec<_> = s
        .images
        .iter()
        .map(|i| (i.class.as_str(), i.size))
        .collect();
    assert_eq!(images[0], ("rootfs", 1 << 20));
    assert_eq!(images.len(), 3);

    // RAUC itself, with the machine's key, says the same.
    let conf = KeySet::rauc_conf(&b.keyring());
    let node = format!(
        "{conf}[encryption]\nkey={0}/node.key\ncert={0}/node.crt\n",
        b.dir.path().display()
    );
    fs::write(b.path("node.conf"), node).unwrap();
    let told: serde_json::Value = b
        .tools
        .command("rauc")
        .args(["info", "--output-format=json-2"])
        .arg(format!("--conf={}", b.path("node.conf").display()))
        .arg(&path)
        .bind(b.dir.path())
        .json()
        .unwrap();
    assert_eq!(told["update"]["version"], "1.1.0");
    assert_eq!(told["update"]["compatible"], "lamadist-test");

    // Without a key little can be told.
    let closed = With {
        keys: None,
        ..b.with()
    };
    let c = Bundle::open(&path, closed).unwrap();
    assert_eq!((c.summary().opened, c.summary().format), (false, None));
    let e = check::check(&c, closed, &b.keyring(), &Quiet).unwrap_err();
    assert!(e.to_string().contains("encrypted to others"), "{e}");

    // Whoever is not trusted.
    let other = KeySet::open_or_create_development(b.path("other"), &Quiet).unwrap();
    let ring = b.path("other.pem");
    fs::write(&ring, other.rauc_keyring_pem().unwrap()).unwrap();
    let opened = Bundle::open(&path, b.with()).unwrap();
    let e = check::check(&opened, b.with(), &ring, &Quiet).unwrap_err();
    assert!(
        e.to_string().contains("signature verification failed"),
        "{e}"
    );

    // Damage of each part.
    let whole = fs::read(&path).unwrap();
    let damaged = b.path("damaged.raucb");
    let size = whole.len();
    let content = usize::try_from(opened.content).unwrap();
    for (what, at, says) in [
        ("payload", 500_000, "its payload is not what was signed"),
        ("hash tree", content - 100, "its hash tree"),
        ("signature", size - 200, ""),
        ("length", size - 3, "signature"),
    ] {
        let mut data = whole.clone();
        data[at] ^= 0x10;
        fs::write(&damaged, &data).unwrap();
        let e = b.verify(&damaged).unwrap_err();
        assert!(e.contains(says), "{what}: {e}");
    }
    for len in [size - 1, size / 2, 7, 0] {
        fs::write(&damaged, &whole[..len]).unwrap();
        assert!(b.verify(&damaged).is_err(), "{len}");
    }

    // The format that RAUC had first.
    fs::create_dir_all(b.path("plain")).unwrap();
    let manifest =
        "[update]\ncompatible=lamadist-test\nversion=9\n[image.rootfs]\nfilename=r.img\n";
    fs::write(b.path("plain/manifest.raucm"), manifest).unwrap();
    fs::write(b.path("plain/r.img"), [1; 8192]).unwrap();
    fs::write(b.path("conf"), conf).unwrap();
    let cmd = b.tools.command("rauc").arg("bundle");
    let cmd = b.keys.rauc_sign_args(&b.path("conf")).unwrap().apply(cmd);
    let plain = b.path("plain.raucb");
    cmd.arg(b.path("plain"))
        .arg(&plain)
        .bind(b.dir.path())
        .run()
        .unwrap();
    let e = b.verify(&plain).unwrap_err();
    assert!(e.contains("format plain"), "{e}");
}

#[test]
fn a_machine_makes_the_bundle_out_of_a_delta_bundle() {
    let Some(b) = Bench::new() else { return };
    let path = b.bundle("1.1.0", &[]);
    let bundle = Bundle::open(&path, b.with()).unwrap();
    let old = |v: &str| [b.path(v).join("root"), b.path(v).join("uki")];
    let [root, uki] = old("1.0.0");
    let images = [("rootfs", root), ("uki", uki)];
    let file = b.path("delta");
    let made = delta::make(&bundle, b.with(), "1.0.0", &images, &file, &Quiet).unwrap();
    assert!(made.size < 60_000, "{made:?}");
    let out = b.path("rebuilt.raucb");
    delta::rebuild(&file, b.with(), &old("1.0.0"), &out).unwrap();
    assert_eq!(fs::read(&out).unwrap(), fs::read(&path).unwrap());
    b.verify(&out).unwrap();
    fs::remove_file(&out).unwrap();

    // Other images than those it begins with.
    let e = delta::rebuild(&file, b.with(), &old("1.1.0"), &out).unwrap_err();
    assert!(e.to_string().contains("is not that of 1.0.0"), "{e}");
    // Damage anywhere, and every length that is too short.
    let whole = fs::read(&file).unwrap();
    let damaged = b.path("damaged");
    for at in (0..whole.len()).step_by(997) {
        let mut data = whole.clone();
        data[at] ^= 1;
        fs::write(&damaged, &data).unwrap();
        // A header may be read otherwise without harm; what comes out is the bundle or nothing.
        if delta::rebuild(&damaged, b.with(), &old("1.0.0"), &out).is_ok() {
            assert_eq!(fs::read(&out).unwrap(), fs::read(&path).unwrap(), "{at}");
            fs::remove_file(&out).unwrap();
        }
        assert!(!out.exists());
    }
    fs::write(&damaged, &whole[..whole.len() - 4096]).unwrap();
    assert!(delta::rebuild(&damaged, b.with(), &old("1.0.0"), &out).is_err());
    let mut part = &whole[..whole.len() - 4096];
    let (good, all) = lama_node::delta::Header::verified(&mut part).unwrap();
    assert!(!all && good < whole.len() as u64);
    let mut all = whole.as_slice();
    let (good, all) = lama_node::delta::Header::verified(&mut all).unwrap();
    assert!(all && good == whole.len() as u64);
}
