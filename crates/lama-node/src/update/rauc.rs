// SPDX-License-Identifier: Apache-2.0
//! RAUC, by its command rauc(1), which talks to its service. It alone installs, verifies, and tells
//! the firmware what to start.

use crate::kernel::Slot;
use crate::run::Run;
use crate::{Error, Result, fs, slot};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// RAUC on D-Bus.
const SERVICE: &str = "de.pengutronix.rauc";
/// What it answers to there (RAUC 1.13, "D-Bus API").
const INTERFACE: &str = "de.pengutronix.rauc.Installer";
/// How long RAUC may take to look at a bundle.
const INSPECTED: Duration = Duration::from_secs(300);
/// How long RAUC may take to mark a slot.
const ANSWER: Duration = Duration::from_secs(60);
/// How long an installation may come no further: RAUC 1.13 waits for ever for a server that is gone
/// without a word.
const STALLED: Duration = Duration::from_secs(15 * 60);
/// Bytes that count as some way.
const STEP: u64 = 1 << 16;
/// Between two looks at that.
const LOOK: Duration = Duration::from_secs(20);
/// How often an installation is begun whose device went away.
const ATTEMPTS: u32 = 5;

/// What `rauc status --detailed --output-format=json` prints (RAUC 1.13), as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Status {
    /// The machines that it takes bundles for.
    pub compatible: String,
    /// The boot name of the slot that runs.
    pub booted: Option<String>,
    /// The slot that is started next.
    pub boot_primary: Option<String>,
    slots: Vec<BTreeMap<String, RaucSlot>>,
}

/// A slot.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RaucSlot {
    /// `A` or `B`, for the one of a group that is started.
    pub bootname: Option<String>,
    /// `booted`, `inactive` or `active`.
    pub state: String,
    /// The slot whose group it belongs to: the one that has a boot name.
    pub parent: Option<String>,
    /// `good` or `bad`, as the boot loader's entries say.
    pub boot_status: Option<String>,
    /// What was installed.
    pub slot_status: Option<SlotStatus>,
}

/// What was installed in a slot.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SlotStatus {
    /// By which bundle.
    pub bundle: Option<Bundle>,
    /// `ok`, `pending` or `failed`.
    pub status: Option<String>,
    /// Of the image.
    pub checksum: Option<Checksum>,
}

/// What an image was when it was installed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Checksum {
    /// In hexadecimal.
    pub sha256: Option<String>,
}

/// A bundle, by its manifest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Bundle {
    /// Its version.
    pub version: Option<String>,
}

impl Status {
    /// Of this machine.
    ///
    /// # Errors
    /// RAUC's service does not answer.
    pub fn now() -> Result<Self> {
        Run::new("rauc")
            .args(["status", "--detailed", "--output-format=json"])
            .json()
            .map_err(|e| {
                e.hint(
                    "see journalctl -u rauc; while RAUC is at something, it does nothing else (systemctl restart rauc ends that)",
                )
            })
    }

    /// A slot that is started, by its boot name.
    pub fn slot(&self, slot: Slot) -> Option<&RaucSlot> {
        let name = slot.name().to_uppercase();
        let mut all = self.slots.iter().flat_map(BTreeMap::values);
        all.find(|s| s.bootname.as_deref() == Some(&name))
    }

    /// Whether RAUC has begun to write a slot with this name, and not ended.
    pub fn is_pending(&self, name: &str) -> bool {
        let slot = self.slots.iter().find_map(|s| s.get(name));
        let status = slot.and_then(|s| s.slot_status.as_ref());
        status.is_some_and(|s| s.status.as_deref() == Some("pending"))
    }

    /// The SHA-256 of what RAUC installed in a slot with this name (`rootfs.0`), in hexadecimal.
    pub fn digest(&self, name: &str) -> Option<&str> {
        let slot = self.slots.iter().find_map(|s| s.get(name))?;
        let digest = slot.slot_status.as_ref()?.checksum.as_ref()?;
        digest.sha256.as_deref()
    }

