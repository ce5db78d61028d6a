// SPDX-License-Identifier: Apache-2.0
//! Signed PE files, judged by sbverify.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use common::{content, tools};
use lama_exec::{Quiet, fs};
use lama_image::{Arch, baseline, netboot, pe, uki};
use lama_keys::KeySet;
use lama_tree::{Node, Tree};

/// A root tree with the stubs of the tools tree, which has them for its own architecture.
fn root(tools: &lama_exec::Tools) -> Option<(Tree, Arch)> {
    let dir = tools.root()?.join("usr/lib/systemd/boot/efi");
    let arch = [Arch::Amd64, Arch::Arm64]
        .into_iter()
        .find(|a| dir.join(format!("addon{}.efi.stub", a.efi())).exists());
    let Some(arch) = arch else {
        eprintln!("SKIP: the tools tree has no addon stub (systemd-boot-efi)");
        return None;
    };
    let mut t = Tree::new();
    for kind in ["addon", "linux"] {
        let name = format!("{kind}{}.efi.stub", arch.efi());
        let data = fs::read(dir.join(&name)).unwrap();
        t.add(
            &format!("usr/lib/systemd/boot/efi/{name}"),
            Node::file(data, 0o644),
        )
        .unwrap();
    }
    let name = format!("systemd-boot{}.efi", arch.efi());
    let path = format!("usr/lib/systemd/boot/efi/{name}");
    let boot = fs::read(dir.join(&name)).unwrap();
    t.add(&path, Node::file(boot, 0o644)).unwrap();
    t.add("usr/lib/os-release", Node::file("ID=lamadist\n", 0o644))
        .unwrap();
    // Any PE file will do as a kernel for ukify.
    let stub = t
        .read(&format!(
            "usr/lib/systemd/boot/efi/linux{}.efi.stub",
            arch.efi()
        ))
        .unwrap()
        .to_vec();
    t.add("usr/lib/modules/6.12/vmlinuz", Node::file(stub, 0o644))
        .unwrap();
    Some((t, arch))
}

