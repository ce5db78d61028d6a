// SPDX-License-Identifier: Apache-2.0
//! The firmware's `db`, and what has to become of it (UEFI specification 2.10, sections 8.2.2 and
//! 32.4.1). It holds the certificates of whoever may be started; some may be others' than ours.

use super::images::Images;
use crate::attest::bytes::{hex, sha256};
use crate::attest::eventlog::{Entry, List, lists};
use crate::{Error, Result};

/// The vendor of `db` (EFI_IMAGE_SECURITY_DATABASE_GUID).
pub const VENDOR: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
/// EFI_TIME, before the WIN_CERTIFICATE.
const TIME: usize = 16;

/// The content that a signed change of a variable (`EFI_VARIABLE_AUTHENTICATION_2`) brings.
///
/// # Errors
/// It is none.
pub fn payload(auth: &[u8]) -> Result<&[u8]> {
    let length = auth.get(TIME..TIME + 4).and_then(|b| b.try_into().ok());
    let length = length.map(u32::from_le_bytes).unwrap_or_default();
    usize::try_from(length)
        .ok()
        .filter(|n| *n >= 24)
        .and_then(|n| auth.get(TIME + n..))
        .ok_or_else(|| Error::new("the signed change of db is cut short"))
}

/// The entries of lists.
pub fn entries<'a>(lists: &[List<'a>]) -> Vec<Entry<'a>> {
    lists
        .iter()
        .flat_map(|l| l.entries.iter().copied())
        .collect()
}

/// What firmware makes of `content` when `more` is appended: entries that are there are passed over.
fn appended(content: &[u8], more: &[List<'_>], have: &[Entry<'_>]) -> Vec<u8> {
    let mut out = content.to_vec();
    for list in more {
        let new = || list.entries.iter().filter(|e| !has(have, e));
        let body: usize = new().map(|e| e.data.len()).sum();
        if body == 0 {
            continue;
        }
        let mut head = list.head.to_vec();
        let size = u32::try_from(head.len() + body).unwrap_or(u32::MAX);
        if let Some(field) = head.get_mut(16..20) {
            field.copy_from_slice(&size.to_le_bytes());
        }
        out.extend(head);
        new().for_each(|e| out.extend(e.data));
    }
    out
}

fn has(all: &[Entry<'_>], one: &Entry<'_>) -> bool {
    all.iter().any(|e| e.data == one.data)
}

/// The owner of our entries, by the content that the running system's signed change brings.
///
/// # Errors
/// It brings none.
pub fn owner(wanted: &[u8]) -> Result<Vec<u8>> {
    let lists = lists(wanted)?;
    let first = entries(&lists).first().map(|e| e.owner().to_vec());
    first.ok_or_else(|| Error::new("the signed change of db brings no certificate"))
}

/// Whether `db` has several keys of ours, as in a change of keys alone.
///
/// # Errors
/// Lists that contradict themselves.
pub fn changing(now: &[u8], wanted: &[u8]) -> Result<bool> {
    let owner = owner(wanted)?;
    let lists = lists(now)?;
    let ours = entries(&lists).into_iter().filter(|e| e.owner() == owner);
    Ok(ours.count() > 1)
}

/// What has to be done to the firmware's `db`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it holds what it should.
    Nothing,
    /// To wait for the next start: it was changed since this one.
    Restart,
    /// To wait for something else, in words.
    Wait(String),
    /// Nothing can be done from here, in words.
    Stuck(String),
    /// To append; it then holds this.
    Append(Vec<u8>),
    /// To replace; it then holds this.
    Replace(Vec<u8>),
}

/// Says what comes next: `now` is what `db` holds, `measured` what it held when the machine started,
/// `wanted` the content that the running system's signed change brings.
///
/// A certificate is added when the systems of all slots are signed by the newest key, so that they go
/// on measuring the same. Ours that are not honoured any more go when nothing on the ESP needs them.
///
/// # Errors
/// Lists that contradict themselves.
pub fn step(now: &[u8], measured: &[u8], wanted: &[u8], images: &Images) -> Result<Step> {
    if now != measured {
        return Ok(Step::Restart);
    }
    let (have_lists, want_lists) = (lists(now)?, lists(wanted)?);
    let (have, want) = (entries(&have_lists), entries(&want_lists));
    let Some((newest, certificate)) = want.iter().find_map(|e| Some((e, e.certificate()?))) else {
        return Err(Error::new("the signed change of db brings no certificate"));
    };
    let known = |e: &Entry<'_>| want.iter().any(|w| w.certificate() == e.certificate());
    let held = |e: &Entry<'_>| have.iter().any(|h| h.certificate() == e.certificate());
    // The newest alone: a system that is older than a change that has ended would bring back what it took
    // away, which no firmware lets go of again by the same signed change.
    if !held(newest) {
        let mut others = images.ukis().filter(|(_, u)| !u.signed_by(certificate));
        return Ok(match others.next() {
            Some((slot, _)) => Step::Wait(format!(
                "the new key is taken up when the system in slot {} is signed by it, too: with the next update",
                slot.name()
            )),
            None => Step::Append(appended(now, &want_lists, &have)),
        });
    }
    let ours = |e: &Entry<'_>| e.owner() == newest.owner();
    let Some(old) = have.iter().find(|e| ours(e) && !known(e)) else {
        return Ok(Step::Nothing);
    };
    let name = hex(&sha256(old.certificate().unwrap_or_default()));
    let name = name.get(..16).unwrap_or_default();
    if let Some(other) = have.iter().find(|e| !ours(e)) {
        let other = hex(&sha256(other.certificate().unwrap_or(other.data)));
        return Ok(Step::Stuck(format!(
            "the replaced key {name} stays in db beside {}, which is not ours: take it out in the firmware's setup, then lama-node enroll --recovery-key",
            other.get(..16).unwrap_or_default()
        )));
    }
    let current = |i: &super::images::Image| {
        want.iter()
            .filter_map(Entry::certificate)
            .any(|c| i.signed_by(c))
    };
    Ok(match images.all().find(|i| !current(i)) {
        Some(i) => Step::Wait(format!(
            "the replaced key {name} is let go when nothing is signed by it alone; {} is",
            i.path
        )),
        None => Step::Replace(wanted.to_vec()),
    })
}

