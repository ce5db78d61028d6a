# SPDX-License-Identifier: Apache-2.0
# One system.conf a machine, rendered from its layout; the folder is found by the machine's name.
# The keyring is that of lamadist-keys, which no layer ships.

COMPATIBLE_MACHINE:lamadist = "lamadist-machine"

FILESEXTRAPATHS:prepend:lamadist := "${THISDIR}/files:"
SRC_URI:remove:lamadist = "${RAUC_KEYRING_URI}"
PACKAGE_ARCH:lamadist = "${MACHINE_ARCH}"

do_install:lamadist() {
    install -D -m 0644 ${UNPACKDIR}/system.conf ${D}${nonarch_libdir}/rauc/system.conf
}

RDEPENDS:${PN}:append:lamadist = " lamadist-keys"
