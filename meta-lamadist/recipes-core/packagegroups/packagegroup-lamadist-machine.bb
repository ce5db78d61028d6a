# SPDX-License-Identifier: Apache-2.0
SUMMARY = "LamaDist's package group of the machine"
DESCRIPTION = "Kernel modules, firmware and microcode that this machine needs"
HOMEPAGE = "${LAMADIST_HOME_URL}"
SECTION = "base"

PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit packagegroup features_check

REQUIRED_DISTRO_FEATURES = "lamadist"

RDEPENDS:${PN} = "${MACHINE_ESSENTIAL_EXTRA_RDEPENDS} ${MACHINE_EXTRA_RDEPENDS}"
RRECOMMENDS:${PN} = "${MACHINE_ESSENTIAL_EXTRA_RRECOMMENDS} ${MACHINE_EXTRA_RRECOMMENDS}"
