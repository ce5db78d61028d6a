# SPDX-License-Identifier: Apache-2.0
# dnf of an image that has one; BitBake's own is told where its configuration is.
FILESEXTRAPATHS:prepend:lamadist := "${THISDIR}/files:"
SRC_URI:append:class-target:lamadist = " file://dnf.conf"

do_install:append:class-target:lamadist() {
    install -m 0644 ${UNPACKDIR}/dnf.conf ${D}${sysconfdir}/dnf/dnf.conf
}
