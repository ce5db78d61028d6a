// SPDX-License-Identifier: Apache-2.0
//! A signed archive made up by the tests, and a server that can lie about it.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use lama_feed::{FeedConfig, Sha256};
use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, EncryptionCaps, KeyType, SecretKeyParamsBuilder,
    SignedPublicKey, SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::types::{Duration, KeyDetails, Password, Timestamp};

/// The tests' present: 2026-11-24T12:00:00Z.
pub const NOW: i64 = 1_795_521_600;

fn at(t: i64) -> Timestamp {
    Timestamp::from_secs(u32::try_from(t).unwrap())
}

pub struct Key(pub SignedSecretKey);

impl Key {
    pub fn new(name: &str) -> Self {
        let mut p = SecretKeyParamsBuilder::default();
        p.key_type(KeyType::Ed25519Legacy)
            .created_at(at(NOW - 1_000_000))
            .can_certify(true)
            .can_sign(true)
            .can_encrypt(EncryptionCaps::None)
            .primary_user_id(name.into());
        let mut k = Self(p.build().unwrap().generate(rand::rngs::OsRng).unwrap());
        // The crate dates its self-signature by the clock; the tests have a time of their own.
        k.0.details.users[0].signatures.clear();
        k.certify(NOW - 950_000, None, true);
        k
    }

    /// Gives the certificate another self-signature, newer than the first: with an expiry
    /// (seconds after the key's making), or for certification only.
    pub fn re_certify(&mut self, expiry: Option<u32>, may_sign: bool) {
        self.certify(NOW - 900_000, expiry, may_sign);
    }

    fn certify(&mut self, made: i64, expiry: Option<u32>, may_sign: bool) {
        let key = &self.0.primary_key;
        let mut c = config(key, SignatureType::CertPositive, made, None);
        let mut flags = pgp::packet::KeyFlags::default();
        flags.set_certify(true);
        flags.set_sign(may_sign);
        c.hashed_subpackets
            .push(Subpacket::regular(SubpacketData::KeyFlags(flags)).unwrap());
        if let Some(e) = expiry {
            let d = SubpacketData::KeyExpirationTime(Duration::from_secs(e));
            c.hashed_subpackets.push(Subpacket::regular(d).unwrap());
        }
        let user = &mut self.0.details.users[0];
        let s = c
            .sign_certification(
                key,
                key.public_key(),
                &Password::empty(),
                pgp::types::Tag::UserId,
                &user.id,
            )
            .unwrap();
        user.signatures.push(s);
    }

    pub fn revoke(&mut self) {
        let key = &self.0.primary_key;
        let c = config(key, SignatureType::KeyRevocation, NOW - 800_000, None);
        let s = c
            .sign_key(key, &Password::empty(), key.public_key())
            .unwrap();
        self.0.details.revocation_signatures.push(s);
    }

    pub fn public(&self) -> String {
        SignedPublicKey::from(self.0.clone())
            .to_armored_string(ArmorOptions::default())
            .unwrap()
    }

    pub fn fingerprint(&self) -> String {
        format!("{:X}", self.0.fingerprint())
    }

    pub fn sign(&self, text: &str) -> String {
        sign(text, &[self], NOW - 60, None)
    }
}

fn config(
    key: &impl pgp::types::SigningKey,
    t: SignatureType,
    made: i64,
    life: Option<u32>,
) -> SignatureConfig {
    let mut c = SignatureConfig::from_key(rand::rngs::OsRng, key, t).unwrap();
    c.hash_alg = HashAlgorithm::Sha256;
    c.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(at(made))).unwrap(),
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint())).unwrap(),
    ];
    if let Some(l) = life {
        let d = SubpacketData::SignatureExpirationTime(Duration::from_secs(l));
        c.hashed_subpackets.push(Subpacket::regular(d).unwrap());
    }
    c
}

/// A cleartext message by several keys.
pub fn sign(text: &str, keys: &[&Key], made: i64, life: Option<u32>) -> String {
    let m = CleartextSignedMessage::new_many(text, |normalized| {
        keys.iter()
            .map(|k| {
                let key = &k.0.primary_key;
                config(key, SignatureType::Text, made, life).sign(
                    key,
                    &Password::empty(),
                    normalized.as_bytes(),
                )
            })
            .collect()
    })
    .unwrap();
    m.to_armored_string(ArmorOptions::default()).unwrap()
}

/// A release of suite `s` that lists `files`.
pub fn release_text(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut t = String::from(
        "Origin: Test\nSuite: stable\nCodename: s\nDate: Tue, 24 Nov 2026 11:00:00 UTC\n\
         Valid-Until: Tue, 01 Dec 2026 11:00:00 UTC\nAcquire-By-Hash: yes\n\
         Architectures: all amd64\nComponents: main\n\
         No-Support-for-Architecture-all: Packages\nSHA256:\n",
    );
    for (path, data) in files {
        t.push_str(&format!(" {} {:>8} {path}\n", Sha256::of(data), data.len()));
    }
    t
}

/// An archive: files by their path below its base URL.
#[derive(Clone)]
pub struct Archive {
    pub files: BTreeMap<String, Vec<u8>>,
    pub packages: Vec<(String, Vec<u8>)>,
}

pub fn key() -> &'static Key {
    static K: OnceLock<Key> = OnceLock::new();
    K.get_or_init(|| Key::new("Test <t@example>"))
}