    /// The version that RAUC installed in a slot; none where an installer did, or where anything of its
    /// group is damaged or half written.
    pub fn version(&self, slot: Slot) -> Option<&str> {
        let whole = |s: &SlotStatus| s.status.as_deref().is_none_or(|s| s == "ok");
        let group = self.group(slot);
        let mut all = group.iter().filter_map(|s| s.slot_status.as_ref());
        if !all.all(whole) {
            return None;
        }
        let status = self.slot(slot)?.slot_status.as_ref()?;
        status.bundle.as_ref()?.version.as_deref()
    }

    /// Whether RAUC has never written to a slot.
    pub fn is_empty(&self, slot: Slot) -> bool {
        let status = self.slot(slot).and_then(|s| s.slot_status.as_ref());
        status.is_none_or(|s| s.bundle.is_none() && s.status.is_none())
    }

    /// A slot that is started, and what belongs to it.
    fn group(&self, slot: Slot) -> Vec<&RaucSlot> {
        let boot = slot.name().to_uppercase();
        let named = self.slots.iter().flatten();
        let first = named
            .clone()
            .find(|(_, s)| s.bootname.as_deref() == Some(&boot));
        let Some((first, _)) = first else {
            return Vec::new();
        };
        let of = |(name, s): &(&String, &RaucSlot)| {
            *name == first || s.parent.as_deref() == Some(first.as_str())
        };
        named.filter(of).map(|(_, s)| s).collect()
    }
}

/// Why a bundle was not installed.
#[derive(Debug)]
pub struct Failure {
    /// In words.
    pub why: Error,
    /// Whether the bundle was not refused: the way to it broke off, or RAUC failed at something else.
    pub broke: bool,
}

impl From<Error> for Failure {
    fn from(why: Error) -> Self {
        Self { why, broke: false }
    }
}

impl From<Failure> for Error {
    fn from(f: Failure) -> Self {
        f.why
    }
}

fn broke(why: Error) -> Failure {
    Failure { why, broke: true }
}

/// Installs a bundle, with RAUC's own progress on this terminal.
///
/// # Errors
/// RAUC refuses it, or fails: the slot that runs is as before.
pub fn install(bundle: &str) -> std::result::Result<(), Failure> {
    let mut left = ATTEMPTS;
    loop {
        fs::remove(slot::WHY)?;
        let run = Run::new("rauc").args(["install", "--progress"]).arg(bundle);
        let mut watch = Watch::default();
        let Err(e) = run.show_while(LOOK, || watch.moves(progress(), Instant::now())) else {
            return Ok(());
        };
        if watch.stalled {
            let what = format!("the installation of {bundle}");
            return Err(broke(end(&what, STALLED)));
        }
        if let Some(why) = fs::line(slot::WHY) {
            let why = Error::new(format!("the bundle was not installed: {why}"))
                .hint("the running system is as before; journalctl -u rauc tells more");
            return Err(why.into());
        }
        left -= 1;
        if left > 0 && last_error().is_some_and(|why| lost_its_device(bundle, &why)) {
            eprintln!("the device that RAUC streams from went away as it came; once more");
            std::thread::sleep(Duration::from_secs(1));
            continue;
        }
        let why = Error::new(format!("the bundle was not installed: {e}")).hint(
            "what RAUC said is above, and in journalctl -u rauc; the running system is as before",
        );
        return Err(broke(why));
    }
}

