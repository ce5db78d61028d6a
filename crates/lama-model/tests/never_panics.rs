// SPDX-License-Identifier: Apache-2.0
//! No text makes the parsers panic, and every error points into the text.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_model::layout::Size;
use lama_model::{Distro, Error, Image, Layout, Machine, PackageGroup, parse};
use proptest::prelude::*;
use std::path::Path;

const FILES: &[&str] = &[
    include_str!("../../../distro/lamadist.toml"),
    include_str!("../../../distro/machines/x86_64.toml"),
    include_str!("../../../distro/images/base.toml"),
    include_str!("../../../distro/packagegroups/core.toml"),
    include_str!("../../../distro/layouts/rockchip.toml"),
];

fn check(text: &str) {
    fn one<T: serde::de::DeserializeOwned>(text: &str) {
        if let Err(Error::At { line, span, .. }) = parse::<T>(Path::new("x.toml"), text) {
            assert!(line >= 1 && line <= text.matches('\n').count() + 1);
            assert!(span.offset() + span.len() <= text.len());
        }
    }
    one::<Distro>(text);
    one::<Machine>(text);
    one::<Image>(text);
    one::<PackageGroup>(text);
    one::<Layout>(text);
    if let Ok(l) = parse::<Layout>(Path::new("x.toml"), text) {
        let n = l.partitions.len();
        assert_eq!(l.place(&vec![u64::MAX; n]).len(), n);
        let _ = l.disk_size(&[], u64::MAX);
    }
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn any_text_of_toml_pieces(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "a", "=", "\"", "'''", "[", "]]", "{", "}", "\n", "#", ",", ".", "1", "-", "é",
                "[[partition]]", "label", "role", "size", "\"1G\"", "sector", "\u{0}", " ",
            ]),
            0..40,
        )
    ) {
        check(&pieces.concat());
    }

    /// A file of the project with a stretch of it replaced.
    #[test]
    fn a_spoilt_file(
        file in prop::sample::select(FILES),
        at in any::<prop::sample::Index>(),
        take in 0..40usize,
        put in "[ -~\n]{0,20}",
    ) {
        let chars: Vec<char> = file.chars().collect();
        let at = at.index(chars.len());
        let end = (at + take).min(chars.len());
        let text: String = chars[..at].iter().copied().chain(put.chars())
            .chain(chars[end..].iter().copied()).collect();
        check(&text);
    }

    #[test]
    fn any_size(text in "[0-9KMGT+. -]{0,24}") {
        if let Ok(size) = text.parse::<Size>() {
            prop_assert!(size.0 > 0 && size.0 <= 1 << 50);
        }
    }
}
