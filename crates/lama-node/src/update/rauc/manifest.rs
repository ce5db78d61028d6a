// SPDX-License-Identifier: Apache-2.0
//! What a bundle says of itself.

use super::Failure;
use super::bus::{self, plain};
use super::watch;
use crate::machine::Migration;
use crate::run::Run;
use crate::{Error, fs};
use serde_json::Value;
use std::time::Duration;

/// How long RAUC may take to look at a bundle.
const INSPECTED: Duration = Duration::from_secs(300);

/// What a bundle, a file or a URL, says of itself, when its signature is good. RAUC's service is asked:
/// it alone is given the key that opens bundles, which rauc-info(1) would need, too.
///
/// # Errors
/// RAUC does not trust it, cannot read or decrypt it.
pub fn info(bundle: &str) -> std::result::Result<Manifest, Failure> {
    let nothing = |e: Error| e.hint("nothing was installed; lamadist verify FILE tells more");
    let source = if bundle.contains("://") {
        bundle.to_owned()
    } else {
        let path = fs::canonical(bundle).map_err(nothing)?;
        path.to_string_lossy().into_owned()
    };
    let run = Run::new("busctl")
        .args(["--system", "--json=short"])
        .arg(format!("--timeout={}", INSPECTED.as_secs()))
        .args(["call", "--"])
        .args([bus::SERVICE, "/", bus::INTERFACE])
        .args(["InspectBundle", "sa{sv}", &source, "0"]);
    let answer = run.json();
    // It waits for ever for a server that is there and says nothing, and answers nobody meanwhile.
    if answer.is_err() && bus::pid().is_some() && bus::property("Operation").is_none() {
        let what = format!("RAUC's look at {bundle}");
        return Err(Failure::broke(watch::end(&what, INSPECTED)));
    }
    let manifest = answer
        .and_then(|v| Manifest::of_bus(&v).ok_or_else(|| Error::new("RAUC's answer is none")))
        .map_err(nothing);
    manifest.map_err(|why| Failure {
        broke: bundle.contains("://") && is_of_the_way(&why.to_string()),
        why,
    })
}

/// Whether RAUC says (1.13, `src/nbd.c`) that the server did not answer as it should.
fn is_of_the_way(why: &str) -> bool {
    [
        "failed to configure streaming",
        "server did not send bundle size",
        "failed to read data from remote server",
    ]
    .iter()
    .any(|w| why.contains(w))
}

/// A bundle's manifest, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The machines that it is for.
    pub compatible: String,
    /// Its version.
    pub version: String,
    /// The image that it has, `base` for example; none where somebody else made it.
    pub image: Option<String>,
    /// SHA-256 of its UKI, in hexadecimal.
    pub uki: Option<String>,
    /// What it does to data that earlier versions left.
    pub migration: Option<Migration>,
}

impl Manifest {
    /// Out of the answer to `InspectBundle` (RAUC 1.13, "D-Bus API"), as busctl(1) prints it.
    fn of_bus(answer: &Value) -> Option<Self> {
        let all = plain(answer).get(0)?;
        let update = plain(all.get("update")?);
        let text = |of: &Value, key: &str| Some(plain(of.get(key)?).as_str()?.to_owned());
        let ours = all.get("meta").and_then(|m| plain(m).get("lamadist"));
        let images = all.get("images").and_then(|i| plain(i).as_array());
        let uki = images.into_iter().flatten().map(plain);
        let mut uki = uki.filter(|i| text(i, "slot-class").as_deref() == Some("uki"));
        let migration = ours.map(plain).and_then(|o| {
            Some(Migration {
                since: text(o, "migration-since")?,
                note: text(o, "migration-note").unwrap_or_default(),
            })
        });
        Some(Self {
            migration,
            compatible: text(update, "compatible")?,
            version: text(update, "version").unwrap_or_default(),
            image: ours.and_then(|o| text(plain(o), "image")),
            uki: uki.next().and_then(|i| text(i, "checksum")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_raucs_service_says_of_a_bundle_is_read() {
        let says = |json: &str| Manifest::of_bus(&serde_json::from_str(json).unwrap());
        let want = |version: &str| {
            Some(Manifest {
                compatible: "c".into(),
                version: version.into(),
                image: None,
                uki: None,
                migration: None,
            })
        };
        // Its dictionaries are variants in variants; whether they are, is no part of the interface.
        let inside =
            r#"{"compatible":{"type":"s","data":"c"},"version":{"type":"s","data":"1.1.0"}}"#;
        let dict = format!(r#"{{"type":"a{{sv}}","data":{inside}}}"#);
        for update in [format!(r#"{{"type":"v","data":{dict}}}"#), dict] {
            let hash = r#""manifest-hash":{"type":"s","data":"00"}"#;
            let answer = format!(r#"{{"type":"a{{sv}}","data":[{{{hash},"update":{update}}}]}}"#);
            assert_eq!(says(&answer), want("1.1.0"), "{answer}");
        }
        let short =
            r#"{"data":[{"update":{"compatible":{"type":"s","data":"c"}}}],"type":"a{sv}"}"#;
        assert_eq!(says(short), want(""));
        let meta = r#"{"type":"a{sa{ss}}","data":{"lamadist":{"bsp":"x86_64","image":"base",
            "migration-since":"1.1.0","migration-note":"a note"}}}"#;
        let images = r#"{"type":"aa{sv}","data":[
            {"slot-class":{"type":"s","data":"rootfs"},"checksum":{"type":"s","data":"aa"}},
            {"slot-class":{"type":"s","data":"uki"},"checksum":{"type":"s","data":"bb"}}]}"#;
        let update = r#"{"compatible":{"type":"s","data":"c"}}"#;
        let whole = format!(
            r#"{{"type":"a{{sv}}","data":[{{"update":{update},
            "meta":{{"type":"v","data":{meta}}},"images":{{"type":"v","data":{images}}}}}]}}"#
        );
        let of = says(&whole).unwrap();
        assert_eq!(
            (of.image.as_deref(), of.uki.as_deref()),
            (Some("base"), Some("bb"))
        );
        let migration = of.migration.unwrap();
        assert_eq!((&*migration.since, &*migration.note), ("1.1.0", "a note"));
        for other in ["{}", "[]", r#"{"type":"a{sv}","data":[]}"#, "3"] {
            assert_eq!(says(other), None, "{other}");
        }
    }
}