#[test]
fn ukis_and_addons_are_signed_and_reproducible() {
    let Some(t) = tools(&["ukify", "sbverify", "systemd-measure", "objcopy"]) else {
        return;
    };
    let Some((root, arch)) = root(&t) else { return };
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let keys = KeySet::open_or_create_development(dir.join("keys"), &Quiet).unwrap();
    let other = KeySet::open_or_create_development(dir.join("other"), &Quiet).unwrap();
    let signing = uki::Signing::new(&keys, &t).unwrap();
    let initrd = dir.join("initrd");
    fs::write(&initrd, vec![1; 5000]).unwrap();
    let mut made = Vec::new();
    for name in ["a.efi", "b.efi"] {
        let o = uki::Options {
            arch,
            initrd: &initrd,
            cmdline: "root=/dev/mapper/root quiet",
            microcode: None,
            scratch: dir,
        };
        let u = uki::make(&t, &root, &dir.join(name), &o, Some(&signing)).unwrap();
        let o = uki::Addon {
            arch,
            cmdline: "lamadist.slot=a",
            name: "lamadist.slot-a",
            generation: 1,
            version: "0.1.0",
        };
        let a = uki::addon(
            &root,
            &dir.join(format!("addon-{name}")),
            &o,
            Some(&signing),
        )
        .unwrap();
        let l = dir.join(format!("loader-{name}"));
        let l = uki::systemd_boot(&root, &l, arch, Some(&signing)).unwrap();
        assert_eq!(
            baseline::Loader::of(&l.path).unwrap().sha256,
            l.sha256,
            "{name}"
        );
        made.push((u.sha256, a.sha256, l.sha256));
    }
    assert_eq!(made[0], made[1]);
    let db = keys.db_cert_path();
    let wrong = other.db_cert_path();
    for f in ["a.efi", "addon-a.efi", "loader-a.efi"] {
        let verify = |cert: &std::path::Path| {
            t.command("sbverify")
                .arg("--cert")
                .arg(cert)
                .arg(f)
                .bind(dir)
                .cwd(dir)
                .run_any()
                .unwrap()
                .0
                .success()
        };
        assert!(verify(&db), "{f}");
        assert!(!verify(&wrong), "{f}");
        // One flipped byte in the middle.
        let mut d = fs::read(dir.join(f)).unwrap();
        let at = d.len() / 2;
        d[at] ^= 1;
        fs::write(dir.join("flipped"), d).unwrap();
        let bad = t
            .command("sbverify")
            .arg("--cert")
            .arg(&db)
            .arg("flipped")
            .bind(dir)
            .cwd(dir)
            .run_any()
            .unwrap();
        assert!(!bad.0.success(), "{f}");
    }
    let sections = content(&t, dir, "objdump", &["-h", "a.efi"]);
    for s in [
        ".pcrsig", ".pcrpkey", ".initrd", ".cmdline", ".osrel", ".uname", ".sbat",
    ] {
        assert!(sections.contains(s), "{s} of {sections}");
    }
    content(
        &t,
        dir,
        "objcopy",
        &[
            "-O",
            "binary",
            "--only-section=.cmdline",
            "addon-a.efi",
            "cmdline",
        ],
    );
    assert!(
        fs::read(dir.join("cmdline"))
            .unwrap()
            .starts_with(b"lamadist.slot=a")
    );
    content(
        &t,
        dir,
        "objcopy",
        &[
            "-O",
            "binary",
            "--only-section=.sbat",
            "addon-a.efi",
            "sbat",
        ],
    );
    assert!(
        fs::read_to_string(dir.join("sbat"))
            .unwrap()
            .contains("lamadist.slot-a,1,LamaDist,lamadist.slot-a,0.1.0")
    );
    // A second signature beside the first keeps the digest.
    let one = fs::read(dir.join("addon-a.efi")).unwrap();
    let certificate = lama_keys::CertificateInfo::read(&wrong).unwrap();
    let signer = other.signer(lama_keys::Role::Db, None).unwrap();
    let two = pe::sign(one.clone(), "x", &certificate, signer.as_ref()).unwrap();
    assert_eq!(pe::digest(&one), pe::digest(&two));
    fs::write(dir.join("two"), two).unwrap();
    for cert in [&db, &wrong] {
        content(
            &t,
            dir,
            "sbverify",
            &["--cert", cert.to_str().unwrap(), "two"],
        );
    }
    // What the root lacks is named with its package.
    let mut poor = root.clone();
    poor.remove(&lama_tree::TreePath::new("usr/lib/systemd").unwrap());
    let o = uki::Addon {
        arch,
        cmdline: "",
        name: "x",
        generation: 1,
        version: "1",
    };
    let e = uki::addon(&poor, &dir.join("x"), &o, None).unwrap_err();
    assert!(
        e.to_string().contains("addon") && !dir.join("x").exists(),
        "{e}"
    );
}

