// SPDX-License-Identifier: Apache-2.0
//! What other people's tools think of our keys.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod rauc;
mod token;

use common::{attempt, development, run, tools};
use lama_exec::fs;
use lama_exec::progress::Quiet;
use lama_keys::{
    CertificateInfo, Error, KeySet, PinValue, Pkcs11Access, Pkcs11Uri, ReleaseOptions, Role,
    Source, cms,
};

const X509: [Role; 7] = [
    Role::Pk,
    Role::Kek,
    Role::Db,
    Role::Pcr,
    Role::RaucCa,
    Role::RaucSigning,
    Role::RaucEncryption,
];

#[test]
fn openssl_verifies_what_file_keys_sign() {
    let Some(t) = tools(&["openssl"]) else { return };
    let (_d, set) = development();
    let dir = set.dir();
    fs::write(dir.join("message"), "a message").unwrap();
    for role in X509 {
        run(
            &t,
            dir,
            &format!("openssl x509 -in {role}.crt -noout -pubkey -out {role}.spki"),
        );
        let signature = set.signer(role, None).unwrap().sign(b"a message").unwrap();
        fs::write(dir.join("sig"), &signature).unwrap();
        run(
            &t,
            dir,
            &format!("openssl dgst -sha256 -verify {role}.spki -signature sig message"),
        );
        fs::write(dir.join("other"), "another message").unwrap();
        let (ok, _) = attempt(
            &t,
            dir,
            &format!("openssl dgst -sha256 -verify {role}.spki -signature sig other"),
        );
        assert!(!ok);
        // The key file itself, as a tool reads it.
        run(
            &t,
            dir,
            &format!("openssl dgst -sha256 -sign {role}.key -out sig message"),
        );
        run(
            &t,
            dir,
            &format!("openssl dgst -sha256 -verify {role}.spki -signature sig message"),
        );
        run(
            &t,
            dir,
            &format!("openssl pkey -in {role}.key -check -noout"),
        );
    }
    let text = run(&t, dir, "openssl x509 -in db.crt -noout -text");
    assert!(
        text.contains("NOT FOR RELEASE") && text.contains("sha256WithRSAEncryption"),
        "{text}"
    );
    assert_eq!(
        run(&t, dir, "openssl pkey -pubin -in pcr.pub"),
        run(&t, dir, "openssl x509 -in pcr.crt -noout -pubkey")
    );
}

#[test]
fn openssl_accepts_the_bundle_certificates() {
    let Some(t) = tools(&["openssl"]) else { return };
    let (_d, set) = development();
    let dir = set.dir();
    run(
        &t,
        dir,
        "openssl verify -x509_strict -CAfile rauc-ca.crt rauc-signing.crt",
    );
    let (ok, text) = attempt(
        &t,
        dir,
        "openssl verify -purpose codesign -CAfile rauc-ca.crt rauc-signing.crt",
    );
    if text.contains("codesign") && !ok {
        println!("SKIP: this openssl has no purpose codesign (it came with 3.2)");
    } else {
        assert!(ok, "{text}");
        // As RAUC does with check-purpose=codesign: what is for something else must fail.
        assert!(
            !attempt(
                &t,
                dir,
                "openssl verify -purpose codesign -CAfile pk.crt pk.crt"
            )
            .0
        );
    }
    fs::write(dir.join("bundle"), vec![7; 100_000]).unwrap();
    run(
        &t,
        dir,
        "openssl cms -sign -binary -in bundle -signer rauc-signing.crt -inkey rauc-signing.key -outform DER -out sig -nosmimecap",
    );
    run(
        &t,
        dir,
        "openssl cms -verify -binary -purpose any -content bundle -inform DER -in sig -CAfile rauc-ca.crt -out /dev/null",
    );
    run(
        &t,
        dir,
        "openssl cms -encrypt -binary -aes256 -in bundle -outform DER -out enc rauc-encryption.crt",
    );
    run(
        &t,
        dir,
        "openssl cms -decrypt -binary -in enc -inform DER -inkey rauc-encryption.key -recip rauc-encryption.crt -out plain",
    );
    assert_eq!(fs::read(dir.join("plain")).unwrap(), vec![7; 100_000]);
}

