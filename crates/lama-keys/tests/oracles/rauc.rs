// SPDX-License-Identifier: Apache-2.0
//! A bundle by the real RAUC.

use super::*;
use lama_exec::Tools;
use std::path::Path;

/// What a bundle is made of.
fn content(dir: &Path) {
    let content = dir.join("content");
    fs::create_dir_all(&content).unwrap();
    // Bytes that squashfs can't shrink: RAUC wants more than one block.
    let mut x = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    })
    .take(40_000)
    .collect();
    fs::write(content.join("root.img"), noise).unwrap();
    fs::write(
        content.join("manifest.raucm"),
        "[update]\ncompatible=test\nversion=1\n[bundle]\nformat=crypt\n[image.rootfs]\nfilename=root.img\n",
    )
    .unwrap();
}

/// Has RAUC make and sign a bundle of it, and check it against the CAs of the set.
fn bundle(t: &Tools, dir: &Path, set: &KeySet, out: &str) {
    let conf = dir.join("system.conf");
    let args = set.rauc_sign_args(&conf).unwrap();
    args.apply(t.command("rauc").arg("bundle"))
        .args(["content", out])
        .bind(dir)
        .cwd(dir)
        .run()
        .unwrap();
}

#[test]
fn rauc_signs_and_checks_a_bundle() {
    let Some(t) = tools(&["rauc", "mksquashfs"]) else {
        return;
    };
    let (_d, set) = development();
    let work = tempfile::tempdir().unwrap();
    let dir = work.path();
    content(dir);
    let keyring = dir.join("keyring.pem");
    fs::write(&keyring, set.rauc_keyring_pem().unwrap()).unwrap();
    let conf = KeySet::rauc_conf(&keyring);
    let conf_file = dir.join("system.conf");
    fs::write(&conf_file, &conf).unwrap();
    bundle(&t, dir, &set, "out.raucb");
    let text = run(&t, dir, "rauc --conf=system.conf info out.raucb");
    assert!(text.contains("LamaDist development RAUC signing"), "{text}");
    // Encrypted to the nodes' key, which opens it again; another one does not.
    let cmd = t.command("rauc").arg("encrypt");
    set.rauc_encrypt_args(&conf_file)
        .apply(cmd)
        .args(["out.raucb", "enc.raucb"])
        .bind(dir)
        .cwd(dir)
        .run()
        .unwrap();
    for role in ["rauc-encryption", "rauc-signing"] {
        for ext in ["key", "crt"] {
            std::fs::copy(
                set.dir().join(format!("{role}.{ext}")),
                dir.join(format!("node.{ext}")),
            )
            .unwrap();
        }
        fs::write(
            dir.join("node.conf"),
            format!("{conf}[encryption]\nkey=node.key\ncert=node.crt\n"),
        )
        .unwrap();
        let (ok, text) = attempt(&t, dir, "rauc --conf=node.conf info enc.raucb");
        assert_eq!(ok, role == "rauc-encryption", "{text}");
    }
    let (_other_dir, other) = {
        let d = tempfile::tempdir().unwrap();
        let s = KeySet::open_or_create_development(d.path().join("k"), &Quiet).unwrap();
        (d, s)
    };
    fs::write(&keyring, other.rauc_keyring_pem().unwrap()).unwrap();
    assert!(!attempt(&t, dir, "rauc --conf=system.conf info out.raucb").0);
}

#[test]
fn who_trusts_a_replaced_ca_takes_what_its_successors_sign() {
    let Some(t) = tools(&["rauc", "mksquashfs", "openssl"]) else {
        return;
    };
    let (_d, mut set) = development();
    let work = tempfile::tempdir().unwrap();
    let dir = work.path();
    content(dir);
    let keyring = dir.join("keyring.pem");
    fs::write(dir.join("system.conf"), KeySet::rauc_conf(&keyring)).unwrap();
    // The CAs one after another, and nobody that has to do with them.
    let trusts = |set: &KeySet| set.certificate_pem(Role::RaucCa).unwrap();
    let other = tempfile::tempdir().unwrap();
    let other = KeySet::open_or_create_development(other.path().join("k"), &Quiet).unwrap();
    let stranger = trusts(&other);
    let mut trusted = vec![trusts(&set)];
    for n in 0..2 {
        set.rotate(Role::RaucCa, &Source::Generate, None, &Quiet)
            .unwrap();
        trusted.push(trusts(&set));
        fs::write(&keyring, set.rauc_keyring_pem().unwrap()).unwrap();
        let file = format!("{n}.raucb");
        bundle(&t, dir, &set, &file);
        let chain: Vec<_> = set
            .rauc_intermediates()
            .iter()
            .map(|p| CertificateInfo::read(p).unwrap())
            .collect();
        assert_eq!(chain.len(), n + 1);
        let certificate = set.certificate_path(Role::RaucSigning);
        let certificate = CertificateInfo::read(&certificate).unwrap();
        let signer = set.signer(Role::RaucSigning, None).unwrap();
        let message = cms::sign(b"text", &certificate, &chain, signer.as_ref()).unwrap();
        fs::write(dir.join("message"), message).unwrap();
        let rauc = format!("rauc --conf=system.conf info {file}");
        let openssl = "openssl cms -verify -binary -inform DER -purpose any -no-CApath \
                       -no-CAstore -CAfile keyring.pem -in message";
        for (who, good) in trusted
            .iter()
            .map(|t| (t, true))
            .chain([(&stranger, false)])
        {
            fs::write(&keyring, who).unwrap();
            for command in [rauc.as_str(), openssl] {
                let (ok, said) = attempt(&t, dir, command);
                assert_eq!(ok, good, "{n}: {said}");
            }
        }
    }
    // At the end of the change the present one alone is left.
    set.forget_previous(Role::RaucCa, None).unwrap();
    set.forget_previous(Role::RaucSigning, None).unwrap();
    assert!(set.rauc_intermediates().is_empty());
    fs::write(&keyring, trusts(&set)).unwrap();
    bundle(&t, dir, &set, "last.raucb");
    fs::write(&keyring, &trusted[1]).unwrap();
    let (ok, said) = attempt(&t, dir, "rauc --conf=system.conf info last.raucb");
    assert!(!ok, "{said}");
}
