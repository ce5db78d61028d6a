// SPDX-License-Identifier: Apache-2.0
//! The firmware's event log, in the crypto-agile form of the TCG PC Client Platform Firmware Profile
//! (version 1.06, chapter 10 "Event logging").

use super::bytes::{Digest, Reader, hex, utf16};
use crate::error::{Context, Result};
use crate::{Error, fs};
use std::fmt;

/// Where the kernel has it.
pub const PATH: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// TPM_ALG_SHA256 (TCG Algorithm Registry).
const SHA256: u16 = 0x000b;
/// Signature of the first event of a crypto-agile log (10.4.5.1).
const SPEC_ID: &[u8; 16] = b"Spec ID Event03\0";
/// Signature of the event that tells the locality the TPM was started from (10.4.5.3).
const STARTUP: &[u8; 16] = b"StartupLocality\0";

/// The type of an event (10.4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(pub u32);

impl Kind {
    /// Not measured; says something of the log.
    pub const NO_ACTION: Self = Self(0x3);
    /// Between the firmware's and the boot loader's events.
    pub const SEPARATOR: Self = Self(0x4);
    /// Linux' own: a tag says what it is.
    pub const EVENT_TAG: Self = Self(0x6);
    /// Whatever a boot loader measures.
    pub const IPL: Self = Self(0xd);
    /// A variable of Secure Boot, whole.
    pub const VARIABLE_DRIVER_CONFIG: Self = Self(0x8000_0001);
    /// A program was started.
    pub const BOOT_SERVICES_APPLICATION: Self = Self(0x8000_0003);
    /// A driver was started.
    pub const BOOT_SERVICES_DRIVER: Self = Self(0x8000_0004);
    /// A driver was started that stays.
    pub const RUNTIME_SERVICES_DRIVER: Self = Self(0x8000_0005);
    /// What the firmware did, in words.
    pub const EFI_ACTION: Self = Self(0x8000_0007);
    /// The certificate or digest by which a program was let through.
    pub const VARIABLE_AUTHORITY: Self = Self(0x8000_00e0);

    /// Whether a firmware of this profile measures just the event's data, so that it can be checked.
    pub fn measures_its_data(self) -> bool {
        matches!(
            self,
            Self::SEPARATOR
                | Self::VARIABLE_DRIVER_CONFIG
                | Self::EFI_ACTION
                | Self::VARIABLE_AUTHORITY
        )
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0x1 => "EV_POST_CODE",
            0x3 => "EV_NO_ACTION",
            0x4 => "EV_SEPARATOR",
            0x5 => "EV_ACTION",
            0x6 => "EV_EVENT_TAG",
            0x7 => "EV_S_CRTM_CONTENTS",
            0x8 => "EV_S_CRTM_VERSION",
            0x9 => "EV_CPU_MICROCODE",
            0xa => "EV_PLATFORM_CONFIG_FLAGS",
            0xb => "EV_TABLE_OF_DEVICES",
            0xc => "EV_COMPACT_HASH",
            0xd => "EV_IPL",
            0xe => "EV_IPL_PARTITION_DATA",
            0xf => "EV_NONHOST_CODE",
            0x10 => "EV_NONHOST_CONFIG",
            0x11 => "EV_NONHOST_INFO",
            0x12 => "EV_OMIT_BOOT_DEVICE_EVENTS",
            0x13 => "EV_POST_CODE2",
            0x8000_0001 => "EV_EFI_VARIABLE_DRIVER_CONFIG",
            0x8000_0002 => "EV_EFI_VARIABLE_BOOT",
            0x8000_0003 => "EV_EFI_BOOT_SERVICES_APPLICATION",
            0x8000_0004 => "EV_EFI_BOOT_SERVICES_DRIVER",
            0x8000_0005 => "EV_EFI_RUNTIME_SERVICES_DRIVER",
            0x8000_0006 => "EV_EFI_GPT_EVENT",
            0x8000_0007 => "EV_EFI_ACTION",
            0x8000_0008 => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
            0x8000_0009 => "EV_EFI_HANDOFF_TABLES",
            0x8000_000a => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
            0x8000_000b => "EV_EFI_HANDOFF_TABLES2",
            0x8000_000c => "EV_EFI_VARIABLE_BOOT2",
            0x8000_0010 => "EV_EFI_HCRTM_EVENT",
            0x8000_00e0 => "EV_EFI_VARIABLE_AUTHORITY",
            0x8000_00e1 => "EV_EFI_SPDM_FIRMWARE_BLOB",
            0x8000_00e2 => "EV_EFI_SPDM_FIRMWARE_CONFIG",
            n => return write!(f, "event type {n:#x}"),
        };
        f.write_str(name)
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number in the log, from 1.
    pub number: usize,
    /// The register.
    pub pcr: u32,
    /// Its type.
    pub kind: Kind,
    /// What the register of the SHA-256 bank was extended with.
    pub digest: Digest,
    /// What the firmware says of it.
    pub data: Vec<u8>,
}