#[test]
fn openssl_verifies_a_signed_message() {
    let Some(t) = tools(&["openssl"]) else { return };
    let (_d, set) = development();
    let dir = set.dir();
    fs::write(dir.join("keyring"), set.rauc_keyring_pem().unwrap()).unwrap();
    let verify = |ca: &str| {
        let line = "openssl cms -verify -binary -inform DER -purpose any -in message -out content";
        attempt(&t, dir, &format!("{line} -CAfile {ca}"))
    };
    // A key of either kind; db's certificate is its own issuer.
    for (role, ca) in [(Role::RaucSigning, "keyring"), (Role::Db, "db.crt")] {
        let certificate = CertificateInfo::read(&set.certificate_path(role)).unwrap();
        let signer = set.signer(role, None).unwrap();
        let mut message = cms::sign(b"a message", &certificate, &[], signer.as_ref()).unwrap();
        fs::write(dir.join("message"), &message).unwrap();
        let (ok, said) = verify(ca);
        assert!(ok, "{role}: {said}");
        assert_eq!(fs::read(dir.join("content")).unwrap(), b"a message");
        let other = if role == Role::Db {
            "keyring"
        } else {
            "db.crt"
        };
        assert!(!verify(other).0);
        let at = message.windows(9).position(|w| w == b"a message").unwrap();
        message[at] ^= 1;
        fs::write(dir.join("message"), &message).unwrap();
        assert!(!verify(ca).0);
    }
}

#[test]
fn efitools_makes_the_same_files() {
    let Some(t) = tools(&["sign-efi-sig-list", "sig-list-to-certs"]) else {
        return;
    };
    let (_d, mut set) = development();
    set.rotate(Role::Db, &Source::Generate, None, &Quiet)
        .unwrap();
    let dir = set.dir();
    let time = set.status().changed.replace('T', " ").replace('Z', "");
    for (name, role) in [("PK", Role::Pk), ("KEK", Role::Pk), ("db", Role::Kek)] {
        let cmd = t
            .command("sign-efi-sig-list")
            .args([
                "-t",
                &time,
                "-k",
                &format!("{role}.key"),
                "-c",
                &format!("{role}.crt"),
                name,
            ])
            .args([&format!("enroll/{name}.esl"), "theirs"]);
        cmd.bind(dir).cwd(dir).run().unwrap();
        assert_eq!(
            fs::read(dir.join("theirs")).unwrap(),
            fs::read(set.enroll_dir().join(format!("{name}.auth"))).unwrap(),
            "{name}.auth"
        );
        let text = run(&t, dir, &format!("sig-list-to-certs enroll/{name}.esl out"));
        assert!(text.contains(&set.owner_guid().to_string()), "{text}");
        assert_eq!(
            fs::read(dir.join("out-0.der")).unwrap(),
            fs::read(set.enroll_dir().join(format!("{name}.cer"))).unwrap()
        );
    }
    assert!(
        fs::metadata(dir.join("out-1.der")).is_ok(),
        "db has two certificates during a change"
    );
}

#[test]
fn virt_fw_vars_enrolls_the_certificates() {
    let template = "/usr/share/OVMF/OVMF_VARS_4M.fd";
    let Some(t) = tools(&["virt-fw-vars", template]) else {
        return;
    };
    let (_d, set) = development();
    let g = set.owner_guid();
    run(
        &t,
        set.dir(),
        &format!(
            "virt-fw-vars --input {template} --output vars.fd --set-pk {g} pk.crt --add-kek {g} kek.crt --add-db {g} db.crt --sb"
        ),
    );
    let text = run(
        &t,
        set.dir(),
        "virt-fw-vars --input vars.fd --print --verbose",
    );
    for title in ["PK", "KEK", "db"] {
        assert!(
            text.contains(&format!("LamaDist development {title} ")),
            "{text}"
        );
    }
    // What virt-fw-vars wrote into the variable is our signature list.
    let esl = fs::read(set.enroll_dir().join("db.esl")).unwrap();
    let vars = fs::read(set.dir().join("vars.fd")).unwrap();
    assert!(vars.windows(esl.len()).any(|w| w == esl));
}

