// SPDX-License-Identifier: Apache-2.0
//! Secrets are sealed by systemd's own program, and come back by the recovery key when it no longer
//! opens them. The TPM's part is shown in virtual machines (crates/lamadist/tests/secret.rs).
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use lama_node::install::recovery;
use lama_node::secret::seal::Kind;
use lama_node::secret::{Outcome, Store, escrow, seal};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Puts age beside the machine's own programs; the reason is printed where that cannot be.
fn programs(dir: &Path) -> Option<()> {
    let tools = lama_testkit::tools_or_host(&["age", "age-keygen"])?;
    let path = std::env::var_os("PATH").unwrap();
    if let Some(root) = tools.root() {
        for p in ["age", "age-keygen"] {
            symlink(root.join("usr/bin").join(p), dir.join(p)).unwrap();
        }
        let all = std::iter::once(dir.to_owned()).chain(std::env::split_paths(&path));
        // SAFETY: this program has one test, and nothing reads the environment meanwhile.
        unsafe { std::env::set_var("PATH", std::env::join_paths(all).unwrap()) };
    }
    Some(())
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o777
}

fn outcomes(all: Vec<(String, Outcome)>) -> Vec<(String, &'static str)> {
    let word = |o: &Outcome| match o {
        Outcome::Sealed => "sealed",
        Outcome::Recovered => "recovered",
        Outcome::Lost(_) => "lost",
        Outcome::Failed(_) => "failed",
    };
    all.iter().map(|(n, o)| (n.clone(), word(o))).collect()
}

#[test]
fn what_is_sealed_comes_back() {
    let t = tempfile::tempdir().unwrap();
    let dir = t.path();
    if programs(dir).is_none() {
        return;
    }
    let key = recovery::generate().unwrap();
    let mut store = Store {
        var: dir.join("var"),
        dir: dir.join("credstore"),
        recipients: vec![escrow::recipient(&key).unwrap()],
    };
    assert!(escrow::is_recipient(&store.recipients[0]));
    let secret = b"\0hush\xff\n";
    if let Err(e) = store.set("wireguard.key", secret) {
        assert!(e.to_string().contains("cannot seal"), "{e}");
        eprintln!("SKIP: systemd-creds does not work here: {e}");
        return;
    }
    store.set("token", b"1").unwrap();
    let sealed = store.dir.join("wireguard.key");
    let copy = store.var.join("lib/lamadist/secrets/wireguard.key.age");
    for path in [&sealed, &copy] {
        assert_eq!(mode(path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let data = std::fs::read(path).unwrap();
        assert!(!data.windows(4).any(|w| w == b"hush"));
    }
    // systemd opens it by its name, and by no other.
    let open = |store: &Store, name: &str| seal::open(&store.var, name, &sealed);
    assert_eq!(open(&store, "wireguard.key").unwrap(), secret);
    assert!(open(&store, "token").is_err());
    let list = store.list().unwrap();
    let list: Vec<_> = list
        .iter()
        .map(|e| (e.name.as_str(), e.sealed, e.opens, e.copy))
        .collect();
    let kind = Kind::of(&std::fs::read(&sealed).unwrap());
    assert!(matches!(kind, Kind::Host | Kind::HostTpm), "{kind:?}");
    assert_eq!(
        list,
        [
            ("token", kind, true, true),
            ("wireguard.key", kind, true, true)
        ]
    );
    // What age itself makes of the copy.
    let identity = dir.join("identity");
    std::fs::write(&identity, escrow::identity(&key).unwrap()).unwrap();
    let age = Command::new("age")
        .args(["--decrypt", "--identity"])
        .args([&identity, &copy])
        .output()
        .unwrap();
    assert_eq!(age.stdout, secret);

    // Bad input changes nothing.
    for (name, data) in [("../x", &b"x"[..]), ("", b"x"), ("token", b"")] {
        assert!(store.set(name, data).is_err(), "{name}");
    }
    let e = store.remove("tokne").unwrap_err();
    assert_eq!(e.help(), Some("there are: token, wireguard.key"));
    assert_eq!(store.names().unwrap().len(), 2);

    // Another machine: what was sealed does not open, until the recovery key comes.
    std::fs::remove_file(store.var.join("lib/systemd/credential.secret")).unwrap();
    assert!(store.list().unwrap().iter().all(|e| !e.opens));
    let all = |w| [("token".to_owned(), w), ("wireguard.key".to_owned(), w)];
    assert_eq!(outcomes(store.reseal(None).unwrap()), all("lost"));
    let other = recovery::generate().unwrap();
    assert_eq!(outcomes(store.reseal(Some(&other)).unwrap()), all("lost"));
    assert_eq!(outcomes(store.reseal(Some("no key")).unwrap()), all("lost"));
    assert_eq!(
        outcomes(store.reseal(Some(&key)).unwrap()),
        all("recovered")
    );
    assert_eq!(open(&store, "wireguard.key").unwrap(), secret);

    // Another recovery key: copies for it, and none for the old one.
    store.recipients = vec![escrow::recipient(&other).unwrap()];
    assert_eq!(outcomes(store.reseal(None).unwrap()), all("sealed"));
    assert!(escrow::decrypt(&copy, &key).is_err());
    assert_eq!(escrow::decrypt(&copy, &other).unwrap(), secret);

    // Without one an old copy does not outlive its secret.
    store.recipients.clear();
    store.set("wireguard.key", b"new").unwrap();
    assert!(!copy.exists());
    std::fs::set_permissions(&store.dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    store.remove("wireguard.key").unwrap();
    assert_eq!(store.names().unwrap(), ["token"]);
}
