// SPDX-License-Identifier: Apache-2.0
//! What a machine will measure into PCR 7 when its `db` has changed: the log of this boot, with the
//! events in it that follow from `db` put right (TCG PC Client Platform Firmware Profile 1.06, section
//! 3.3.4.8). A model that does not give this boot's own value is not believed.

use super::images::{Image, Rule};
use crate::attest::bytes::{Digest, sha256};
use crate::attest::eventlog::{Entry, EventLog, Kind, Variable, lists};
use crate::attest::pcr::extend;
use crate::{Error, Result};

/// The register.
const PCR: u32 = 7;
/// The vendor of `db` as firmware lays it out.
const VENDOR: [u8; 16] = [
    0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f,
];

/// UEFI_VARIABLE_DATA (10.2.6) of `db`.
fn variable(data: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = "db".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut out = VENDOR.to_vec();
    out.extend(2_u64.to_le_bytes());
    out.extend((data.len() as u64).to_le_bytes());
    out.extend(name);
    out.extend(data);
    out
}

/// What `db` held when the machine started, by its log.
///
/// # Errors
/// The log does not say.
pub fn measured(log: &EventLog) -> Result<&[u8]> {
    let mut events = log
        .of(PCR)
        .filter(|e| e.kind == Kind::VARIABLE_DRIVER_CONFIG);
    let content = events.find_map(|e| {
        let v = Variable::parse(&e.data).ok()?;
        (v.name == "db" && e.digest == sha256(&e.data)).then_some(v.data)
    });
    content.ok_or_else(|| Error::new("the firmware's log does not say what db holds"))
}

/// Whose events are ours: those of entries by our owner, even where nothing on the ESP is signed by them
/// any more, and those of entries that have signed something there.
#[derive(Debug, Clone, Copy)]
pub struct Ours<'a> {
    /// The owner of our entries in `db`.
    pub owner: &'a [u8],
    /// What is on the ESP.
    pub images: &'a [&'a Image],
}

impl Ours<'_> {
    /// Whether an EFI_SIGNATURE_DATA is ours.
    fn has(&self, data: &[u8]) -> bool {
        let signed = |c| self.images.iter().any(|i| i.signed_by(c));
        data.get(..16) == Some(self.owner) || data.get(16..).is_some_and(signed)
    }
}

/// PCR 7 of a boot that loads these images, in this order, with this `db`.
///
/// # Errors
/// `db` contradicts itself, or does not let the first image through.
pub fn pcr7(
    log: &EventLog,
    db: &[u8],
    images: &[Image],
    ours: Ours<'_>,
    rule: Rule,
) -> Result<Digest> {
    let lists = lists(db)?;
    let entries = super::firmware::entries(&lists);
    // Each authority is measured once.
    let mut authorities: Vec<Entry<'_>> = Vec::new();
    for (n, image) in images.iter().enumerate() {
        match image.authority(&entries, rule) {
            Some(a) if !authorities.contains(&a) => authorities.push(a),
            Some(_) => {}
            None if n == 0 => {
                return Err(Error::new(format!(
                    "db does not let {} through",
                    image.path
                )));
            }
            // An addon that is passed over is not measured.
            None => {}
        }
    }
    let mut value = log.start(PCR);
    let mut done = false;
    for e in log.of(PCR) {
        let v = Variable::parse(&e.data).ok().filter(|v| v.name == "db");
        match (e.kind, v) {
            (Kind::VARIABLE_DRIVER_CONFIG, Some(_)) => {
                value = extend(&value, &sha256(variable(db)));
            }
            (Kind::VARIABLE_AUTHORITY, Some(v)) if ours.has(v.data) => {
                if !std::mem::replace(&mut done, true) {
                    for a in &authorities {
                        value = extend(&value, &sha256(variable(a.data)));
                    }
                }
            }
            _ => value = extend(&value, &e.digest),
        }
    }
    if !done {
        return Err(Error::new(
            "the firmware's log does not say by whom the system was let through",
        ));
    }
    Ok(value)
}

/// Whether the model gives what this boot measured: PCR 7 follows from the log, its events of `db` are
/// those that would be predicted, and the first of ours lets through the UKI, with `measured` in `db`.
///
/// # Errors
/// `db` contradicts itself.
pub fn explains(
    log: &EventLog,
    actual: &Digest,
    measured: &[u8],
    images: &[Image],
    ours: Ours<'_>,
    rule: Rule,
) -> Result<bool> {
    let mut value = log.start(PCR);
    for e in log.of(PCR) {
        value = extend(&value, &e.digest);
    }
    if value != *actual {
        return Ok(false);
    }
    let lists = lists(measured)?;
    let entries = super::firmware::entries(&lists);
    let mut through = Vec::new();
    for e in log.of(PCR) {
        let Some(v) = Variable::parse(&e.data).ok().filter(|v| v.name == "db") else {
            continue;
        };
        let is_ours = e.kind == Kind::VARIABLE_AUTHORITY && ours.has(v.data);
        if is_ours {
            through.push(v.data.to_vec());
        }
        let handled = is_ours || e.kind == Kind::VARIABLE_DRIVER_CONFIG;
        if handled && e.digest != sha256(variable(v.data)) {
            return Ok(false);
        }
    }
    let first = images.first().and_then(|u| u.authority(&entries, rule));
    let once = (through.iter().enumerate()).all(|(n, d)| !through[..n].contains(d));
    Ok(once && first.is_some() && through.first().map(Vec::as_slice) == first.map(|e| e.data))
}

