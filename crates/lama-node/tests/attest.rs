// SPDX-License-Identifier: Apache-2.0
//! Attestation on what a real boot left behind: the image base, under OVMF with Secure Boot and a
//! software TPM (`lama-node attest --quote`, and the `baseline.json` of the build).
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use lama_node::attest::baseline::Baseline;
use lama_node::attest::bytes::{base64, hex, sha256, unbase64};
use lama_node::attest::check::check;
use lama_node::attest::eventlog::{EventLog, Kind};
use lama_node::attest::evidence::Evidence;
use lama_node::attest::ima::{self, Lead};
use lama_node::attest::report::{Report, State};
use proptest::prelude::*;
use std::process::{Command, Output};

const EVIDENCE: &[u8] = include_bytes!("data/attest/evidence.json");
const BASELINE: &[u8] = include_bytes!("data/attest/baseline.json");
const NONCE: &str = "000102030405060708090a0b0c0d0e0f";

fn evidence() -> Evidence {
    Evidence::parse(EVIDENCE).unwrap()
}

fn baseline() -> Baseline {
    Baseline::parse(BASELINE).unwrap()
}

fn event_log() -> Vec<u8> {
    unbase64(&evidence().event_log).unwrap()
}

fn ima_log() -> Vec<u8> {
    unbase64(&evidence().ima.unwrap().log).unwrap()
}

fn with_events(log: &[u8]) -> Evidence {
    Evidence {
        event_log: base64(log),
        ..evidence()
    }
}

fn with_ima(log: &[u8]) -> Evidence {
    let mut e = evidence();
    e.ima.as_mut().unwrap().log = base64(log);
    e
}

fn against_baseline(e: &Evidence) -> Report {
    check(e, Some(&baseline()), &[]).finish()
}

/// The place of some bytes.
fn find(data: &[u8], needle: &[u8]) -> usize {
    data.windows(needle.len())
        .position(|w| w == needle)
        .unwrap()
}

/// Some problem has these words in it, and says what it means.
fn says(report: &Report, words: &str) {
    assert!(!report.ok, "{words}: nothing is wrong");
    let all = &report.problems;
    assert!(
        all.iter().any(|p| p.what.contains(words)),
        "{words}: {all:#?}"
    );
    assert!(all.iter().all(|p| !p.means.is_empty()), "{all:#?}");
}

#[test]
fn a_boot_is_what_the_build_predicted() {
    let r = against_baseline(&evidence());
    assert_eq!(r.problems, []);
    assert!(r.ok && r.notes.is_empty(), "{:?}", r.notes);
    assert_eq!(r.secure_boot.enabled, Some(true));
    assert_eq!(r.secure_boot.db, baseline().db);
    assert_eq!(r.secure_boot.used, baseline().db);
    let known: Vec<_> = r.images.iter().map(|i| i.known.clone().unwrap()).collect();
    assert_eq!(
        known,
        ["the UKI of base 0.1.0-dev", "the addon live.addon.efi"]
    );
    assert_eq!(
        r.images[0].path.as_deref(),
        Some("\\EFI\\BOOT\\BOOTX64.EFI")
    );
    assert!(r.cmdline_added[0].starts_with("lamadist.slot=live "));
    assert_eq!(r.cmdline_proven, Some(true));
    assert_eq!(
        r.phases,
        ["enter-initrd", "leave-initrd", "sysinit", "ready"]
    );
    let ima = r.ima.as_ref().unwrap();
    assert_eq!((ima.entries, ima.later, ima.violations), (116, 0, 0));
    assert_eq!(ima.files[0].0, "boot_aggregate");
    assert_eq!(ima.files[115].0, "/var/tmp/a/lama-node");
    for p in &r.pcrs {
        let state = if [8, 13, 14].contains(&p.pcr) {
            State::Unused
        } else {
            State::Ok
        };
        assert_eq!(p.state, state, "PCR {}", p.pcr);
    }
    // Every phase that was predicted, by the sections too.
    let b = baseline();
    let mut phases = Vec::new();
    for p in &b.uki.pcr11 {
        phases.push(p.phase.as_str());
        assert_eq!(hex(&b.pcr11(phases.clone()).unwrap()), p.sha256);
    }
    // Without a baseline the same, without a judgement.
    let r = check(&evidence(), None, &[]).finish();
    assert!(r.ok && r.images.iter().all(|i| i.known.is_none()));
    assert!(r.text().contains("logs and PCRs agree"));
}

