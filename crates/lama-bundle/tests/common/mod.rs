// SPDX-License-Identifier: Apache-2.0
//! Bundles of two versions, and what they are made with.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use lama_bundle::make::{Content, Seal, make};
use lama_bundle::manifest::{About, How};
use lama_bundle::open::With;
use lama_bundle::{Bundle, check};
use lama_exec::{Quiet, Tools, fs};
use lama_image::verity;
use lama_keys::KeySet;
use std::path::{Path, PathBuf};

/// Keys, images of two versions, and a folder to work in.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub tools: &'static Tools,
    pub keys: KeySet,
}

/// Bytes that don't compress and don't repeat.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed;
    let mut next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

impl Bench {
    pub fn new() -> Option<Self> {
        let tools = lama_testkit::tools_with(&["rauc", "mksquashfs", "unsquashfs", "openssl"])?;
        let dir = tempfile::tempdir().unwrap();
        let keys = KeySet::open_or_create_development(dir.path().join("keys"), &Quiet).unwrap();
        let bench = Self { dir, tools, keys };
        let mut root = noise(1, 1 << 20);
        for (version, change) in [("1.0.0", 0), ("1.1.0", 500_000)] {
            let folder = bench.path(version);
            fs::create_dir_all(&folder).unwrap();
            for b in root.iter_mut().skip(change).take(change / 100) {
                *b ^= 0x55;
            }
            fs::write(folder.join("root"), &root).unwrap();
            let options = verity::Options {
                uuid: uuid::Uuid::nil(),
                salt: [change as u8; 32],
            };
            verity::format(&folder.join("root"), &folder.join("verity"), &options).unwrap();
            let uki = [noise(7, 200_001), version.as_bytes().to_vec()].concat();
            fs::write(folder.join("uki"), uki).unwrap();
            fs::write(folder.join("addon"), version).unwrap();
        }
        Some(bench)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn with(&self) -> With<'_> {
        With {
            tools: self.tools,
            keys: Some(&self.keys),
            scratch: self.dir.path(),
        }
    }

    pub fn keyring(&self) -> PathBuf {
        let path = self.path("keyring.pem");
        fs::write(&path, self.keys.rauc_keyring_pem().unwrap()).unwrap();
        path
    }

    pub fn bundle(&self, version: &str, recipients: &[PathBuf]) -> PathBuf {
        let folder = self.path(version);
        let (root, verity, uki, addon) = (
            folder.join("root"),
            folder.join("verity"),
            folder.join("uki"),
            folder.join("addon"),
        );
        let content = Content {
            about: About {
                compatible: "lamadist-test".into(),
                version: version.into(),
                bsp: "test".into(),
                image: "base".into(),
                root_hash: "00".into(),
                min_version: None,
                migration: None,
                development: true,
            },
            images: vec![
                ("rootfs", &root, How::Adaptive),
                ("verity", &verity, How::Adaptive),
                ("uki", &uki, How::Hook),
            ],
            files: vec![("slot-a.addon.efi".into(), &addon)],
            epoch: 1_700_000_000,
        };
        let seal = Seal {
            keys: &self.keys,
            recipients,
        };
        let out = folder.join("bundle.raucb");
        make(self.tools, &content, seal, &out, &Quiet).unwrap();
        out
    }

    pub fn verify(&self, path: &Path) -> Result<(), String> {
        let look = || {
            let b = Bundle::open(path, self.with())?;
            check::check(&b, self.with(), &self.keyring(), &Quiet)
        };
        look().map_err(|e| e.to_string())
    }

    /// A machine's key pair, made as a machine makes it: `node.key` and `node.crt`.
    pub fn node(&self) -> [PathBuf; 2] {
        let openssl = |args: &str| {
            let cmd = self.tools.command("openssl").args(args.split(' '));
            let cmd = cmd.cwd(self.dir.path()).bind(self.dir.path());
            cmd.run().unwrap();
        };
        openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out node.key");
        openssl(
            "req -x509 -new -days 9 -key node.key -config /dev/null -subj /CN=node -out node.crt",
        );
        [self.path("node.key"), self.path("node.crt")]
    }
}
