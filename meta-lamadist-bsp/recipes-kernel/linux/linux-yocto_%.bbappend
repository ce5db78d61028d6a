# SPDX-License-Identifier: Apache-2.0
# Our machines, and what their kernel needs to boot LamaDist. Everything here is under an override
# of our machines: for others nothing changes.

FILESEXTRAPATHS:prepend:lamadist-machine := "${THISDIR}/files:"

COMPATIBLE_MACHINE:lamadist-x86-64 = "lamadist-x86-64"
COMPATIBLE_MACHINE:lamadist-qemu-x86-64 = "lamadist-qemu-x86-64"
COMPATIBLE_MACHINE:lamadist-qemu-arm64 = "lamadist-qemu-arm64"
COMPATIBLE_MACHINE:lamadist-rk1 = "lamadist-rk1"
COMPATIBLE_MACHINE:lamadist-soquartz = "lamadist-soquartz"

KBRANCH:lamadist-x86-64 = "v6.18/standard/base"
KBRANCH:lamadist-qemu-x86-64 = "v6.18/standard/base"
KBRANCH:lamadist-qemu-arm64 = "v6.18/standard/base"

# Root, encryption, verification, TPM, measurement, update.
SRC_URI:append:lamadist-machine = " file://lamadist.cfg"
SRC_URI:append:lamadist-x86-64 = " file://lamadist-x86-64.cfg"
SRC_URI:append:lamadist-qemu-x86-64 = " file://lamadist-qemu.cfg"
SRC_URI:append:lamadist-qemu-arm64 = " file://lamadist-qemu.cfg"