#[test]
fn unsigned_ones_are_ukifys_to_the_byte() {
    let Some(t) = tools(&["ukify", "systemd-measure"]) else {
        return;
    };
    let Some((root, arch)) = root(&t) else { return };
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let efi = arch.efi();
    let boot = format!("/usr/lib/systemd/boot/efi/linux{efi}.efi.stub");
    fs::write(dir.join("initrd"), vec![1; 5000]).unwrap();
    fs::write(dir.join("ucode"), vec![2; 700]).unwrap();
    fs::write(dir.join("os-release"), "ID=lamadist\n").unwrap();
    let ukify = |args: &[&str]| {
        t.command("ukify")
            .args(["build", "--efi-arch", efi])
            .args(args)
            .bind(dir)
            .cwd(dir)
            .run()
            .unwrap();
    };
    let stub = format!("--stub={boot}");
    let linux = format!("--linux={boot}");
    let parts = [
        stub.as_str(),
        &linux,
        "--initrd=initrd",
        "--microcode=ucode",
        "--cmdline=root=/dev/mapper/root quiet",
        "--os-release=@os-release",
        "--uname=6.12",
    ];
    ukify(&[&parts[..], &["--output=theirs.efi"]].concat());
    let initrd = dir.join("initrd");
    let o = uki::Options {
        arch,
        initrd: &initrd,
        cmdline: "root=/dev/mapper/root quiet",
        microcode: Some(&[2; 700]),
        scratch: dir,
    };
    uki::make(&t, &root, &dir.join("ours.efi"), &o, None).unwrap();
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    assert!(read("ours.efi") == read("theirs.efi"));

    let addon_stub = format!("--stub=/usr/lib/systemd/boot/efi/addon{efi}.efi.stub");
    fs::write(
        dir.join("sbat"),
        "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n\
         x,2,LamaDist,x,1,https://github.com/lamadist/lamadist\n",
    )
    .unwrap();
    ukify(&[
        &addon_stub,
        "--cmdline=a=b",
        "--sbat=@sbat",
        "--output=theirs.addon",
    ]);
    let o2 = uki::Addon {
        arch,
        cmdline: "a=b",
        name: "x",
        generation: 2,
        version: "1",
    };
    uki::addon(&root, &dir.join("ours.addon"), &o2, None).unwrap();
    assert!(read("ours.addon") == read("theirs.addon"));

    // The same policies, signed by both keys of a change.
    let mut keys = KeySet::open_or_create_development(dir.join("keys"), &Quiet).unwrap();
    let pcr = lama_keys::Role::Pcr;
    keys.rotate(pcr, &lama_keys::Source::Generate, None, &Quiet)
        .unwrap();
    let signing = uki::Signing::new(&keys, &t).unwrap();
    uki::make(&t, &root, &dir.join("ours.efi"), &o, Some(&signing)).unwrap();
    let ours = read("ours.efi");
    let section = |d: &[u8], name: &str| pe::section(d, name, "x").unwrap().unwrap().to_vec();
    // Ours has the kernel signed before it is measured.
    fs::write(dir.join("linux"), section(&ours, ".linux")).unwrap();
    let mut args = keys.ukify_args().unwrap();
    args.args.retain(|a| {
        let a = a.to_string_lossy();
        !a.starts_with("--secureboot-") && !a.starts_with("--signtool=")
    });
    let cmd = t
        .command("ukify")
        .args(["build", "--efi-arch", efi, "--pcr-banks=sha256"])
        .args(parts.iter().filter(|p| !p.starts_with("--linux=")))
        .args(["--linux=linux", "--output=theirs.efi"]);
    args.apply(cmd).bind(dir).cwd(dir).run().unwrap();
    let theirs = read("theirs.efi");
    for name in [
        ".osrel", ".cmdline", ".uname", ".pcrpkey", ".linux", ".initrd", ".ucode", ".sbat",
    ] {
        assert!(section(&ours, name) == section(&theirs, name), "{name}");
    }
    let policies = |d: &[u8]| -> serde_json::Value {
        serde_json::from_slice(section(d, ".pcrsig").trim_ascii()).unwrap()
    };
    assert_eq!(policies(&ours), policies(&theirs));
    let signed = policies(&ours)["sha256"].as_array().unwrap().len();
    assert_eq!(signed, 8, "four phases, two keys");

    predicted(&t, dir, &ours);
}

/// What the baseline says of PCR 11 is what systemd-measure calculates.
fn predicted(t: &lama_exec::Tools, dir: &std::path::Path, uki: &[u8]) {
    let baseline = baseline::Uki::of(&dir.join("ours.efi")).unwrap();
    let mut cmd = t.command("/usr/lib/systemd/systemd-measure").args([
        "calculate",
        "--bank=sha256",
        "--json=short",
    ]);
    for s in &baseline.sections {
        let content = pe::section(uki, &s.name, "x").unwrap().unwrap();
        let name = s.name.trim_start_matches('.');
        fs::write(dir.join(format!("section-{name}")), content).unwrap();
        cmd = cmd.arg(format!("--{name}=section-{name}"));
    }
    let theirs: serde_json::Value = cmd.bind(dir).cwd(dir).json().unwrap();
    // Phases add up: `enter-initrd:leave-initrd:…`.
    let theirs: Vec<(&str, &str)> = theirs["sha256"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            let path = p["phase"].as_str().unwrap();
            (
                path.rsplit(':').next().unwrap(),
                p["hash"].as_str().unwrap(),
            )
        })
        .collect();
    let ours: Vec<(&str, &str)> = baseline
        .pcr11
        .iter()
        .map(|p| (p.phase.as_str(), p.sha256.as_str()))
        .collect();
    assert_eq!(ours, theirs);
    // And what the node makes of it.
    let written = baseline::Baseline {
        format: baseline::FORMAT,
        version: "1".into(),
        bsp: "x86_64".into(),
        image: "base".into(),
        root_hash: String::new(),
        uki: baseline.clone(),
        addons: Vec::new(),
        loader: None,
        db: Vec::new(),
    };
    let read = lama_node::attest::baseline::Baseline::parse(&written.to_json()).unwrap();
    let mut phases = Vec::new();
    for (phase, value) in theirs {
        phases.push(phase);
        let value = lama_node::attest::bytes::digest_of_hex(value);
        assert_eq!(read.pcr11(phases.iter().copied()), value, "{phases:?}");
    }
    // A policy that was signed for something else is noticed.
    let mut other = uki.to_vec();
    let cmdline = pe::section(uki, ".cmdline", "x").unwrap().unwrap();
    let at = cmdline.as_ptr() as usize - uki.as_ptr() as usize;
    other[at] ^= 1;
    fs::write(dir.join("other.efi"), other).unwrap();
    let e = baseline::Uki::of(&dir.join("other.efi")).unwrap_err();
    assert!(e.to_string().contains("enter-initrd"), "{e}");
}