#[test]
fn one_changed_byte_of_the_firmwares_log_is_named() {
    let log = event_log();
    let parsed = EventLog::parse(&log).unwrap();
    // Of a digest: the register, whichever it is.
    for e in &parsed.events {
        let mut other = log.clone();
        // The same digest may be there several times; the first one will do.
        let at = find(&log, &e.digest);
        let first = parsed.events.iter().find(|f| f.digest == e.digest).unwrap();
        other[at + 7] ^= 0x10;
        let r = check(&with_events(&other), None, &[]).finish();
        says(&r, &format!("PCR {} (", first.pcr));
    }
    // Of what is said: the event.
    let utf16 = |s: &str| {
        s.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<_>>()
    };
    for (needle, words) in [
        (utf16("SecureBoot"), "EV_EFI_VARIABLE_DRIVER_CONFIG, PCR 7"),
        (
            b"Exit Boot Services Invocation".to_vec(),
            "EV_EFI_ACTION, PCR 5",
        ),
        (utf16("lamadist.slot"), "EV_IPL, PCR 12"),
    ] {
        let mut other = log.clone();
        other[find(&log, &needle)] ^= 1;
        says(&check(&with_events(&other), None, &[]).finish(), words);
    }
    // Secure Boot turned off, in words only.
    let secure = &parsed
        .events
        .iter()
        .find(|e| e.kind == Kind::VARIABLE_DRIVER_CONFIG)
        .unwrap();
    let mut other = log.clone();
    let last = find(&log, &secure.data) + secure.data.len() - 1;
    other[last] = 0;
    let r = against_baseline(&with_events(&other));
    says(&r, "says something that was not measured");
    assert_ne!(r.secure_boot.enabled, Some(true));
    // An event left out, and the rest cut off.
    let separator = log.len() - (12 + 4 * 2 + 20 + 32 + 48 + 64 + 4 + 40);
    says(
        &against_baseline(&with_events(&log[..separator])),
        "PCR 5 (",
    );
    says(
        &against_baseline(&with_events(&log[..log.len() - 1])),
        "cut short",
    );
}

#[test]
fn one_changed_byte_of_imas_log_is_named() {
    let log = ima_log();
    let path = find(&log, b"/var/tmp/a/lama-node");
    for at in [path, path - 20] {
        let mut other = log.clone();
        other[at] ^= 1;
        let r = check(&with_ima(&other), None, &[]).finish();
        says(&r, "PCR 10 (IMA)");
        says(&r, "entry 116 of IMA's log");
    }
    // The digest in front alone, of which the register knows nothing.
    let entry = log.len()
        - find(
            &log.iter().rev().copied().collect::<Vec<_>>(),
            &[0, 0, 0, 10],
        )
        - 4;
    let mut other = log.clone();
    other[entry + 9] ^= 1;
    says(
        &check(&with_ima(&other), None, &[]).finish(),
        "entry 116 of IMA's log",
    );
    // The whole last entry: the register knows.
    says(
        &check(&with_ima(&log[..entry]), None, &[]).finish(),
        "PCR 10 (IMA)",
    );
    // More than the register knows: what was measured later proves nothing, and is not told.
    let more = [&log[..], &log[entry..]].concat();
    let r = against_baseline(&with_ima(&more));
    assert_eq!(r.problems, []);
    let ima = r.ima.unwrap();
    assert_eq!((ima.entries, ima.later), (116, 1));
    // A log of another boot begins otherwise, even where the register agrees with it.
    let mut e = with_ima(&log);
    e.pcrs.insert(0, hex(&[1; 32]));
    says(&check(&e, None, &[]).finish(), "another boot");
}

