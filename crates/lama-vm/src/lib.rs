// SPDX-License-Identifier: Apache-2.0
//! Virtual machines for LamaDist images: QEMU with UEFI firmware (OVMF, AAVMF), Secure Boot with
//! our own keys, and a TPM 2.0 (swtpm). The same code is the test bench and `lamadist vm`.
//!
//! - [`VariableStore`] makes a firmware variable store with keys enrolled.
//! - [`VmConfig`] describes a machine; [`Registry`] keeps machines by name, each in its own
//!   directory, and [`Registry::boot`] starts one.
//! - [`Vm`] is a running machine: its [`Console`], commands over SSH, its [`Qmp`] monitor, its end.
//! - [`accel::probe`] tells whether KVM really runs a guest here.
//!
//! Everything comes in as paths; external programs come from [`lama_exec::Tools`]. QEMU's processes
//! run with the machine's directory as working directory and name their sockets relative to it, so
//! that a long path does not hit the 107-byte limit of Unix socket names.
//!
//! Guests are reached over SSH with a key that a systemd credential brings in (SMBIOS type 11, see
//! systemd.system-credentials(7)); a forwarded port, chosen by the kernel, leads to port 22.

pub mod accel;
mod config;
mod console;
mod disk;
mod error;
mod firmware;
mod mux;
mod ports;
mod process;
mod qemu;
mod qmp;
mod registry;
mod ssh;
mod start;
mod terminal;
mod vm;

pub use accel::{Accel, Probe};
pub use config::{
    Access, Arch, Bus, Credential, Disk, Display, Firmware, Format, NetBoot, Network, OnReboot,
    Smm, Source, Tpm, Variables, VmConfig,
};
pub use console::{Console, clean, trouble};
pub use disk::Drive;
pub use error::{Error, Result};
pub use firmware::{SecureBoot, VariableStore};
pub use ports::{Forward, parse_usernet};
pub use process::ProcessId;
pub use qemu::{ConsoleTo, Plan, command_line};
pub use qmp::{Event, Qmp};
pub use registry::{Registry, State, VmInfo};
pub use ssh::SshOutput;
pub use start::Lifetime;
pub use vm::{Stop, Vm};
