# SPDX-License-Identifier: Apache-2.0
# A slot is marked good when the node has judged itself healthy, not when it has booted; and the bus
# policy is lamadist-config's, which lets root alone call RAUC.

RRECOMMENDS:${PN}:remove:lamadist = "${PN}-mark-good"

do_install:append:lamadist() {
    rm -f ${D}${datadir}/dbus-1/system.d/de.pengutronix.rauc.conf
}
