// SPDX-License-Identifier: Apache-2.0
//! The arithmetic of layouts.
#![allow(clippy::unwrap_used, clippy::panic)]

use lama_model::layout::{Placed, Role, Size, align};
use lama_model::{Arch, Layout, parse};
use std::path::Path;

const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

fn layout(name: &str) -> Layout {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../distro/layouts")
        .join(name);
    parse(&path, &lama_exec::fs::read_to_string(&path).unwrap()).unwrap()
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("1", Some(1)),
        ("4096", Some(4096)),
        ("64K", Some(64 << 10)),
        ("512M", Some(512 * M)),
        ("8G", Some(8 * G)),
        ("2T", Some(2 << 40)),
        ("1024T", Some(1 << 50)),
        ("1025T", None),
        ("18446744073709551615", None),
        ("18446744073709551616", None),
        ("", None),
        ("M", None),
        ("0", None),
        ("0G", None),
        ("1 G", None),
        ("1g", None),
        ("1GiB", None),
        ("1.5G", None),
        ("-1", None),
        ("+1G", None),
        ("0x10", None),
        ("1Ｇ", None),
    ] {
        assert_eq!(text.parse::<Size>().ok().map(|s| s.0), bytes, "{text:?}");
    }
}

#[test]
fn alignment_rounds_up() {
    for (bytes, aligned) in [
        (0, 0),
        (1, M),
        (M - 1, M),
        (M, M),
        (M + 1, 2 * M),
        (u64::MAX, u64::MAX),
    ] {
        assert_eq!(align(bytes), aligned, "{bytes}");
    }
}

#[test]
fn the_layouts_lie_where_they_should() {
    // Layout, bytes of content by partition, places in MiB, the smallest disk in MiB when 64 MiB
    // are wanted for the growing partition.
    type Case<'a> = (&'a str, &'a [u64], &'a [(u64, u64)], u64);
    let cases: &[Case] = &[
        (
            "uefi.toml",
            &[],
            &[
                (1, 1024),
                (1025, 4096),
                (5121, 64),
                (5185, 4096),
                (9281, 64),
                (9345, 0),
            ],
            9345 + 64 + 1,
        ),
        // 8 MiB + 8 MiB of U-Boot come first.
        (
            "rockchip.toml",
            &[],
            &[
                (16, 1024),
                (1040, 4096),
                (5136, 64),
                (5200, 4096),
                (9296, 64),
                (9360, 0),
            ],
            9360 + 64 + 1,
        ),
        (
            "medium.toml",
            &[33 * M, 98 * M + 1, 4096],
            &[(1, 33), (34, 99), (133, 1)],
            135,
        ),
        ("medium.toml", &[M, M, M], &[(1, 1), (2, 1), (3, 1)], 5),
        (
            "medium-rockchip.toml",
            &[M, M, M],
            &[(16, 1), (17, 1), (18, 1)],
            20,
        ),
    ];
    for (name, content, places, disk) in cases {
        let l = layout(name);
        let places: Vec<Placed> = places
            .iter()
            .map(|(start, size)| Placed {
                start: start * M,
                size: size * M,
            })
            .collect();
        assert_eq!(l.place(content), places, "{name}");
        assert_eq!(l.disk_size(content, 64 * M), disk * M, "{name}");
    }
}

#[test]
fn a_start_of_its_own_is_kept_and_the_next_follows() {
    let l: Layout = parse(
        Path::new("x.toml"),
        "description = 'x'\n\
         partition = [{ label = 'a', role = 'esp', size = '1M', start = '8M' },\n\
                      { label = 'b', role = 'root', size = '4K' },\n\
                      { label = 'c', role = 'verity' }]",
    )
    .unwrap();
    let at: Vec<(u64, u64)> = l
        .place(&[0, 0, 5])
        .iter()
        .map(|p| (p.start, p.end()))
        .collect();
    assert_eq!(
        at,
        [(8 * M, 9 * M), (9 * M, 9 * M + 4096), (10 * M, 11 * M)]
    );
}

/// <https://uapi-group.org/specifications/specs/discoverable_partitions_specification/>
#[test]
fn types_are_those_of_the_specification() {
    for (role, arch, uuid) in [
        (
            Role::Esp,
            Arch::Amd64,
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
        ),
        (
            Role::Esp,
            Arch::Arm64,
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
        ),
        (
            Role::Root,
            Arch::Amd64,
            "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
        ),
        (
            Role::Root,
            Arch::Arm64,
            "b921b045-1df0-41c3-af44-4c6f280d3fae",
        ),
        (
            Role::Verity,
            Arch::Amd64,
            "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5",
        ),
        (
            Role::Verity,
            Arch::Arm64,
            "df3300ce-d69f-4c92-978c-9bfb0f38d820",
        ),
        (
            Role::Var,
            Arch::Amd64,
            "4d21b016-b534-45c2-a9fb-5c16e091fd2d",
        ),
        (
            Role::Var,
            Arch::Arm64,
            "4d21b016-b534-45c2-a9fb-5c16e091fd2d",
        ),
    ] {
        assert_eq!(role.type_uuid(arch).to_string(), uuid, "{role:?} {arch}");
    }
}
