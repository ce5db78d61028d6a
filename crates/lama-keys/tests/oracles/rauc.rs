// SPDX-License-Identifier: Apache-2.0
//! A bundle by the real RAUC.

use super::*;

#[test]
fn rauc_signs_and_checks_a_bundle() {
    let Some(t) = tools(&["rauc", "mksquashfs"]) else {
        return;
    };
    let (_d, set) = development();
    let work = tempfile::tempdir().unwrap();
    let dir = work.path();
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
    let keyring = dir.join("keyring.pem");
    fs::write(&keyring, set.rauc_keyring_pem().unwrap()).unwrap();
    let conf = KeySet::rauc_conf(&keyring);
    let conf_file = dir.join("system.conf");
    fs::write(&conf_file, &conf).unwrap();
    let cmd = t.command("rauc").arg("bundle");
    let args = set.rauc_sign_args(&conf_file).unwrap();
    args.apply(cmd)
        .args(["content", "out.raucb"])
        .bind(dir)
        .cwd(dir)
        .run()
        .unwrap();
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
