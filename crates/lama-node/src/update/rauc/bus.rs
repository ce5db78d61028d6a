// SPDX-License-Identifier: Apache-2.0
//! RAUC's service on D-Bus.

use crate::run::Run;
use serde_json::Value;
use std::time::Duration;

/// Its name.
pub const SERVICE: &str = "de.pengutronix.rauc";
/// What it answers to there (RAUC 1.13, "D-Bus API").
pub const INTERFACE: &str = "de.pengutronix.rauc.Installer";
/// How long it may take to answer.
pub const ANSWER: Duration = Duration::from_secs(60);

/// The process of RAUC's service, where it runs.
pub fn pid() -> Option<u32> {
    let run = Run::new("systemctl").args(["show", "--value", "--property=MainPID", "rauc.service"]);
    let out = run.within(ANSWER).ok()?;
    let pid = String::from_utf8_lossy(&out.stdout).trim().parse().ok()?;
    (pid != 0).then_some(pid)
}

/// Why RAUC's last installation failed.
pub fn last_error() -> Option<String> {
    Some(property("LastError")?.as_str()?.to_owned())
}

/// A property of RAUC's service (RAUC 1.13, "D-Bus API").
pub fn property(name: &str) -> Option<Value> {
    let run = Run::new("busctl").args(["--system", "--json=short", "get-property"]);
    let out = run
        .args([SERVICE, "/", INTERFACE, name])
        .within(ANSWER)
        .ok()?;
    let answer: Value = serde_json::from_slice(&out.stdout).ok()?;
    Some(plain(&answer).clone())
}

/// A value of D-Bus without its type; it may be a variant in a variant.
pub fn plain(mut v: &Value) -> &Value {
    while let (Some(_), Some(data)) = (v.get("type"), v.get("data")) {
        v = data;
    }
    v
}