/// A UKI for the network is what it would be had it been made so from the start.
#[test]
fn one_that_carries_its_root_differs_in_nothing_else() {
    let Some(t) = tools(&["systemd-measure"]) else {
        return;
    };
    let Some((root, arch)) = root(&t) else { return };
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let keys = KeySet::open_or_create_development(dir.join("keys"), &Quiet).unwrap();
    let signing = uki::Signing::new(&keys, &t).unwrap();
    let mut files = Tree::new();
    files.add("lamadist", Node::dir(0o700)).unwrap();
    files
        .add("lamadist/root.erofs", Node::file(vec![7; 9001], 0o600))
        .unwrap();
    for (length, microcode) in [(5000, None), (5003, Some(b"microcode".as_slice()))] {
        let initrd = dir.join("initrd");
        fs::write(&initrd, vec![1; length]).unwrap();
        let make = |name: &str, cmdline: &str| {
            let o = uki::Options {
                arch,
                initrd: &initrd,
                cmdline,
                microcode,
                scratch: dir,
            };
            uki::make(&t, &root, &dir.join(name), &o, Some(&signing)).unwrap()
        };
        make("image.efi", "ro quiet");
        let uki = dir.join("image.efi");
        let o = netboot::Options {
            uki: &uki,
            cmdline: "lamadist.slot=live",
            files: &files,
            epoch: 1,
            scratch: dir,
        };
        let made = netboot::make(&t, &dir.join("net.efi"), &o, Some(&signing)).unwrap();
        let mut archive = vec![1; length];
        archive.resize(length.next_multiple_of(4), 0);
        lama_tree::write_cpio(&files, &mut archive, 1).unwrap();
        fs::write(&initrd, archive).unwrap();
        let whole = make("whole.efi", "ro quiet lamadist.slot=live");
        assert_eq!(made.sha256, whole.sha256);
        // It can be made of itself, too.
        let net = dir.join("net.efi");
        let again = netboot::Options { uki: &net, ..o };
        netboot::make(&t, &dir.join("again.efi"), &again, Some(&signing)).unwrap();

        let long = "x".repeat(netboot::CMDLINE - "ro quiet ".len());
        let o = netboot::Options {
            uki: &uki,
            cmdline: &long,
            ..again
        };
        netboot::make(&t, &dir.join("long.efi"), &o, None).unwrap();
        let longer = format!("{long}x");
        let o = netboot::Options {
            cmdline: &longer,
            ..o
        };
        let e = netboot::make(&t, &dir.join("longer.efi"), &o, None).unwrap_err();
        assert!(e.to_string().contains("2048 bytes"), "{e}");
        assert!(!dir.join("longer.efi").exists());
    }
    fs::write(
        dir.join("addon"),
        root.read("usr/lib/modules/6.12/vmlinuz").unwrap(),
    )
    .unwrap();
    let o = netboot::Options {
        uki: &dir.join("addon"),
        cmdline: "",
        files: &files,
        epoch: 1,
        scratch: dir,
    };
    let e = netboot::make(&t, &dir.join("x"), &o, None).unwrap_err();
    assert!(e.to_string().contains("it is no UKI"), "{e}");
}