/// The log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventLog {
    /// The events that were measured, in order.
    pub events: Vec<Event>,
    /// The locality that the TPM was started from; PCR 0 begins with it.
    pub locality: u8,
}

impl EventLog {
    /// That of this machine.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn read() -> Result<Vec<u8>> {
        fs::read(PATH).map_err(|e| {
            e.hint("the kernel shows it to root, on machines whose firmware measures into a TPM")
        })
    }

    /// Parses it.
    ///
    /// # Errors
    /// It is cut short, not crypto-agile, or has no SHA-256 digests.
    pub fn parse(data: &[u8]) -> Result<Self> {
        parse(data).context("the firmware's event log")
    }

    /// The events of a register.
    pub fn of(&self, pcr: u32) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |e| e.pcr == pcr)
    }

    /// What a register begins with.
    pub fn start(&self, pcr: u32) -> Digest {
        let mut d = [0; 32];
        if let (0, Some(last)) = (pcr, d.last_mut()) {
            *last = self.locality;
        }
        d
    }
}

fn parse(data: &[u8]) -> Result<EventLog> {
    let mut r = Reader::new(data);
    // TCG_PCR_EVENT: PCR, type, a SHA-1 digest, size, data.
    r.u32()?;
    if Kind(r.u32()?) != Kind::NO_ACTION {
        return Err(Error::new("it is of the old form, with SHA-1 digests only"));
    }
    r.take(20)?;
    let len = r.u32()?;
    let sizes = spec_id(r.take32(len)?)?;
    let mut log = EventLog::default();
    let mut number = 1;
    while !r.is_empty() {
        number += 1;
        event(&mut r, &sizes, number, &mut log).context(format_args!("event {number}"))?;
    }
    Ok(log)
}

/// The digest sizes by algorithm that TCG_EfiSpecIDEvent lists.
fn spec_id(data: &[u8]) -> Result<Vec<(u16, u16)>> {
    let mut r = Reader::new(data);
    if r.array::<16>()? != *SPEC_ID {
        return Err(Error::new("it does not begin with a Spec ID event"));
    }
    // Platform class, minor and major version, errata, size of UINTN.
    r.take(8)?;
    let count = r.u32()?;
    let mut sizes = Vec::new();
    for _ in 0..count {
        sizes.push((r.u16()?, r.u16()?));
    }
    if !sizes.contains(&(SHA256, 32)) {
        return Err(Error::new("it has no SHA-256 digests"));
    }
    Ok(sizes)
}

/// TCG_PCR_EVENT2.
fn event(
    r: &mut Reader<'_>,
    sizes: &[(u16, u16)],
    number: usize,
    log: &mut EventLog,
) -> Result<()> {
    let pcr = r.u32()?;
    let kind = Kind(r.u32()?);
    let mut digest = None;
    for _ in 0..r.u32()? {
        let algorithm = r.u16()?;
        let size = sizes.iter().find(|(a, _)| *a == algorithm);
        let (_, size) = size.ok_or_else(|| {
            Error::new(format!(
                "it has a digest of an unknown kind, {algorithm:#x}"
            ))
        })?;
        let bytes = r.take(usize::from(*size))?;
        if algorithm == SHA256 {
            digest = bytes.try_into().ok();
        }
    }
    let len = r.u32()?;
    let data = r.take32(len)?;
    if kind == Kind::NO_ACTION {
        if let Some(rest) = data.strip_prefix(STARTUP) {
            log.locality = rest.first().copied().unwrap_or_default();
        }
        return Ok(());
    }
    log.events.push(Event {
        number,
        pcr,
        kind,
        digest: digest.ok_or_else(|| Error::new("it has no SHA-256 digest"))?,
        data: data.to_vec(),
    });
    Ok(())
}

/// UEFI_VARIABLE_DATA (10.2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Its name.
    pub name: String,
    /// Its content.
    pub data: &'a [u8],
}