impl Archive {
    /// `count` packages p0, p1 … of some 100 KB.
    pub fn new(count: usize) -> Self {
        let (mut text, mut packages) = (String::new(), Vec::new());
        for i in 0..count {
            let data: Vec<u8> = (0..100_000 + i)
                .map(|n| (n * (i + 7) % 251) as u8)
                .collect();
            let path = format!("pool/main/p/p{i}_1_amd64.deb");
            text.push_str(&format!(
                "Package: p{i}\nVersion: 1\nArchitecture: amd64\nDescription: not kept\n more\n\
                 Filename: {path}\nSize: {}\nSHA256: {}\n\n",
                data.len(),
                Sha256::of(&data)
            ));
            packages.push((path, data));
        }
        let mut a = Self {
            files: packages.iter().cloned().collect(),
            packages,
        };
        a.set_index(&text);
        a
    }

    /// Replaces the index, and signs anew.
    pub fn set_index(&mut self, text: &str) {
        let mut e = liblzma::write::XzEncoder::new(Vec::new(), 1);
        e.write_all(text.as_bytes()).unwrap();
        let xz = e.finish().unwrap();
        let listed = [("main/binary-amd64/Packages.xz".to_owned(), xz.clone())].into();
        let by_hash = format!(
            "dists/s/main/binary-amd64/by-hash/SHA256/{}",
            Sha256::of(&xz)
        );
        self.files.insert(by_hash, xz.clone());
        self.files
            .insert("dists/s/main/binary-amd64/Packages.xz".into(), xz);
        self.set_release(&key().sign(&release_text(&listed)));
    }

    pub fn set_release(&mut self, text: &str) {
        self.files
            .insert("dists/s/InRelease".into(), text.as_bytes().to_vec());
    }

    pub fn config(dir: &Path) -> FeedConfig {
        let path = dir.join("key.asc");
        if !path.exists() {
            lama_exec::fs::write(&path, key().public()).unwrap();
        }
        FeedConfig {
            name: "test".into(),
            archive: "debian".into(),
            suite: "s".into(),
            components: vec!["main".into()],
            keys: vec![path],
        }
    }
}

pub struct Request {
    pub path: String,
    pub from: u64,
    /// How many times this path was asked for before.
    pub before: usize,
}

/// An answer; by default an honest one.
pub struct Reply {
    pub status: &'static str,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
    /// Send only so much of it and close.
    pub cut: Option<usize>,
    /// The Content-Length told; `None`: none at all.
    pub length: Option<usize>,
    /// Wait so many milliseconds between pieces of 4 KiB.
    pub slow: u64,
}

impl Reply {
    pub fn status(status: &'static str) -> Self {
        Self {
            status,
            headers: vec![],
            body: b"no".to_vec(),
            cut: None,
            length: Some(2),
            slow: 0,
        }
    }

    /// The file, or the part of it that was asked for.
    pub fn part(data: &[u8], from: u64) -> Self {
        let from = usize::try_from(from).unwrap();
        if from > 0 && from >= data.len() {
            return Self::status("416 Range Not Satisfiable");
        }
        let mut r = Self::status("200 OK");
        if from > 0 {
            r.status = "206 Partial Content";
            r.headers.push(format!(
                "Content-Range: bytes {from}-{}/{}",
                data.len() - 1,
                data.len()
            ));
        }
        r.body = data[from..].to_vec();
        r.length = Some(r.body.len());
        r
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

pub struct Server {
    pub port: u16,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn new(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(handler);
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let log2 = Arc::clone(&log);
        std::thread::spawn(move || {
            for c in listener.incoming().flatten() {
                let (h, l, s) = (Arc::clone(&handler), Arc::clone(&log2), Arc::clone(&seen));
                std::thread::spawn(move || serve(c, &*h, &l, &s));
            }
        });
        Self { port, log }
    }

    /// Serves the archive honestly below /debian.
    pub fn honest(a: Archive) -> Self {
        Self::new(move |r| Self::file(&a, r))
    }

    pub fn file(a: &Archive, r: &Request) -> Reply {
        match r.path.strip_prefix("/debian/").and_then(|p| a.files.get(p)) {
            Some(d) => Reply::part(d, r.from),
            None => Reply::status("404 Not Found"),
        }
    }

    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}/debian", self.port)
    }

    /// Every request so far: path, and the offset where there was one.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(
    c: TcpStream,
    h: &Handler,
    log: &Mutex<Vec<String>>,
    seen: &Mutex<HashMap<String, usize>>,
) {
    let mut lines = BufReader::new(c.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut from = 0;
    for l in lines.by_ref().take_while(|l| !l.is_empty()) {
        if let Some(v) = l.to_lowercase().strip_prefix("range: bytes=") {
            from = v.trim_end_matches('-').parse().unwrap();
        }
    }
    log.lock().unwrap().push(if from > 0 {
        format!("{path} {from}")
    } else {
        path.clone()
    });
    let before = {
        let mut s = seen.lock().unwrap();
        let n = s.entry(path.clone()).or_default();
        *n += 1;
        *n - 1
    };
    let r = h(&Request { path, from, before });
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", r.status);
    for x in &r.headers {
        head.push_str(&format!("{x}\r\n"));
    }
    if let Some(n) = r.length {
        head.push_str(&format!("Content-Length: {n}\r\n"));
    }
    let body = &r.body[..r.cut.unwrap_or(r.body.len()).min(r.body.len())];
    let mut c = c;
    if c.write_all(format!("{head}\r\n").as_bytes()).is_err() {
        return;
    }
    for piece in body.chunks(4096) {
        if c.write_all(piece).is_err() {
            return;
        }
        if r.slow > 0 {
            std::thread::sleep(std::time::Duration::from_millis(r.slow));
        }
    }
    let _ = c.shutdown(std::net::Shutdown::Write);
    // Let the other side read before the socket goes.
    let _ = std::io::copy(&mut c, &mut std::io::sink());
}