#[cfg(test)]
mod tests {
    use super::super::firmware::tests_list as list;
    use super::super::images::signed;
    use super::*;
    use crate::attest::eventlog::Event;

    const OLD: &[u8] = b"the old certificate";
    const NEW: &[u8] = b"the new one";

    fn event(number: usize, kind: Kind, data: Vec<u8>) -> Event {
        Event {
            number,
            pcr: 7,
            kind,
            digest: sha256(&data),
            data,
        }
    }

    /// The log of a boot with this `db`, let through by these.
    fn log(db: &[u8], by: &[&[u8]]) -> (EventLog, Digest) {
        let mut events = vec![
            event(1, Kind::VARIABLE_DRIVER_CONFIG, variable(db)),
            event(2, Kind::SEPARATOR, vec![0; 4]),
            event(
                3,
                Kind::VARIABLE_AUTHORITY,
                variable(b"0123456789abcdefa card's"),
            ),
        ];
        for c in by {
            let data = [&[1; 16], *c].concat();
            events.push(event(4, Kind::VARIABLE_AUTHORITY, variable(&data)));
        }
        let log = EventLog {
            events,
            locality: 0,
        };
        let mut value = [0; 32];
        for e in log.of(7) {
            value = extend(&value, &e.digest);
        }
        (log, value)
    }

    #[test]
    fn the_next_boot_is_known_before_it_comes() {
        let (one, both) = (list(1, &[OLD]), list(1, &[OLD, NEW]));
        let uki = signed("uki", &[NEW, OLD]);
        let host = signed("host", &[OLD]);
        let images = [uki.clone(), host.clone()];
        let known: Vec<&Image> = images.iter().collect();
        let ours = Ours {
            owner: &[1; 16],
            images: &known,
        };
        let (before, value) = log(&one, &[OLD]);
        assert_eq!(measured(&before).unwrap(), one);
        assert_eq!(
            pcr7(&before, &one, &images, ours, Rule::Signatures).unwrap(),
            value
        );
        let explained =
            |value, db| explains(&before, value, db, &images, ours, Rule::Signatures).unwrap();
        assert!(explained(&value, &one));
        assert!(!explained(&[7; 32], &one) && !explained(&value, &list(1, &[b"x"])));
        // With both, the UKI goes by the first signature that is known, the addon by the other.
        let (after, value) = log(&both, &[NEW, OLD]);
        assert_eq!(
            pcr7(&before, &both, &images, ours, Rule::Signatures).unwrap(),
            value
        );
        assert_eq!(
            pcr7(&after, &both, &images, ours, Rule::Signatures).unwrap(),
            value
        );
        let (_, value) = log(&both, &[NEW]);
        assert_eq!(
            pcr7(&after, &both, &images[..1], ours, Rule::Signatures).unwrap(),
            value
        );
        // An addon that was signed by the old key alone has been replaced since: its event does not come
        // again.
        let uki_alone = [signed("uki", &[NEW])];
        let known: Vec<&Image> = uki_alone.iter().collect();
        let new_alone = Ours {
            owner: &[1; 16],
            images: &known,
        };
        assert_eq!(
            pcr7(&after, &both, &uki_alone, new_alone, Rule::Signatures).unwrap(),
            value
        );
        // Another firmware goes by the order of db.
        let (other, value) = log(&both, &[OLD]);
        assert_eq!(
            pcr7(&before, &both, &images, ours, Rule::Database).unwrap(),
            value
        );
        let rules = [Rule::Signatures, Rule::Database];
        let told = |log, db: &[u8], value| {
            rules.map(|r| explains(log, &value, db, &images, ours, r).unwrap())
        };
        assert_eq!(told(&other, &both, value), [false, true]);
        let (_, value) = self::log(&one, &[OLD]);
        assert_eq!(told(&before, &one, value), [true, true]);
        // What would not start is said.
        assert!(pcr7(&before, &list(1, &[b"x"]), &images, ours, Rule::Signatures).is_err());
        let (nobody, _) = log(&one, &[]);
        assert!(pcr7(&nobody, &one, &images, ours, Rule::Signatures).is_err());
    }
}
