// SPDX-License-Identifier: Apache-2.0
//! Writing DER (ITU-T X.690): all that a PKCS #7 signature needs.

/// A value: its tag, its length in the shortest form, and its content, which is joined from parts.
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = vec![tag];
    if len < 0x80 {
        out.push(len as u8);
    } else {
        let bytes = len.to_be_bytes();
        let skip = bytes.iter().take_while(|b| **b == 0).count();
        out.push(0x80 | (bytes.len() - skip) as u8);
        out.extend(bytes.iter().skip(skip));
    }
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

#[cfg(test)]
mod tests {
    use super::tlv;

    #[test]
    fn der_lengths() {
        assert_eq!(tlv(4, &[&[1, 2]]), [4, 2, 1, 2]);
        assert_eq!(tlv(4, &[&[0; 0x80]])[..3], [4, 0x81, 0x80]);
        assert_eq!(tlv(4, &[&[0; 0x1234]])[..4], [4, 0x82, 0x12, 0x34]);
    }
}