#[test]
fn violations_extend_by_ones() {
    let log = ima_log();
    let mut other = log.clone();
    other[4..36].fill(0);
    let entries = ima::parse(&other, Lead::Sha256).unwrap();
    assert!(entries[0].violation && entries[0].intact);
    assert_eq!(entries[0].digest, [0xff; 32]);
    assert!(!entries[1].violation);
}

#[test]
fn one_changed_byte_of_systemds_log_is_named() {
    let log = evidence().userspace_log;
    for (from, to, words) in [
        ("51e6b92f", "51e6b92e", "PCR 11 ("),
        (
            "\"string\":\"sysinit\"",
            "\"string\":\"sysexit\"",
            "record 4 of systemd's log (phase",
        ),
        (
            "machine-id:abd6",
            "machine-id:abd7",
            "record 3 of systemd's log (machine-id",
        ),
        ("\"pcr\":15", "\"pcr\":14", "PCR 15 ("),
        ("\"sha256\"", "\"sha25\"", "no SHA-256 digest"),
    ] {
        let mut e = evidence();
        e.userspace_log = log.replacen(from, to, 1);
        assert_ne!(e.userspace_log, log, "{from}");
        says(&check(&e, None, &[]).finish(), words);
    }
}

#[test]
fn another_build_is_named() {
    let with = |change: &dyn Fn(&mut Baseline)| {
        let mut b = baseline();
        change(&mut b);
        check(&evidence(), Some(&b), &[]).finish()
    };
    let zeros = || "0".repeat(64);
    let r = with(&|b| {
        b.uki.authenticode = zeros();
        b.uki.sections[3].sha256 = zeros();
    });
    says(&r, "was not started");
    says(&r, "BOOTX64.EFI, 78c93cc5");
    says(&r, "by its sections .initrd");
    let r = with(&|b| b.version = "0.2.0".into());
    says(&r, "of version 0.2.0, and the node says it runs 0.1.0-dev");
    assert_eq!(r.problems.len(), 1);
    says(&with(&|b| b.image = "homelab".into()), "of image homelab");
    let r = with(&|b| b.addons.clear());
    says(&r, "live.addon.efi, cabf19a2");
    says(&r, "more than known addons say: lamadist.slot=live");
    says(&with(&|b| b.db = vec![zeros()]), "by a key of the baseline");
    says(
        &with(&|b| b.uki.cmdline.text.push('x')),
        "command line is not the UKI's",
    );
    // An addon of this host is not the build's, but may be known.
    let mut b = baseline();
    let addons = std::mem::take(&mut b.addons);
    assert!(check(&evidence(), Some(&b), &addons).finish().ok);
}

#[test]
fn a_node_that_does_not_tell_the_truth_is_found_out() {
    let mut e = evidence();
    e.claims.cmdline.push_str(" quiet");
    says(&check(&e, None, &[]).finish(), "another command line");
    let mut e = evidence();
    e.claims.setup_mode = Some(true);
    says(&against_baseline(&e), "setup mode");
    let mut e = evidence();
    e.pcrs.remove(&7);
    says(&check(&e, None, &[]).finish(), "no value of PCR 7");
    let mut e = evidence();
    e.pcrs.insert(13, hex(&sha256("x")));
    says(&check(&e, None, &[]).finish(), "PCR 13 (system extensions)");
    let mut e = evidence();
    e.userspace_log.clear();
    says(&check(&e, None, &[]).finish(), "PCR 11 (");
}

