// SPDX-License-Identifier: Apache-2.0
//! From the root tree to something that boots: EROFS, verity tree, initrd, UKI and addons, ESP,
//! GPT disk.
//!
//! Every function here is a pure function of its inputs: the same tree, options, keys and tools give
//! the same bytes. Nothing takes the time or chance into account; identifiers come from an
//! [`IdSpace`], times from a given epoch. No part knows the description of the distribution: each
//! takes a small options struct.
//!
//! | module | makes | with |
//! |---|---|---|
//! | [`erofs`] | the read-only root file system | `mkfs.erofs` |
//! | [`verity`] | its hash tree and root hash | own writer (dm-verity format 1) |
//! | [`initrd`] | the initramfs, from the files of the same root tree | own assembler, `zstd` |
//! | [`pe`] | Authenticode signatures without a time in them | own |
//! | [`uki`] | the signed unified kernel image and its addons | `ukify` |
//! | [`netboot`] | a UKI that carries its root with it | as [`uki`] |
//! | [`fat`] | the EFI system partition | own writer (FAT32) |
//! | [`disk`] | the GPT disk, and its compressed form | `gptman`, `zstd` |
//! | [`baseline`] | what a machine that boots it measures into its TPM | own |
//! | [`oci`] | a container image | own writer |
//! | [`index`] | `index.json` beside the artefacts | |

mod arch;
mod artifact;
pub mod baseline;
pub mod disk;
pub mod erofs;
mod error;
pub mod fat;
mod id;
pub mod index;
pub mod initrd;
pub mod netboot;
pub mod oci;
pub mod pe;
pub mod uki;
pub mod verity;
mod zst;

pub use arch::{Arch, PartitionType};
pub use artifact::{Artifact, hash_file};
pub use error::{Error, Result};
pub use id::IdSpace;
pub use zst::{Compression, FrameCache};