#[cfg(test)]
pub(super) use tests::list as tests_list;

#[cfg(test)]
mod tests {
    use super::super::images::signed;
    use super::*;
    use crate::kernel::Slot;
    use proptest::prelude::*;

    pub(in crate::keys) fn list(owner: u8, certificates: &[&[u8]]) -> Vec<u8> {
        let x509 = [
            0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b,
            0xf0, 0x72,
        ];
        let mut out = Vec::new();
        for c in certificates {
            let size = 16 + c.len() as u32;
            out.extend(x509);
            out.extend((28 + size).to_le_bytes());
            out.extend([0; 4]);
            out.extend(size.to_le_bytes());
            out.extend([owner; 16]);
            out.extend(*c);
        }
        out
    }

    const OLD: &[u8] = b"the old certificate";
    const NEW: &[u8] = b"the new one";
    const THEIRS: &[u8] = b"somebody else's";

    fn images(a: &[&[u8]], b: &[&[u8]], host: &[&[u8]]) -> Images {
        let slot = |n: &str, by| vec![signed(n, by), signed("host", host)];
        Images {
            slots: vec![(Slot::A, slot("a", a)), (Slot::B, slot("b", b))],
            others: Vec::new(),
        }
    }

    #[test]
    fn a_key_comes_when_all_systems_are_signed_by_it() {
        let now = [list(1, &[OLD]), list(2, &[THEIRS])].concat();
        let wanted = list(1, &[NEW, OLD]);
        let both = &[NEW, OLD][..];
        let do_it = |i: &Images| step(&now, &now, &wanted, i).unwrap();
        let wait = do_it(&images(&[OLD], both, &[OLD]));
        assert!(
            matches!(&wait, Step::Wait(w) if w.contains("slot a")),
            "{wait:?}"
        );
        assert_eq!(owner(&wanted).unwrap(), [1; 16]);
        assert!(!changing(&now, &wanted).unwrap());
        // An addon of the host's may be signed by the old one meanwhile.
        let after = [now.clone(), list(1, &[NEW])].concat();
        assert_eq!(
            do_it(&images(both, both, &[OLD])),
            Step::Append(after.clone())
        );
        let i = images(both, both, &[OLD]);
        assert_eq!(step(&after, &now, &wanted, &i).unwrap(), Step::Restart);
        assert_eq!(step(&after, &after, &wanted, &i).unwrap(), Step::Nothing);
        assert!(changing(&after, &wanted).unwrap());
    }

    #[test]
    fn a_key_goes_when_nothing_needs_it() {
        let now = list(1, &[OLD, NEW]);
        let wanted = list(1, &[NEW]);
        let both = &[NEW, OLD][..];
        let do_it = |now: &[u8], i: &Images| step(now, now, &wanted, i).unwrap();
        let wait = do_it(&now, &images(both, &[NEW], &[OLD]));
        assert!(
            matches!(&wait, Step::Wait(w) if w.contains("host is")),
            "{wait:?}"
        );
        let done = images(both, &[NEW], &[NEW]);
        assert_eq!(do_it(&now, &done), Step::Replace(wanted.clone()));
        assert_eq!(do_it(&wanted, &done), Step::Nothing);
        // A system from before the end of the change does not bring it back.
        let earlier = list(1, &[NEW, OLD]);
        assert_eq!(
            step(&wanted, &wanted, &earlier, &done).unwrap(),
            Step::Nothing
        );
        // What is not ours is not ours to remove.
        let shared = [now, list(2, &[THEIRS])].concat();
        assert!(matches!(do_it(&shared, &done), Step::Stuck(_)));
        let only_theirs = [wanted.clone(), list(2, &[THEIRS])].concat();
        assert_eq!(do_it(&only_theirs, &done), Step::Nothing);
    }

    #[test]
    fn a_change_brings_its_content() {
        let auth = [&[0; 16][..], &26_u32.to_le_bytes(), &[0; 22], b"content"].concat();
        assert_eq!(payload(&auth).unwrap(), b"content");
        for n in 0..42 {
            assert!(payload(&auth[..n]).is_err(), "{n}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(now: Vec<u8>, wanted: Vec<u8>) {
            let _ = payload(&now);
            let _ = step(&now, &now, &wanted, &Images::default());
        }
    }
}
