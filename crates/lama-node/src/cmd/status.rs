// SPDX-License-Identifier: Apache-2.0
//! `lama-node status`: what this machine runs and what protects it.

use crate::cli::{Arg, Args, Command};
use crate::kernel::{Cmdline, Slot};
use crate::machine::Machine;
use crate::update::Source;
use crate::volumes::{self, Volume};
use crate::{Result, fs, ids, luks, node_key};
use serde::Serialize;
use std::fmt::Write as _;
use std::process::ExitCode;

/// The command.
pub const COMMAND: Command = Command {
    name: "status",
    about: "What this machine runs, and what protects it",
    help: "\
Usage: lama-node status [--recovery-key] [--json]

Options:
  --recovery-key   read the recovery key (from standard input, or ask for it) and say whether it
                   still opens every volume; the exit status is 1 where it does not

Example:
  lama-node status --recovery-key",
    run,
};

#[derive(Serialize)]
struct Status {
    bsp: String,
    image: String,
    version: String,
    slot: Option<&'static str>,
    secure_boot: bool,
    tpm: bool,
    /// dm-verity is below the root.
    root_verified: bool,
    volumes: Vec<Volume>,
    /// Where updates come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<Source>,
    /// SHA-256 of the certificate that updates are encrypted to.
    update_certificate: Option<String>,
    /// What is not as it should be.
    warnings: Vec<String>,
}

fn run(args: &mut Args) -> Result<ExitCode> {
    let mut ask = false;
    while let Some(a) = args.next()? {
        match a {
            Arg::Option(o) if o == "recovery-key" => ask = true,
            other => return Err(other.unknown()),
        }
    }
    let machine = Machine::read()?;
    let slot = Cmdline::read()?.slot();
    let key = if ask {
        Some(volumes::read_key("Recovery key")?)
    } else {
        None
    };
    let volumes = match slot {
        Some(Slot::A | Slot::B) => volumes::look(&machine, key.as_deref())?,
        // To say why there is nothing to check.
        _ if ask => volumes::look(&machine, None)?,
        _ => Vec::new(),
    };
    let mut status = Status {
        bsp: machine.bsp,
        image: machine.image,
        version: machine.version,
        slot: slot.map(Slot::name),
        secure_boot: ids::secure_boot(),
        tpm: luks::has_tpm(),
        root_verified: root_verified(),
        volumes,
        update: Source::read()?,
        update_certificate: node_key::shown().ok().flatten().map(|s| s.sha256),
        warnings: Vec::new(),
    };
    status.warnings = warnings(&status);
    let opens = status
        .volumes
        .iter()
        .all(|v| v.recovery_opens != Some(false));
    args.print(&status, || text(&status))?;
    Ok(if opens {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether the device-mapper device `root` is dm-verity (its UUID begins with CRYPT-VERITY, as
/// libcryptsetup names them).
fn root_verified() -> bool {
    let all = fs::names("/sys/block").unwrap_or_default();
    all.iter().any(|d| {
        let dm = |f: &str| fs::line(format!("/sys/block/{d}/dm/{f}")).unwrap_or_default();
        dm("name") == "root" && dm("uuid").starts_with("CRYPT-VERITY-")
    })
}

fn warnings(s: &Status) -> Vec<String> {
    let mut w = Vec::new();
    if !s.secure_boot {
        w.push("Secure Boot is off: whatever is started on this machine could pass for it".into());
    }
    if !s.root_verified {
        w.push("the root is not verified".into());
    }
    if !s.tpm {
        w.push("there is no TPM: somebody has to type a passphrase at every boot".into());
    }
    for v in &s.volumes {
        if s.tpm && v.tpm == 0 {
            w.push(format!(
                "{}: the TPM does not open it; run lama-node enroll --recovery-key",
                v.name
            ));
        }
        if v.tpm > 0 && !v.pcrs.contains(&7) {
            w.push(format!(
                "{}: not bound to Secure Boot's state (PCR 7)",
                v.name
            ));
        }
        if v.tpm > 0 && !v.signed_pcrs.contains(&11) {
            w.push(format!("{}: not bound to our systems (PCR 11)", v.name));
        }
        if v.recovery == 0 {
            w.push(format!(
                "{}: no recovery key; run lama-node enroll --new-recovery-key",
                v.name
            ));
        }
        if v.recovery_opens == Some(false) {
            w.push(format!("{}: this recovery key does not open it", v.name));
        }
    }
    w
}

fn text(s: &Status) -> String {
    let word = |b: bool| if b { "yes" } else { "NO" };
    let mut o = String::new();
    let slot = s.slot.unwrap_or("?");
    let _ = writeln!(o, "{} {} for {}, slot {slot}", s.image, s.version, s.bsp);
    let _ = writeln!(o, "Secure Boot     {}", word(s.secure_boot));
    let _ = writeln!(o, "TPM 2.0         {}", word(s.tpm));
    let _ = writeln!(o, "verified root   {}", word(s.root_verified));
    for v in &s.volumes {
        let list = |p: &[u32]| {
            let all: Vec<String> = p.iter().map(u32::to_string).collect();
            all.join("+")
        };
        let mut how = Vec::new();
        if v.tpm > 0 {
            how.push(format!(
                "TPM (PCR {}, signed policy of PCR {})",
                list(&v.pcrs),
                list(&v.signed_pcrs)
            ));
        }
        if v.recovery > 0 {
            how.push(match v.recovery_opens {
                Some(true) => "recovery key (this one)".to_owned(),
                _ => "recovery key".to_owned(),
            });
        }
        if v.passphrase > 0 {
            how.push("passphrase".to_owned());
        }
        let _ = writeln!(o, "{:15} LUKS2, opened by {}", v.name, how.join(", "));
    }
    if let Some(u) = &s.update {
        let _ = writeln!(o, "updates         {u}");
    }
    if let Some(c) = &s.update_certificate {
        let _ = writeln!(o, "encrypted to    {c}");
    }
    for w in &s.warnings {
        let _ = writeln!(o, "warning: {w}");
    }
    o
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let volume = Volume {
            name: "data".into(),
            device: "/dev/lamadist/data".into(),
            tpm: 1,
            pcrs: vec![7],
            signed_pcrs: vec![11],
            recovery: 1,
            passphrase: 0,
            recovery_opens: None,
        };
        Status {
            bsp: "x86_64".into(),
            image: "base".into(),
            version: "1".into(),
            slot: Some("a"),
            secure_boot: true,
            tpm: true,
            root_verified: true,
            volumes: vec![volume],
            update: None,
            update_certificate: None,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_machine_as_installed_has_nothing_to_warn_of() {
        let s = status();
        assert!(warnings(&s).is_empty());
        assert_eq!(
            text(&s),
            "base 1 for x86_64, slot a\nSecure Boot     yes\nTPM 2.0         yes\n\
             verified root   yes\n\
             data            LUKS2, opened by TPM (PCR 7, signed policy of PCR 11), recovery key\n"
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut s = status();
        s.secure_boot = false;
        s.root_verified = false;
        s.volumes[0].recovery_opens = Some(false);
        s.volumes[0].pcrs.clear();
        assert_eq!(warnings(&s).len(), 4);
        s.volumes[0].tpm = 0;
        s.volumes[0].recovery = 0;
        let w = warnings(&s).join("\n");
        assert!(w.contains("enroll --recovery-key") && w.contains("enroll --new-recovery-key"));
    }
}
