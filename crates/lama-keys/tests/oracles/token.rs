// SPDX-License-Identifier: Apache-2.0
//! Keys in a token (PKCS#11) sign as files do.

use super::*;

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const ENGINE: &str = "/usr/lib/x86_64-linux-gnu/engines-3/pkcs11.so";

/// A token of SoftHSM with the keys of a development set, and a release set that uses them.
struct Token {
    _dir: tempfile::TempDir,
    set: KeySet,
    conf: std::path::PathBuf,
}

fn token(t: &lama_exec::Tools) -> Option<Token> {
    let module = SOFTHSM;
    let (source_dir, source) = development();
    let d = source_dir.path();
    fs::create_dir_all(d.join("tokens")).unwrap();
    let conf = d.join("softhsm2.conf");
    fs::write(
        &conf,
        format!(
            "directories.tokendir = {}\nlog.level = ERROR\n",
            d.join("tokens").display()
        ),
    )
    .unwrap();
    let softhsm = |args: String| {
        let cmd = t.command("softhsm2-util").args(args.split(' '));
        cmd.env("SOFTHSM2_CONF", &conf)
            .bind(d)
            .cwd(source.dir())
            .run()
            .unwrap();
    };
    softhsm("--init-token --free --label release --so-pin 1234 --pin 4711".into());
    let pin = d.join("pin");
    lama_exec::fs::write_atomic_mode(&pin, "4711", 0o600).unwrap();
    // Certificates without the mark of development keys, as an administrator would bring them.
    let mut sources = std::collections::BTreeMap::new();
    for (n, role) in [Role::Pk, Role::Kek, Role::Db, Role::Pcr]
        .into_iter()
        .enumerate()
    {
        let id = n + 1;
        softhsm(format!(
            "--import {role}.key --token release --label {role} --id 0{id} --pin 4711"
        ));
        run(
            t,
            source.dir(),
            &format!(
                "openssl req -new -x509 -key {role}.key -subj /CN=release-{role} -days 3000 -out {role}.release.crt"
            ),
        );
        let uri = format!(
            "pkcs11:token=release;object={role};type=private?pin-source=file:{}",
            pin.display()
        );
        let uri = Pkcs11Uri::parse(&uri, PinValue::Refused).unwrap();
        let certificate = source.dir().join(format!("{role}.release.crt"));
        sources.insert(role, Source::Pkcs11 { uri, certificate });
    }
    let access = Pkcs11Access {
        module: Some(module.into()),
        paths: vec![d.to_owned()],
        env: [("SOFTHSM2_CONF".to_owned(), conf.display().to_string())].into(),
    };
    let options = ReleaseOptions {
        name: "Token release".into(),
        sources,
        pkcs11: Some(access),
    };
    let set = KeySet::init_release(d.join("release"), &options, Some(t), &Quiet).unwrap();
    Some(Token {
        _dir: source_dir,
        set,
        conf,
    })
}

#[test]
fn keys_in_a_token_sign_the_same() {
    let Some(t) = tools(&["openssl", "softhsm2-util", SOFTHSM, ENGINE]) else {
        return;
    };
    let Some(Token { set, _dir, conf }) = token(&t) else {
        return;
    };
    set.require_release().unwrap();
    assert_eq!(
        set.status().all_problems().collect::<Vec<_>>(),
        Vec::<&lama_keys::Problem>::new()
    );
    let dir = set.dir();
    let text = fs::read_to_string(dir.join("keyset.toml")).unwrap();
    assert!(
        text.contains("pkcs11:token=release;object=db") && !text.contains("4711"),
        "{text}"
    );
    fs::write(dir.join("message"), "a message").unwrap();
    let file = set.dir().parent().unwrap().join("keys");
    let file = KeySet::open(file).unwrap();
    for role in [Role::Pk, Role::Db, Role::Pcr] {
        let signature = set
            .signer(role, Some(&t))
            .unwrap()
            .sign(b"a message")
            .unwrap();
        // PKCS#1 v1.5 has no randomness: token and file are interchangeable to the byte.
        assert_eq!(
            signature,
            file.signer(role, None).unwrap().sign(b"a message").unwrap()
        );
        fs::write(dir.join("sig"), &signature).unwrap();
        run(
            &t,
            dir,
            &format!("openssl x509 -in {role}.crt -noout -pubkey -out spki"),
        );
        run(
            &t,
            dir,
            "openssl dgst -sha256 -verify spki -signature sig message",
        );
        assert!(matches!(
            set.signer(role, None),
            Err(Error::NeedsTools { .. })
        ));
    }
    for name in ["PK", "KEK", "db"] {
        assert!(
            fs::metadata(set.enroll_dir().join(format!("{name}.auth"))).is_ok(),
            "{name}"
        );
    }
    // A certificate that does not belong to the key in the token is found out when it signs.
    std::fs::copy(dir.join("kek.crt"), dir.join("db.crt")).unwrap();
    let wrong = KeySet::load(dir).unwrap();
    let e = wrong
        .signer(Role::Db, Some(&t))
        .unwrap()
        .sign(b"x")
        .unwrap_err();
    assert!(matches!(e, Error::Mismatch { role: Role::Db }), "{e}");
    // A wrong PIN is an error, not a question on the terminal.
    fs::write(conf.with_file_name("pin"), "0000").unwrap();
    assert!(set.signer(Role::Db, Some(&t)).unwrap().sign(b"x").is_err());
}

#[test]
fn ukify_signs_with_keys_in_a_token() {
    let stub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
    let Some(t) = tools(&[
        "ukify",
        "sbsign",
        "sbverify",
        "openssl",
        "systemd-measure",
        stub,
        "softhsm2-util",
        SOFTHSM,
        ENGINE,
    ]) else {
        return;
    };
    let Some(Token { set, _dir, .. }) = token(&t) else {
        return;
    };
    ukify(&t, &set);
}