#[test]
fn ukify_signs_with_file_keys() {
    let stub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
    let addon = "/usr/lib/systemd/boot/efi/addonx64.efi.stub";
    let Some(t) = tools(&[
        "ukify",
        "sbsign",
        "sbverify",
        "openssl",
        "systemd-measure",
        stub,
        addon,
    ]) else {
        return;
    };
    let (_d, mut set) = development();
    set.rotate(Role::Pcr, &Source::Generate, None, &Quiet)
        .unwrap();
    ukify(&t, &set);
}

/// Makes a UKI and an addon with the keys of a set, and checks their signatures.
fn ukify(t: &lama_exec::Tools, set: &KeySet) {
    let boot = "/usr/lib/systemd/boot/efi";
    let work = tempfile::tempdir().unwrap();
    let dir = work.path();
    fs::write(dir.join("initrd"), "initrd").unwrap();
    std::fs::copy(set.db_cert_path(), dir.join("db.crt")).unwrap();
    let cmd = t.command("ukify").args([
        "build",
        &format!("--stub={boot}/addonx64.efi.stub"),
        "--cmdline=x",
        "--output=addon.efi",
    ]);
    set.secure_boot_args()
        .unwrap()
        .apply(cmd)
        .bind(dir)
        .cwd(dir)
        .run()
        .unwrap();
    run(t, dir, "sbverify --cert db.crt addon.efi");
    // Any signable PE file will do as a kernel.
    let cmd = t.command("ukify").args([
        "build",
        &format!("--stub={boot}/linuxx64.efi.stub"),
        &format!("--linux={boot}/linuxx64.efi.stub"),
        "--uname=1",
        "--initrd=initrd",
        "--cmdline=x",
        "--sign-kernel",
        "--pcr-banks=sha256",
        "--output=uki.efi",
    ]);
    set.ukify_args()
        .unwrap()
        .apply(cmd)
        .bind(dir)
        .cwd(dir)
        .run()
        .unwrap();
    run(t, dir, "sbverify --cert db.crt uki.efi");
    let uki = fs::read(dir.join("uki.efi")).unwrap();
    let text = String::from_utf8_lossy(&uki);
    let public = fs::read_to_string(set.pcr_public_path()).unwrap();
    assert!(
        text.contains(public.trim()),
        "the current public key is .pcrpkey"
    );
    for c in set.certificates(Role::Pcr) {
        // systemd names a key by the hash of its PKCS#1 form.
        std::fs::copy(c.path.with_extension("pub"), dir.join("pub")).unwrap();
        run(
            t,
            dir,
            "openssl rsa -pubin -in pub -RSAPublicKey_out -outform DER -out pkcs1",
        );
        let hash = run(t, dir, "openssl dgst -sha256 -r pkcs1");
        let hash = hash.split(' ').next().unwrap();
        assert!(
            text.contains(hash),
            "no policy signed by {}",
            c.path.display()
        );
    }
    let mut bad = uki.clone();
    let at = bad.len() / 2;
    bad[at] ^= 1;
    fs::write(dir.join("bad.efi"), bad).unwrap();
    assert!(!attempt(t, dir, "sbverify --cert db.crt bad.efi").0);
}

#[test]
fn gnupg_takes_the_openpgp_key() {
    let Some(t) = tools(&["gpg", "gpg-agent"]) else {
        return;
    };
    let (_d, set) = development();
    let dir = set.dir();
    let home = dir.join("gnupg");
    fs::create_dir_all(&home).unwrap();
    let gpg = |args: &str| {
        let cmd = t
            .command("gpg")
            .args(["--batch", "--quiet", "--homedir"])
            .arg(&home);
        cmd.args(args.split(' '))
            .bind(dir)
            .cwd(dir)
            .run()
            .map(|o| String::from_utf8_lossy(&o.stderr).into_owned())
    };
    fs::write(dir.join("message"), "a message").unwrap();
    gpg("--import openpgp.key.asc").unwrap();
    gpg("--detach-sign --armor message").unwrap();
    let text = gpg("--verify message.asc message").unwrap();
    assert!(
        text.contains("Good signature") && text.contains("NOT FOR RELEASE"),
        "{text}"
    );
    fs::write(dir.join("message"), "another message").unwrap();
    gpg("--verify message.asc message").unwrap_err();
}
