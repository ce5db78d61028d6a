// SPDX-License-Identifier: Apache-2.0
//! The root tree: what both engines end at and everything after them starts from.
//!
//! A [`Tree`] is metadata in memory with references to content that lies elsewhere (a package's
//! decompressed archive in the store, a directory, bytes). Owners, modes and device nodes are data
//! here, so no stage needs root; and the tree is a sorted map, so what is written from it does not
//! depend on the order in which it was filled.
//!
//! - [`Tree`], [`Node`], [`Content`]: the tree itself.
//! - [`write`]: as a tar stream (for mkfs.erofs), a newc cpio archive (for an initrd), or a directory.
//! - [`read`]: from a tar stream or a directory.
//! - [`digest`]: the identity of a tree.

mod content;
mod digest;
mod path;
mod read;
mod tree;
mod write;

pub use content::{Blob, Content};
pub use digest::Digest;
pub use path::TreePath;
pub use read::{read_dir, read_tar};
pub use tree::{Error, Kind, Node, Result, Tree};
pub use write::{write_cpio, write_dir, write_tar};