/// Waits for an installation that nobody waits for any more, whose `lama-node` was killed. One that
/// comes no further is ended: RAUC does nothing else before.
///
/// # Errors
/// It was ended.
pub fn settle() -> Result<()> {
    let mut watch = Watch::default();
    loop {
        match property("Operation") {
            Some(o) if o.as_str() != Some("installing") => return Ok(()),
            // It does not run, and cannot be started; whoever needs it will say so.
            None if pid().is_none() => return Ok(()),
            // While it looks at a bundle it answers nobody.
            Some(_) | None => {}
        }
        if !watch.moves(progress(), Instant::now()) {
            return Err(end("what RAUC was at before", STALLED));
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends something of RAUC's that came no further for so long.
fn end(what: &str, time: Duration) -> Error {
    let minutes = time.as_secs() / 60;
    let stop = Run::new("systemctl").args(["stop", "rauc.service"]);
    let stopped = stop.run_within(Duration::from_secs(300));
    let how = match stopped {
        Ok(_) => "RAUC was stopped".to_owned(),
        Err(e) => format!("RAUC does not stop: {e}"),
    };
    Error::new(format!(
        "{what} came no further for {minutes} minutes; {how}"
    ))
    .hint("the running system is as before; the server or the way to it is gone, or the disk is")
}

/// Whether an installation comes further.
#[derive(Debug, Default)]
struct Watch {
    last: Option<(Value, Instant)>,
    stalled: bool,
}

impl Watch {
    /// Whether it has within [`STALLED`], with what RAUC tells of it now; none where it tells nothing.
    fn moves(&mut self, progress: Option<Value>, now: Instant) -> bool {
        let known = self.last.as_ref().map(|(p, _)| p);
        match progress {
            Some(p) if known != Some(&p) => self.last = Some((p, now)),
            _ => {
                let since = self.last.get_or_insert((Value::Null, now)).1;
                self.stalled = now.duration_since(since) >= STALLED;
            }
        }
        !self.stalled
    }
}

/// How far RAUC is: percent, in words, and how deep in its steps; and, since RAUC 1.13 says nothing of
/// that while it writes an image by its index, how much it has read and written (proc_pid_io(5)).
fn progress() -> Option<Value> {
    let io = fs::text(format!("/proc/{}/io", pid()?)).ok()?;
    Some(serde_json::json!([property("Progress"), moved(&io)]))
}

/// How often [`STEP`] bytes were read and written: less than that it does to wake itself.
fn moved(io: &str) -> u64 {
    let of = |l: &str| match l.split_once(": ")? {
        ("rchar" | "wchar", n) => n.trim().parse::<u64>().ok(),
        _ => None,
    };
    io.lines().filter_map(of).sum::<u64>() / STEP
}

/// The process of RAUC's service, where it runs.
fn pid() -> Option<u32> {
    let run = Run::new("systemctl").args(["show", "--value", "--property=MainPID", "rauc.service"]);
    let out = run.within(ANSWER).ok()?;
    let pid = String::from_utf8_lossy(&out.stdout).trim().parse().ok()?;
    (pid != 0).then_some(pid)
}

/// Why RAUC's last installation failed.
fn last_error() -> Option<String> {
    Some(property("LastError")?.as_str()?.to_owned())
}

/// A property of RAUC's service (RAUC 1.13, "D-Bus API").
fn property(name: &str) -> Option<Value> {
    let run = Run::new("busctl").args(["--system", "--json=short", "get-property"]);
    let out = run
        .args([SERVICE, "/", INTERFACE, name])
        .within(ANSWER)
        .ok()?;
    let answer: Value = serde_json::from_slice(&out.stdout).ok()?;
    Some(plain(&answer).clone())
}

/// Whether nothing was written, since the network block device ended as it began. It does when udev
/// was the first to open it and to close it: RAUC before 1.15 tells it to end with its last user, and
/// is not one yet (rauc commit cfe93c93).
fn lost_its_device(bundle: &str, why: &str) -> bool {
    bundle.contains("://") && why.starts_with("Failed mounting bundle: Failed to load dm table")
}

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
        .args([SERVICE, "/", INTERFACE])
        .args(["InspectBundle", "sa{sv}", &source, "0"]);
    let answer = run.json();
    // It waits for ever for a server that is there and says nothing, and answers nobody meanwhile.
    if answer.is_err() && pid().is_some() && property("Operation").is_none() {
        let what = format!("RAUC's look at {bundle}");
        return Err(broke(end(&what, INSPECTED)));
    }
    let manifest = answer
        .and_then(|v| Manifest::of_bus(&v).ok_or_else(|| Error::new("RAUC's answer is none")))
        .map_err(nothing)?;
    Ok(manifest)
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
        Some(Self {
            compatible: text(update, "compatible")?,
            version: text(update, "version").unwrap_or_default(),
            image: ours.and_then(|o| text(plain(o), "image")),
            uki: uki.next().and_then(|i| text(i, "checksum")),
        })
    }
}

/// A value of D-Bus without its type; it may be a variant in a variant.
fn plain(mut v: &Value) -> &Value {
    while let (Some(_), Some(data)) = (v.get("type"), v.get("data")) {
        v = data;
    }
    v
}

/// Puts a slot first in the firmware's boot order.
///
/// # Errors
/// RAUC's.
pub fn keep(slot: Slot) -> Result<()> {
    mark("mark-good", slot)
}

/// Has a slot started once, at the next restart.
///
/// # Errors
/// RAUC's.
pub fn try_once(slot: Slot) -> Result<()> {
    mark("mark-active", slot)
}

fn mark(how: &str, slot: Slot) -> Result<()> {
    let which = match slot {
        Slot::A => "rootfs.0",
        Slot::B => "rootfs.1",
        Slot::Live => return Err(Error::new("a medium has no slots")),
    };
    let run = Run::new("rauc").args(["status", how, which]);
    match run.run_within(ANSWER) {
        Ok(_) => Ok(()),
        Err(e) => Err(e.hint("see journalctl -u rauc")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_that_went_away_is_tried_again() {
        let gone = "Failed mounting bundle: Failed to load dm table: Argument list too long, check \
                    DM_VERITY, DM_CRYPT or CRYPTO_AES kernel options.";
        assert!(lost_its_device("https://u.example/x.raucb", gone));
        assert!(!lost_its_device("/var/x.raucb", gone));
        for why in [
            "",
            "Failed mounting bundle: no",
            "signature verification failed",
        ] {
            assert!(!lost_its_device("https://u.example/x.raucb", why), "{why}");
        }
    }

    #[test]
    fn what_comes_no_further_is_noticed() {
        let mut w = Watch::default();
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(minutes * 60);
        let io = |n: u32| moved(&format!("rchar: {}\nwchar: 9\nsyscr: 900000\n", n << 16));
        // RAUC 1.13 stays at the same percent.
        let progress = |n| {
            Some(serde_json::json!([
                [40, "Copying image to rootfs.1", 3],
                io(n)
            ]))
        };
        assert!(w.moves(None, at(0)) && w.moves(progress(1), at(14)));
        assert!(w.moves(progress(1), at(28)) && w.moves(progress(2), at(29)));
        assert!(w.moves(None, at(43)) && !w.moves(progress(2), at(44)));
        assert!(w.stalled);
        let mut silent = Watch::default();
        assert!(silent.moves(None, at(0)) && !silent.moves(None, at(15)));
    }

    #[test]
    fn slots_are_found_by_their_boot_name() {
        let status: Status = serde_json::from_str(
            r#"{"compatible":"c","variant":"","booted":"A","boot_primary":"rootfs.0","slots":[
            {"rootfs.1":{"class":"rootfs","device":"/dev/mapper/rootfs_b","type":"raw",
             "bootname":"B","state":"inactive","parent":null,"mountpoint":null,"boot_status":"bad",
             "slot_status":{"bundle":{"compatible":"c","version":"1.1.0"},"status":"ok",
               "checksum":{"sha256":"ab","size":1}}}},
            {"uki.1":{"class":"uki","state":"inactive","bootname":null,"slot_status":{}}},
            {"rootfs.0":{"class":"rootfs","bootname":"A","state":"booted","boot_status":"good"}}]}"#,
        )
        .unwrap();
        assert_eq!(status.slot(Slot::A).unwrap().state, "booted");
        assert_eq!(status.version(Slot::B), Some("1.1.0"));
        assert_eq!(status.version(Slot::A), None);
        assert!(status.slot(Slot::Live).is_none());
        assert_eq!(status.digest("rootfs.1"), Some("ab"));
        assert!(!status.is_pending("rootfs.1") && !status.is_pending("rootfs.0"));
        assert_eq!(status.digest("rootfs.0").or(status.digest("uki.1")), None);
    }

    #[test]
    fn what_raucs_service_says_of_a_bundle_is_read() {
        let says = |json: &str| Manifest::of_bus(&serde_json::from_str(json).unwrap());
        let want = |version: &str| {
            Some(Manifest {
                compatible: "c".into(),
                version: version.into(),
                image: None,
                uki: None,
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
        let meta = r#"{"type":"a{sa{ss}}","data":{"lamadist":{"bsp":"x86_64","image":"base"}}}"#;
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
        for other in ["{}", "[]", r#"{"type":"a{sv}","data":[]}"#, "3"] {
            assert_eq!(says(other), None, "{other}");
        }
    }
}
