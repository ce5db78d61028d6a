# SPDX-License-Identifier: Apache-2.0
# UEFI as LamaDist needs it of U-Boot: it starts systemd-boot from the ESP.

FILESEXTRAPATHS:prepend:lamadist-rockchip := "${THISDIR}/files:"

SRC_URI:append:lamadist-rockchip = " file://lamadist.cfg"