impl<'a> Variable<'a> {
    /// Parses an event's data.
    ///
    /// # Errors
    /// It is cut short.
    pub fn parse(data: &'a [u8]) -> Result<Self> {
        let mut r = Reader::new(data);
        r.take(16)?;
        let (name, size) = (r.u64()?, r.u64()?);
        let long = |_| Error::new("its length is beyond all measure");
        let name = usize::try_from(name).map_err(long)?;
        let name = r.take(name.saturating_mul(2))?;
        let data = r.take(usize::try_from(size).map_err(long)?)?;
        Ok(Self {
            name: utf16(name),
            data,
        })
    }
}

/// EFI_CERT_X509_GUID (UEFI specification 32.4.1).
const X509: [u8; 16] = [
    0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72,
];

/// An entry of a signature database: the SHA-256 of a certificate, or what else it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// A certificate; the SHA-256 of its DER form.
    Certificate(Digest),
    /// A digest or something else, as it is.
    Other(Vec<u8>),
}

impl Signer {
    /// In hexadecimal.
    pub fn hex(&self) -> String {
        match self {
            Self::Certificate(d) => hex(d),
            Self::Other(d) => hex(d),
        }
    }
}

/// The entries of EFI_SIGNATURE_LISTs, as in `PK`, `KEK`, `db`.
///
/// # Errors
/// A list is cut short or contradicts itself.
pub fn signature_lists(data: &[u8]) -> Result<Vec<Signer>> {
    let signer = |e: Entry<'_>| match e.certificate() {
        Some(c) => Signer::Certificate(super::bytes::sha256(c)),
        None => Signer::Other(e.data.get(16..).unwrap_or_default().to_vec()),
    };
    let lists = lists(data)?;
    let entries = lists.into_iter().flat_map(|l| l.entries);
    Ok(entries.map(signer).collect())
}

/// An EFI_SIGNATURE_LIST (UEFI specification 32.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<'a> {
    /// What it begins with: type, sizes, a header of its own.
    pub head: &'a [u8],
    /// Its entries.
    pub entries: Vec<Entry<'a>>,
}

/// An EFI_SIGNATURE_DATA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    x509: bool,
    /// The owner's GUID, then the signature.
    pub data: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Who put it there.
    pub fn owner(&self) -> &'a [u8] {
        self.data.get(..16).unwrap_or_default()
    }

    /// The certificate, DER, where it is one.
    pub fn certificate(&self) -> Option<&'a [u8]> {
        self.data.get(16..).filter(|_| self.x509)
    }
}

/// EFI_SIGNATURE_LISTs.
///
/// # Errors
/// One is cut short or contradicts itself.
pub fn lists(data: &[u8]) -> Result<Vec<List<'_>>> {
    let mut r = Reader::new(data);
    let mut out = Vec::new();
    while !r.is_empty() {
        let all = r.rest();
        let x509 = r.array::<16>()? == X509;
        let (list, header, size) = (r.u32()?, r.u32()?, r.u32()?);
        let body = list
            .checked_sub(28)
            .ok_or_else(|| Error::new("a list is too short"))?;
        let mut body = Reader::new(r.take32(body)?);
        let header = body.take32(header)?.len();
        if size <= 16 {
            return Err(Error::new("an entry is too short"));
        }
        let mut entries = Vec::new();
        while !body.is_empty() {
            let data = body.take32(size)?;
            entries.push(Entry { x509, data });
        }
        let head = all.get(..28 + header).unwrap_or_default();
        out.push(List { head, entries });
    }
    Ok(out)
}

/// The file of a started program, from the media file path in its device path (UEFI_IMAGE_LOAD_EVENT,
/// 10.2.3; UEFI specification 10.3.5.4). It is what the firmware says; nothing proves it.
pub fn image_path(data: &[u8]) -> Option<String> {
    let mut r = Reader::new(data);
    // Location, length and link-time address in memory.
    r.take(24).ok()?;
    let len = usize::try_from(r.u64().ok()?).ok()?;
    let mut nodes = Reader::new(r.take(len).ok()?);
    let mut path = None;
    while let Ok([kind, sub]) = nodes.array::<2>() {
        let size = usize::from(nodes.u16().ok()?);
        let body = nodes.take(size.checked_sub(4)?).ok()?;
        match (kind, sub) {
            (4, 4) => path = Some(utf16(body)),
            (0x7f, 0xff) => break,
            _ => {}
        }
    }
    path
}
