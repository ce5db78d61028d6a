// SPDX-License-Identifier: Apache-2.0
//! Attestation: what this machine booted and ran, by the TPM's word.
//!
//! Firmware, systemd and IMA write down what they start and extend registers of the TPM (PCRs) with
//! its digest. Logs can be changed afterwards, PCRs cannot; so a log that gives the PCRs' values is
//! true. What it tells is compared with the baseline that the build predicted.
//!
//! Parsers take bytes and never panic; `evidence` and `quote` are what touches a machine.

pub mod baseline;
pub mod bytes;
pub mod check;
pub mod eventlog;
pub mod evidence;
pub mod ima;
pub mod logs;
pub mod pcr;
pub mod pe;
pub mod quote;
pub mod report;
pub mod userspace;