/// `lama-node attest --verify` on evidence and with these arguments; none where nothing here can
/// check a signature.
fn verify(evidence: &[u8], args: &[&str]) -> Option<Output> {
    let can = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    if !can("tpm2_checkquote") && !can("openssl") {
        eprintln!("SKIP: neither tpm2_checkquote nor openssl is here");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("evidence.json");
    std::fs::write(&file, evidence).unwrap();
    let baseline = dir.path().join("baseline.json");
    std::fs::write(&baseline, BASELINE).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_lama-node"))
        .args(["attest", "--verify"])
        .arg(file)
        .arg("--baseline")
        .arg(baseline)
        .args(args)
        .output();
    Some(out.unwrap())
}

#[test]
fn a_quote_is_checked_by_its_key_and_nonce() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("ak.pem");
    let pem = evidence().quote.unwrap().key;
    std::fs::write(&key, &pem).unwrap();
    let key = key.to_str().unwrap();
    let text = |o: &Output| String::from_utf8_lossy(&o.stdout).into_owned();
    let Some(out) = verify(EVIDENCE, &["--nonce", NONCE, "--key", key]) else {
        return;
    };
    assert!(out.status.success(), "{}", text(&out));
    assert!(text(&out).contains("the owner of the key booted what the baseline says"));
    // No key: anybody's TPM.
    let out = verify(EVIDENCE, &["--nonce", NONCE]).unwrap();
    assert!(out.status.success() && text(&out).contains("no key was given"));
    // An old answer.
    let out = verify(EVIDENCE, &["--nonce", "ffeeddccbbaa9988", "--key", key]).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text(&out).contains("an answer to another question"),
        "{}",
        text(&out)
    );
    // Another TPM's.
    let bad = |change: &dyn Fn(&mut Evidence), words: &str| {
        let mut e = evidence();
        change(&mut e);
        let json = serde_json::to_vec(&e).unwrap();
        let out = verify(&json, &["--nonce", NONCE, "--key", key]).unwrap();
        assert_eq!(out.status.code(), Some(1), "{words}");
        assert!(text(&out).contains(words), "{words}: {}", text(&out));
    };
    let flip = |s: &mut String, at: usize| {
        let mut d = unbase64(s).unwrap();
        d[at] ^= 1;
        *s = base64(&d);
    };
    bad(
        &|e| flip(&mut e.quote.as_mut().unwrap().signature, 100),
        "not signed by this key",
    );
    bad(
        &|e| flip(&mut e.quote.as_mut().unwrap().message, 128),
        "not signed by this key",
    );
    bad(
        &|e| flip(&mut e.quote.as_mut().unwrap().message, 0),
        "it is no quote",
    );
    bad(&|e| e.quote = None, "the evidence has no quote");
    let value = hex(&sha256("x"));
    bad(
        &|e| drop(e.pcrs.insert(15, value.clone())),
        "not those that the TPM signed",
    );
    // What programs read.
    let out = verify(EVIDENCE, &["--json", "--key", key]).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["quote"]["pinned"], true);
    assert_eq!(json["pcrs"][4]["state"], "ok");
    assert!(json["notes"][0].as_str().unwrap().contains("no nonce"));
}

#[test]
fn formats_of_others_are_refused() {
    let e = Baseline::parse(br#"{"format": 1}"#).unwrap_err();
    assert!(e.to_string().contains("no baseline"), "{e}");
    let newer = String::from_utf8_lossy(BASELINE).replacen("\"format\": 1", "\"format\": 2", 1);
    let e = Baseline::parse(newer.as_bytes()).unwrap_err();
    assert!(
        e.to_string().contains("format 2") && e.help().is_some(),
        "{e}"
    );
    let newer = String::from_utf8_lossy(EVIDENCE).replacen("\"format\": 1", "\"format\": 2", 1);
    assert!(Evidence::parse(newer.as_bytes()).is_err());
    let e = EventLog::parse(&[0; 40]).unwrap_err();
    assert!(e.to_string().contains("SHA-1 digests only"), "{e}");
}

proptest! {
    #[test]
    fn no_change_of_a_real_log_panics(at: prop::sample::Index, byte: u8, len: prop::sample::Index) {
        for (log, events) in [(event_log(), true), (ima_log(), false)] {
            let mut other = log.clone();
            other[at.index(log.len())] = byte;
            other.truncate(log.len() - len.index(log.len()) % 64);
            let e = if events { with_events(&other) } else { with_ima(&other) };
            let _ = against_baseline(&e).finish().text();
        }
        let mut log = evidence().userspace_log.into_bytes();
        let i = at.index(log.len());
        log[i] = byte;
        let e = Evidence { userspace_log: String::from_utf8_lossy(&log).into_owned(), ..evidence() };
        let _ = against_baseline(&e).text();
    }
}
