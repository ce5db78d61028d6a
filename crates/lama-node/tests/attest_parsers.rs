// SPDX-License-Identifier: Apache-2.0
//! The parsers of attestation on made-up data: PE files, and bytes of no sense.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_node::attest::baseline::Baseline;
use lama_node::attest::bytes::sha256;
use lama_node::attest::eventlog::{EventLog, Variable, image_path, signature_lists};
use lama_node::attest::evidence::Evidence;
use lama_node::attest::ima::{self, Lead};
use lama_node::attest::{pe, userspace};
use proptest::prelude::*;

/// A PE32+ file with the sections `.cmdline` and `x`, 512 bytes each, and signatures.
fn small_pe(signatures: &[u8]) -> Vec<u8> {
    let mut d = vec![0; 1536];
    let mut put = |at: usize, bytes: &[u8]| d[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &[0x80]);
    put(0x80, b"PE\0\0");
    put(0x86, &[2]);
    put(0x94, &[0xf0]);
    put(0x98, &0x20b_u16.to_le_bytes());
    put(0x98 + 60, &512_u32.to_le_bytes());
    put(0x98 + 64, b"sum!");
    put(0x98 + 108, &[16]);
    put(0x98 + 144, &1536_u32.to_le_bytes());
    put(
        0x98 + 148,
        &u32::try_from(signatures.len()).unwrap().to_le_bytes(),
    );
    for (i, (name, at)) in [(b".cmdline", 1024_u32), (b"x\0\0\0\0\0\0\0", 512)]
        .iter()
        .enumerate()
    {
        let header = 0x98 + 0xf0 + i * 40;
        put(header, *name);
        put(header + 8, &9_u32.to_le_bytes());
        put(header + 16, &512_u32.to_le_bytes());
        put(header + 20, &at.to_le_bytes());
    }
    put(1024, b"a=b c=d\0\0");
    d.extend_from_slice(signatures);
    d
}

#[test]
fn an_addon_is_known_by_what_is_not_its_signature() {
    let unsigned = small_pe(&[]);
    let expected = sha256(
        [
            &unsigned[..0x98 + 64],
            &unsigned[0x98 + 68..0x98 + 144],
            &unsigned[0x98 + 152..],
        ]
        .concat(),
    );
    assert_eq!(pe::authenticode(&unsigned).unwrap(), expected);
    assert_eq!(pe::authenticode(&small_pe(&[7; 16])).unwrap(), expected);
    assert_eq!(pe::cmdline(&unsigned).unwrap(), "a=b c=d");
    assert!(pe::authenticode(b"MZ").is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(data: Vec<u8>, text: String) {
        let _ = EventLog::parse(&data);
        let _ = Variable::parse(&data);
        let _ = (signature_lists(&data), image_path(&data));
        let _ = (ima::parse(&data, Lead::Sha1), ima::parse(&data, Lead::Sha256));
        let _ = (pe::authenticode(&data), pe::cmdline(&data));
        let _ = (userspace::parse(&text), Baseline::parse(&data), Evidence::parse(&data));
    }

    #[test]
    fn no_change_of_a_pe_file_panics(at in 0_usize..512, byte: u8, cut in 0_usize..1600) {
        let mut d = small_pe(&[1; 24]);
        d[at] = byte;
        d.truncate(cut);
        let _ = (pe::authenticode(&d), pe::cmdline(&d));
    }
}
